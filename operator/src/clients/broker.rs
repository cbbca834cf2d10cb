//! Billing and notify over the broker: said over one subject, answered over
//! another. An answer that nobody waits for any more is kept for a while; one
//! that was lost is asked for again, under the same key.

use std::{future::pending, sync::Arc, time::Duration};

use async_trait::async_trait;
use orders_broker::{
    Broker,
    mailbox::Mailbox,
    messages::{self, Decided, NotificationChanged, NotificationState, PaymentRequested},
    topology::{DECIDED, OPERATOR_NOTIFICATIONS, OPERATOR_OUTCOMES, PAYMENT_REQUESTED},
};
use orders_crds::{Money, Outcome, Reason};
use tokio::{
    sync::oneshot,
    time::{Instant, timeout, timeout_at},
};
use uuid::Uuid;

use super::{Billing, Delivery, NoAnswer, Notify, Payment};
use crate::purchase::Purchase;

/// How long billing may take to tell the outcome. Beyond it the charge is unknown and asked for again.
const PAYMENT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long notify may take to tell how a message stands, as over HTTP. Beyond it
/// the message is under way: the broker has it, or will be given it again.
const NOTIFICATION_TIMEOUT: Duration = Duration::from_millis(800);

/// What came from billing and notify, by order.
#[derive(Clone, Debug, Default)]
struct News {
    outcomes: Arc<Mailbox<Decided>>,
    notifications: Arc<Mailbox<NotificationChanged>>,
}

/// Hears what billing and notify say.
#[derive(Clone, Debug)]
pub struct Listener {
    broker: Broker,
    news: News,
    hears_billing: bool,
}

/// Billing, over the broker.
#[derive(Clone, Debug)]
pub struct BrokerBilling {
    broker: Broker,
    news: News,
}

/// Notify, over the broker.
#[derive(Clone, Debug)]
pub struct BrokerNotify {
    broker: Broker,
    news: News,
    hears_billing: bool,
}

/// Notify over the broker, told each outcome by the operator.
pub fn notify_only(broker: Broker) -> (BrokerNotify, Listener) {
    let news = News::default();
    let notify = BrokerNotify { broker: broker.clone(), news: news.clone(), hears_billing: false };
    (notify, Listener { broker, news, hears_billing: false })
}

/// Billing and notify over the broker; notify hears the outcome from billing.
pub fn everything(broker: Broker) -> (BrokerBilling, BrokerNotify, Listener) {
    let news = News::default();
    let billing = BrokerBilling { broker: broker.clone(), news: news.clone() };
    let notify = BrokerNotify { broker: broker.clone(), news: news.clone(), hears_billing: true };
    (billing, notify, Listener { broker, news, hears_billing: true })
}

impl Listener {
    /// Hears until it is dropped. What it heard and nobody used before a crash is asked for again.
    pub async fn run(&self) {
        let outcomes = self.news.outcomes.clone();
        let hear_outcomes = async {
            if !self.hears_billing {
                return pending().await;
            }
            let deal = |received: orders_broker::Received| {
                let outcomes = outcomes.clone();
                async move {
                    let decided: Decided = received.data()?;
                    outcomes.bring(&decided.key.clone(), decided);
                    Ok(())
                }
            };
            self.broker.consume(&OPERATOR_OUTCOMES, deal, pending()).await;
        };
        let notifications = self.news.notifications.clone();
        let deal = |received: orders_broker::Received| {
            let notifications = notifications.clone();
            async move {
                let changed: NotificationChanged = received.data()?;
                notifications.bring(&changed.key.clone(), changed);
                Ok(())
            }
        };
        let hear_notifications = self.broker.consume(&OPERATOR_NOTIFICATIONS, deal, pending());
        tokio::join!(hear_outcomes, hear_notifications);
    }
}

#[async_trait]
impl Billing for BrokerBilling {
    async fn charge(&self, purchase: &Purchase) -> Result<Payment, NoAnswer> {
        let mut news = self.news.outcomes.await_news(&purchase.key);
        let decided = match news.try_recv() {
            Ok(decided) => decided,
            Err(_) => self.ask(purchase, news).await?,
        };
        read(&decided, purchase)
    }
}

impl BrokerBilling {
    async fn ask(&self, purchase: &Purchase, news: oneshot::Receiver<Decided>) -> Result<Decided, NoAnswer> {
        let request = PaymentRequested {
            key: purchase.key.clone(),
            login: purchase.login.clone(),
            email: purchase.email.clone(),
            amount: purchase.amount,
        };
        // An id of its own for each time that it is asked: a repeat has to reach billing, which answers it again.
        let published = self.broker.publish(PAYMENT_REQUESTED, Uuid::new_v4().to_string(), request).await;
        published.map_err(|error| NoAnswer(error.to_string()))?;
        match timeout(PAYMENT_TIMEOUT, news).await {
            Ok(Ok(decided)) => Ok(decided),
            _ => Err(NoAnswer("billing has not told the outcome yet; the broker has the request".to_owned())),
        }
    }
}

/// An outcome counts only if it is of this very purchase.
fn read(decided: &Decided, purchase: &Purchase) -> Result<Payment, NoAnswer> {
    if decided.key != purchase.key || decided.amount != purchase.amount || decided.login != purchase.login {
        return Err(NoAnswer("the outcome that came is another charge's".to_owned()));
    }
    let refused = |reason| Ok(Payment::Refused { reason, balance: decided.balance });
    match (decided.outcome, decided.balance) {
        (messages::Outcome::Charged, Some(balance)) => Ok(Payment::Charged { balance }),
        (messages::Outcome::Charged, None) => Err(NoAnswer("the outcome that came has no balance".to_owned())),
        (messages::Outcome::InsufficientFunds, _) => refused(Reason::InsufficientFunds),
        (messages::Outcome::AccountNotFound, _) => refused(Reason::AccountNotFound),
        (messages::Outcome::Closed, _) => refused(Reason::Cancelled),
    }
}

#[async_trait]
impl Notify for BrokerNotify {
    async fn notify(&self, purchase: &Purchase, outcome: Outcome, balance: Option<Money>) -> Result<Delivery, NoAnswer> {
        let decided = Decided {
            key: purchase.key.clone(),
            login: purchase.login.clone(),
            email: purchase.email.clone(),
            amount: purchase.amount,
            outcome: told(outcome).ok_or_else(|| NoAnswer("an undecided order is nothing to tell".to_owned()))?,
            balance,
        };
        // Notify hears of it from billing as well, and will say so; it is told only if it does not.
        if self.hears_billing
            && let Some(changed) = self.news(&purchase.key).await
        {
            return Ok(stands(changed));
        }
        let news = self.news.notifications.await_news(&purchase.key);
        let deadline = Instant::now() + NOTIFICATION_TIMEOUT;
        let publishing = self.broker.publish(DECIDED, Uuid::new_v4().to_string(), decided);
        match timeout_at(deadline, publishing).await {
            Ok(published) => published.map_err(|error| NoAnswer(error.to_string()))?,
            Err(_) => return Err(NoAnswer("the broker has not taken it yet".to_owned())),
        }
        match timeout_at(deadline, news).await {
            Ok(Ok(changed)) => Ok(stands(changed)),
            _ => Ok(Delivery::Underway { last_error: Some("notify has not said how it stands; the broker has it".to_owned()) }),
        }
    }
}

impl BrokerNotify {
    async fn news(&self, key: &str) -> Option<NotificationChanged> {
        timeout(NOTIFICATION_TIMEOUT, self.news.notifications.await_news(key)).await.ok()?.ok()
    }
}

fn told(outcome: Outcome) -> Option<messages::Outcome> {
    match outcome {
        Outcome::Undecided => None,
        Outcome::Paid => Some(messages::Outcome::Charged),
        Outcome::Refused(Some(Reason::AccountNotFound)) => Some(messages::Outcome::AccountNotFound),
        Outcome::Refused(Some(Reason::Cancelled)) => Some(messages::Outcome::Closed),
        Outcome::Refused(_) => Some(messages::Outcome::InsufficientFunds),
    }
}

fn stands(changed: NotificationChanged) -> Delivery {
    match changed.state {
        NotificationState::Sent => Delivery::Sent,
        NotificationState::Delivering => Delivery::Underway { last_error: changed.error },
        NotificationState::Undeliverable => Delivery::Refused { why: changed.error.unwrap_or_default() },
    }
}

#[cfg(test)]
mod tests {
    use orders_crds::OrderSpec;

    use super::*;

    #[test]
    fn an_outcome_counts_only_if_it_is_of_this_purchase() {
        let spec = OrderSpec { id: None, login: "a".into(), email: "a@b.cd".into(), cart_id: 0, amount: "10".into() };
        let purchase = Purchase::read("k", &spec).unwrap();
        let right = Decided {
            key: "k".into(),
            login: purchase.login.clone(),
            email: purchase.email.clone(),
            amount: purchase.amount,
            outcome: messages::Outcome::Charged,
            balance: Some(Money::ZERO),
        };
        assert_eq!(read(&right, &purchase), Ok(Payment::Charged { balance: Money::ZERO }));
        for wrong in [
            Decided { key: "other".into(), ..right.clone() },
            Decided { amount: Money::from_minor(1), ..right.clone() },
            Decided { login: "b".to_owned().try_into().unwrap(), ..right.clone() },
            Decided { balance: None, ..right.clone() },
        ] {
            assert!(read(&wrong, &purchase).is_err(), "{wrong:?}");
        }
    }
}

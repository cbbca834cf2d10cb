//! The clients of billing and notify over the broker. A request is published on one subject, and its
//! reply arrives on another. A reply that no caller waits for is kept for a while. If a reply is
//! lost, the request is repeated under the same key.

use std::{future::pending, sync::Arc, time::Duration};

use async_trait::async_trait;
use futures::FutureExt;
use orders_contracts::{
    events::{
        CloseRequested, Decided, Event, NotificationChanged, NotificationState, PaymentRequested, RefundRequested, Refunded,
    },
    texts,
    topology::{
        CLOSE_REQUESTED, DECIDED, OPERATOR_NOTIFICATIONS, OPERATOR_OUTCOMES, PAYMENT_REFUNDED, PAYMENT_REQUESTED,
        REFUND_REQUESTED,
    },
};
use orders_crds::{Money, Outcome, Refusal, RetryStep, order::message_key};
use orders_service::broker::{Broker, Received, reply_table::ReplyTable};
use tokio::time::{Instant, timeout, timeout_at};
use uuid::Uuid;

use super::{Billing, Delivery, LateReply, NoAnswer, Notice, Notify, Payment, Purchase, is_of};

/// How long billing may take to reply with the outcome. After that the charge is unknown, and the
/// request is repeated.
const PAYMENT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long notify may take to report the state of a message, the same as over HTTP. After that the
/// message counts as not delivered yet: the broker has it, or it is published again.
const NOTIFICATION_TIMEOUT: Duration = Duration::from_millis(800);

/// The replies of billing and notify, by key.
#[derive(Clone, Debug)]
struct Heard {
    outcomes: Arc<ReplyTable<Decided>>,
    refunds: Arc<ReplyTable<Refunded>>,
    notifications: Arc<ReplyTable<NotificationChanged>>,
}

impl Heard {
    fn nothing_yet() -> Self {
        Heard {
            outcomes: Arc::new(ReplyTable::new(is_known)),
            refunds: Arc::new(ReplyTable::new(|_| true)),
            notifications: Arc::new(ReplyTable::new(is_final)),
        }
    }
}

/// Receives the replies of billing and notify.
#[derive(Clone, Debug)]
pub struct Listener {
    broker: Broker,
    heard: Heard,
    hears_billing: bool,
}

/// The client of billing over the broker.
#[derive(Clone, Debug)]
pub struct BrokerBilling {
    broker: Broker,
    heard: Heard,
}

/// The client of notify over the broker.
#[derive(Clone, Debug)]
pub struct BrokerNotify {
    broker: Broker,
    heard: Heard,
    hears_billing: bool,
}

/// Creates the client of notify over the broker. The operator publishes each outcome to notify.
pub fn notify_only(broker: Broker) -> (BrokerNotify, Listener) {
    let heard = Heard::nothing_yet();
    let notify = BrokerNotify { broker: broker.clone(), heard: heard.clone(), hears_billing: false };
    (notify, Listener { broker, heard, hears_billing: false })
}

/// Creates the clients of billing and notify over the broker. Billing publishes the outcomes of
/// charges to notify.
pub fn everything(broker: Broker) -> (BrokerBilling, BrokerNotify, Listener) {
    let heard = Heard::nothing_yet();
    let billing = BrokerBilling { broker: broker.clone(), heard: heard.clone() };
    let notify = BrokerNotify { broker: broker.clone(), heard: heard.clone(), hears_billing: true };
    (billing, notify, Listener { broker, heard, hears_billing: true })
}

impl Listener {
    /// Receives replies until it is dropped. After a crash, the requests whose replies were received
    /// but not used are repeated.
    pub async fn run(&self) {
        let heard = self.heard.clone();
        let hear_outcomes = async {
            if !self.hears_billing {
                return pending().await;
            }
            let deal = |received: Received| {
                let heard = heard.clone();
                async move {
                    if received.subject == PAYMENT_REFUNDED {
                        let refunded: Refunded = received.data()?;
                        heard.refunds.deliver(&refunded.key.clone(), refunded);
                    } else {
                        let decided: Decided = received.data()?;
                        heard.outcomes.deliver(&decided.key.clone(), decided);
                    }
                    Ok(())
                }
            };
            self.broker.consume(&OPERATOR_OUTCOMES, deal, pending()).await;
        };
        let notifications = self.heard.notifications.clone();
        let deal = |received: Received| {
            let notifications = notifications.clone();
            async move {
                let changed: NotificationChanged = received.data()?;
                notifications.deliver(&changed.key.clone(), changed);
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
        let request = PaymentRequested {
            key: purchase.key.clone(),
            login: purchase.login.clone(),
            email: purchase.email.clone(),
            amount: purchase.amount,
        };
        read(&self.ask(&self.heard.outcomes, PAYMENT_REQUESTED, request).await?, purchase)
    }

    async fn close(&self, purchase: &Purchase) -> Result<Payment, NoAnswer> {
        let request = CloseRequested {
            key: purchase.key.clone(),
            login: purchase.login.clone(),
            email: purchase.email.clone(),
            amount: purchase.amount,
        };
        read(&self.ask(&self.heard.outcomes, CLOSE_REQUESTED, request).await?, purchase)
    }

    async fn refund(&self, purchase: &Purchase) -> Result<Money, NoAnswer> {
        let request = RefundRequested { key: purchase.key.clone(), login: purchase.login.clone(), amount: purchase.amount };
        let refunded = self.ask(&self.heard.refunds, REFUND_REQUESTED, request).await?;
        is_of(purchase, &refunded.key, &refunded.login, refunded.amount)?;
        Ok(refunded.balance)
    }

    fn late_reply(&self, step: RetryStep, purchase: &Purchase) -> Option<LateReply> {
        match step {
            RetryStep::Payment | RetryStep::Cancellation => Some(self.heard.outcomes.arrived(&purchase.key).boxed()),
            RetryStep::Refund => Some(self.heard.refunds.arrived(&purchase.key).boxed()),
            RetryStep::Notification => None,
        }
    }
}

impl BrokerBilling {
    /// Returns the reply that already arrived under the request's key, or publishes the request and
    /// waits for the reply.
    async fn ask<A>(&self, answers: &ReplyTable<A>, subject: &'static str, request: impl Event) -> Result<A, NoAnswer> {
        let mut news = answers.receive(request.key());
        if let Ok(answer) = news.try_recv() {
            return Ok(answer);
        }
        // Each publication has its own message ID, so that the broker does not drop a repeat as a
        // duplicate: it must reach billing, which answers it again.
        let published = self.broker.publish(subject, Uuid::new_v4().to_string(), request).await;
        published.map_err(|error| NoAnswer(error.to_string()))?;
        match timeout(PAYMENT_TIMEOUT, news).await {
            Ok(Ok(answer)) => Ok(answer),
            _ => Err(NoAnswer("billing has not told the outcome yet; the broker has the request".to_owned())),
        }
    }
}

fn read(decided: &Decided, purchase: &Purchase) -> Result<Payment, NoAnswer> {
    is_of(purchase, &decided.key, &decided.login, decided.amount)?;
    Payment::new(decided.outcome, decided.balance)
}

#[async_trait]
impl Notify for BrokerNotify {
    async fn notify(&self, purchase: &Purchase, notice: &Notice) -> Result<Delivery, NoAnswer> {
        if texts::for_outcome(notice.outcome, &purchase.login, purchase.amount, notice.balance).is_none() {
            return Err(NoAnswer("there is no message for this outcome".to_owned()));
        }
        let key = message_key(&purchase.key, notice.outcome);
        let decided = Decided {
            key: key.clone(),
            login: purchase.login.clone(),
            email: purchase.email.clone(),
            amount: purchase.amount,
            outcome: notice.outcome,
            balance: notice.balance,
            resends: notice.resends,
        };
        // Notify also receives billing's decisions from billing, and then reports the state of the
        // message. The operator publishes the outcome only if this report does not arrive.
        if self.hears_billing
            && is_billings(&decided)
            && let Some(delivery) = self.lately(&key).await.and_then(|changed| stands(changed, notice.resends))
        {
            return Ok(delivery);
        }
        let mut heard = self.heard.notifications.receive(&key);
        if let Ok(changed) = heard.try_recv() {
            if is_final(&changed)
                && let Some(delivery) = stands(changed, notice.resends)
            {
                return Ok(delivery);
            }
            heard = self.heard.notifications.receive(&key);
        }
        let deadline = Instant::now() + NOTIFICATION_TIMEOUT;
        let publishing = self.broker.publish(DECIDED, Uuid::new_v4().to_string(), decided);
        match timeout_at(deadline, publishing).await {
            Ok(published) => published.map_err(|error| NoAnswer(error.to_string()))?,
            Err(_) => return Err(NoAnswer("the broker has not taken it yet".to_owned())),
        }
        while let Ok(Ok(changed)) = timeout_at(deadline, heard).await {
            if let Some(delivery) = stands(changed, notice.resends) {
                return Ok(delivery);
            }
            heard = self.heard.notifications.receive(&key);
        }
        Ok(Delivery::Underway { last_error: Some("notify has not said how it stands; the broker has it".to_owned()) })
    }

    fn late_reply(&self, purchase: &Purchase, notice: &Notice) -> Option<LateReply> {
        Some(self.heard.notifications.arrived(&message_key(&purchase.key, notice.outcome)).boxed())
    }
}

/// Whether billing publishes this outcome as well.
fn is_billings(decided: &Decided) -> bool {
    decided.resends == 0
        && match decided.outcome {
            Outcome::Paid | Outcome::Refused(Refusal::InsufficientFunds | Refusal::AccountNotFound) => true,
            Outcome::Refused(Refusal::Cancelled | Refusal::DeadlineExceeded | Refusal::Refunded | Refusal::InvalidOrder)
            | Outcome::Undecided
            | Outcome::Unknown => false,
        }
}

impl BrokerNotify {
    async fn lately(&self, key: &str) -> Option<NotificationChanged> {
        timeout(NOTIFICATION_TIMEOUT, self.heard.notifications.receive(key)).await.ok()?.ok()
    }
}

/// Whether this version knows the outcome. An unknown outcome is not final: the request to billing
/// is repeated.
fn is_known(decided: &Decided) -> bool {
    decided.outcome != Outcome::Unknown
}

/// Whether notify no longer tries to deliver the message.
fn is_final(changed: &NotificationChanged) -> bool {
    match changed.state {
        NotificationState::Sent | NotificationState::Undeliverable | NotificationState::DeadLettered => true,
        NotificationState::Delivering | NotificationState::Unknown => false,
    }
}

/// The state of a message that was resent `resends` times; `None` if the report is older than the
/// latest resend.
fn stands(changed: NotificationChanged, resends: i32) -> Option<Delivery> {
    Some(match changed.state {
        NotificationState::Sent => Delivery::Sent,
        NotificationState::Delivering => Delivery::Underway { last_error: changed.error },
        NotificationState::Undeliverable => Delivery::Refused { why: changed.error.unwrap_or_default() },
        NotificationState::DeadLettered if changed.resends < resends => return None,
        NotificationState::DeadLettered => Delivery::DeadLettered { why: changed.error.unwrap_or_default() },
        NotificationState::Unknown => Delivery::Underway {
            last_error: Some("notify sent a state that this version of the operator does not know".to_owned()),
        },
    })
}

#[cfg(test)]
mod tests {
    use orders_crds::OrderSpec;

    use super::*;

    #[test]
    fn that_a_message_was_given_up_before_it_was_sent_again_is_no_news() {
        let changed = |state, resends| NotificationChanged { key: "k".into(), state, error: None, resends };
        assert_eq!(stands(changed(NotificationState::DeadLettered, 0), 1), None);
        assert!(matches!(stands(changed(NotificationState::DeadLettered, 1), 1), Some(Delivery::DeadLettered { .. })));
        assert_eq!(stands(changed(NotificationState::Sent, 0), 1), Some(Delivery::Sent));
    }

    fn purchase() -> Purchase {
        let spec =
            OrderSpec { login: "a".into(), email: "a@b.cd".into(), cart_id: 0, amount: "10".into(), ..OrderSpec::default() };
        Purchase::read("k", 1, &spec).unwrap()
    }

    #[tokio::test]
    async fn an_outcome_that_this_version_does_not_know_ends_no_wait() {
        let broker = Broker::connect("nats://127.0.0.1:1", None, orders_contracts::topology::Service::Operator).await.unwrap();
        let (billing, _, listener) = everything(broker);
        let purchase = purchase();
        let mut late = billing.late_reply(RetryStep::Payment, &purchase).unwrap();
        let decided = |outcome| Decided {
            key: purchase.key.clone(),
            login: purchase.login.clone(),
            email: purchase.email.clone(),
            amount: purchase.amount,
            outcome,
            balance: None,
            resends: 0,
        };
        listener.heard.outcomes.deliver(&purchase.key, decided(Outcome::Unknown));
        assert_eq!((&mut late).now_or_never(), None);
        listener.heard.outcomes.deliver(&purchase.key, decided(Outcome::Refused(Refusal::InsufficientFunds)));
        assert!(late.await);
    }

    #[tokio::test]
    async fn what_was_said_when_nobody_waited_any_more_is_taken_without_asking() {
        // No broker listens at this address, so a published request gets no reply.
        let broker = Broker::connect("nats://127.0.0.1:1", None, orders_contracts::topology::Service::Operator).await.unwrap();
        let (billing, notify, listener) = everything(broker);
        let (heard, purchase) = (listener.heard, purchase());
        let notice = Notice { outcome: Outcome::Refused(Refusal::Cancelled), balance: None, resends: 0 };
        let late = [
            notify.late_reply(&purchase, &notice).unwrap(),
            billing.late_reply(RetryStep::Refund, &purchase).unwrap(),
            billing.late_reply(RetryStep::Payment, &purchase).unwrap(),
        ];
        heard
            .notifications
            .deliver("k", NotificationChanged { key: "k".into(), state: NotificationState::Sent, error: None, resends: 0 });
        let Purchase { key, login, email, amount } = purchase.clone();
        heard.refunds.deliver("k", Refunded { key: key.clone(), login: login.clone(), amount, balance: Money::ZERO });
        let outcome = Outcome::Paid;
        heard.outcomes.deliver("k", Decided { key, login, email, amount, outcome, balance: Some(Money::ZERO), resends: 0 });
        assert_eq!(futures::future::join_all(late).await, [true; 3]);
        assert_eq!(notify.notify(&purchase, &notice).await, Ok(Delivery::Sent));
        assert_eq!(billing.refund(&purchase).await, Ok(Money::ZERO));
        assert_eq!(billing.charge(&purchase).await, Ok(Payment::Charged { balance: Money::ZERO }));
    }

    #[test]
    fn an_outcome_counts_only_if_it_is_of_this_purchase() {
        let purchase = purchase();
        let right = Decided {
            key: "k".into(),
            login: purchase.login.clone(),
            email: purchase.email.clone(),
            amount: purchase.amount,
            outcome: Outcome::Paid,
            balance: Some(Money::ZERO),
            resends: 0,
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

//! The client of billing over the broker.

use std::time::Duration;

use async_trait::async_trait;
use futures::FutureExt;
use orders_contracts::{
    events::{CloseRequested, Decided, Event, PaymentRequested, RefundRequested},
    topology::{CLOSE_REQUESTED, PAYMENT_REQUESTED, REFUND_REQUESTED},
};
use orders_crds::{Money, RetryStep};
use orders_service::broker::{Broker, reply_table::ReplyTable};
use tokio::time::timeout;
use uuid::Uuid;

use super::replies::Replies;
use crate::ports::{Billing, LateReply, Payment, Purchase, UnknownResult, check_matches};

/// How long billing may take to reply with the outcome. After that the charge is unknown, and the
/// request is repeated.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The client of billing over the broker.
#[derive(Clone, Debug)]
pub struct BrokerBilling {
    pub(super) broker: Broker,
    pub(super) replies: Replies,
}

#[async_trait]
impl Billing for BrokerBilling {
    async fn charge(&self, purchase: &Purchase) -> Result<Payment, UnknownResult> {
        let request = PaymentRequested {
            key: purchase.key.clone(),
            login: purchase.login.clone(),
            email: purchase.email.clone(),
            amount: purchase.amount,
            authorization: purchase.authorization.clone(),
        };
        to_payment(&self.request(&self.replies.outcomes, PAYMENT_REQUESTED, request).await?, purchase)
    }

    async fn close(&self, purchase: &Purchase) -> Result<Payment, UnknownResult> {
        let request = CloseRequested {
            key: purchase.key.clone(),
            login: purchase.login.clone(),
            email: purchase.email.clone(),
            amount: purchase.amount,
        };
        to_payment(&self.request(&self.replies.outcomes, CLOSE_REQUESTED, request).await?, purchase)
    }

    async fn refund(&self, purchase: &Purchase) -> Result<Money, UnknownResult> {
        let request = RefundRequested { key: purchase.key.clone(), login: purchase.login.clone(), amount: purchase.amount };
        let refunded = self.request(&self.replies.refunds, REFUND_REQUESTED, request).await?;
        check_matches(purchase, &refunded.key, &refunded.login, refunded.amount)?;
        Ok(refunded.balance)
    }

    fn late_reply(&self, step: RetryStep, purchase: &Purchase) -> Option<LateReply> {
        match step {
            RetryStep::Payment | RetryStep::Cancellation => Some(self.replies.outcomes.wait_for_final(&purchase.key).boxed()),
            RetryStep::Refund => Some(self.replies.refunds.wait_for_final(&purchase.key).boxed()),
            RetryStep::Notification => None,
        }
    }
}

impl BrokerBilling {
    /// Returns the reply that already arrived under the request's key, or publishes the request and
    /// waits for the reply.
    async fn request<R>(&self, replies: &ReplyTable<R>, subject: &'static str, request: impl Event) -> Result<R, UnknownResult> {
        let mut receiver = replies.receive(request.key());
        if let Ok(reply) = receiver.try_recv() {
            return Ok(reply);
        }
        // Each publication has its own message ID, so that the broker does not drop a repeat as a
        // duplicate: it must reach billing, which replies to it again.
        let published = self.broker.publish(subject, Uuid::new_v4().to_string(), request).await;
        published.map_err(|error| UnknownResult(error.to_string()))?;
        match timeout(TIMEOUT, receiver).await {
            Ok(Ok(reply)) => Ok(reply),
            _ => Err(UnknownResult("billing has not replied yet; the broker has the request".to_owned())),
        }
    }
}

/// Converts billing's reply, if it is about this purchase.
fn to_payment(decided: &Decided, purchase: &Purchase) -> Result<Payment, UnknownResult> {
    check_matches(purchase, &decided.key, &decided.login, decided.amount)?;
    Payment::new(decided.outcome, decided.balance)
}

#[cfg(test)]
mod tests {
    use orders_crds::Outcome;

    use super::{super::tests::purchase, *};

    #[test]
    fn an_outcome_counts_only_if_it_is_about_this_purchase() {
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
        assert_eq!(to_payment(&right, &purchase), Ok(Payment::Charged { balance: Money::ZERO }));
        for wrong in [
            Decided { key: "other".into(), ..right.clone() },
            Decided { amount: Money::from_minor(1), ..right.clone() },
            Decided { login: "b".to_owned().try_into().unwrap(), ..right.clone() },
            Decided { balance: None, ..right.clone() },
        ] {
            assert!(to_payment(&wrong, &purchase).is_err(), "{wrong:?}");
        }
    }
}

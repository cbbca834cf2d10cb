//! Clients of billing and notify over the broker. A request is published on one subject, and its
//! reply arrives on another. A reply that no caller waits for is kept for a while. If a reply is
//! lost, the request is repeated under the same key.

pub mod billing;
pub mod listener;
pub mod notify;
mod replies;

use orders_service::broker::Broker;

pub use listener::Listener;

use self::{billing::BrokerBilling, notify::BrokerNotify, replies::Replies};

/// Creates the client of notify over the broker. The operator publishes each outcome to notify.
pub fn notify_only(broker: Broker) -> (BrokerNotify, Listener) {
    let replies = Replies::new();
    let notify = BrokerNotify { broker: broker.clone(), replies: replies.clone(), is_billing_on_broker: false };
    (notify, Listener { broker, replies, is_billing_on_broker: false })
}

/// Creates the clients of billing and notify over the broker. Billing publishes the outcomes of
/// charges to notify.
pub fn billing_and_notify(broker: Broker) -> (BrokerBilling, BrokerNotify, Listener) {
    let replies = Replies::new();
    let billing = BrokerBilling { broker: broker.clone(), replies: replies.clone() };
    let notify = BrokerNotify { broker: broker.clone(), replies: replies.clone(), is_billing_on_broker: true };
    (billing, notify, Listener { broker, replies, is_billing_on_broker: true })
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use orders_contracts::{
        events::{Decided, NotificationChanged, NotificationState, Refunded},
        topology::Service,
    };
    use orders_crds::{Money, OrderSpec, Outcome, Refusal, RetryStep};

    use super::*;
    use crate::ports::{Billing, Delivery, Notice, Notify, Payment, Purchase};

    pub(super) fn purchase() -> Purchase {
        let spec =
            OrderSpec { login: "a".into(), email: "a@b.cd".into(), cart_id: 0, amount: "10".into(), ..OrderSpec::default() };
        Purchase::read("k", 1, &spec).unwrap()
    }

    /// The clients of a broker at an address where no broker listens, so a published request gets no
    /// reply.
    async fn clients() -> (BrokerBilling, BrokerNotify, Listener) {
        billing_and_notify(Broker::connect("nats://127.0.0.1:1", None, Service::Operator).await.unwrap())
    }

    #[tokio::test]
    async fn an_outcome_that_this_version_does_not_know_ends_no_wait() {
        let (billing, _, listener) = clients().await;
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
        listener.replies.outcomes.deliver(&purchase.key, decided(Outcome::Unknown));
        assert_eq!((&mut late).now_or_never(), None);
        listener.replies.outcomes.deliver(&purchase.key, decided(Outcome::Refused(Refusal::InsufficientFunds)));
        assert!(late.await);
    }

    #[tokio::test]
    async fn a_reply_that_arrived_after_its_timeout_is_returned_without_another_request() {
        let (billing, notify, Listener { replies, .. }) = clients().await;
        let purchase = purchase();
        let notice = Notice { outcome: Outcome::Refused(Refusal::Cancelled), balance: None, resends: 0 };
        let late = [
            notify.late_reply(&purchase, &notice).unwrap(),
            billing.late_reply(RetryStep::Refund, &purchase).unwrap(),
            billing.late_reply(RetryStep::Payment, &purchase).unwrap(),
        ];
        replies
            .notifications
            .deliver("k", NotificationChanged { key: "k".into(), state: NotificationState::Sent, error: None, resends: 0 });
        let Purchase { key, login, email, amount, .. } = purchase.clone();
        replies.refunds.deliver("k", Refunded { key: key.clone(), login: login.clone(), amount, balance: Money::ZERO });
        let outcome = Outcome::Paid;
        replies.outcomes.deliver("k", Decided { key, login, email, amount, outcome, balance: Some(Money::ZERO), resends: 0 });
        assert_eq!(futures::future::join_all(late).await, [true; 3]);
        assert_eq!(notify.notify(&purchase, &notice).await, Ok(Delivery::Sent));
        assert_eq!(billing.refund(&purchase).await, Ok(Money::ZERO));
        assert_eq!(billing.charge(&purchase).await, Ok(Payment::Charged { balance: Money::ZERO }));
    }
}

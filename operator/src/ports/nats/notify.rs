//! The client of notify over the broker.

use std::time::Duration;

use async_trait::async_trait;
use futures::FutureExt;
use orders_contracts::{
    events::{Decided, NotificationChanged, NotificationState},
    texts,
    topology::DECIDED,
};
use orders_crds::{Outcome, Refusal, order::message_key};
use orders_service::broker::Broker;
use tokio::time::{Instant, timeout, timeout_at};
use uuid::Uuid;

use super::replies::{Replies, is_final};
use crate::ports::{Delivery, LateReply, Notice, Notify, Purchase, UnknownResult};

/// How long notify may take to report the state of a message, the same as over HTTP. After that the
/// message counts as not delivered yet: the broker has it, or it is published again.
const TIMEOUT: Duration = Duration::from_millis(800);

/// The client of notify over the broker.
#[derive(Clone, Debug)]
pub struct BrokerNotify {
    pub(super) broker: Broker,
    pub(super) replies: Replies,
    pub(super) is_billing_on_broker: bool,
}

#[async_trait]
impl Notify for BrokerNotify {
    async fn notify(&self, purchase: &Purchase, notice: &Notice) -> Result<Delivery, UnknownResult> {
        if texts::for_outcome(notice.outcome, &purchase.login, purchase.amount, notice.balance).is_none() {
            return Err(UnknownResult("there is no message for this outcome".to_owned()));
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
        if self.is_billing_on_broker
            && is_published_by_billing(&decided)
            && let Some(delivery) = self.receive_report(&key).await.and_then(|changed| to_delivery(changed, notice.resends))
        {
            return Ok(delivery);
        }
        let mut receiver = self.replies.notifications.receive(&key);
        if let Ok(changed) = receiver.try_recv() {
            if is_final(&changed)
                && let Some(delivery) = to_delivery(changed, notice.resends)
            {
                return Ok(delivery);
            }
            receiver = self.replies.notifications.receive(&key);
        }
        let deadline = Instant::now() + TIMEOUT;
        let publishing = self.broker.publish(DECIDED, Uuid::new_v4().to_string(), decided);
        match timeout_at(deadline, publishing).await {
            Ok(published) => published.map_err(|error| UnknownResult(error.to_string()))?,
            Err(_) => return Err(UnknownResult("the broker has not acknowledged the outcome yet".to_owned())),
        }
        while let Ok(Ok(changed)) = timeout_at(deadline, receiver).await {
            if let Some(delivery) = to_delivery(changed, notice.resends) {
                return Ok(delivery);
            }
            receiver = self.replies.notifications.receive(&key);
        }
        let error = "notify has not reported the state of the message yet; the broker has the outcome";
        Ok(Delivery::Delivering { last_error: Some(error.to_owned()) })
    }

    fn late_reply(&self, purchase: &Purchase, notice: &Notice) -> Option<LateReply> {
        Some(self.replies.notifications.wait_for_final(&message_key(&purchase.key, notice.outcome)).boxed())
    }
}

impl BrokerNotify {
    /// Waits for notify's report about a message.
    async fn receive_report(&self, key: &str) -> Option<NotificationChanged> {
        timeout(TIMEOUT, self.replies.notifications.receive(key)).await.ok()?.ok()
    }
}

/// Whether billing publishes this outcome as well.
fn is_published_by_billing(decided: &Decided) -> bool {
    decided.resends == 0
        && match decided.outcome {
            Outcome::Paid | Outcome::Refused(Refusal::InsufficientFunds | Refusal::AccountNotFound) => true,
            Outcome::Refused(
                Refusal::Cancelled
                | Refusal::DeadlineExceeded
                | Refusal::Refunded
                | Refusal::AlreadyExists
                | Refusal::InvalidOrder,
            )
            | Outcome::Undecided
            | Outcome::Unknown => false,
        }
}

/// Converts notify's report about a message that was resent `resends` times; `None` if the report is
/// older than the latest resend.
fn to_delivery(changed: NotificationChanged, resends: i32) -> Option<Delivery> {
    Some(match changed.state {
        NotificationState::Sent => Delivery::Sent,
        NotificationState::Delivering => Delivery::Delivering { last_error: changed.error },
        NotificationState::Undeliverable => Delivery::Undeliverable { error: changed.error.unwrap_or_default() },
        NotificationState::DeadLettered if changed.resends < resends => return None,
        NotificationState::DeadLettered => Delivery::DeadLettered { error: changed.error.unwrap_or_default() },
        NotificationState::Unknown => Delivery::Delivering {
            last_error: Some("notify sent a state that this version of the operator does not know".to_owned()),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dead_letter_report_from_before_the_latest_resend_is_ignored() {
        let changed = |state, resends| NotificationChanged { key: "k".into(), state, error: None, resends };
        assert_eq!(to_delivery(changed(NotificationState::DeadLettered, 0), 1), None);
        assert!(matches!(to_delivery(changed(NotificationState::DeadLettered, 1), 1), Some(Delivery::DeadLettered { .. })));
        assert_eq!(to_delivery(changed(NotificationState::Sent, 0), 1), Some(Delivery::Sent));
    }
}

//! Receives the replies of billing and notify from the broker.

use std::future::pending;

use orders_contracts::{
    events::{Decided, NotificationChanged, Refunded},
    topology::{OPERATOR_NOTIFICATIONS, OPERATOR_OUTCOMES, PAYMENT_REFUNDED},
};
use orders_service::broker::{Broker, Received};

use super::replies::Replies;

/// Receives the replies of billing and notify.
#[derive(Clone, Debug)]
pub struct Listener {
    pub(super) broker: Broker,
    pub(super) replies: Replies,
    pub(super) is_billing_on_broker: bool,
}

impl Listener {
    /// Receives replies until it is dropped. After a crash, the requests whose replies were received
    /// but not used are repeated.
    pub async fn run(&self) {
        tokio::join!(self.receive_outcomes(), self.receive_notifications());
    }

    async fn receive_outcomes(&self) {
        if !self.is_billing_on_broker {
            return pending().await;
        }
        let deliver = |received: Received| {
            let replies = self.replies.clone();
            async move {
                if received.subject == PAYMENT_REFUNDED {
                    let refunded: Refunded = received.data()?;
                    replies.refunds.deliver(&refunded.key.clone(), refunded);
                } else {
                    let decided: Decided = received.data()?;
                    replies.outcomes.deliver(&decided.key.clone(), decided);
                }
                Ok(())
            }
        };
        self.broker.consume(&OPERATOR_OUTCOMES, deliver, pending()).await;
    }

    async fn receive_notifications(&self) {
        let deliver = |received: Received| {
            let notifications = self.replies.notifications.clone();
            async move {
                let changed: NotificationChanged = received.data()?;
                notifications.deliver(&changed.key.clone(), changed);
                Ok(())
            }
        };
        self.broker.consume(&OPERATOR_NOTIFICATIONS, deliver, pending()).await;
    }
}

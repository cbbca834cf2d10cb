//! Replies that arrive after their timeout: the order goes on at once then, and not only
//! when it would be asked for again.

use std::time::Duration;

use futures::{SinkExt, Stream, channel::mpsc};
use kube::runtime::reflector::ObjectRef;

use crate::{kube::OrderGuard, ports::LateReply};

/// Brings orders into the queue when their late reply arrives.
#[derive(Clone, Debug)]
pub struct LateReplies(mpsc::Sender<ObjectRef<OrderGuard>>);

/// Where late replies are awaited, and the orders that one arrived for.
pub fn channel() -> (LateReplies, impl Stream<Item = ObjectRef<OrderGuard>>) {
    let (sender, orders) = mpsc::channel(0);
    (LateReplies(sender), orders)
}

impl LateReplies {
    /// Queues the order when the reply arrives within `limit`. After that the order is asked for again anyway.
    pub fn queue_on(&self, reply: LateReply, order: ObjectRef<OrderGuard>, limit: Duration) {
        let mut orders = self.0.clone();
        tokio::spawn(async move {
            if tokio::time::timeout(limit, reply).await == Ok(true) {
                // If it cannot be sent, the controller has stopped.
                let _ = orders.send(order).await;
            }
        });
    }
}

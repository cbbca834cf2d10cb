//! Replies that arrive after their timeout. The order is queued when the reply arrives, instead of
//! at the time of its next retry.

use std::time::Duration;

use futures::{SinkExt, Stream, channel::mpsc};
use kube::runtime::reflector::ObjectRef;

use crate::{kube::OrderGuard, ports::LateReply};

/// Adds orders to the queue when their late reply arrives.
#[derive(Clone, Debug)]
pub struct LateReplies(mpsc::Sender<ObjectRef<OrderGuard>>);

/// Creates a [`LateReplies`], and the stream of the orders whose late reply arrived.
pub fn channel() -> (LateReplies, impl Stream<Item = ObjectRef<OrderGuard>>) {
    let (sender, receiver) = mpsc::channel(0);
    (LateReplies(sender), receiver)
}

impl LateReplies {
    /// Queues the order if the reply arrives within `limit`. After that time the request is repeated
    /// anyway.
    pub fn queue_on(&self, reply: LateReply, order: ObjectRef<OrderGuard>, limit: Duration) {
        let mut sender = self.0.clone();
        tokio::spawn(async move {
            if tokio::time::timeout(limit, reply).await == Ok(true) {
                // If it cannot be sent, the controller has stopped.
                let _ = sender.send(order).await;
            }
        });
    }
}

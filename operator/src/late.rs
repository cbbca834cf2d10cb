//! Answers that come when nobody waits for them any more: the order goes on at once then,
//! and not only when it would be asked for again.

use std::time::Duration;

use futures::{SinkExt, Stream, channel::mpsc, future::BoxFuture};
use kube::runtime::reflector::ObjectRef;

use crate::guarded::Guarded;

/// Ends with true when a late answer is there to be taken, with false if somebody else asks meanwhile.
pub type LateAnswer = BoxFuture<'static, bool>;

/// Where orders are brought whose answer came late.
#[derive(Clone, Debug)]
pub struct Answered(mpsc::Sender<ObjectRef<Guarded>>);

/// Makes a way for them, and its end.
pub fn answered() -> (Answered, impl Stream<Item = ObjectRef<Guarded>>) {
    let (sender, orders) = mpsc::channel(0);
    (Answered(sender), orders)
}

impl Answered {
    /// Brings the order when its answer comes, if that is within `limit`: then it is asked for again.
    pub fn bring(&self, order: ObjectRef<Guarded>, answer: LateAnswer, limit: Duration) {
        let mut orders = self.0.clone();
        tokio::spawn(async move {
            if tokio::time::timeout(limit, answer).await == Ok(true) {
                // Nobody works on orders any more if it cannot be sent.
                let _ = orders.send(order).await;
            }
        });
    }
}

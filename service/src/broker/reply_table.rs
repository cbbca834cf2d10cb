//! A table of replies by key. A reply goes to the caller that waits for it, or is kept for the next
//! caller.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::oneshot;

/// How long a reply is kept for a later caller.
const RETENTION: Duration = Duration::from_secs(60);

/// The maximum number of keys in the table. When it is reached, further replies are not kept.
const CAPACITY: usize = 20_000;

/// Replies by key. The table keeps the latest reply of each key, and the first caller receives it.
#[derive(Debug)]
pub struct ReplyTable<T> {
    slots: Mutex<HashMap<String, Slot<T>>>,
    is_final: fn(&T) -> bool,
}

#[derive(Debug)]
enum Slot<T> {
    /// A caller waits for the reply.
    Waiter(oneshot::Sender<T>),
    /// The reply arrived before any caller waited for it.
    Reply(T, Instant),
}

impl<T> ReplyTable<T> {
    /// Creates an empty table. `is_final` returns whether a reply is final. While a final reply is
    /// kept, a reply that is not final does not replace it.
    pub fn new(is_final: fn(&T) -> bool) -> Self {
        ReplyTable { slots: Mutex::default(), is_final }
    }

    /// Delivers a reply to the waiting caller, or keeps it.
    pub fn deliver(&self, key: &str, reply: T) {
        let mut slots = self.slots();
        if let Some(Slot::Reply(previous, since)) = slots.get(key)
            && (self.is_final)(previous)
            && !(self.is_final)(&reply)
            && since.elapsed() < RETENTION
        {
            return;
        }
        let reply = match slots.remove(key) {
            Some(Slot::Waiter(waiter)) => match waiter.send(reply) {
                Ok(()) => return,
                // The caller stopped waiting.
                Err(reply) => reply,
            },
            _ => reply,
        };
        if slots.len() >= CAPACITY {
            slots.retain(|_, slot| match slot {
                Slot::Waiter(waiter) => !waiter.is_closed(),
                Slot::Reply(_, since) => since.elapsed() < RETENTION,
            });
        }
        if slots.len() < CAPACITY {
            slots.insert(key.to_owned(), Slot::Reply(reply, Instant::now()));
        }
    }

    /// Registers for the next reply of a key, or receives the reply that is kept. One caller waits for
    /// a key at a time: a new caller replaces an earlier one.
    pub fn receive(&self, key: &str) -> oneshot::Receiver<T> {
        let (sender, receiver) = oneshot::channel();
        let mut slots = self.slots();
        match slots.remove(key) {
            Some(Slot::Reply(reply, since)) if since.elapsed() < RETENTION => drop(sender.send(reply)),
            _ => drop(slots.insert(key.to_owned(), Slot::Waiter(sender))),
        }
        receiver
    }

    /// Waits for a final reply of a key and keeps it for the next caller. A final reply that is
    /// already kept counts. Replies that are not final are discarded. The wait begins with the
    /// call, not with the first poll of the future.
    ///
    /// Resolves to `true` when a final reply is available, to `false` if another caller starts
    /// waiting for the key.
    pub fn wait_for_final(self: &Arc<Self>, key: &str) -> impl Future<Output = bool> + use<T> {
        let (table, key, mut receiver) = (self.clone(), key.to_owned(), self.receive(key));
        async move {
            while let Ok(reply) = receiver.await {
                if (table.is_final)(&reply) {
                    table.deliver(&key, reply);
                    return true;
                }
                receiver = table.receive(&key);
            }
            false
        }
    }

    fn slots(&self) -> MutexGuard<'_, HashMap<String, Slot<T>>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures::FutureExt;

    use super::*;

    /// A table in which replies greater than one are final.
    fn table() -> Arc<ReplyTable<i32>> {
        Arc::new(ReplyTable::new(|reply| *reply > 1))
    }

    #[tokio::test]
    async fn a_reply_reaches_an_earlier_and_a_later_caller() {
        let table = table();
        let before = table.receive("a");
        table.deliver("a", 1);
        assert_eq!(before.await, Ok(1));
        table.deliver("a", 2);
        table.deliver("a", 3);
        assert_eq!(table.receive("a").await, Ok(3), "the latest reply");
        let mut empty = table.receive("a");
        assert!(empty.try_recv().is_err(), "one caller receives a reply");
    }

    #[tokio::test]
    async fn a_final_reply_ends_the_wait_and_is_kept_for_the_next_caller() {
        let table = table();
        let waiting = table.wait_for_final("a");
        table.deliver("a", 2);
        assert!(waiting.await);
        assert!(table.wait_for_final("a").await, "the reply is there already");
        assert_eq!(table.receive("a").await, Ok(2));

        let replaced = table.wait_for_final("a");
        let caller = table.receive("a");
        assert!(!replaced.await, "another caller waits now");
        table.deliver("a", 3);
        assert_eq!(caller.await, Ok(3));
    }

    #[tokio::test]
    async fn a_reply_that_is_not_final_does_not_end_the_wait() {
        let table = table();
        let mut waiting = pin!(table.wait_for_final("a"));
        table.deliver("a", 1);
        assert!(waiting.as_mut().now_or_never().is_none(), "no final reply yet");
        table.deliver("a", 2);
        assert_eq!(waiting.now_or_never(), Some(true));
        assert_eq!(table.receive("a").await, Ok(2));
    }

    #[tokio::test]
    async fn a_reply_that_is_not_final_does_not_replace_a_final_one() {
        let table = table();
        table.deliver("a", 2);
        table.deliver("a", 1);
        assert_eq!(table.receive("a").await, Ok(2));
        table.deliver("a", 1);
        assert_eq!(table.receive("a").await, Ok(1), "the final reply is no longer kept");
    }

    #[tokio::test]
    async fn a_reply_to_a_caller_that_gave_up_is_kept_for_the_next_caller() {
        let table = table();
        drop(table.receive("a"));
        table.deliver("a", 1);
        assert_eq!(table.receive("a").await, Ok(1));
    }
}

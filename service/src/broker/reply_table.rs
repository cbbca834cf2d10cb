//! A table of replies by key. A reply goes to the caller that waits for it, or is kept for the next
//! caller.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::oneshot;

/// How long a reply is kept for a later caller.
const KEPT: Duration = Duration::from_secs(60);

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
    Awaited(oneshot::Sender<T>),
    /// The reply arrived before any caller waited for it.
    Kept(T, Instant),
}

impl<T> ReplyTable<T> {
    /// Creates an empty table. `is_final` returns whether a reply is final. While a final reply is
    /// kept, a reply that is not final does not replace it.
    pub fn new(is_final: fn(&T) -> bool) -> Self {
        ReplyTable { slots: Mutex::default(), is_final }
    }

    /// Delivers a reply to the waiting caller, or keeps it.
    pub fn deliver(&self, key: &str, news: T) {
        let mut slots = self.slots();
        if let Some(Slot::Kept(kept, since)) = slots.get(key)
            && (self.is_final)(kept)
            && !(self.is_final)(&news)
            && since.elapsed() < KEPT
        {
            return;
        }
        let news = match slots.remove(key) {
            Some(Slot::Awaited(waiting)) => match waiting.send(news) {
                Ok(()) => return,
                // The caller stopped waiting.
                Err(news) => news,
            },
            _ => news,
        };
        if slots.len() >= CAPACITY {
            slots.retain(|_, slot| match slot {
                Slot::Awaited(waiting) => !waiting.is_closed(),
                Slot::Kept(_, since) => since.elapsed() < KEPT,
            });
        }
        if slots.len() < CAPACITY {
            slots.insert(key.to_owned(), Slot::Kept(news, Instant::now()));
        }
    }

    /// Registers for the next reply of a key, or takes the reply that is kept. One caller waits for
    /// a key at a time: a new caller replaces an earlier one.
    pub fn receive(&self, key: &str) -> oneshot::Receiver<T> {
        let (sender, receiver) = oneshot::channel();
        let mut slots = self.slots();
        match slots.remove(key) {
            Some(Slot::Kept(news, since)) if since.elapsed() < KEPT => drop(sender.send(news)),
            _ => drop(slots.insert(key.to_owned(), Slot::Awaited(sender))),
        }
        receiver
    }

    /// Waits for a final reply of a key and keeps it for the next caller. A final reply that is
    /// already kept counts. Replies that are not final are discarded. The wait begins with the
    /// call, not with the first poll of the future.
    ///
    /// Resolves to `true` when a final reply is available, to `false` if another caller starts
    /// waiting for the key.
    pub fn arrived(self: &Arc<Self>, key: &str) -> impl Future<Output = bool> + use<T> {
        let (table, key, mut coming) = (self.clone(), key.to_owned(), self.receive(key));
        async move {
            while let Ok(news) = coming.await {
                if (table.is_final)(&news) {
                    table.deliver(&key, news);
                    return true;
                }
                coming = table.receive(&key);
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
        Arc::new(ReplyTable::new(|news| *news > 1))
    }

    #[tokio::test]
    async fn news_reaches_who_asks_before_and_who_asks_after() {
        let table = table();
        let before = table.receive("a");
        table.deliver("a", 1);
        assert_eq!(before.await, Ok(1));
        table.deliver("a", 2);
        table.deliver("a", 3);
        assert_eq!(table.receive("a").await, Ok(3), "the latest");
        let mut nothing_left = table.receive("a");
        assert!(nothing_left.try_recv().is_err(), "taken once");
    }

    #[tokio::test]
    async fn that_news_came_is_heard_and_the_news_stays_for_who_asks() {
        let table = table();
        let came = table.arrived("a");
        table.deliver("a", 2);
        assert!(came.await);
        assert!(table.arrived("a").await, "it came before");
        assert_eq!(table.receive("a").await, Ok(2));

        let given_up = table.arrived("a");
        let asked = table.receive("a");
        assert!(!given_up.await, "somebody else asks now");
        table.deliver("a", 3);
        assert_eq!(asked.await, Ok(3));
    }

    #[tokio::test]
    async fn what_is_not_final_does_not_end_the_wait_for_what_is() {
        let table = table();
        let mut came = pin!(table.arrived("a"));
        table.deliver("a", 1);
        assert!(came.as_mut().now_or_never().is_none(), "nothing final yet");
        table.deliver("a", 2);
        assert_eq!(came.now_or_never(), Some(true));
        assert_eq!(table.receive("a").await, Ok(2));
    }

    #[tokio::test]
    async fn what_is_final_is_kept_when_older_news_comes_after_it() {
        let table = table();
        table.deliver("a", 2);
        table.deliver("a", 1);
        assert_eq!(table.receive("a").await, Ok(2));
        table.deliver("a", 1);
        assert_eq!(table.receive("a").await, Ok(1), "nothing final is kept any more");
    }

    #[tokio::test]
    async fn news_for_one_who_gave_up_is_kept_for_the_next() {
        let table = table();
        drop(table.receive("a"));
        table.deliver("a", 1);
        assert_eq!(table.receive("a").await, Ok(1));
    }
}

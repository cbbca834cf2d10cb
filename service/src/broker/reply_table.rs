//! Replies by key: for the caller that waits for one, or for the next that asks.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::oneshot;

/// How long news is kept for somebody who asks later.
const KEPT: Duration = Duration::from_secs(60);

/// How much news is kept at most.
const CAPACITY: usize = 20_000;

/// News by key: the latest, each for whoever asks first.
#[derive(Debug)]
pub struct ReplyTable<T> {
    slots: Mutex<HashMap<String, Slot<T>>>,
    is_final: fn(&T) -> bool,
}

#[derive(Debug)]
enum Slot<T> {
    /// Somebody waits.
    Awaited(oneshot::Sender<T>),
    /// It came before anybody asked.
    Kept(T, Instant),
}

impl<T> ReplyTable<T> {
    /// An empty one, and which news says how a matter ended: no other news takes its place while it is kept.
    pub fn new(is_final: fn(&T) -> bool) -> Self {
        ReplyTable { slots: Mutex::default(), is_final }
    }

    /// Brings news.
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
                // Whoever waited gave up.
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

    /// Registers to be brought the next news of a key, or takes what came lately.
    /// One waits for a key at a time: an earlier one is given up.
    pub fn receive(&self, key: &str) -> oneshot::Receiver<T> {
        let (sender, receiver) = oneshot::channel();
        let mut slots = self.slots();
        match slots.remove(key) {
            Some(Slot::Kept(news, since)) if since.elapsed() < KEPT => drop(sender.send(news)),
            _ => drop(slots.insert(key.to_owned(), Slot::Awaited(sender))),
        }
        receiver
    }

    /// Waits from now on for final news of a key, or takes what came lately, and keeps it for
    /// whoever asks next. Other news is passed over. Ends with false if somebody else asks meanwhile.
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

    /// Of it, what is more than one is final.
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

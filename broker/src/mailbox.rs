//! Where those who wait for news of a key and those who bring it meet.

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
pub struct Mailbox<T>(Mutex<HashMap<String, Slot<T>>>);

#[derive(Debug)]
enum Slot<T> {
    /// Somebody waits.
    Awaited(oneshot::Sender<T>),
    /// It came before anybody asked.
    Kept(T, Instant),
}

impl<T> Default for Mailbox<T> {
    fn default() -> Self {
        Mailbox(Mutex::default())
    }
}

impl<T> Mailbox<T> {
    /// Brings news.
    pub fn bring(&self, key: &str, news: T) {
        let mut slots = self.slots();
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
    pub fn await_news(&self, key: &str) -> oneshot::Receiver<T> {
        let (sender, receiver) = oneshot::channel();
        let mut slots = self.slots();
        match slots.remove(key) {
            Some(Slot::Kept(news, since)) if since.elapsed() < KEPT => drop(sender.send(news)),
            _ => drop(slots.insert(key.to_owned(), Slot::Awaited(sender))),
        }
        receiver
    }

    /// Waits from now on for the next news of a key, or what came lately, and keeps it for whoever
    /// asks next. Ends with whether it is as wanted; with false, too, if somebody else asks meanwhile.
    pub fn came(self: &Arc<Self>, key: &str, is_wanted: fn(&T) -> bool) -> impl Future<Output = bool> + use<T> {
        let (mailbox, key, news) = (self.clone(), key.to_owned(), self.await_news(key));
        async move {
            let Ok(news) = news.await else { return false };
            let is_wanted = is_wanted(&news);
            mailbox.bring(&key, news);
            is_wanted
        }
    }

    fn slots(&self) -> MutexGuard<'_, HashMap<String, Slot<T>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn news_reaches_who_asks_before_and_who_asks_after() {
        let mailbox = Mailbox::default();
        let before = mailbox.await_news("a");
        mailbox.bring("a", 1);
        assert_eq!(before.await, Ok(1));
        mailbox.bring("a", 2);
        mailbox.bring("a", 3);
        assert_eq!(mailbox.await_news("a").await, Ok(3), "the latest");
        let mut nothing_left = mailbox.await_news("a");
        assert!(nothing_left.try_recv().is_err(), "taken once");
    }

    #[tokio::test]
    async fn that_news_came_is_heard_and_the_news_stays_for_who_asks() {
        let mailbox = Arc::new(Mailbox::default());
        let is_final = |news: &i32| *news > 1;
        let (came, other) = (mailbox.came("a", is_final), mailbox.came("b", is_final));
        mailbox.bring("a", 2);
        mailbox.bring("b", 1);
        assert_eq!((came.await, other.await), (true, false));
        assert!(mailbox.came("a", is_final).await, "it came before");
        assert_eq!(mailbox.await_news("a").await, Ok(2));

        let given_up = mailbox.came("a", is_final);
        let asked = mailbox.await_news("a");
        assert!(!given_up.await, "somebody else asks now");
        mailbox.bring("a", 3);
        assert_eq!(asked.await, Ok(3));
    }

    #[tokio::test]
    async fn news_for_one_who_gave_up_is_kept_for_the_next() {
        let mailbox = Mailbox::default();
        drop(mailbox.await_news("a"));
        mailbox.bring("a", 1);
        assert_eq!(mailbox.await_news("a").await, Ok(1));
    }
}

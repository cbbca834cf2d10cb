//! The messages in flight: those that this process is trying to deliver, or has not yet recorded as
//! sent.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The IDs of the messages in flight. An ID occurs once for each attempt.
#[derive(Clone, Debug, Default)]
pub(crate) struct InFlight(Arc<Mutex<Vec<i64>>>);

/// A guard that keeps a message in flight until the guard is dropped.
#[derive(Debug)]
pub(crate) struct Held {
    in_flight: InFlight,
    id: i64,
}

impl InFlight {
    /// Marks the message with this ID as in flight.
    pub(crate) fn take(&self, id: i64) -> Held {
        self.numbers().push(id);
        Held { in_flight: self.clone(), id }
    }

    /// Returns the IDs of the messages in flight, in no particular order.
    pub(crate) fn ids(&self) -> Vec<i64> {
        self.numbers().clone()
    }

    fn numbers(&self) -> MutexGuard<'_, Vec<i64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut numbers = self.in_flight.numbers();
        if let Some(place) = numbers.iter().position(|id| *id == self.id) {
            numbers.swap_remove(place);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_tried_twice_is_in_hand_until_both_attempts_ended() {
        let in_flight = InFlight::default();
        let (first, other, second) = (in_flight.take(1), in_flight.take(2), in_flight.take(1));
        drop((first, other));
        assert_eq!(in_flight.ids(), [1]);
        drop(second);
        assert_eq!(in_flight.ids(), [0_i64; 0]);
    }
}

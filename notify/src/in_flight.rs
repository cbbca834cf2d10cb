//! The messages in flight: those that this process is trying to deliver, or has not yet recorded as
//! sent.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The IDs of the messages in flight. An ID occurs once for each attempt.
#[derive(Clone, Debug, Default)]
pub(crate) struct InFlight(Arc<Mutex<Vec<i64>>>);

/// A guard that keeps a message in flight until the guard is dropped.
#[derive(Debug)]
pub(crate) struct InFlightGuard {
    in_flight: InFlight,
    id: i64,
}

impl InFlight {
    /// Marks the message with this ID as in flight.
    pub(crate) fn insert(&self, id: i64) -> InFlightGuard {
        self.lock().push(id);
        InFlightGuard { in_flight: self.clone(), id }
    }

    /// Returns the IDs of the messages in flight, in no particular order.
    pub(crate) fn ids(&self) -> Vec<i64> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<i64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for InFlightGuard {
    fn drop(&mut self) {
        let mut ids = self.in_flight.lock();
        if let Some(index) = ids.iter().position(|id| *id == self.id) {
            ids.swap_remove(index);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_with_two_attempts_is_in_flight_until_both_ended() {
        let in_flight = InFlight::default();
        let (first, other, second) = (in_flight.insert(1), in_flight.insert(2), in_flight.insert(1));
        drop((first, other));
        assert_eq!(in_flight.ids(), [1]);
        drop(second);
        assert_eq!(in_flight.ids(), [0_i64; 0]);
    }
}

//! Carrying out decided steps until the order rests.

use jiff::Timestamp;

use crate::{
    clients::{Billing, Notify},
    decide::{Step, decide},
    purchase::Purchase,
    status::Progress,
};

/// Takes every step that can be taken now, keeping the result in `progress`.
/// Returns when to go on, or `None` if nothing is left to do.
pub async fn carry_out(
    purchase: &Purchase,
    progress: &mut Progress,
    billing: &dyn Billing,
    notify: &dyn Notify,
) -> Option<Timestamp> {
    // Each step ends in an outcome or in a later attempt, so this ends.
    loop {
        match decide(&progress.status, Timestamp::now()) {
            Step::Charge => {
                let answer = billing.charge(purchase).await;
                progress.paid(purchase, answer, Timestamp::now());
            }
            Step::Notify => {
                let (outcome, balance) = (progress.status.outcome(), progress.status.balance);
                let answer = notify.notify(purchase, outcome, balance).await;
                progress.notified(purchase, answer, Timestamp::now());
            }
            Step::Wait(until) => return Some(until),
            Step::Done => return None,
        }
    }
}

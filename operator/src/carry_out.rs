//! Carrying out decided steps until the order rests.

use jiff::Timestamp;
use orders_crds::order::charge_key;

use crate::{
    clients::{Billing, News, Notify},
    decide::{Step, decide},
    purchase::Purchase,
    status::Progress,
    wanted::Wanted,
};

/// Takes every step that can be taken now, keeping the result in `progress`.
/// Returns when to go on, or `None` if nothing is left to do.
pub async fn carry_out(
    uid: &str,
    purchase: &mut Purchase,
    wanted: &Wanted,
    progress: &mut Progress,
    billing: &dyn Billing,
    notify: &dyn Notify,
) -> Option<Timestamp> {
    // Each step ends in an outcome or in a later attempt, so this ends.
    loop {
        match decide(&progress.status, wanted, Timestamp::now()) {
            Step::Charge => {
                let answer = billing.charge(purchase).await;
                progress.paid(purchase, answer, Timestamp::now());
            }
            Step::Close => {
                let answer = billing.close(purchase).await;
                progress.closed(purchase, answer, wanted.cancel, Timestamp::now());
            }
            Step::Refund => {
                let answer = billing.refund(purchase).await;
                progress.refunded(purchase, answer, Timestamp::now());
            }
            Step::Notify => {
                let answer = notify.notify(purchase, &News::of(&progress.status)).await;
                progress.notified(purchase, answer, Timestamp::now());
            }
            Step::Retry => {
                progress.retried(wanted.attempt, Timestamp::now());
                purchase.key = charge_key(uid, wanted.attempt);
            }
            Step::Resend => progress.resent(wanted.resends, Timestamp::now()),
            Step::Wait(until) => return Some(until),
            Step::Done => return None,
        }
    }
}

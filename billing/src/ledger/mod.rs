//! The ledger records every movement of money. It makes a movement once for each idempotency key.
//!
//! The ledger uses double-entry bookkeeping. A transaction that is done has two postings that sum
//! to zero: one to the customer's account, and one to `cash` (refill) or `revenue` (charge,
//! refund). The only value that is ever updated is the stored balance of an account, which changes
//! in the same database transaction. Transactions and postings are never deleted.

mod accounts;
mod charge_state;
mod close;
mod database;
mod export;
mod group_commit;
mod movement;
mod outbox;
mod record;
mod refund;

pub use accounts::OpenedAccount;
pub use charge_state::ChargeState;
pub use database::{Ledger, MIGRATIONS};
pub use movement::{Kind, Movement, Outcome, RecordedMovement, Refund};
pub use outbox::OutboxEntry;

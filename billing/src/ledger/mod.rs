//! The ledger records every movement of money. It makes a movement once for each idempotency key.
//!
//! The ledger uses double-entry bookkeeping. A transaction that is done has two postings that sum
//! to zero: from the account that the money leaves, and to the account that it enters. The accounts
//! are `customer:LOGIN`, `cash` (what customers paid in), `authorized` (charges that are neither
//! captured nor voided) and `revenue`.
//!
//! A charge has two phases, like a card payment: it is authorized when it is made, and the balance
//! decreases at once. It is captured when its order is known to be final, or voided if there is no
//! order. The only value that is ever updated is the stored balance of an account, which changes
//! in the same database transaction. Transactions and postings are never deleted.

mod accounts;
mod authorizations;
mod charge_state;
mod close;
mod database;
mod export;
mod group_commit;
mod id;
mod movement;
mod outbox;
mod record;
mod refund;

pub use accounts::OpenedAccount;
pub use authorizations::VoidedCharge;
pub use charge_state::ChargeState;
pub use database::{Ledger, MIGRATIONS};
pub use movement::{Kind, Movement, NewAuthorization, Outcome, RecordedMovement, Refund};
pub use outbox::OutboxEntry;

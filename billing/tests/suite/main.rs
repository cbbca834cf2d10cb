//! Billing by itself, on both databases.

mod generated;
mod group_commit;
mod ledger;

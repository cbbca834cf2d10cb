//! Tests of billing alone, on both databases.

mod generated;
mod group_commit;
mod ledger;

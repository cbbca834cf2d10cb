//! Tests of billing alone, on both databases.

mod authorizations;
mod generated;
mod group_commit;
mod ledger;
mod support;

//! Tests of billing alone, on both databases.

mod authorizations;
mod databases;
mod generated;
mod group_commit;
mod ledger;
mod support;

//! Tests of the archive alone, on both databases.

mod generated;
mod history;
mod http;
mod store;
mod support;

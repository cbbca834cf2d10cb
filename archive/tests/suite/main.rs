//! The archive by itself, on both databases.

mod generated;
mod history;
mod http;
mod store;
mod support;

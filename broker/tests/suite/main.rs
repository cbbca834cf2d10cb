//! The messages over the broker.

mod generated;

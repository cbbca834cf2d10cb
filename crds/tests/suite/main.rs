//! The resources.

mod generated;

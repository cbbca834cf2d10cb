//! The documents that are generated from the contracts.

mod generated;

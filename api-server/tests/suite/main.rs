//! The public API by itself.

mod generated;

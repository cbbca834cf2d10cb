//! The operator's decisions.

mod exploration;

//! Assertions of the scenarios.

use std::fmt;

use anyhow::{Result, ensure};

/// Fails if two values differ. The error contains both.
pub(super) fn ensure_equal<T: PartialEq + fmt::Debug>(what: &str, actual: T, expected: T) -> Result<()> {
    ensure!(actual == expected, "{what}: {actual:?} instead of {expected:?}");
    Ok(())
}

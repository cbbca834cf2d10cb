//! The style of interaction that the environment selects.

use anyhow::{Result, anyhow};
pub use orders_contracts::interaction::Interaction;

/// Returns the style that the environment variable `INTERACTION` names; `http` if it is not set.
///
/// # Errors
/// If no style has this name.
pub fn interaction_from_env() -> Result<Interaction> {
    match std::env::var("INTERACTION") {
        Ok(name) if !name.is_empty() => name.parse().map_err(|error| anyhow!("INTERACTION: {error}")),
        _ => Ok(Interaction::Http),
    }
}

//! Progress messages.

/// Prints progress on standard error.
pub fn say(what: &str) {
    eprintln!("{what}");
}

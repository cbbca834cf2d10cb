//! Progress messages.

/// Prints progress on standard error.
pub fn print_progress(what: &str) {
    eprintln!("{what}");
}

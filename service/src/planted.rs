//! Deliberate faults, one at a time, to show that `make test-faults` finds them.
//!
//! They exist only with the feature `planted-bugs`, which a release build
//! cannot have, and only where the environment says `PLANTED_BUG=…`.

#[cfg(not(debug_assertions))]
compile_error!("the feature `planted-bugs` is for tests; a release build must not have it");

/// Whether this is the fault that is planted.
pub fn is(bug: &str) -> bool {
    std::env::var_os("PLANTED_BUG").is_some_and(|planted| planted == bug)
}

/// Another key than this one, each time.
pub fn another(key: &str) -> String {
    format!("{key}-{}", std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_nanos())
}

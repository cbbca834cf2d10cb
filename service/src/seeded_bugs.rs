//! Seeded bugs: deliberate faults in the services, one at a time. `make test-faults` must find each
//! of them, which shows that its checks can fail.
//!
//! Seeded bugs exist only in builds with debug assertions, so never in a release build. A process
//! has a seeded bug only if its environment sets `SEEDED_BUG=…`.

use std::{sync::LazyLock, time::SystemTime};

static SEEDED: LazyLock<Option<String>> = LazyLock::new(|| {
    let seeded = std::env::var("SEEDED_BUG").ok().filter(|bug| !bug.is_empty());
    if let Some(bug) = &seeded {
        tracing::warn!(bug, "this process runs with a seeded bug, for tests only");
    }
    seeded
});

/// Whether this process runs with this seeded bug.
pub fn is_on(bug: &str) -> bool {
    SEEDED.as_deref() == Some(bug)
}

/// Returns a key that differs from this one, and from the key of every other call.
pub fn unique_key(key: &str) -> String {
    format!("{key}-{}", SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_nanos())
}

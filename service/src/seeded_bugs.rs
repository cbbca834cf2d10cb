//! Seeded bugs: deliberate faults of the services, one at a time, which
//! `make test-faults` has to find. They show that its checks can fail.
//!
//! They exist only where debug assertions do, so never in a release build, and
//! only for a process whose environment says `SEEDED_BUG=…`.

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

/// Another key than this one, each time.
pub fn another(key: &str) -> String {
    format!("{key}-{}", SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_nanos())
}

//! The current time.

use std::time::SystemTime;

/// Returns the current time, in nanoseconds since the Unix epoch; 0 before the epoch.
pub fn now_ns() -> u64 {
    let since = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

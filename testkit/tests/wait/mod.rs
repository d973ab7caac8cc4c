//! Waits in virtual time.

use std::time::Duration;

use tokio::time::{Instant, sleep};

/// Looks again and again until it is so.
pub(crate) async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !is_so() {
        assert!(Instant::now() < deadline, "in time: {what}");
        sleep(Duration::from_millis(10)).await;
    }
}

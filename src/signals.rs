//! Ctrl-C and `SIGTERM`.

/// Waits for the next signal to stop.
pub(crate) async fn next() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};

        match signal(SignalKind::terminate()) {
            Ok(mut terminate) => {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = tokio::signal::ctrl_c() => {}
                }
            }
            // Without a handler the signal ends the process, which is what it asks for.
            Err(error) => {
                tracing::warn!(%error, "SIGTERM cannot be handled");
                let _ = tokio::signal::ctrl_c().await;
            }
        }
    }
    #[cfg(not(unix))]
    {
        let _ = tokio::signal::ctrl_c().await;
    }
}

//! Asking a process to stop.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Says when the process should stop. Clones share one state.
#[derive(Clone, Debug, Default)]
pub struct Shutdown(CancellationToken);

impl Shutdown {
    /// Not requested yet, and nothing listens for signals.
    pub fn new() -> Shutdown {
        Shutdown::default()
    }

    /// Requested by SIGTERM or SIGINT. A second signal ends the process at once: whoever asks twice is in a hurry,
    /// and everything that was answered is safe. Must be called inside a tokio runtime.
    pub fn on_signals() -> std::io::Result<Shutdown> {
        let stop = Shutdown::new();
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let asked = stop.clone();
        tokio::spawn(async move {
            for first in [true, false] {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
                if first {
                    tracing::info!("stopping");
                    asked.request();
                } else {
                    tracing::warn!("asked twice: stopping at once");
                    std::process::exit(130);
                }
            }
        });
        Ok(stop)
    }

    /// Asks everybody to stop.
    pub fn request(&self) {
        self.0.cancel();
    }

    /// Whether stopping was asked for.
    pub fn is_requested(&self) -> bool {
        self.0.is_cancelled()
    }

    /// Completes once stopping is asked for.
    pub fn requested(&self) -> impl Future<Output = ()> + Send + 'static {
        self.0.clone().cancelled_owned()
    }
}

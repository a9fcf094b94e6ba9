//! Logging, and what a panic does.

use std::io::IsTerminal;

use sateen_types::{FsCode, FsError, FsResult};
use serde::{Deserialize, Serialize};
use tracing_subscriber::EnvFilter;

/// The `[log]` section of every server's configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogConfig {
    /// What is logged, in tracing-subscriber's filter syntax: `info`, `warn,sateen_oss=debug`.
    pub level: String,
    /// One line per event as text, or one JSON object per event.
    pub format: LogFormat,
}

/// Form of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// For collectors.
    Json,
}

impl Default for LogConfig {
    fn default() -> LogConfig {
        LogConfig { level: "info".to_owned(), format: LogFormat::Text }
    }
}

/// Starts logging to standard error. Called once, by a binary, never by a library.
pub fn init(config: &LogConfig) -> FsResult<()> {
    let invalid =
        |what: String| FsError::new(FsCode::Invalid, what).with_hint("write for example info or warn,sateen_oss=debug");
    let filter =
        EnvFilter::try_new(&config.level).map_err(|e| invalid(format!("log level {:?}: {e}", config.level)))?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let started = match config.format {
        LogFormat::Json => builder.json().try_init(),
        LogFormat::Text => builder.with_ansi(std::io::stderr().is_terminal()).try_init(),
    };
    started.map_err(|e| FsError::new(FsCode::Internal, format!("logging was started twice: {e}")))
}

/// Makes a panic on any thread log itself and abort the process: half a server is worse than none, and everything that
/// was answered survives an abort. (A hook, not `panic = "abort"`, because that would build every dependency twice.)
pub fn abort_on_panic() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        before(info);
        tracing::error!(panic = %info, "panic: aborting the process");
        std::process::abort();
    }));
}

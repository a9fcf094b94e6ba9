//! `sateen-dra-sync`: arguments, configuration, run.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use sateen_dra_sync::config::Config;
use sateen_dra_sync::server;
use sateen_runtime::config::ConfigError;
use sateen_runtime::{Shutdown, config, telemetry};
use sateen_types::{FsCode, FsError};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Worker for the data repositories of Sateen: imports names from object stores and fetches what is read.
///
/// Settings of the file may be overridden by variables SATEEN_<KEY> and SATEEN_<SECTION>_<KEY>. Keys of stores come from files or
/// variables that the configuration names.
#[derive(Parser)]
#[command(name = "sateen-dra-sync", version)]
struct Arguments {
    /// Configuration file (TOML).
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match start(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            if let Some(hint) = &error.hint {
                eprintln!("hint: {hint}");
            }
            ExitCode::FAILURE
        }
    }
}

fn start(arguments: &Arguments) -> Result<(), FsError> {
    let loaded = config::load::<Config>(Some(&arguments.config)).map_err(refused)?;
    telemetry::init(&loaded.config.log)?;
    telemetry::abort_on_panic();
    if !loaded.ignored_variables.is_empty() {
        tracing::warn!(variables = ?loaded.ignored_variables, "these variables name no setting of sateen-dra-sync");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|e| FsError::new(FsCode::Io, format!("cannot start threads: {e}")))?;
    runtime.block_on(async {
        let stop =
            Shutdown::on_signals().map_err(|e| FsError::new(FsCode::Io, format!("cannot listen for signals: {e}")))?;
        server::run(loaded.config, stop, |_| {
            if let Err(error) = sd_notify::notify(&[sd_notify::NotifyState::Ready]) {
                tracing::warn!(%error, "cannot tell the service manager that the worker is ready");
            }
        })
        .await
    })
}

fn refused(error: ConfigError) -> FsError {
    FsError::new(FsCode::Invalid, error.to_string()).with_hint(error.hint())
}

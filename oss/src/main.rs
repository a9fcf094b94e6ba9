//! `sateen-oss`: arguments, configuration, run; or the check of an OST directory.

use std::io::Write;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use sateen_oss::config::Config;
use sateen_oss::{offline, server};
use sateen_runtime::config::ConfigError;
use sateen_runtime::{Shutdown, config, telemetry};
use sateen_types::{FsCode, FsError, FsckEvent};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Object storage server of Sateen: serves the OSTs named in its configuration.
///
/// Settings of the file may be overridden by variables SATEEN_<KEY> and SATEEN_<SECTION>_<KEY>.
#[derive(Parser)]
#[command(name = "sateen-oss", version, subcommand_negates_reqs = true, args_conflicts_with_subcommands = true)]
struct Arguments {
    /// Configuration file (TOML).
    #[arg(long, value_name = "FILE", required = true)]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Check an OST that no server uses. Writes one JSON document per line; `sateen fsck --dir` shows them.
    Fsck {
        /// Directory of the OST.
        #[arg(long)]
        dir: PathBuf,
        /// Read and verify every stored byte.
        #[arg(long)]
        deep: bool,
        /// Correct counters and put aside what nobody knows.
        #[arg(long)]
        repair: bool,
        /// Make the index anew from the segments first.
        #[arg(long, conflicts_with = "repair")]
        rebuild_index: bool,
    },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match start(arguments) {
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

fn start(arguments: Arguments) -> Result<(), FsError> {
    if let Some(Command::Fsck { dir, deep, repair, rebuild_index }) = arguments.command {
        return check(&dir, offline::Options { deep, repair, rebuild_index });
    }
    let loaded = config::load::<Config>(arguments.config.as_deref()).map_err(refused)?;
    telemetry::init(&loaded.config.log)?;
    telemetry::abort_on_panic();
    if !loaded.ignored_variables.is_empty() {
        tracing::warn!(variables = ?loaded.ignored_variables, "these variables name no setting of sateen-oss");
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
                tracing::warn!(%error, "cannot tell the service manager that the server is ready");
            }
        })
        .await
    })
}

/// Checks an OST directory; events go to standard output. Nobody reads them any more: the check ends.
fn check(dir: &Path, options: offline::Options) -> Result<(), FsError> {
    let mut out = std::io::stdout().lock();
    let mut sink = |event: FsckEvent| {
        let line = serde_json::to_string(&event).map_err(std::io::Error::from);
        match line.and_then(|line| writeln!(out, "{line}")).and_then(|()| out.flush()) {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        }
    };
    offline::check(dir, options, &mut sink).map(drop)
}

fn refused(error: ConfigError) -> FsError {
    FsError::new(FsCode::Invalid, error.to_string()).with_hint(error.hint())
}

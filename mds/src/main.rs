//! `sateen-mds --config FILE.toml`: arguments, configuration, run; or the check of an MDS directory.

use std::io::Write;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use sateen_mds::config::Config;
use sateen_mds::{offline, server};
use sateen_runtime::{Shutdown, config, telemetry};
use sateen_types::{FsError, FsName, FsckEvent};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Metadata server of a Sateen cluster.
#[derive(Debug, Parser)]
#[command(name = "sateen-mds", version, args_conflicts_with_subcommands = true)]
struct Arguments {
    /// Configuration file; every key can be overridden by SATEEN_<SECTION>_<KEY>.
    #[arg(long, value_name = "FILE.toml")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Check an MDS directory that no server uses. Writes one JSON document per line; `sateen fsck --dir` shows them.
    Fsck {
        /// The directory.
        #[arg(long)]
        dir: PathBuf,
        /// Only this file system.
        #[arg(long = "fs", value_name = "NAME")]
        file_system: Option<FsName>,
        /// Correct what is certain.
        #[arg(long)]
        repair: bool,
    },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Some(Command::Fsck { dir, file_system, repair }) = arguments.command {
        return match check(&dir, &offline::Options { repair, file_system }) {
            Ok(()) => ExitCode::SUCCESS,
            Err(e) => fail(&e, e.hint.as_deref()),
        };
    }
    let loaded = match config::load::<Config>(arguments.config.as_deref()) {
        Ok(loaded) => loaded,
        Err(e) => return fail(&e, Some(e.hint())),
    };
    if let Err(wrong) = loaded.config.validate() {
        return fail(&wrong, Some("see the sample in deploy/ for keys and units"));
    }
    if let Err(e) = telemetry::init(&loaded.config.log) {
        return fail(&e, e.hint.as_deref());
    }
    telemetry::abort_on_panic();
    for variable in &loaded.ignored_variables {
        tracing::debug!("environment variable {variable} names no setting of this program");
    }
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(e) => return fail(&e, None),
    };
    let result = runtime.block_on(async {
        let stop = Shutdown::on_signals()
            .map_err(|e| sateen_types::FsError::new(sateen_types::FsCode::Io, format!("signals: {e}")))?;
        server::run(loaded.config, stop).await
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => fail(&e, e.hint.as_deref()),
    }
}

/// Checks an MDS directory; events go to standard output. Nobody reads them any more: the check ends.
fn check(dir: &Path, options: &offline::Options) -> Result<(), FsError> {
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

/// One line what failed, one line what to do.
fn fail(what: &dyn std::fmt::Display, hint: Option<&str>) -> ExitCode {
    eprintln!("error: {what}");
    if let Some(hint) = hint {
        eprintln!("hint: {hint}");
    }
    ExitCode::FAILURE
}

//! `sateen-mds --config FILE.toml`: arguments, configuration, run.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use sateen_mds::config::Config;
use sateen_mds::server;
use sateen_runtime::{Shutdown, config, telemetry};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Metadata server of a Sateen cluster.
#[derive(Debug, Parser)]
#[command(name = "sateen-mds", version)]
struct Arguments {
    /// Configuration file; every key can be overridden by SATEEN_<SECTION>_<KEY>.
    #[arg(long, value_name = "FILE.toml")]
    config: Option<PathBuf>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
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

/// One line what failed, one line what to do.
fn fail(what: &dyn std::fmt::Display, hint: Option<&str>) -> ExitCode {
    eprintln!("error: {what}");
    if let Some(hint) = hint {
        eprintln!("hint: {hint}");
    }
    ExitCode::FAILURE
}

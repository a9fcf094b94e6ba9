//! `sateen-dev-s3`: arguments, run.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use sateen_dev_s3::notify::{self, Target};
use sateen_dev_s3::sample;
use sateen_dev_s3::server::{self, Keys, Pace};
use sateen_dev_s3::store::Store;
use sateen_runtime::telemetry::LogConfig;
use sateen_runtime::{Shutdown, telemetry};
use sateen_types::{FsCode, FsError, FsResult};

/// S3 server for development and tests: buckets in a directory, reachable from this machine only.
#[derive(Parser)]
#[command(name = "sateen-dev-s3", version)]
struct Arguments {
    /// Directory of the buckets; made if it is missing.
    #[arg(long)]
    dir: PathBuf,
    /// Address of this machine's own network and port.
    #[arg(long, default_value = "127.0.0.1:9884")]
    listen: SocketAddr,
    /// File with the keys that requests must be signed with, in the form of AWS's ~/.aws/credentials.
    #[arg(long, value_name = "FILE")]
    access_key_file: PathBuf,
    /// Make the bucket `sample` with a few files in it, unless it is there.
    #[arg(long)]
    sample: bool,
    /// Wait so long before every answer, as a distant store does.
    #[arg(long, value_name = "MS", default_value_t = 0)]
    delay_ms: u64,
    /// Send each object no faster, as a distant store does; 0: as fast as it goes.
    #[arg(long, value_name = "N", default_value_t = 0)]
    bytes_per_second: u64,
    /// Tell every change of a bucket there, as S3 event JSON.
    #[arg(long, value_name = "http://HOST:PORT/PATH")]
    webhook: Option<Target>,
    /// Make the first so many writes, and answer them with errors all the same: for tests.
    #[arg(long, value_name = "N", default_value_t = 0)]
    lose_answers: u32,
}

fn main() -> ExitCode {
    match start(&Arguments::parse()) {
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

fn start(arguments: &Arguments) -> FsResult<()> {
    telemetry::init(&LogConfig::default())?;
    telemetry::abort_on_panic();
    let keys = Keys::read(&arguments.access_key_file)?;
    let store = Arc::new(Store::open(&arguments.dir)?);
    store.lose_answers(arguments.lose_answers);
    if arguments.sample {
        sample::fill(&store)?;
    }
    let pace = Pace { delay: Duration::from_millis(arguments.delay_ms), bytes_per_second: arguments.bytes_per_second };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|e| FsError::new(FsCode::Io, format!("cannot start threads: {e}")))?;
    runtime.block_on(async {
        let stop =
            Shutdown::on_signals().map_err(|e| FsError::new(FsCode::Io, format!("cannot listen for signals: {e}")))?;
        if let Some(target) = arguments.webhook.clone() {
            tokio::spawn(notify::tell(target, store.changes().listen()));
        }
        let ready = |address| tracing::info!(%address, "serving");
        server::run(store, arguments.listen, keys, pace, stop, ready).await
    })
}

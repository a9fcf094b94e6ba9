//! `sateen-bench`: measures a private cluster of real processes, next to what the same machine can do without it.
//!
//! A figure alone says little; every case is reported with the *limit* that bounds it (a raw socket, the disk, one core
//! of LZ4, a no-op RPC), measured in the same run, and the ratio of the two. The cluster is started by
//! `sateen dev up` in a temporary directory and is always taken down again ([`guard`]).
//!
//! What it is not: a correctness test (see `tests/`) or a micro-benchmark of single functions. Yet no figure comes from
//! wrong bytes: whatever a case reads is compared with what was written ([`data`]).
//!
//! | module | owns |
//! | --- | --- |
//! | [`catalogue`] | names, units and limits of all cases, and which of them a run needs |
//! | [`mod@bench`] | what the cases share: sizes, data, cluster, directory |
//! | [`limits`] | what the machine can do |
//! | [`cases`] | what Sateen does |
//! | [`report`] | medians, ratios, table, JSON, comparison |

mod aligned;
mod args;
mod bench;
mod cases;
mod catalogue;
mod cluster;
mod data;
mod guard;
mod limits;
mod mount;
mod peer;
mod rate;
mod report;

use std::process::ExitCode;
use std::time::Instant;

use anyhow::Context;
use clap::Parser;

use crate::args::{Args, Command};
use crate::bench::Bench;
use crate::report::{Outcome, Report};

/// What a program that moves much data would choose, and what the servers and the mount use.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let args = Args::parse();
    let done = match &args.command {
        Some(Command::Peer(peer)) => peer::run(peer).map(|()| true),
        None => run(&args),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(e) => {
            eprintln!("error: {e:#}");
            eprintln!("hint: {}", hint(&e));
            ExitCode::FAILURE
        }
    }
}

/// Measures, prints and writes. `false` if a case failed.
fn run(args: &Args) -> anyhow::Result<bool> {
    let cases = catalogue::select(args.case.as_deref())?;
    if args.list {
        cases.iter().for_each(|case| println!("{:<34} {:<6} {}", case.name, case.unit, case.limit.unwrap_or("-")));
        return Ok(true);
    }
    let previous = args.compare.as_deref().map(Report::read).transpose()?;
    let bench = Bench::new(args)?;
    let mut report = Report::default();
    let mut failed = Vec::new();
    for case in cases {
        eprint!("{:<34} ", case.name);
        match measure(&bench, case, args) {
            Ok(value) => {
                let outcome = Outcome::new(case, value, &report);
                eprintln!("{}", outcome.line());
                report.add(outcome);
            }
            Err(e) => {
                eprintln!("failed: {e:#}");
                failed.push(case.name);
            }
        }
    }
    drop(bench);
    println!("{}", report.table(previous.as_ref()));
    if let Some(out) = &args.out {
        report.write(out).with_context(|| format!("cannot write {}", out.display()))?;
        println!("written to {}", out.display());
    }
    if !failed.is_empty() {
        eprintln!("error: {} of the cases failed: {}", failed.len(), failed.join(", "));
        eprintln!("hint: run one alone with --case NAME --keep and look at the logs it names");
    }
    Ok(failed.is_empty())
}

/// Median of as many measurements as were asked for.
fn measure(bench: &Bench, case: &catalogue::Case, args: &Args) -> anyhow::Result<f64> {
    let start = Instant::now();
    let mut values = vec![(case.measure)(bench)?];
    while values.len() < args.runs() && args.patience().is_none_or(|patience| start.elapsed() < patience) {
        values.push((case.measure)(bench)?);
    }
    Ok(report::median(values))
}

fn hint(e: &anyhow::Error) -> String {
    let own = e.chain().find_map(|cause| cause.downcast_ref::<sateen_types::FsError>()?.hint.clone());
    own.unwrap_or_else(|| "sateen-bench --help says what can be chosen".to_owned())
}

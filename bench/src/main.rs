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
//! | [`bucket`] | what the cases about data repositories share: a cluster with a bucket |
//! | [`limits`] | what the machine can do |
//! | [`cases`] | what Sateen does |
//! | [`cpu`], [`machine`] | what the processors worked; under which circumstances a run was made |
//! | [`report`] | medians, ratios, floors, table, JSON, comparison |

mod aligned;
mod args;
mod bench;
mod bucket;
mod cases;
mod catalogue;
mod cluster;
mod cpu;
mod data;
mod guard;
mod limits;
mod machine;
mod mount;
mod peer;
mod rate;
mod report;

use std::collections::HashMap;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Context;
use clap::Parser;

use crate::args::{Args, Command};
use crate::bench::Bench;
use crate::catalogue::Measure;
use crate::machine::Machine;
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
        for case in cases {
            let floor = case.floor.map_or(String::new(), |floor| format!(" {floor:.2}"));
            let enough = case.enough.map_or(String::new(), |value| format!(" (enough: {value})"));
            println!("{:<45} {:<8} {}{floor}{enough}", case.name, case.unit, case.limit.unwrap_or("-"));
        }
        return Ok(true);
    }
    let previous = previous(args)?;
    let bench = Bench::new(args)?;
    let mut report = Report::default();
    let mut failed = Vec::new();
    let mut efficiencies = HashMap::new();
    for case in cases {
        eprint!("{:<45} ", case.name);
        match measure(&bench, case, args, &mut efficiencies) {
            Ok(values) => {
                let outcome = Outcome::new(case, values, &report);
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
    let machine = Machine::here(args.runs(), args.quick);
    println!("{}\n{}", machine.line(), report.table(previous.as_ref()));
    let below = report.below_floor();
    if !below.is_empty() {
        println!("{} below their floors: {}", below.len(), below.join(", "));
    }
    if let Some(out) = &args.out {
        report.write(out).with_context(|| format!("cannot write {}", out.display()))?;
        machine.write_beside(out)?;
        println!("written to {}", out.display());
    }
    if !failed.is_empty() {
        eprintln!("error: {} of the cases failed: {}", failed.len(), failed.join(", "));
        eprintln!("hint: run one alone with --case NAME --keep and look at the logs it names");
    }
    Ok(failed.is_empty())
}

/// The earlier results to show: those asked for, else those that are about to be replaced.
fn previous(args: &Args) -> anyhow::Result<Option<Report>> {
    match (&args.compare, &args.out) {
        (Some(path), _) => Report::read(path).map(Some),
        (None, Some(out)) if out.exists() => Report::read(out).map(Some),
        _ => Ok(None),
    }
}

/// As many measurements as were asked for. What the machine worked for them is put into `efficiencies`, under the name of
/// the case.
fn measure(
    bench: &Bench,
    case: &catalogue::Case,
    args: &Args,
    efficiencies: &mut HashMap<&'static str, Vec<f64>>,
) -> anyhow::Result<Vec<f64>> {
    let once = match case.measure {
        Measure::By(once) => once,
        Measure::CpuOf(base) => return efficiencies.remove(base).with_context(|| format!("{base} was not measured")),
    };
    let start = Instant::now();
    let mut values = Vec::new();
    while values.is_empty()
        || values.len() < args.runs() && args.patience().is_none_or(|patience| start.elapsed() < patience)
    {
        values.push(once(bench)?);
        if let Some(efficiency) = bench.take_efficiency() {
            efficiencies.entry(case.name).or_default().push(efficiency);
        }
    }
    Ok(values)
}

fn hint(e: &anyhow::Error) -> String {
    let own = e.chain().find_map(|cause| cause.downcast_ref::<sateen_types::FsError>()?.hint.clone());
    own.unwrap_or_else(|| "sateen-bench --help says what can be chosen".to_owned())
}

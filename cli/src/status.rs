//! `sateen status`: one screen (80 x 24) that says whether the cluster is well.

use sateen_client::admin::{Ost, OstState, Status};
use sateen_types::FsResult;
use serde_json::{Value, json};

use crate::args::Mds;
use crate::exit::DEGRADED;
use crate::fs;
use crate::mds::{admin, block_on};
use crate::table::{Align, bytes, duration, percent, render};

/// OSTs shown at most, so that everything fits on one screen; those that are not well come first.
const OSTS_SHOWN: usize = 8;
/// File systems shown at most.
const FILE_SYSTEMS_SHOWN: usize = 4;
/// From here on a full OST is a warning, in percent.
const FULL_PERCENT: u64 = 95;

/// Runs the verb.
pub fn run(mds: &Mds, json: bool) -> FsResult<u8> {
    let host = mds.address();
    let status = block_on(async { admin(&host).await?.status().await })?;
    if json {
        say!("{}", to_json(&host, &status))
    } else {
        say_text!("{}", text(&host, &status))
    }
    Ok(if problems(&status).is_empty() { 0 } else { DEGRADED })
}

/// What is not well, a line each.
pub fn problems(status: &Status) -> Vec<String> {
    let mut out = Vec::new();
    if status.osts.is_empty() {
        out.push("no OST has registered: nothing can be stored".to_owned());
    }
    for (what, state) in [("down", OstState::Down), ("failed", OstState::Failed)] {
        let those: Vec<String> = status.osts.iter().filter(|o| o.state == state).map(|o| o.index.to_string()).collect();
        if !those.is_empty() {
            out.push(format!("{} of {} OSTs {what}: {}", those.len(), status.osts.len(), shorten(&those)));
        }
    }
    let full: Vec<String> = status.osts.iter().filter(|o| is_full(o)).map(|o| o.index.to_string()).collect();
    if !full.is_empty() {
        out.push(format!("{} OSTs at {FULL_PERCENT} % or more: {}", full.len(), shorten(&full)));
    }
    out
}

fn shorten(indexes: &[String]) -> String {
    const SHOWN: usize = 8;
    let list = indexes.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
    if indexes.len() > SHOWN { format!("{list}, …") } else { list }
}

fn is_full(o: &Ost) -> bool {
    o.space.total > 0 && percent(o.space.used, o.space.used + o.space.available) >= FULL_PERCENT
}

/// The state's name.
pub fn state_name(state: OstState) -> &'static str {
    match state {
        OstState::Up => "UP",
        OstState::Down => "DOWN",
        OstState::Failed => "FAILED",
    }
}

fn text(host: &str, s: &Status) -> String {
    let mut out = format!("cluster {}\nMDS {host} ({}), up {}\n", s.cluster, s.software, duration(s.uptime.as_secs()));
    let problems = problems(s);
    match problems.is_empty() {
        true => out.push_str("health OK\n"),
        false => {
            out.push_str("health DEGRADED\n");
            problems.iter().take(3).for_each(|p| out.push_str(&format!("  {p}\n")));
        }
    }
    out.push('\n');
    if s.file_systems.is_empty() {
        out.push_str("no file system; make one: sateen fs create NAME\n");
    } else {
        out.push_str(&fs::table(&s.file_systems[..s.file_systems.len().min(FILE_SYSTEMS_SHOWN)]));
        out.push_str(&more(s.file_systems.len(), FILE_SYSTEMS_SHOWN));
    }
    out.push('\n');
    let mut osts: Vec<&Ost> = s.osts.iter().collect();
    osts.sort_by_key(|o| (o.state == OstState::Up, !is_full(o), o.index));
    let rows: Vec<Vec<String>> = osts.iter().take(OSTS_SHOWN).map(|o| ost_row(o)).collect();
    let head = [
        ("OST", Align::Right),
        ("STATE", Align::Left),
        ("USED", Align::Right),
        ("AVAILABLE", Align::Right),
        ("USE%", Align::Right),
        ("OBJECTS", Align::Right),
        ("ADDRESS", Align::Left),
    ];
    if !rows.is_empty() {
        out.push_str(&render(&head, &rows));
        out.push_str(&more(osts.len(), OSTS_SHOWN));
    }
    out
}

fn ost_row(o: &Ost) -> Vec<String> {
    vec![
        o.index.to_string(),
        state_name(o.state).to_owned(),
        bytes(o.space.used),
        bytes(o.space.available),
        format!("{}%", percent(o.space.used, o.space.used + o.space.available)),
        o.space.objects.to_string(),
        o.address.clone(),
    ]
}

fn more(all: usize, shown: usize) -> String {
    if all > shown { format!("  and {} more (--json shows all)\n", all - shown) } else { String::new() }
}

/// For scripts.
pub fn to_json(host: &str, s: &Status) -> Value {
    let osts: Vec<Value> = s
        .osts
        .iter()
        .map(|o| {
            json!({
                "index": o.index.0,
                "uuid": o.uuid.to_string(),
                "address": o.address,
                "state": state_name(o.state),
                "total": o.space.total,
                "used": o.space.used,
                "available": o.space.available,
                "objects": o.space.objects,
                "silent_ms": o.silent.as_millis() as u64,
            })
        })
        .collect();
    let problems = problems(s);
    json!({
        "health": if problems.is_empty() { "OK" } else { "DEGRADED" },
        "problems": problems,
        "cluster": s.cluster.to_string(),
        "mds": host,
        "software": s.software,
        "uptime_seconds": s.uptime.as_secs(),
        "file_systems": s.file_systems.iter().map(fs::to_json).collect::<Vec<_>>(),
        "osts": osts,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    use sateen_client::admin::{FileSystem, FileSystemState};
    use sateen_types::bulk::Space;
    use sateen_types::{ClusterId, Compression, FsId, LayoutTemplate, OstIndex, OstUuid, Timestamp};

    fn ost(index: u16, state: OstState) -> Ost {
        Ost {
            index: OstIndex(index),
            uuid: OstUuid([1; 16]),
            address: format!("server{index}.example.org:9881"),
            state,
            space: Space { total: 100 << 40, used: 3 << 40, available: 97 << 40, objects: 123_456_789 },
            silent: Duration::ZERO,
        }
    }

    fn status(osts: Vec<Ost>, file_systems: usize) -> Status {
        let fs = FileSystem {
            id: FsId(1),
            name: "eightchr".parse().expect("name"),
            state: FileSystemState::Available,
            compression: Compression::Lz4,
            default_layout: LayoutTemplate::default(),
            created: Timestamp { seconds: 1_700_000_000, nanos: 5 },
            inodes: 4_000_000_000,
            clients: 1000,
        };
        Status {
            cluster: ClusterId([2; 16]),
            software: "sateen-mds 0.1.0".into(),
            uptime: Duration::from_secs(3600),
            osts,
            file_systems: vec![fs; file_systems],
        }
    }

    #[test]
    fn a_large_cluster_fits_on_one_screen() {
        let osts = (0..2000).map(|i| ost(i, if i % 7 == 0 { OstState::Down } else { OstState::Up })).collect();
        let text = text("mds1.example.org:9880", &status(osts, 50));
        assert!(text.lines().count() <= 23, "{text}");
        assert!(text.lines().all(|l| l.chars().count() <= 80), "{text}");
        assert!(text.contains("286 of 2000 OSTs down: 0, 7, 14"), "{text}");
        assert!(text.contains("and 1992 more"));
    }

    #[test]
    fn what_is_not_well_is_said() {
        assert!(problems(&status(vec![ost(0, OstState::Up)], 1)).is_empty());
        assert_eq!(problems(&status(vec![], 1)).len(), 1);
        let mut full = ost(0, OstState::Up);
        full.space = Space { total: 100, used: 96, available: 4, objects: 1 };
        assert!(problems(&status(vec![full], 1))[0].contains("95 %"));
        assert!(problems(&status(vec![ost(4, OstState::Failed)], 1))[0].contains("failed: 4"));
    }
}

//! `sateen dev status`.

use std::net::TcpStream;
use std::path::Path;

use sateen_client::admin::Status;
use sateen_fuse::kernel;
use sateen_types::FsResult;
use serde_json::json;

use super::cluster::{Cluster, DRA_SYNC, S3, oss_name};
use super::process;
use super::up::{is_serving, names};
use crate::exit::DEGRADED;
use crate::mds::{admin, block_on};
use crate::status;
use crate::table::{Align, render};

/// One process.
struct Row {
    name: String,
    pid: Option<u32>,
    /// It runs and answers.
    well: bool,
    place: String,
}

/// Runs the verb.
pub fn run(dir: &Path, json: bool) -> FsResult<u8> {
    let cluster = Cluster::existing(dir)?;
    let rows = rows(&cluster)?;
    let mds = cluster.mds_address();
    let status = match rows.first() {
        Some(row) if row.well => block_on(async { admin(&mds).await?.status().await }).ok(),
        _ => None,
    };
    let problems = problems(&rows, status.as_ref());
    if json {
        let processes: Vec<_> = rows
            .iter()
            .map(|r| {
                json!({
                    "name": r.name, "pid": r.pid, "well": r.well, "place": r.place,
                    "log": cluster.log(&r.name).display().to_string(),
                })
            })
            .collect();
        let document = json!({
            "dir": cluster.dir.display().to_string(),
            "health": if problems.is_empty() { "OK" } else { "DEGRADED" },
            "problems": problems,
            "processes": processes,
            "cluster": status.as_ref().map(|s| status::to_json(&mds, s)),
        });
        say!("{document}");
    } else {
        let cells: Vec<Vec<String>> = rows
            .iter()
            .map(|r| {
                let state = match (r.pid, r.well) {
                    (None, _) => "stopped",
                    (Some(_), true) => "running",
                    (Some(_), false) => "not answering",
                };
                let pid = r.pid.map_or_else(|| "-".to_owned(), |p| p.to_string());
                vec![r.name.clone(), state.to_owned(), pid, r.place.clone(), cluster.log(&r.name).display().to_string()]
            })
            .collect();
        let head = [
            ("PROCESS", Align::Left),
            ("STATE", Align::Left),
            ("PID", Align::Right),
            ("WHERE", Align::Left),
            ("LOG", Align::Left),
        ];
        say_text!("{}", render(&head, &cells));
        match problems.is_empty() {
            true => say!("health OK"),
            false => {
                say!("health DEGRADED");
                problems.iter().for_each(|p| say!("  {p}"));
                say!("hint: sateen dev up --dir {} starts what is missing", cluster.dir.display());
            }
        }
    }
    Ok(if problems.is_empty() { 0 } else { DEGRADED })
}

fn rows(cluster: &Cluster) -> FsResult<Vec<Row>> {
    let server = |name: String, address: String| {
        let pid = process::running(&cluster.pid_file(&name));
        let well = pid.is_some() && block_on(is_serving(&address)).unwrap_or(false);
        Row { name, pid, well, place: address }
    };
    let mut rows = vec![server("mds".to_owned(), cluster.mds_address())];
    rows.extend((0..cluster.oss).map(|i| server(oss_name(i), cluster.oss_address(i))));
    if !cluster.no_s3 {
        let pid = process::running(&cluster.pid_file(S3));
        let place = cluster.s3_address();
        let well = pid.is_some() && TcpStream::connect(&place).is_ok();
        rows.push(Row { name: S3.to_owned(), pid, well, place });
        rows.push(server(DRA_SYNC.to_owned(), cluster.dra_sync_address()));
    }
    if let Some(point) = &cluster.mount {
        let pid = process::running(&cluster.pid_file("mount"));
        let mounted = kernel::mounts()?.into_iter().rev().find(|m| m.point == *point);
        let well = pid.is_some() && mounted.is_some_and(|m| m.fs_type == kernel::FS_TYPE);
        rows.push(Row { name: "mount".to_owned(), pid, well, place: point.display().to_string() });
    }
    debug_assert_eq!(rows.len(), names(cluster).len());
    Ok(rows)
}

fn problems(rows: &[Row], status: Option<&Status>) -> Vec<String> {
    let mut out: Vec<String> = rows
        .iter()
        .filter(|r| !r.well)
        .map(|r| format!("{} {}", r.name, if r.pid.is_none() { "does not run" } else { "does not answer" }))
        .collect();
    out.extend(status.map(status::problems).unwrap_or_default());
    out
}

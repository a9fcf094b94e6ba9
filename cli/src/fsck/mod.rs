//! `sateen fsck`: checks OSTs and the MDT, at work through their servers or at rest in their directory, and shows what the
//! scrub knows.
//!
//! Exit code 0: nothing is wrong, or all of it was repaired; 7: something is wrong; 1: the check itself failed.

mod offline;
mod show;

use std::ops::ControlFlow;
use std::time::Duration;

use sateen_client::admin::{Ost, OstState};
use sateen_client::maintenance::{Maintenance, check_namespaces};
use sateen_types::{FsCode, FsError, FsResult, OstIndex, Tally};
use serde_json::{Value, json};

use crate::args::{Fsck, Mds};
use crate::exit::{DEGRADED, print_error};
use crate::mds::{admin, block_on};
use show::Show;

/// How long connecting to an OSS, or one answer, may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Runs the verb.
pub fn run(fsck: &Fsck, mds: &Mds) -> FsResult<u8> {
    let mut of = if fsck.mdt { Of::Mdt } else { Of::Ost };
    let checked = match &fsck.dir {
        Some(dir) => {
            of = offline::what_is(dir);
            let target = dir.display().to_string();
            let mut show = Show::new(&target, of, fsck.json);
            let outcome = offline::check(dir, of, fsck, &mut |event| show.event(&event));
            vec![(target, outcome.map(|tally| show.done(&tally)))]
        }
        None if fsck.mdt => vec![("MDT".to_owned(), block_on(names(fsck, &mds.address())))],
        None => block_on(online(fsck, &mds.address()))?,
    };
    if fsck.json {
        say!("{}", report(of, &checked));
    }
    let mut failed = checked.iter().filter_map(|(_, outcome)| outcome.as_ref().err());
    failed.clone().for_each(print_error);
    if let Some(error) = failed.next_back() {
        return Ok(crate::exit::code_of(error.code));
    }
    let well = checked.iter().all(|(_, outcome)| outcome.as_ref().is_ok_and(Checked::is_well));
    Ok(if well { 0 } else { DEGRADED })
}

/// What is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Of {
    /// Objects and their data.
    Ost,
    /// Names and attributes.
    Mdt,
}

/// What a check of one target came to.
struct Checked {
    tally: Tally,
    json: Value,
}

impl Checked {
    fn is_well(&self) -> bool {
        self.tally.damage == self.tally.repaired
    }
}

fn report(of: Of, checked: &[(String, FsResult<Checked>)]) -> Value {
    let targets: Vec<Value> = checked
        .iter()
        .map(|(target, outcome)| match outcome {
            Ok(checked) => checked.json.clone(),
            Err(e) => json!({ "target": target, "error": e.message }),
        })
        .collect();
    match of {
        Of::Ost => json!({ "osts": targets }),
        Of::Mdt => json!({ "mdts": targets }),
    }
}

async fn online(fsck: &Fsck, host: &str) -> FsResult<Vec<(String, FsResult<Checked>)>> {
    let osts = chosen(admin(host).await?.list_osts().await?, fsck.ost)?;
    let mut checked = Vec::new();
    for ost in osts {
        let target = format!("OST {}", ost.index);
        let outcome =
            if fsck.status { status(&ost, &target, fsck.json).await } else { check(&ost, &target, fsck).await };
        checked.push((target, outcome));
    }
    Ok(checked)
}

/// The OSTs that were asked for.
fn chosen(osts: Vec<Ost>, only: Option<u16>) -> FsResult<Vec<Ost>> {
    let Some(only) = only.map(OstIndex) else { return Ok(osts) };
    let known: Vec<String> = osts.iter().map(|o| o.index.to_string()).collect();
    let found: Vec<Ost> = osts.into_iter().filter(|o| o.index == only).collect();
    if found.is_empty() {
        return Err(FsError::new(FsCode::NotFound, format!("there is no OST {only}"))
            .with_hint(format!("OSTs of this cluster: {}", known.join(", "))));
    }
    Ok(found)
}

fn reach(ost: &Ost) -> FsResult<Maintenance> {
    if ost.state == OstState::Down {
        return Err(FsError::new(FsCode::Unavailable, format!("OST {} at {} is down", ost.index, ost.address))
            .with_hint("start its OSS, or check its directory on its server: sateen fsck --dir DIR"));
    }
    Maintenance::new(ost.index, &ost.address, TIMEOUT)
}

/// Checks namespaces through the MDS.
async fn names(fsck: &Fsck, host: &str) -> FsResult<Checked> {
    let admin = admin(host).await?;
    let mut show = Show::new("MDT", Of::Mdt, fsck.json);
    let sink = |event| {
        show.event(&event);
        ControlFlow::Continue(())
    };
    let tally = check_namespaces(admin.host(), fsck.file_system.as_ref(), fsck.repair, TIMEOUT, sink).await?;
    Ok(show.done(&tally))
}

async fn check(ost: &Ost, target: &str, fsck: &Fsck) -> FsResult<Checked> {
    let mut show = Show::new(target, Of::Ost, fsck.json);
    let sink = |event| {
        show.event(&event);
        ControlFlow::Continue(())
    };
    let tally = reach(ost)?.fsck(fsck.deep, sink).await?;
    Ok(show.done(&tally))
}

async fn status(ost: &Ost, target: &str, json: bool) -> FsResult<Checked> {
    let status = reach(ost)?.scrub_status().await?;
    if !json {
        say_text!("{}", show::status_text(target, &status));
    }
    let tally = Tally { damage: status.damaged_chunks, ..Tally::default() };
    Ok(Checked { tally, json: show::status_json(target, &status) })
}

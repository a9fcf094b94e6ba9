//! `lfs df`, `lfs osts`, `lfs mdts`.

use sateen_client::admin::{Ost, OstState};
use sateen_client::{Client, Options};
use sateen_types::FsResult;

use super::df_text::{self, Target, Units, Usage};
use super::place::{self, Place};
use super::{Failure, FirstFailure, Outcome, print};
use crate::getopt::{self, Arg, Spec, opt};
use crate::mds::{admin, block_on};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Key {
    Inodes,
    Human,
    Decimal,
    Lazy,
    Verbose,
}

const SPECS: &[Spec<Key>] = &[
    opt(Key::Inodes, 'i', &["inodes"], Arg::None),
    opt(Key::Human, 'h', &["human-readable"], Arg::None),
    opt(Key::Decimal, 'H', &["si"], Arg::None),
    opt(Key::Lazy, 'l', &["lazy"], Arg::None),
    opt(Key::Verbose, 'v', &["verbose"], Arg::None),
];

/// `lfs df`.
pub fn run(words: &[String]) -> Outcome {
    let parsed = getopt::parse(SPECS, words).map_err(|e| Failure::usage("df", e))?;
    let has = |key| parsed.options.iter().any(|(k, _)| *k == key);
    let units = match (has(Key::Human), has(Key::Decimal)) {
        (_, true) => Units::HumanDecimal,
        (true, false) => Units::Human,
        (false, false) => Units::Blocks,
    };
    let places = places(&parsed.operands)?;
    let mut failures = FirstFailure::default();
    for place in places {
        let shown = place.point.display().to_string();
        let text = targets(&place, has(Key::Inodes))
            .map(|t| df_text::table(place.source.fs.as_str(), &shown, &t, has(Key::Inodes), units));
        failures.note("df", text.map_err(Failure::from).and_then(|t| print(t.as_bytes())));
    }
    failures.finish()
}

/// The mounts of the paths named, or all.
fn places(paths: &[String]) -> Result<Vec<Place>, Failure> {
    let places = match paths {
        [] => place::all()?,
        paths => paths.iter().map(|p| place::by_name_or_path(p)).collect::<Result<_, _>>()?,
    };
    if places.is_empty() {
        return Err(Failure::new(libc::ENOENT, "no Sateen file system is mounted")
            .with_hint("mount one: sateen mount HOST:PORT:/FS PATH"));
    }
    Ok(places)
}

/// The MDT, then every OST.
fn targets(place: &Place, inodes: bool) -> FsResult<Vec<Target>> {
    block_on(async {
        let osts = admin(&place.mds()).await?.list_osts().await?;
        let options = Options { client_name: "lfs df".to_owned(), ..Options::default() };
        let client = Client::connect(&place.source, options).await?;
        let fs = client.statfs().await;
        // The numbers are what was asked for.
        let _ = client.close().await;
        let fs = fs?;
        let mdt = if inodes {
            let total = fs.inodes_used.saturating_add(fs.inodes_free);
            Usage { total, used: fs.inodes_used, available: fs.inodes_free }
        } else {
            Usage { total: fs.mdt.total, used: fs.mdt.used, available: fs.mdt.available }
        };
        let first = Target { kind: "MDT", index: 0, usage: Ok(mdt), status: String::new() };
        Ok(std::iter::once(first).chain(osts.iter().map(|o| target(o, inodes))).collect())
    })
}

fn target(ost: &Ost, inodes: bool) -> Target {
    /// Bytes an object is taken to need, to guess how many more there is room for.
    const OBJECT_BYTES: u64 = 64 << 10;
    let space = ost.space;
    let usage = if inodes {
        let available = space.available / OBJECT_BYTES;
        Usage { total: space.objects.saturating_add(available), used: space.objects, available }
    } else {
        Usage { total: space.total, used: space.used, available: space.available }
    };
    let (usage, status) = match ost.state {
        OstState::Down => (Err("inactive device".to_owned()), ""),
        OstState::Failed => (Ok(usage), "D"),
        OstState::Up if space.available == 0 => (Ok(usage), "S"),
        OstState::Up => (Ok(usage), ""),
    };
    Target { kind: "OST", index: ost.index.0, usage, status: status.to_owned() }
}

/// `lfs osts` and `lfs mdts`.
pub fn list(words: &[String], osts: bool) -> Outcome {
    for place in places(words)? {
        let fs = place.source.fs.as_str();
        let states = block_on(async { admin(&place.mds()).await?.list_osts().await });
        let text = if osts {
            let states: Vec<(u16, bool)> = states?.iter().map(|o| (o.index.0, o.state != OstState::Down)).collect();
            df_text::targets("OBDS", fs, "OST", &states)
        } else {
            // The MDS that has just answered is the one MDT there is.
            df_text::targets("MDTS", fs, "MDT", &[(0, states.is_ok())])
        };
        print(text.as_bytes())?;
    }
    Ok(())
}

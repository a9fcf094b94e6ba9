//! `lfs changelog` and `lfs changelog_clear`.

use std::time::Duration;

use sateen_client::admin::Admin;
use sateen_types::changelog::{ChangeMask, ChangeUser};
use sateen_types::{FsName, FsResult};

use super::{Failure, Outcome, changelog_text, place, print};
use crate::args::Mds;
use crate::getopt::{self, Arg, Spec, opt};
use crate::mds::{admin, block_on};

/// How long one question waits for something new.
const FOLLOW: Duration = Duration::from_secs(5);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Key {
    Follow,
    User,
    Mask,
}

const SPECS: &[Spec<Key>] = &[
    opt(Key::Follow, 'f', &["follow"], Arg::None),
    opt(Key::User, 'u', &["user"], Arg::Required),
    opt(Key::Mask, 'm', &["mask"], Arg::Required),
];

/// `lfs changelog [-f] [-u USER] [-m MASK] MDT [START [END]]`
pub fn run(words: &[String]) -> Outcome {
    let usage = |what: String| Failure::usage("changelog", what);
    let parsed = getopt::parse(SPECS, words).map_err(usage)?;
    let (mut follow, mut user, mut mask) = (false, None, None);
    for (key, value) in parsed.options {
        match (key, value) {
            (Key::Follow, _) => follow = true,
            (Key::User, Some(label)) => {
                let id = ChangeUser::parse_label(&label);
                user = Some(id.ok_or_else(|| usage(format!("error: invalid changelog user: {label}")))?);
            }
            (Key::Mask, Some(text)) => mask = Some(text.parse::<ChangeMask>()?),
            _ => {}
        }
    }
    let (mdt, start, end) = match parsed.operands.as_slice() {
        [mdt] => (mdt, 0, u64::MAX),
        [mdt, start] => (mdt, number(start)?, u64::MAX),
        [mdt, start, end] => (mdt, number(start)?, number(end)?),
        _ => return Err(usage("error: no MDT given, or too many words".to_owned())),
    };
    let (fs, host) = target(mdt)?;
    let mut next = start;
    block_on(async {
        let admin = admin(&host).await?;
        if let Some(id) = user {
            let cleared = find(&admin, &fs, id).await?.cleared;
            next = next.max(cleared + 1);
        }
        loop {
            let hold = if follow { FOLLOW } else { Duration::ZERO };
            let records = admin.read_changelog(&fs, next.saturating_sub(1), hold).await?;
            let done = records.is_empty() && !follow;
            for record in records {
                next = record.index + 1;
                if record.index > end {
                    return Ok(Ok(()));
                }
                if mask.is_some_and(|mask: ChangeMask| !mask.has(record.kind)) {
                    continue;
                }
                if let Err(e) = print(&changelog_text::line(&record)) {
                    return Ok(Err(e));
                }
            }
            if done || next > end {
                return Ok(Ok(()));
            }
        }
    })?
}

/// `lfs changelog_clear MDT USER ENDREC`
pub fn clear(words: &[String]) -> Outcome {
    const NONE: &[Spec<()>] = &[];
    let usage = |what: String| Failure::usage("changelog_clear", what);
    let [mdt, label, end] = &getopt::parse(NONE, words).map_err(usage)?.operands[..] else {
        return Err(usage("error: give an MDT, a user and a record".to_owned()));
    };
    let id = ChangeUser::parse_label(label);
    let id = id.ok_or_else(|| Failure::new(libc::ENOENT, format!("no changelog user: {label}")))?;
    let (end, (fs, host)) = (number(end)?, target(mdt)?);
    Ok(block_on(async { admin(&host).await?.clear_changelog(&fs, id, end).await })?)
}

async fn find(admin: &Admin, fs: &FsName, id: u32) -> FsResult<ChangeUser> {
    let users = admin.changelog(fs).await?.users;
    users.into_iter().find(|user| user.id == id).ok_or_else(|| {
        let what = format!("no changelog user: cl{id}");
        sateen_types::FsError::new(sateen_types::FsCode::NotFound, what)
            .with_hint(format!("see those there are with: sateen changelog users {fs}"))
    })
}

fn number(text: &str) -> Result<u64, Failure> {
    text.parse().map_err(|_| Failure::new(libc::EINVAL, format!("error: {text} is not the number of a record")))
}

/// File system and MDS of `scratch-MDT0000`, or of the name of a file system alone. Where the environment names no MDS, one that is
/// mounted tells its own.
fn target(mdt: &str) -> Result<(FsName, String), Failure> {
    let name = mdt.rsplit_once("-MDT").map_or(mdt, |(name, _)| name);
    let fs: FsName = name.parse()?;
    let said = Mds::from_environment();
    let mounted = if said.host.is_some() { None } else { place::all()?.into_iter().find(|p| p.source.fs == fs) };
    let host = mounted.map_or_else(|| said.address(), |place| place.mds());
    Ok((fs, host))
}

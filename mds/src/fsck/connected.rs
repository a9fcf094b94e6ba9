//! Whether a way leads from the root to a directory. Every directory has one name, so going up ends at the root, at one
//! without a name (told as such), or never: then it is a ring, which is cut at its smallest FID.

use std::collections::HashSet;

use sateen_types::{Fid, FindingKind, FsResult, Name};

use super::draft::Draft;
use super::links::{names_of, put_aside};
use super::rows::Stored;
use super::{Broken, Facts, Remedy};
use crate::namespace::tree;
use crate::store::records::Dentry;
use crate::store::{ReadTxn, Table, keys};

/// Directories remembered as connected: about 32 MiB. Going up is short where a parent is remembered, and parents are
/// mostly older than what is in them.
const KNOWN_MAX: usize = 1 << 20;

/// What is known so far.
#[derive(Default)]
pub struct Connected {
    known: HashSet<Fid>,
}

impl Connected {
    /// Whether `dir` is where a ring has to be cut.
    pub fn cuts_ring(&mut self, tx: &dyn ReadTxn, dir: Fid) -> FsResult<bool> {
        let up = climb(tx, dir, &self.known)?;
        if up == Top::Root {
            if self.known.len() >= KNOWN_MAX {
                self.known.clear();
            }
            self.known.insert(dir);
        }
        Ok(up == Top::Ring(dir))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Top {
    Root,
    /// A directory without a name.
    Island,
    /// A ring, with the smallest FID of it.
    Ring(Fid),
}

fn parent(tx: &dyn ReadTxn, dir: Fid) -> FsResult<Option<Fid>> {
    Ok(names_of(tx, dir, 1)?.1.map(|(parent, _)| parent))
}

/// Goes up from `dir`. A ring is noticed when the one ahead, which goes on, meets the one that waits (Brent).
fn climb(tx: &dyn ReadTxn, dir: Fid, known: &HashSet<Fid>) -> FsResult<Top> {
    let (mut waits, mut ahead) = (dir, dir);
    let (mut steps, mut patience) = (0u64, 1u64);
    loop {
        if ahead == Fid::ROOT || known.contains(&ahead) {
            return Ok(Top::Root);
        }
        let Some(up) = parent(tx, ahead)? else { return Ok(Top::Island) };
        ahead = up;
        if ahead == waits {
            break;
        }
        steps += 1;
        if steps == patience {
            (waits, steps, patience) = (ahead, 0, patience * 2);
        }
    }
    let mut smallest = ahead;
    let mut at = ahead;
    while let Some(up) = parent(tx, at)?
        && up != ahead
    {
        at = up;
        smallest = smallest.min(at);
    }
    Ok(Top::Ring(smallest))
}

/// The ring that has to be cut at `dir`, if there is one.
pub fn look(tx: &dyn ReadTxn, facts: &Facts, dir: Fid) -> FsResult<Option<Broken>> {
    if climb(tx, dir, &HashSet::new())? != Top::Ring(dir) {
        return Ok(None);
    }
    let (_, Some((parent, name))) = names_of(tx, dir, 1)? else { return Ok(None) };
    let what = format!("is below itself, as {name:?} in {parent}; it belongs into /lost+found");
    let mut draft = Draft::new(tx);
    if remove(&mut draft, facts, parent, &name).is_err() {
        // What it is in does not decode, or does not count it.
        return Ok(facts.broken(FindingKind::Unreachable, what, Remedy::LostAndFound).file(dir));
    }
    put_aside(draft, facts, dir, what)
}

fn remove(draft: &mut Draft<'_>, facts: &Facts, parent: Fid, name: &Name) -> FsResult<()> {
    if let Some(entry) = Stored::<Dentry>::read(draft.tx(), Table::Dentries, &keys::dentry(parent, name))?.good() {
        tree::remove_name(draft.tx(), (parent, name), &entry, facts.now)?;
    }
    Ok(())
}

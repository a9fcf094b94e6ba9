//! What is under keys of a bucket now, as somebody has seen it: one change for a message.

use sateen_types::repository::{EventsDone, ImportedObject, RepositoryState};
use sateen_types::{FsCode, FsError, FsResult, RepositoryId};

use super::gone::Went;
use super::import::{Import, Imported, Looked};
use super::links;
use crate::command::Inputs;
use crate::namespace::tree;
use crate::store::Txn;

/// Applies what was seen, as far as the policy of the link says. `EventsDone::stamp` is the caller's to fill in.
pub fn events(
    tx: &mut dyn Txn,
    id: RepositoryId,
    (objects, gone): (&[ImportedObject], &[Vec<u8>]),
    looked: Looked,
    inputs: &Inputs,
) -> FsResult<EventsDone> {
    let mut record = links::get(tx, id)?;
    if record.state == RepositoryState::Deleting {
        return Err(FsError::new(FsCode::Stale, format!("repository {id} is being deleted")));
    }
    let mut done = EventsDone::default();
    let policy = record.settings.auto_import;
    tree::directory(tx, record.root)?;
    if !objects.is_empty() {
        links::refuse_when_full(inputs)?;
    }
    let mut import = Import::new(tx, (id, &record), policy, looked, inputs);
    // First what goes: its names may be another kind of thing's now.
    for key in gone {
        match import.gone(key)? {
            Went::Gone => done.deleted += 1,
            Went::Stays => {}
            Went::Later => done.later.push(key.clone()),
        }
    }
    for object in objects {
        let imported = import.object(object)?;
        done.created += std::mem::take(&mut import.made);
        match imported {
            Imported::Made { .. } => done.created += 1,
            Imported::Changed { .. } => done.changed += 1,
            // What is skipped is listed by the next comparison.
            Imported::Same | Imported::Skipped(..) => {}
            Imported::Later | Imported::Open => done.later.push(object.key.clone()),
        }
    }
    let next_fid = import.finish()?;
    if next_fid != record.next_fid {
        record.next_fid = next_fid;
        links::put(tx, id, &record);
    }
    Ok(done)
}

//! `/lost+found`: where what no path leads to gets a name again. Made when it is needed, for root alone.

use sateen_types::{Fid, FileType, FsCode, FsResult, Name};

use super::draft::Draft;
use super::rows::Stored;
use super::{Facts, Job, LOOKS_MAX, directory};
use crate::command::{Command, Outcome};
use crate::namespace::tree;
use crate::store::records::{Dentry, Inode};
use crate::store::{Table, keys};

const NAME: &[u8] = b"lost+found";

/// The directory; `None` if the name is taken by something else, or the root itself is damaged.
pub fn find_or_make(job: &Job<'_>, mender: &dyn Fn(Command) -> FsResult<Outcome>) -> FsResult<Option<Fid>> {
    let name = Name::parse(NAME)?;
    let mut fid = None;
    for _ in 0..LOOKS_MAX {
        let view = job.store.snapshot();
        match Stored::<Dentry>::read(&*view, Table::Dentries, &keys::dentry(Fid::ROOT, &name))? {
            Stored::Good(entry) => {
                let inode = Stored::<Inode>::read(&*view, Table::Inodes, &keys::fid(entry.fid))?.good();
                return Ok(inode.filter(Inode::is_dir).map(|_| entry.fid));
            }
            Stored::Bad => return Ok(None),
            Stored::Missing => {}
        }
        if !Stored::<Inode>::read(&*view, Table::Inodes, &keys::fid(Fid::ROOT))?.good().is_some_and(|i| i.is_dir()) {
            return Ok(None);
        }
        let Some(fid) = fid else {
            drop(view);
            // A sequence of its own: those of the writer are in its memory.
            let Outcome::Sequence(seq) = mender(Command::AllocSequence)? else { return Ok(None) };
            fid = Some(Fid { seq, oid: 1, ver: 0 });
            continue;
        };
        let facts = Facts { fs: job.fs, now: (job.now)(), lost_and_found: None };
        let mut draft = Draft::new(&*view);
        tree::add_inode(draft.tx(), fid, &directory::new(&facts))?;
        tree::insert_name(draft.tx(), (Fid::ROOT, &name), (fid, FileType::Directory), None, facts.now)?;
        let mend = draft.finish()?;
        drop(view);
        match mender(Command::Mend(mend)) {
            Ok(_) => return Ok(Some(fid)),
            Err(e) if e.code == FsCode::Busy => {}
            Err(e) => return Err(e),
        }
    }
    Ok(None)
}

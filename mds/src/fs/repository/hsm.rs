//! What Lustre's commands tell of a file and ask for it (`lfs hsm_*`).

use std::sync::Arc;
use std::time::Instant;

use sateen_types::repository::{HsmAction, HsmOperation, HsmState};
use sateen_types::{Credential, Fid, FsCode, FsError, FsResult, HsmFlags, RepositoryId, SessionId};

use super::load::{missing, unlinked};
use crate::fs::FileSystem;
use crate::namespace::repository::export::{self, ExportChange};
use crate::namespace::repository::{self, Change, rules};
use crate::namespace::{self, Access};
use crate::store::ReadTxn;
use crate::store::records::{HsmRecord, LoadRecord};

/// What the tables say of a file.
struct Known {
    row: Option<HsmRecord>,
    load: Option<LoadRecord>,
    rules: HsmFlags,
    /// Its link is there.
    linked: bool,
    /// It waits for export.
    waits: bool,
    /// The object of its name waits to be deleted.
    goes: bool,
    /// Where its object is or would be.
    place: Option<(RepositoryId, Vec<u8>)>,
}

impl Known {
    fn of(tx: &dyn ReadTxn, fid: Fid) -> FsResult<Known> {
        namespace::get_attr(tx, fid)?;
        let (row, place) = (repository::hsm(tx, fid)?, export::place_of(tx, fid)?);
        let linked = match row.as_ref().map(|row| repository::get(tx, row.repository)) {
            None | Some(Ok(_)) => true,
            Some(Err(e)) if e.code == FsCode::NotFound => false,
            Some(Err(e)) => return Err(e),
        };
        let goes = match &place {
            Some((id, key)) if row.is_none() => export::is_to_be_deleted(tx, *id, key)?,
            _ => false,
        };
        let (load, rules) = (repository::loads(tx, fid)?, rules::of(tx, fid)?);
        Ok(Known { row, load, rules, linked, waits: export::waiting(tx, fid)?.is_some(), goes, place })
    }
}

impl FileSystem {
    /// What Lustre's commands tell of a file.
    pub async fn hsm_state(&self, session: SessionId, fid: Fid) -> FsResult<HsmState> {
        self.touch(session)?;
        let known = self.ask(move |tx| Known::of(tx, fid)).await?;
        if known.row.is_none() && known.place.is_none() && known.rules == HsmFlags::default() {
            return Err(FsError::new(FsCode::NoData, format!("{fid} has nothing to do with a data repository")));
        }
        let table = self.shared.repositories.lock();
        let restoring = known.load.as_ref().is_some_and(|load| load.restore || table.is_loading(fid));
        let (action, running) = match &known.place {
            _ if restoring => (HsmAction::Restore, table.is_out(fid)),
            _ if known.waits => (HsmAction::Archive, table.exports.is_stored(fid)),
            Some((id, key)) if known.goes => (HsmAction::Remove, table.exports.is_busy(*id, key)),
            _ => (HsmAction::None, false),
        };
        drop(table);
        Ok(match known.row {
            Some(row) => HsmState {
                flags: row.flags | known.rules,
                action,
                running,
                repository: known.linked.then_some(row.repository),
                loaded_bytes: known.load.map_or(row.size, |load| load.remote.loaded_bytes()),
                remote_bytes: row.size,
                key: row.key,
            },
            None => {
                let (id, key) = known.place.map_or((None, Vec::new()), |(id, key)| (Some(id), key));
                let (loaded_bytes, remote_bytes) = (0, 0);
                HsmState { flags: known.rules, action, running, repository: id, key, loaded_bytes, remote_bytes }
            }
        })
    }

    /// Does, or notes to be done, what is asked for a file.
    pub async fn hsm_request(
        self: &Arc<Self>,
        session: SessionId,
        who: Credential,
        fid: Fid,
        operation: HsmOperation,
    ) -> FsResult<()> {
        self.touch(session)?;
        match operation {
            HsmOperation::Archive => self.archive(fid, who).await,
            HsmOperation::Remove => {
                self.change(Change::Export(ExportChange::Remove { fid, who })).await?;
                Ok(())
            }
            HsmOperation::Cancel => {
                self.change(Change::Cancel { fid, who }).await?;
                self.shared.repositories.lock().cancel_restore(fid);
                Ok(())
            }
            HsmOperation::Flags { set, clear } => {
                self.change(Change::Flags { fid, who, set, clear }).await?;
                Ok(())
            }
            HsmOperation::Release => {
                self.change(Change::Release { fid, who }).await?;
                self.shared.repositories.lock().forget(fid);
                Ok(())
            }
            HsmOperation::Restore => {
                let may_read =
                    move |tx: &dyn ReadTxn| namespace::access(&namespace::inode(tx, fid)?, &who, Access::READ);
                self.ask(may_read).await?;
                let table = || self.shared.repositories.lock();
                let Some(missing) = self.ask(move |tx| missing(tx, fid)).await? else {
                    return self.change(Change::Restore { fid }).await.map(drop);
                };
                if !missing.linked {
                    return Err(unlinked(fid, missing.repository));
                }
                // What there is no place for is not promised: nobody would do it before a restart.
                table().restore(fid, missing.repository, &missing.remote, Instant::now())?;
                if let Err(e) = self.change(Change::Restore { fid }).await {
                    table().cancel_restore(fid);
                    return Err(e);
                }
                self.shared.repositories.tell();
                Ok(())
            }
        }
    }
}

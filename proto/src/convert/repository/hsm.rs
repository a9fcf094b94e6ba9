//! What is known of a file and its object, and what can be asked for it.

use sateen_types::repository::{HsmAction, HsmFlags, HsmOperation, HsmState, RepositoryId};
use sateen_types::{Credential, Fid, FsError, FsResult};

use super::key;
use crate::convert::{bad, known};
use crate::mds;

impl From<&HsmState> for mds::HsmStateReply {
    fn from(s: &HsmState) -> mds::HsmStateReply {
        mds::HsmStateReply {
            flags: s.flags.0,
            action: s.action.wire(),
            repository: s.repository.map_or(0, |id| id.0),
            key: s.key.clone(),
            loaded_bytes: s.loaded_bytes,
            remote_bytes: s.remote_bytes,
            running: s.running,
        }
    }
}

impl TryFrom<mds::HsmStateReply> for HsmState {
    type Error = FsError;
    fn try_from(w: mds::HsmStateReply) -> FsResult<HsmState> {
        let action = HsmAction::from_wire(w.action);
        Ok(HsmState {
            flags: HsmFlags(w.flags),
            action: action.ok_or_else(|| bad("action", format_args!("{} is no action", w.action)))?,
            running: w.running,
            repository: (w.repository != 0).then_some(RepositoryId(w.repository)),
            key: key(w.key, "key")?,
            loaded_bytes: w.loaded_bytes,
            remote_bytes: w.remote_bytes,
        })
    }
}

/// A request of a client for a file.
pub fn hsm_request_to_wire(
    session_id: Vec<u8>,
    cred: &Credential,
    fid: Fid,
    operation: HsmOperation,
) -> mds::HsmRequestRequest {
    let (mut set, mut clear) = (0, 0);
    let wire = match operation {
        HsmOperation::Restore => mds::HsmOperation::Restore,
        HsmOperation::Release => mds::HsmOperation::Release,
        HsmOperation::Archive => mds::HsmOperation::Archive,
        HsmOperation::Remove => mds::HsmOperation::Remove,
        HsmOperation::Cancel => mds::HsmOperation::Cancel,
        HsmOperation::Flags { set: s, clear: c } => {
            (set, clear) = (s.0, c.0);
            mds::HsmOperation::Flags
        }
    };
    let (credential, fid, operation) = (Some(cred.into()), Some(fid.into()), wire.into());
    mds::HsmRequestRequest { session_id, credential, fid, operation, set, clear }
}

/// What a request asks for, which must be something.
pub fn hsm_operation(request: &mds::HsmRequestRequest) -> FsResult<HsmOperation> {
    let (set, clear) = (HsmFlags(request.set), HsmFlags(request.clear));
    let operation = match known(request.operation, "operation")? {
        mds::HsmOperation::Restore => HsmOperation::Restore,
        mds::HsmOperation::Release => HsmOperation::Release,
        mds::HsmOperation::Archive => HsmOperation::Archive,
        mds::HsmOperation::Remove => HsmOperation::Remove,
        mds::HsmOperation::Cancel => HsmOperation::Cancel,
        mds::HsmOperation::Flags => HsmOperation::Flags { set, clear },
        mds::HsmOperation::Unspecified => return Err(bad("operation", "missing")),
    };
    let all = set | clear;
    let is_of_flags = matches!(operation, HsmOperation::Flags { .. });
    if is_of_flags && all == HsmFlags(0) {
        return Err(bad("set", "no flag is named"));
    }
    if !is_of_flags && all != HsmFlags(0) {
        return Err(bad("set", format_args!("{all} goes with FLAGS only")));
    }
    if all.only(HsmFlags::NAMED) != all {
        return Err(bad("set", format_args!("{all}: only {} can be named", HsmFlags::NAMED)));
    }
    if set.only(clear) != HsmFlags(0) {
        return Err(bad("clear", format_args!("{} is to be set as well", set.only(clear))));
    }
    Ok(operation)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn again(operation: HsmOperation) -> FsResult<HsmOperation> {
        hsm_operation(&hsm_request_to_wire(vec![0; 16], &Credential::ROOT, Fid::ROOT, operation))
    }

    #[test]
    fn what_is_asked_for_a_file_comes_over_the_wire() {
        let flags = HsmOperation::Flags { set: HsmFlags::NO_RELEASE | HsmFlags::DIRTY, clear: HsmFlags::NO_ARCHIVE };
        let all = [HsmOperation::Restore, HsmOperation::Release, HsmOperation::Archive, HsmOperation::Remove];
        for operation in all.into_iter().chain([HsmOperation::Cancel, flags]) {
            assert_eq!(again(operation), Ok(operation));
        }
    }

    #[test]
    fn flags_that_nobody_can_name_are_refused() {
        let none = HsmFlags(0);
        for (set, clear) in [
            (none, none),
            (HsmFlags::RELEASED, none),
            (none, HsmFlags(0x80)),
            (HsmFlags::DIRTY, HsmFlags::DIRTY | HsmFlags::LOST),
        ] {
            again(HsmOperation::Flags { set, clear }).expect_err("no flags");
        }
        let mut restore = hsm_request_to_wire(vec![0; 16], &Credential::ROOT, Fid::ROOT, HsmOperation::Restore);
        restore.set = HsmFlags::DIRTY.0;
        hsm_operation(&restore).expect_err("it has no flags");
    }

    #[test]
    fn the_state_of_a_file_comes_over_the_wire() {
        let state = HsmState {
            flags: HsmFlags::EXISTS | HsmFlags::NO_RELEASE,
            action: HsmAction::Archive,
            running: true,
            repository: Some(RepositoryId(3)),
            key: b"a/b".to_vec(),
            loaded_bytes: 5,
            remote_bytes: 7,
        };
        assert_eq!(HsmState::try_from(mds::HsmStateReply::from(&state)), Ok(state));
    }
}

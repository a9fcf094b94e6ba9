//! Wire messages <-> domain values. Every rule about what a peer may send is enforced here, once: behind a successful
//! conversion nothing asks again. Errors name the field and the value.

mod attr;
mod bulk;
mod capability;
mod changelog;
mod fsck;
mod layout;
mod lock;
mod op;
mod repository;

pub use attr::{credential, file_type, mode};
pub use bulk::{chunk_log2, ended_writers, parts_from_wire, parts_to_wire, range};
pub use capability::{capability, grant, unreported, use_from_wire, use_to_wire, using};
pub use changelog::{changelog_name, changelog_page, wanted_mask};
pub use lock::{LockOp, lock_class, lock_mode, lock_range};
pub use repository::{
    conflict_key, conflict_policy, conflicts_page, cut, events_page, events_to_wire, filled, hold, hsm_operation,
    hsm_request_to_wire, import_page, import_to_wire, known_answer, known_of, known_question, known_to_wire,
    loaded_range, loaded_range_to_wire, ost_verifiers, ost_verifiers_to_wire, remote, resolution, take_bounds,
};

use sateen_types::{ClusterId, Fid, FsCode, FsError, FsId, FsResult, OstIndex, OstUuid, SessionId, Space, Verifier};

use crate::{common, mds, oss};

/// A value that breaks a rule: names the field.
pub fn bad(field: &str, what: impl std::fmt::Display) -> FsError {
    FsError::new(FsCode::Invalid, format!("{field}: {what}"))
}

/// A message field that must be there.
pub fn required<T>(value: Option<T>, field: &str) -> FsResult<T> {
    value.ok_or_else(|| bad(field, "missing"))
}

/// An enumeration: a number this version knows that is not the unspecified 0.
fn known<E: TryFrom<i32>>(number: i32, field: &str) -> FsResult<E> {
    match E::try_from(number) {
        Ok(value) if number != 0 => Ok(value),
        _ => Err(bad(field, format_args!("{number} is not a value of this enumeration"))),
    }
}

fn id16(bytes: &[u8], field: &str) -> FsResult<[u8; 16]> {
    bytes.try_into().map_err(|_| bad(field, format_args!("has {} bytes, not 16", bytes.len())))
}

/// `session_id` of a request.
pub fn session_id(bytes: &[u8]) -> FsResult<SessionId> {
    id16(bytes, "session_id").map(SessionId)
}

/// `cluster_id` of a message.
pub fn cluster_id(bytes: &[u8]) -> FsResult<ClusterId> {
    id16(bytes, "cluster_id").map(ClusterId)
}

/// `ost_uuid` of a message.
pub fn ost_uuid(bytes: &[u8]) -> FsResult<OstUuid> {
    id16(bytes, "ost_uuid").map(OstUuid)
}

/// `verifier` of a reply.
pub fn verifier(bytes: &[u8]) -> FsResult<Verifier> {
    id16(bytes, "verifier").map(Verifier)
}

/// An OST number.
pub fn ost_index(n: u32) -> FsResult<OstIndex> {
    u16::try_from(n).map(OstIndex).map_err(|_| bad("ost", format_args!("{n} is not an OST index")))
}

/// A file system number.
pub fn fs_id(n: u32) -> FsResult<FsId> {
    if n == 0 { Err(bad("fs_id", "0 is no file system")) } else { Ok(FsId(n)) }
}

impl From<Fid> for common::Fid {
    fn from(f: Fid) -> common::Fid {
        common::Fid { seq: f.seq, oid: f.oid, ver: f.ver }
    }
}

impl TryFrom<common::Fid> for Fid {
    type Error = FsError;
    fn try_from(w: common::Fid) -> FsResult<Fid> {
        let fid = Fid { seq: w.seq, oid: w.oid, ver: w.ver };
        if fid.is_valid() { Ok(fid) } else { Err(bad("fid", format_args!("{fid} is outside the range of files"))) }
    }
}

/// A FID that must be there.
pub fn fid(value: Option<common::Fid>, field: &str) -> FsResult<Fid> {
    required(value, field)?.try_into()
}

impl From<Space> for mds::Space {
    fn from(s: Space) -> mds::Space {
        mds::Space { total: s.total, used: s.used, available: s.available, objects: s.objects }
    }
}

impl From<mds::Space> for Space {
    fn from(w: mds::Space) -> Space {
        Space { total: w.total, used: w.used, available: w.available, objects: w.objects }
    }
}

impl From<Space> for oss::StatFsReply {
    fn from(s: Space) -> oss::StatFsReply {
        oss::StatFsReply { total: s.total, used: s.used, available: s.available, objects: s.objects }
    }
}

impl From<oss::StatFsReply> for Space {
    fn from(w: oss::StatFsReply) -> Space {
        Space { total: w.total, used: w.used, available: w.available, objects: w.objects }
    }
}

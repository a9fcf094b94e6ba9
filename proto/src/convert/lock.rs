//! Locks, and what may be asked about them.

use sateen_types::{FsError, FsResult, Lock, LockClass, LockMode, LockRange, OwnedLock};

use super::{bad, known, required};
use crate::mds::{self, change_lock_request::Op};

/// What [`Op`] asks, checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockOp {
    /// Take a lock; wait in the queue for it if it conflicts and `wait` is set.
    Set {
        /// Which.
        lock: Lock,
        /// Queue.
        wait: bool,
    },
    /// Give up a range.
    Unlock {
        /// By which call.
        class: LockClass,
        /// What.
        range: LockRange,
    },
    /// Leave the queue.
    Cancel {
        /// Whose place it is.
        ticket: u64,
    },
    /// Give up everything the owner holds of the file.
    Release,
}

/// A class that must be there.
pub fn lock_class(number: i32) -> FsResult<LockClass> {
    Ok(match known(number, "class")? {
        mds::LockClass::Posix => LockClass::Posix,
        mds::LockClass::Ofd => LockClass::Ofd,
        mds::LockClass::Flock => LockClass::Flock,
        mds::LockClass::Append => LockClass::Append,
        mds::LockClass::Unspecified => return Err(bad("class", "missing")),
    })
}

/// A mode that must be there.
pub fn lock_mode(number: i32) -> FsResult<LockMode> {
    Ok(match known(number, "mode")? {
        mds::LockMode::Shared => LockMode::Shared,
        mds::LockMode::Exclusive => LockMode::Exclusive,
        mds::LockMode::Unspecified => return Err(bad("mode", "missing")),
    })
}

/// A range that a lock of this class may have.
pub fn lock_range(class: LockClass, start: u64, end: u64) -> FsResult<LockRange> {
    let range = LockRange::new(start, end)?;
    if matches!(class, LockClass::Flock | LockClass::Append) && range != LockRange::WHOLE {
        return Err(bad("range", format_args!("{start} to {end}, but a lock of this class covers the whole file")));
    }
    Ok(range)
}

impl From<LockClass> for mds::LockClass {
    fn from(class: LockClass) -> mds::LockClass {
        match class {
            LockClass::Posix => mds::LockClass::Posix,
            LockClass::Ofd => mds::LockClass::Ofd,
            LockClass::Flock => mds::LockClass::Flock,
            LockClass::Append => mds::LockClass::Append,
        }
    }
}

impl From<LockMode> for mds::LockMode {
    fn from(mode: LockMode) -> mds::LockMode {
        match mode {
            LockMode::Shared => mds::LockMode::Shared,
            LockMode::Exclusive => mds::LockMode::Exclusive,
        }
    }
}

impl From<&Lock> for mds::Lock {
    fn from(lock: &Lock) -> mds::Lock {
        mds::Lock {
            class: mds::LockClass::from(lock.class).into(),
            mode: mds::LockMode::from(lock.mode).into(),
            start: lock.range.start(),
            end: lock.range.end(),
            pid: lock.pid,
        }
    }
}

impl TryFrom<mds::Lock> for Lock {
    type Error = FsError;
    fn try_from(w: mds::Lock) -> FsResult<Lock> {
        let class = lock_class(w.class)?;
        Ok(Lock { class, mode: lock_mode(w.mode)?, range: lock_range(class, w.start, w.end)?, pid: w.pid })
    }
}

impl TryFrom<mds::RestatedLock> for (sateen_types::Fid, OwnedLock) {
    type Error = FsError;
    fn try_from(w: mds::RestatedLock) -> FsResult<(sateen_types::Fid, OwnedLock)> {
        let lock = required(w.lock, "lock")?.try_into()?;
        Ok((super::fid(w.fid, "fid")?, OwnedLock { owner: w.owner, lock }))
    }
}

impl From<&(sateen_types::Fid, OwnedLock)> for mds::RestatedLock {
    fn from((fid, owned): &(sateen_types::Fid, OwnedLock)) -> mds::RestatedLock {
        mds::RestatedLock { fid: Some((*fid).into()), owner: owned.owner, lock: Some((&owned.lock).into()) }
    }
}

impl From<LockOp> for Op {
    fn from(op: LockOp) -> Op {
        match op {
            LockOp::Set { lock, wait } => Op::Set(mds::SetLock { lock: Some((&lock).into()), wait }),
            LockOp::Unlock { class, range } => Op::Unlock(mds::Unlock {
                class: mds::LockClass::from(class).into(),
                start: range.start(),
                end: range.end(),
            }),
            LockOp::Cancel { ticket } => Op::Cancel(mds::CancelLock { ticket }),
            LockOp::Release => Op::Release(mds::ReleaseOwner {}),
        }
    }
}

impl TryFrom<Op> for LockOp {
    type Error = FsError;
    fn try_from(op: Op) -> FsResult<LockOp> {
        Ok(match op {
            Op::Set(s) => LockOp::Set { lock: required(s.lock, "lock")?.try_into()?, wait: s.wait },
            Op::Unlock(u) => {
                let class = lock_class(u.class)?;
                LockOp::Unlock { class, range: lock_range(class, u.start, u.end)? }
            }
            Op::Cancel(c) => LockOp::Cancel { ticket: c.ticket },
            Op::Release(_) => LockOp::Release,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sateen_types::{Fid, FsCode};

    #[test]
    fn every_request_survives_the_wire() {
        let range = LockRange::new(3, 9).expect("in order");
        let lock = Lock { class: LockClass::Ofd, mode: LockMode::Exclusive, range, pid: 7 };
        for op in [
            LockOp::Set { lock, wait: true },
            LockOp::Unlock { class: LockClass::Flock, range: LockRange::WHOLE },
            LockOp::Cancel { ticket: u64::MAX },
            LockOp::Release,
        ] {
            assert_eq!(LockOp::try_from(Op::from(op)), Ok(op));
        }
        let restated = (Fid::ROOT, OwnedLock { owner: u64::MAX, lock });
        assert_eq!(<(Fid, OwnedLock)>::try_from(mds::RestatedLock::from(&restated)), Ok(restated));
    }

    #[test]
    fn what_is_no_lock_is_refused() {
        let good = mds::Lock { class: 1, mode: 1, start: 0, end: 5, pid: 0 };
        for bad in [
            mds::Lock { class: 0, ..good },
            mds::Lock { class: 9, ..good },
            mds::Lock { mode: 0, ..good },
            mds::Lock { start: 6, ..good },
            mds::Lock { end: 1 << 63, ..good },
            mds::Lock { class: mds::LockClass::Flock.into(), ..good },
        ] {
            assert_eq!(Lock::try_from(bad).expect_err("refused").code, FsCode::Invalid, "{bad:?}");
        }
        assert!(LockOp::try_from(Op::Set(mds::SetLock { lock: None, wait: true })).is_err());
    }

    #[test]
    fn all_locks_of_a_session_fit_into_one_message() {
        use prost::Message;
        use sateen_types::limits::{MESSAGE_BYTES_MAX, SESSION_LOCKS_MAX};
        let fid = Fid { seq: (1 << 35) - 1, oid: Fid::SEQ_WIDTH, ver: 0 };
        let range = LockRange::new(sateen_types::lock::LOCK_OFFSET_MAX, sateen_types::lock::LOCK_OFFSET_MAX);
        let range = range.expect("one byte");
        let lock = Lock { class: LockClass::Ofd, mode: LockMode::Exclusive, range, pid: u32::MAX };
        let one = mds::RestateLocksRequest {
            session_id: Vec::new(),
            locks: vec![(&(fid, OwnedLock { owner: u64::MAX, lock })).into()],
        };
        assert!(one.encoded_len() * SESSION_LOCKS_MAX + 100 < MESSAGE_BYTES_MAX, "{}", one.encoded_len());
    }
}

//! Requests that are sent again, or arrive late: each takes effect once. As with changes of names, a session has slots with
//! rising numbers; but the answers are kept in memory only, for the locks are as well.

use std::collections::HashMap;

use sateen_types::{FsCode, FsError, FsResult, SessionId};

use super::{LockTable, Outcome};

/// A request's place: its slot, and its number there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Number {
    /// Below [`sateen_types::limits::LOCK_SLOTS_MAX`].
    pub slot: u32,
    /// From 1, rising.
    pub number: u64,
}

/// The last answer of each slot.
pub(super) type Replies = HashMap<u32, (u64, FsResult<Outcome>)>;

impl LockTable {
    /// Runs `change` if the request is new; otherwise gives the answer it had.
    pub fn once(
        &mut self,
        session: SessionId,
        at: Number,
        change: impl FnOnce(&mut LockTable) -> FsResult<Outcome>,
    ) -> FsResult<Outcome> {
        match self.sessions.entry(session).or_default().replies.get(&at.slot) {
            Some((number, reply)) if *number == at.number => return reply.clone(),
            Some((number, _)) if *number > at.number => {
                let what = format!("request {} of slot {} came after request {number}", at.number, at.slot);
                return Err(FsError::new(FsCode::Stale, what));
            }
            _ => {}
        }
        let reply = change(self);
        self.sessions.entry(session).or_default().replies.insert(at.slot, (at.number, reply.clone()));
        reply
    }
}

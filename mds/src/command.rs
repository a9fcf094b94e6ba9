//! Everything that can change a file system, as values.
//!
//! [`crate::namespace::apply`] is a function of the tables, a [`Command`] and its [`Inputs`]: time, fresh identifiers and
//! what only memory knows are in the inputs, so the same commands on the same tables give the same tables everywhere.

use std::collections::BTreeSet;
use std::sync::Arc;

use sateen_types::op::{Mutation, MutationReply};
use sateen_types::{Credential, Fid, LayoutTemplate, SessionId, Timestamp};

use crate::namespace::repository::export::Exporting;
use crate::namespace::{changelog, repository};
use crate::placement::Candidate;
use crate::store::Table;
use crate::store::keys::IntentId;

/// One change.
#[derive(Clone, Debug)]
pub enum Command {
    /// Makes the root directory of an empty file system.
    Format {
        /// Owner of the root.
        uid: u32,
        /// Group of the root.
        gid: u32,
        /// Its permission bits.
        mode: u32,
        /// Layout of files where no directory says otherwise.
        layout: LayoutTemplate,
    },
    /// Takes a FID sequence that was never used.
    AllocSequence,
    /// Begins a session.
    OpenSession {
        /// Random.
        session: SessionId,
        /// What the client calls itself.
        client: String,
        /// Under which number it writes to OSTs; 0: none.
        writer: u64,
    },
    /// Takes a FID sequence for a client that makes inodes in directories it holds.
    LendSequence {
        /// The client's session.
        session: SessionId,
    },
    /// A client gives up directories that it holds.
    Release {
        /// The client's session.
        session: SessionId,
        /// Which; others are left alone.
        dirs: Vec<Fid>,
    },
    /// Ends a session, by its client or because it fell silent, with its reply records.
    CloseSession {
        /// Which.
        session: SessionId,
    },
    /// What a client asks for.
    Mutate(Box<Request>),
    /// Removes a file without a name that nobody has open any more.
    DropOrphan {
        /// Which.
        fid: Fid,
    },
    /// OSTs have durably done what these intents say.
    IntentsDone {
        /// Each with the change of the file's disk space, bytes (truncates only).
        done: Vec<(IntentId, i64)>,
    },
    /// What has to do with data repositories.
    Repository(Box<repository::Change>),
    /// Who follows the changelog.
    Changelog(changelog::Change),
    /// Corrects what a check has found ([`crate::fsck`]).
    Mend(Mend),
}

/// A correction of rows that nothing else would change: all of it, if the rows it follows from are still as they were
/// seen, or nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mend {
    /// Rows as they were seen; `None`: there was none.
    pub expected: Vec<(Table, Vec<u8>, Option<Vec<u8>>)>,
    /// Rows as they shall be.
    pub changes: Vec<(Table, Vec<u8>, Option<Vec<u8>>)>,
    /// Change of the counter of inodes.
    pub inodes: i64,
}

/// A change a client asks for, numbered within its session.
#[derive(Clone, Debug)]
pub struct Request {
    /// The client's session.
    pub session: SessionId,
    /// Slot in the session: one request at a time.
    pub slot: u32,
    /// Rises with every new request of the slot.
    pub number: u64,
    /// Who asks.
    pub credential: Credential,
    /// What.
    pub op: Mutation,
    /// The client wants to hold the directory that this makes.
    pub hold: bool,
    /// Number of the open that a `Create` makes.
    pub open: u64,
    /// It is a change that the client has answered itself, to be made in the order of the client's log.
    pub logged: Option<Logged>,
}

/// What a client decided that has answered a change itself, in a directory it [holds](crate::namespace::held).
#[derive(Clone, Copy, Debug)]
pub struct Logged {
    /// Number of what it made, of the sequence its session was given.
    pub fid: Option<Fid>,
    /// When.
    pub at: Timestamp,
    /// The client knows the fate of all changes before it: those that were not made are left out.
    pub settled: bool,
}

/// What a command needs that is not in the tables.
#[derive(Clone, Debug)]
pub struct Inputs {
    /// The clock.
    pub now: Timestamp,
    /// A FID that was never used, for commands that [want](Command::wants_fid) one.
    pub fid: Option<Fid>,
    /// The file whose last name this removes is open (or may be: see [`crate::clients`]).
    pub victim_open: bool,
    /// Files whose data this replaces and that are open, or that others have open for writing.
    pub open: Vec<Fid>,
    /// Keys of objects that are left alone whatever is told of them: they are being changed from here, or were since.
    pub left: BTreeSet<Vec<u8>>,
    /// OSTs to place stripes on.
    pub osts: Arc<Vec<Candidate>>,
    /// The disk of the tables is nearly full.
    pub disk_low: bool,
    /// Rises by one with every command: where placement starts.
    pub rotor: u64,
    /// A program was told that the change was made.
    pub answered: bool,
    /// The client may hold one more directory.
    pub may_hold: bool,
    /// Which directories lie below links that export, as far as that is remembered.
    pub exporting: Arc<Exporting>,
}

impl Command {
    /// Whether it makes an inode.
    pub fn wants_fid(&self) -> bool {
        let Command::Mutate(request) = self else { return false };
        request.logged.is_none()
            && matches!(
                request.op,
                Mutation::Create(_) | Mutation::Mkdir { .. } | Mutation::Mknod { .. } | Mutation::Symlink { .. }
            )
    }
}

/// What a command came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Done, nothing to tell.
    Done,
    /// The sequence that was taken.
    Sequence(u64),
    /// Nothing happened: a client holds a directory that the change touches.
    Held {
        /// Which.
        dir: Fid,
        /// Only this one may.
        but: SessionId,
    },
    /// The answer to a change that has to do with repositories.
    Repository(repository::Answer),
    /// The answer to a change of who follows.
    Changelog(changelog::Answer),
    /// The answer to a client.
    Reply {
        /// The answer.
        reply: MutationReply,
        /// It is the stored one: nothing happened this time.
        replayed: bool,
    },
}

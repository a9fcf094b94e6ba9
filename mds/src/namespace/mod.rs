//! The core: what each command does to the tables. One file per operation; in each, the order of checks is the
//! specification and follows Linux, because programs depend on which error comes first.
//!
//! Nothing here does I/O, reads a clock or knows about sessions in memory. [`apply`] is deterministic (see
//! [`crate::command`]), and a command that fails leaves changes only in the overlay its caller drops.

mod acl;
pub mod changelog;
pub mod check;
mod create;
pub mod held;
mod intents;
mod layout;
mod link;
mod mend;
mod mkdir;
mod perm;
mod read;
mod read_done;
mod rename;
pub mod repository;
mod room;
mod session;
mod setattr;
pub(crate) mod tree;
mod unlink;
mod write_done;
mod xattr;

pub use intents::has_pending_truncate;
pub use layout::{inherited_template, refuse_unplaceable};
pub use perm::{Access, access};
pub use read::{
    BRIEF_PAGE, Named, PathList, ReadDirPage, default_layout, get_attr, get_attrs, get_layout, get_xattr, inode_count,
    list_xattr, lookup, open, paths_of, read_dir, read_dirs, read_link,
};
pub use session::refuse_forbidden;
pub use tree::{counter, inode};

use sateen_types::op::{Mutation, MutationReply};
use sateen_types::{Credential, Fid, FsResult, SessionId};

use crate::command::{Command, Inputs, Outcome};
use crate::store::{Overlay, ReadTxn, Txn};

/// Applies one command, and notes what goes to repositories. After an error the changes in `tx` are meaningless and must be dropped.
pub fn apply(tx: &mut dyn Txn, command: &Command, inputs: &Inputs) -> FsResult<Outcome> {
    use repository::export;
    if !inputs.exporting.is_active() || !export::follows(command) {
        return apply_only(tx, command, inputs);
    }
    let (outcome, changes) = {
        let before: &dyn ReadTxn = &*tx;
        let mut after = Overlay::new(before);
        let outcome = apply_only(&mut after, command, inputs)?;
        export::note(before, &mut after, command, inputs)?;
        (outcome, after.into_changes())
    };
    changes.replay(tx);
    Ok(outcome)
}

fn apply_only(tx: &mut dyn Txn, command: &Command, inputs: &Inputs) -> FsResult<Outcome> {
    match command {
        Command::Format { uid, gid, mode, layout } => {
            mkdir::format(tx, *uid, *gid, *mode, layout, inputs)?;
            Ok(Outcome::Done)
        }
        Command::AllocSequence => session::alloc_sequence(tx).map(Outcome::Sequence),
        Command::OpenSession { session, client, writer } => {
            session::open(tx, *session, client, *writer, inputs);
            Ok(Outcome::Done)
        }
        Command::LendSequence { session } => held::lend_sequence(tx, *session).map(Outcome::Sequence),
        Command::Release { session, dirs } => {
            held::release(tx, *session, dirs)?;
            Ok(Outcome::Done)
        }
        Command::CloseSession { session } => {
            session::close(tx, *session)?;
            Ok(Outcome::Done)
        }
        Command::Mutate(request) => session::exactly_once(tx, request, inputs),
        Command::DropOrphan { fid } => {
            if !inputs.victim_open {
                unlink::drop_orphan(tx, *fid)?;
            }
            Ok(Outcome::Done)
        }
        Command::IntentsDone { done } => {
            intents::finish(tx, done)?;
            Ok(Outcome::Done)
        }
        Command::Repository(change) => repository::apply(tx, change, inputs),
        Command::Changelog(change) => changelog::apply(tx, change, inputs),
        Command::Mend(correction) => {
            mend::mend(tx, correction)?;
            Ok(Outcome::Done)
        }
    }
}

/// The file whose last name `command` removes, or which it drops: whoever applies it must say whether it is open.
pub fn victim(tx: &dyn ReadTxn, command: &Command) -> FsResult<Option<Fid>> {
    match command {
        Command::DropOrphan { fid } => Ok(Some(*fid)),
        Command::Mutate(request) => match &request.op {
            Mutation::Unlink { parent, name }
            | Mutation::Rename {
                new_parent: parent,
                new_name: name,
                mode: sateen_types::op::RenameMode::Replace,
                ..
            } => unlink::last_name(tx, *parent, name),
            _ => Ok(None),
        },
        _ => Ok(None),
    }
}

/// One client operation, permissions included, and its record for those who follow.
fn mutate(
    tx: &mut dyn Txn,
    session: SessionId,
    who: &Credential,
    op: &Mutation,
    inputs: &Inputs,
) -> FsResult<MutationReply> {
    let before = changelog::before(tx, op)?;
    let reply = make(tx, session, who, op, inputs)?;
    changelog::after(tx, who, op, before, &reply, inputs)?;
    Ok(reply)
}

fn make(
    tx: &mut dyn Txn,
    session: SessionId,
    who: &Credential,
    op: &Mutation,
    inputs: &Inputs,
) -> FsResult<MutationReply> {
    match op {
        Mutation::Create(op) => create::create(tx, who, op, inputs),
        Mutation::Mknod { parent, name, mode, file_type, rdev } => {
            create::mknod(tx, who, (*parent, name), *mode, *file_type, *rdev, inputs)
        }
        Mutation::Symlink { parent, name, target } => create::symlink(tx, who, (*parent, name), target, inputs),
        Mutation::Mkdir { parent, name, mode } => {
            let reply = mkdir::mkdir(tx, who, (*parent, name), *mode, inputs)?;
            held::hold(tx, session, &reply, inputs);
            Ok(reply)
        }
        Mutation::Link { fid, parent, name } => link::link(tx, who, *fid, (*parent, name), inputs),
        Mutation::Unlink { parent, name } => unlink::unlink(tx, who, *parent, name, inputs),
        Mutation::Rmdir { parent, name } => unlink::rmdir(tx, who, *parent, name, inputs),
        Mutation::Rename { parent, name, new_parent, new_name, mode } => {
            rename::rename(tx, who, (*parent, name), (*new_parent, new_name), *mode, inputs)
        }
        Mutation::SetAttr(op) => setattr::setattr(tx, who, op, inputs),
        Mutation::SetXattr { fid, name, value, mode } => xattr::set(tx, who, *fid, name, value, *mode, inputs),
        Mutation::RemoveXattr { fid, name } => xattr::remove(tx, who, *fid, name, inputs),
        Mutation::Instantiate { fid, offset, length } => layout::instantiate(tx, *fid, *offset, *length, inputs),
        Mutation::SetLayout { fid, layout } => layout::set_layout(tx, who, *fid, layout, inputs),
        Mutation::SetDefaultLayout { fid, layout } => layout::set_default(tx, who, *fid, layout.as_ref(), inputs),
        Mutation::WriteDone(op) => write_done::write_done(tx, who, op, inputs),
        Mutation::ReadDone(op) => read_done::read_done(tx, op, inputs),
    }
}

#[cfg(test)]
pub(crate) mod tests;

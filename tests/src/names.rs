//! What one client alone would see of a tree of names: the specification that histories of names are checked against. It says
//! of each answer whether it can be given, with the order of errors that the MDS documents.
//!
//! An inode is known by its FID, which the answer that made it tells. Of a call without an answer nobody knows the FID until
//! somebody sees it: until then the inode is the one that this call made ([`Id::MadeBy`]).

pub mod choose;

use std::collections::{BTreeMap, HashSet};

use sateen_types::op::RenameMode;
use sateen_types::{Fid, FileType, FsCode};

use crate::linear::Spec;

/// A name, of which there are few.
pub type Label = u8;

/// An operation. Directories and files are named by FIDs that the client has seen.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "`at` is a directory and a name in it; `serial` is the call's own number")]
pub enum Op {
    /// Makes a file, or, not exclusive, finds it.
    Create { at: (Fid, Label), exclusive: bool, serial: u32 },
    /// Makes a directory.
    Mkdir { at: (Fid, Label), serial: u32 },
    /// Makes a symbolic link, whose target is its number.
    Symlink { at: (Fid, Label), serial: u32 },
    /// Gives a file another name.
    Link { fid: Fid, at: (Fid, Label) },
    /// Removes a name of a file.
    Unlink { at: (Fid, Label) },
    /// Removes an empty directory.
    Rmdir { at: (Fid, Label) },
    /// Moves a name.
    Rename { from: (Fid, Label), to: (Fid, Label), mode: RenameMode },
    /// Changes the mode.
    Chmod { fid: Fid, mode: u32 },
    /// Attributes of a name.
    Lookup { at: (Fid, Label) },
    /// Attributes of an inode.
    Stat { fid: Fid },
    /// Target of a symbolic link.
    Readlink { fid: Fid },
    /// All names of a directory.
    List { dir: Fid },
    /// The directory that a directory is in.
    Parent { dir: Fid },
}

/// Attributes of an inode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stat<I> {
    /// Which.
    pub id: I,
    /// Its kind.
    pub kind: FileType,
    /// Permissions.
    pub mode: u32,
    /// Names of a file; 2 and the subdirectories of a directory.
    pub links: u32,
}

/// What is seen when an operation succeeds: by clients with FIDs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen<I> {
    /// Nothing but that.
    Done,
    /// Attributes, and whether they are those of something that was found where it was to be made.
    Inode(Stat<I>, bool),
    /// A number, from the target of a link.
    Target(u32),
    /// Which names there are.
    Names(BTreeMap<Label, I>),
    /// Which directory.
    Dir(I),
}

/// What an operation answers.
pub type Answer = Result<Seen<Fid>, FsCode>;

/// An inode of the state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Id {
    /// Its FID is known.
    Fid(Fid),
    /// Made by the call with this number, which had no answer.
    MadeBy(u32),
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Body {
    Dir { parent: Option<Id>, names: BTreeMap<Label, Id> },
    File,
    Symlink(u32),
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Node {
    mode: u32,
    /// Of anything but a directory: its names.
    links: u32,
    body: Body,
}

/// The inodes that have names, and the directory all are in.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct State(BTreeMap<Id, Node>);

/// Permissions of new files, directories and links.
pub const MODES: (u32, u32, u32) = (0o644, 0o755, 0o777);

impl State {
    /// An empty directory, in which everything happens.
    pub fn new(top: Fid) -> State {
        let body = Body::Dir { parent: None, names: BTreeMap::new() };
        State(BTreeMap::from([(Id::Fid(top), Node { mode: MODES.1, links: 0, body })]))
    }

    fn dir(&self, id: Id) -> Result<&BTreeMap<Label, Id>, Refusal> {
        match self.0.get(&id).map(|node| &node.body) {
            None => Err(Refusal::Code(FsCode::NotFound)),
            Some(Body::Dir { names, .. }) => Ok(names),
            Some(_) => Err(Refusal::Code(FsCode::NotDirectory)),
        }
    }

    fn find(&self, at: (Fid, Label)) -> Result<Option<Id>, Refusal> {
        self.dir(Id::Fid(at.0)).map(|names| names.get(&at.1).copied())
    }

    fn existing(&self, at: (Fid, Label)) -> Result<Id, Refusal> {
        self.find(at)?.ok_or(Refusal::Code(FsCode::NotFound))
    }

    fn names_mut(&mut self, dir: Fid) -> &mut BTreeMap<Label, Id> {
        match self.0.get_mut(&Id::Fid(dir)).map(|node| &mut node.body) {
            Some(Body::Dir { names, .. }) => names,
            other => panic!("{dir} was a directory a moment ago, now {other:?}"),
        }
    }

    fn is_dir(&self, id: Id) -> bool {
        matches!(self.0[&id].body, Body::Dir { .. })
    }

    fn is_empty(&self, id: Id) -> bool {
        matches!(&self.0[&id].body, Body::Dir { names, .. } if names.is_empty())
    }

    fn stat(&self, id: Id) -> Stat<Id> {
        let node = &self.0[&id];
        let (kind, links) = match &node.body {
            Body::Dir { names, .. } => {
                (FileType::Directory, 2 + names.values().filter(|id| self.is_dir(**id)).count() as u32)
            }
            Body::File => (FileType::Regular, node.links),
            Body::Symlink(_) => (FileType::Symlink, node.links),
        };
        Stat { id, kind, mode: node.mode, links }
    }

    fn make(&mut self, at: (Fid, Label), serial: u32, (mode, body): (u32, Body)) -> Result<Seen<Id>, Refusal> {
        if self.find(at)?.is_some() {
            return Err(Refusal::Code(FsCode::Exists));
        }
        let id = Id::MadeBy(serial);
        self.0.insert(id, Node { mode, links: 1, body });
        self.names_mut(at.0).insert(at.1, id);
        Ok(Seen::Inode(self.stat(id), false))
    }

    /// One name of an inode has gone.
    fn drop_name(&mut self, id: Id) {
        let node = self.0.get_mut(&id).expect("what has a name is there");
        node.links -= 1;
        if node.links == 0 {
            self.0.remove(&id);
        }
    }

    fn put(&mut self, id: Id, to: (Fid, Label)) {
        self.names_mut(to.0).insert(to.1, id);
        if let Body::Dir { parent, .. } = &mut self.0.get_mut(&id).expect("what has a name is there").body {
            *parent = Some(Id::Fid(to.0));
        }
    }

    /// Whether directory `moved` would come below itself.
    fn is_cycle(&self, moved: Id, into: Fid) -> bool {
        let mut at = Some(Id::Fid(into));
        while let Some(dir) = at {
            if dir == moved {
                return true;
            }
            at = match &self.0[&dir].body {
                Body::Dir { parent, .. } => *parent,
                _ => None,
            };
        }
        false
    }

    fn rename(&mut self, from: (Fid, Label), to: (Fid, Label), mode: RenameMode) -> Result<Seen<Id>, Refusal> {
        let (source, target) = (self.find(from)?, self.find(to)?);
        let source = source.ok_or(Refusal::Code(FsCode::NotFound))?;
        match (mode, target) {
            (RenameMode::NoReplace, Some(_)) => return Err(Refusal::Code(FsCode::Exists)),
            (RenameMode::Exchange, None) => return Err(Refusal::Code(FsCode::NotFound)),
            _ => {}
        }
        let exchanged = target.filter(|_| mode == RenameMode::Exchange);
        if self.is_cycle(source, to.0) || exchanged.is_some_and(|target| self.is_cycle(target, from.0)) {
            return Err(Refusal::Code(FsCode::Invalid));
        }
        if target == Some(source) {
            return Ok(Seen::Done);
        }
        if let Some(target) = exchanged {
            self.put(target, from);
            self.put(source, to);
            return Ok(Seen::Done);
        }
        if let Some(target) = target {
            match (self.is_dir(source), self.is_dir(target)) {
                (true, false) => return Err(Refusal::Code(FsCode::NotDirectory)),
                (false, true) => return Err(Refusal::Code(FsCode::IsDirectory)),
                (true, true) if !self.is_empty(target) => return Err(Refusal::Code(FsCode::NotEmpty)),
                _ => self.drop_name(target),
            }
        }
        self.names_mut(from.0).remove(&from.1);
        self.put(source, to);
        Ok(Seen::Done)
    }

    /// Does it; what is seen.
    fn apply(&mut self, op: &Op) -> Result<Seen<Id>, Refusal> {
        match *op {
            Op::Create { at, exclusive, serial } => match self.find(at)? {
                Some(id) if !exclusive && self.is_dir(id) => Err(Refusal::Code(FsCode::IsDirectory)),
                Some(id) if !exclusive && self.0[&id].body == Body::File => Ok(Seen::Inode(self.stat(id), true)),
                _ => self.make(at, serial, (MODES.0, Body::File)),
            },
            Op::Mkdir { at, serial } => {
                let body = Body::Dir { parent: Some(Id::Fid(at.0)), names: BTreeMap::new() };
                self.make(at, serial, (MODES.1, body))
            }
            Op::Symlink { at, serial } => self.make(at, serial, (MODES.2, Body::Symlink(serial))),
            Op::Link { fid, at } => {
                let id = Id::Fid(fid);
                let taken = self.find(at).map(|found| found.is_some());
                if !self.0.contains_key(&id) {
                    return Err(Refusal::Gone(taken.unwrap_or(false)));
                }
                if taken? {
                    return Err(Refusal::Code(FsCode::Exists));
                }
                if self.is_dir(id) {
                    return Err(Refusal::Code(FsCode::NotPermitted));
                }
                self.0.get_mut(&id).expect("looked at above").links += 1;
                self.put(id, at);
                Ok(Seen::Inode(self.stat(id), false))
            }
            Op::Unlink { at } => {
                let id = self.existing(at)?;
                if self.is_dir(id) {
                    return Err(Refusal::Code(FsCode::IsDirectory));
                }
                self.names_mut(at.0).remove(&at.1);
                self.drop_name(id);
                Ok(Seen::Done)
            }
            Op::Rmdir { at } => {
                let id = self.existing(at)?;
                match (self.is_dir(id), self.is_empty(id)) {
                    (false, _) => Err(Refusal::Code(FsCode::NotDirectory)),
                    (true, false) => Err(Refusal::Code(FsCode::NotEmpty)),
                    (true, true) => {
                        self.names_mut(at.0).remove(&at.1);
                        self.drop_name(id);
                        Ok(Seen::Done)
                    }
                }
            }
            Op::Rename { from, to, mode } => self.rename(from, to, mode),
            Op::Chmod { fid, mode } => {
                self.0.get_mut(&Id::Fid(fid)).ok_or(Refusal::Gone(false))?.mode = mode;
                Ok(Seen::Inode(self.stat(Id::Fid(fid)), false))
            }
            Op::Lookup { at } => Ok(Seen::Inode(self.stat(self.existing(at)?), false)),
            Op::Stat { fid } if self.0.contains_key(&Id::Fid(fid)) => Ok(Seen::Inode(self.stat(Id::Fid(fid)), false)),
            Op::Stat { .. } => Err(Refusal::Gone(false)),
            Op::Readlink { fid } => match self.0.get(&Id::Fid(fid)).map(|node| &node.body) {
                Some(Body::Symlink(number)) => Ok(Seen::Target(*number)),
                Some(_) => Err(Refusal::Code(FsCode::Invalid)),
                None => Err(Refusal::Gone(false)),
            },
            Op::List { dir } => self.dir(Id::Fid(dir)).map(|names| Seen::Names(names.clone())),
            Op::Parent { dir } => match self.0.get(&Id::Fid(dir)).map(|node| &node.body) {
                Some(Body::Dir { parent: Some(parent), .. }) => Ok(Seen::Dir(*parent)),
                _ => Err(Refusal::Code(FsCode::NotFound)),
            },
        }
    }

    /// The same with the FID of an inode known.
    fn with_fid(&self, made_by: Id, fid: Id) -> State {
        let known = |id: &Id| if *id == made_by { fid } else { *id };
        let node = |node: &Node| {
            let mut node = node.clone();
            if let Body::Dir { parent, names } = &mut node.body {
                *parent = parent.as_ref().map(known);
                names.values_mut().for_each(|id| *id = known(id));
            }
            node
        };
        State(self.0.iter().map(|(id, n)| (known(id), node(n))).collect())
    }
}

/// Why an operation fails.
#[derive(Debug, Clone, Copy)]
enum Refusal {
    Code(FsCode),
    /// What is asked about has no name any more. It may still be there, because somebody has it open; and whether the name that
    /// it was to get is taken.
    Gone(bool),
}

impl Refusal {
    fn allows(self, answer: &Answer) -> bool {
        match (self, answer) {
            (Refusal::Code(code), Err(answer)) => code == *answer,
            (Refusal::Gone(taken), Err(FsCode::Exists)) => taken,
            (Refusal::Gone(_), Err(answer)) => matches!(answer, FsCode::Stale | FsCode::NotFound),
            (Refusal::Gone(_), Ok(Seen::Inode(stat, _))) => stat.links == 0 && stat.kind != FileType::Directory,
            // A link that is still open has no use for its target, and keeps it.
            (Refusal::Gone(_), Ok(Seen::Target(_))) => true,
            (_, Ok(_)) => false,
        }
    }
}

/// See the module.
#[derive(Debug, Default)]
pub struct Names {
    /// Every FID that an answer says was made: nobody else can have made it.
    made: HashSet<Fid>,
}

impl Names {
    /// Of a history with these answers.
    pub fn new<'a>(calls: impl Iterator<Item = (&'a Op, &'a Answer)>) -> Names {
        let made = calls.filter_map(|(op, answer)| match (op, answer) {
            (Op::Create { .. } | Op::Mkdir { .. } | Op::Symlink { .. }, Ok(Seen::Inode(stat, false))) => Some(stat.id),
            _ => None,
        });
        Names { made: made.collect() }
    }

    /// The state in which `id` is the inode that was seen as `fid`, if it can be. `own`: by who made it.
    fn same(&self, state: State, id: Id, fid: Fid, own: bool) -> Option<State> {
        match id {
            Id::Fid(known) => (known == fid).then_some(state),
            Id::MadeBy(_) => {
                let free = !state.0.contains_key(&Id::Fid(fid)) && (own || !self.made.contains(&fid));
                free.then(|| state.with_fid(id, Id::Fid(fid)))
            }
        }
    }

    fn fits(&self, state: State, expected: Seen<Id>, seen: &Seen<Fid>, own: bool) -> Option<State> {
        match (expected, seen) {
            (Seen::Done, Seen::Done) => Some(state),
            (Seen::Inode(a, found), Seen::Inode(b, found_too)) => {
                // What was found is opened before it is told of: attributes may be newer than the moment of finding.
                let attributes = found || (a.mode == b.mode && a.links == b.links);
                let alike = found == *found_too && a.kind == b.kind && attributes;
                alike.then(|| self.same(state, a.id, b.id, own && !found))?
            }
            (Seen::Target(a), Seen::Target(b)) => (a == *b).then_some(state),
            (Seen::Dir(a), Seen::Dir(b)) => self.same(state, a, *b, own),
            (Seen::Names(a), Seen::Names(b)) => {
                let mut pairs = a.values().zip(b.values());
                let alike = a.keys().eq(b.keys());
                alike.then(|| pairs.try_fold(state, |state, (a, b)| self.same(state, *a, *b, own)))?
            }
            _ => None,
        }
    }
}

impl Spec for Names {
    type State = State;
    type Op = Op;
    type Answer = Answer;

    fn step(&self, state: &State, op: &Op, answer: Option<&Answer>) -> Option<State> {
        let mut after = state.clone();
        let expected = after.apply(op);
        let own = matches!(op, Op::Create { .. } | Op::Mkdir { .. } | Op::Symlink { .. });
        match (expected, answer) {
            (Ok(_), None) => Some(after),
            (Err(_), None) => None,
            (Ok(expected), Some(Ok(seen))) => self.fits(after, expected, seen, own),
            (Ok(_), Some(Err(_))) => None,
            (Err(refusal), Some(answer)) => refusal.allows(answer).then(|| state.clone()),
        }
    }
}

#[cfg(test)]
mod tests;

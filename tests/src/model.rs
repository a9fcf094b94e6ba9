//! A file system in memory: the simplest thing that says what names and bytes must be there. Pure.
//!
//! It knows one user (root) and the order of checks the MDS documents; where two errors apply at once, the operations
//! here pick arguments so that only one does, or answer with the set of codes allowed.

use std::collections::BTreeMap;

use sateen_types::FsCode;

/// Number of an inode of the model.
pub type Id = usize;

/// The root directory.
pub const ROOT: Id = 0;

/// What an inode is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Node {
    /// Names in order.
    Dir(BTreeMap<String, Id>),
    /// Bytes.
    File(Vec<u8>),
    /// Target.
    Symlink(String),
}

/// The whole tree. Inodes are never removed, so that open files of removed names still have one.
#[derive(Debug)]
pub struct Tree {
    nodes: Vec<Node>,
}

/// What an operation gives: or the code it must fail with.
pub type Expected<T> = Result<T, FsCode>;

impl Default for Tree {
    fn default() -> Tree {
        Tree { nodes: vec![Node::Dir(BTreeMap::new())] }
    }
}

impl Tree {
    /// An inode.
    pub fn node(&self, id: Id) -> &Node {
        &self.nodes[id]
    }

    /// Bytes of a file.
    pub fn bytes(&self, id: Id) -> &Vec<u8> {
        match &self.nodes[id] {
            Node::File(bytes) => bytes,
            other => panic!("inode {id} is {other:?}"),
        }
    }

    /// Bytes of a file, to change.
    pub fn bytes_mut(&mut self, id: Id) -> &mut Vec<u8> {
        match &mut self.nodes[id] {
            Node::File(bytes) => bytes,
            other => panic!("inode {id} is {other:?}"),
        }
    }

    /// Names of a directory.
    pub fn entries(&self, dir: Id) -> &BTreeMap<String, Id> {
        match &self.nodes[dir] {
            Node::Dir(entries) => entries,
            other => panic!("inode {dir} is {other:?}"),
        }
    }

    fn entries_mut(&mut self, dir: Id) -> &mut BTreeMap<String, Id> {
        match &mut self.nodes[dir] {
            Node::Dir(entries) => entries,
            other => panic!("inode {dir} is {other:?}"),
        }
    }

    /// Every directory that can be reached, the root first.
    pub fn dirs(&self) -> Vec<Id> {
        self.reachable().into_iter().filter(|id| matches!(self.nodes[*id], Node::Dir(_))).collect()
    }

    /// Every file that can be reached, once.
    pub fn files(&self) -> Vec<Id> {
        let mut files: Vec<Id> =
            self.reachable().into_iter().filter(|id| matches!(self.nodes[*id], Node::File(_))).collect();
        files.sort_unstable();
        files.dedup();
        files
    }

    fn reachable(&self) -> Vec<Id> {
        let (mut found, mut next) = (vec![ROOT], 0);
        while next < found.len() {
            if let Node::Dir(entries) = &self.nodes[found[next]] {
                found.extend(entries.values());
            }
            next += 1;
        }
        found
    }

    /// Names of an inode in all directories.
    pub fn links(&self, id: Id) -> usize {
        self.dirs().iter().flat_map(|d| self.entries(*d).values()).filter(|e| **e == id).count()
    }

    /// A new inode under a free name.
    pub fn create(&mut self, dir: Id, name: &str, node: Node) -> Expected<Id> {
        if self.entries(dir).contains_key(name) {
            return Err(FsCode::Exists);
        }
        self.nodes.push(node);
        let id = self.nodes.len() - 1;
        self.entries_mut(dir).insert(name.to_owned(), id);
        Ok(id)
    }

    /// Another name for a file or symlink.
    pub fn link(&mut self, id: Id, dir: Id, name: &str) -> Expected<()> {
        if self.entries(dir).contains_key(name) {
            return Err(FsCode::Exists);
        }
        self.entries_mut(dir).insert(name.to_owned(), id);
        Ok(())
    }

    /// Removes a name that is not a directory.
    pub fn unlink(&mut self, dir: Id, name: &str) -> Expected<()> {
        let id = *self.entries(dir).get(name).ok_or(FsCode::NotFound)?;
        if matches!(self.nodes[id], Node::Dir(_)) {
            return Err(FsCode::IsDirectory);
        }
        self.entries_mut(dir).remove(name);
        Ok(())
    }

    /// Removes an empty directory.
    pub fn rmdir(&mut self, dir: Id, name: &str) -> Expected<()> {
        let id = *self.entries(dir).get(name).ok_or(FsCode::NotFound)?;
        match &self.nodes[id] {
            Node::Dir(entries) if entries.is_empty() => {}
            Node::Dir(_) => return Err(FsCode::NotEmpty),
            _ => return Err(FsCode::NotDirectory),
        }
        self.entries_mut(dir).remove(name);
        Ok(())
    }

    /// Moves a name, replacing what is there as POSIX allows.
    pub fn rename(&mut self, from: (Id, &str), to: (Id, &str), no_replace: bool) -> Expected<()> {
        let source = *self.entries(from.0).get(from.1).ok_or(FsCode::NotFound)?;
        let target = self.entries(to.0).get(to.1).copied();
        let is_dir = |id: Id| matches!(self.nodes[id], Node::Dir(_));
        if target.is_some() && no_replace {
            return Err(FsCode::Exists);
        }
        if is_dir(source) && self.is_below(to.0, source) {
            return Err(FsCode::Invalid);
        }
        if let Some(target) = target {
            if source == target {
                return Ok(());
            }
            match (is_dir(source), is_dir(target)) {
                (true, false) => return Err(FsCode::NotDirectory),
                (false, true) => return Err(FsCode::IsDirectory),
                (true, true) if !self.entries(target).is_empty() => return Err(FsCode::NotEmpty),
                _ => {}
            }
        }
        self.entries_mut(from.0).remove(from.1);
        self.entries_mut(to.0).insert(to.1.to_owned(), source);
        Ok(())
    }

    /// Lets two names change places.
    pub fn exchange(&mut self, a: (Id, &str), b: (Id, &str)) -> Expected<()> {
        let first = *self.entries(a.0).get(a.1).ok_or(FsCode::NotFound)?;
        let second = *self.entries(b.0).get(b.1).ok_or(FsCode::NotFound)?;
        if self.is_below(b.0, first) || self.is_below(a.0, second) {
            return Err(FsCode::Invalid);
        }
        self.entries_mut(a.0).insert(a.1.to_owned(), second);
        self.entries_mut(b.0).insert(b.1.to_owned(), first);
        Ok(())
    }

    /// Whether directory `dir` is `above` or lies below it.
    pub fn is_below(&self, dir: Id, above: Id) -> bool {
        let Node::Dir(entries) = &self.nodes[above] else { return false };
        dir == above || entries.values().any(|id| self.is_below(dir, *id))
    }

    /// Writes, filling a gap with zeros.
    pub fn write(&mut self, id: Id, offset: usize, data: &[u8]) {
        let bytes = self.bytes_mut(id);
        if !data.is_empty() && bytes.len() < offset + data.len() {
            bytes.resize(offset + data.len(), 0);
        }
        bytes[offset..offset + data.len()].copy_from_slice(data);
    }

    /// What a read of `len` bytes at `offset` gives.
    pub fn read(&self, id: Id, offset: usize, len: usize) -> &[u8] {
        let bytes = self.bytes(id);
        &bytes[offset.min(bytes.len())..(offset + len).min(bytes.len())]
    }

    /// Zeros a range inside the file.
    pub fn punch(&mut self, id: Id, offset: usize, len: usize) {
        let bytes = self.bytes_mut(id);
        let (start, end) = (offset.min(bytes.len()), (offset + len).min(bytes.len()));
        bytes[start..end].fill(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_does_not_move_below_itself() {
        let mut tree = Tree::default();
        let a = tree.create(ROOT, "a", Node::Dir(BTreeMap::new())).expect("free");
        let b = tree.create(a, "b", Node::Dir(BTreeMap::new())).expect("free");
        assert_eq!(tree.rename((ROOT, "a"), (b, "c"), false), Err(FsCode::Invalid));
        assert_eq!(tree.exchange((ROOT, "a"), (a, "b")), Err(FsCode::Invalid));
        assert_eq!(tree.rename((a, "b"), (ROOT, "b"), false), Ok(()));
        assert_eq!(tree.rmdir(ROOT, "a"), Ok(()));
    }

    #[test]
    fn writes_beyond_the_end_leave_zeros_between() {
        let mut tree = Tree::default();
        let f = tree.create(ROOT, "f", Node::File(Vec::new())).expect("free");
        tree.write(f, 3, b"xy");
        assert_eq!(tree.read(f, 0, 100), b"\0\0\0xy");
        tree.punch(f, 4, 100);
        assert_eq!(tree.read(f, 2, 2), b"\0x");
        assert_eq!(tree.read(f, 9, 2), b"");
    }
}

//! The directories that this client holds, and the log of what it did in them. Pure.
//!
//! A held directory was made by this client and nobody else uses it, so that what is known of its names here is all there
//! is, and looking for another name finds nothing. Changes of it are made here at once and appended to the log, which the
//! MDS is told in order. Only what this client can decide alone is done so; everything else says [`None`] and goes to the
//! MDS, for which the directory must first be given up ([`Tree::leave`]) if its names change.

use std::collections::hash_map::Entry as MapEntry;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use sateen_types::limits::PATH_BYTES_MAX;
use sateen_types::op::{Access, Create, Mutation, NewMode, RenameMode, SetAttr, SetTime};
use sateen_types::{
    Attr, Credential, Fid, FileType, FsCode, FsError, FsResult, Layout, LayoutTemplate, Name, Timestamp,
};

/// Directories held at most; more are made as any other.
const DIRS_MAX: usize = 16_384;
/// Names known in them at most, about 400 bytes each.
const NAMES_MAX: usize = 262_144;
/// Bytes of changes that are told together: well below what a message may have.
const PART_BYTES_MAX: usize = 2 << 20;
/// A change without names and groups in a message, with a layout template of several components.
const CHANGE_BYTES: usize = 1024;
/// A group in a message.
const GROUP_BYTES: usize = 5;
/// Size a directory is told with, as by the MDS.
const DIRECTORY_SIZE: u64 = 4096;

const S_ISUID: u32 = 0o4000;
const S_ISGID: u32 = 0o2000;
const S_ISVTX: u32 = 0o1000;
const SEARCH: u32 = 1;
const CHANGE_NAMES: u32 = 3;

/// A change that the MDS was not told of, or has not answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    pub cred: Arc<Credential>,
    pub op: Mutation,
    /// Of what it makes.
    pub fid: Option<Fid>,
    pub at: Timestamp,
}

impl Change {
    /// About what it takes in a message.
    fn bytes(&self) -> usize {
        let text = match &self.op {
            Mutation::Symlink { name, target, .. } => name.as_bytes().len() + target.len(),
            Mutation::Rename { name, new_name, .. } => name.as_bytes().len() + new_name.as_bytes().len(),
            _ => 255,
        };
        CHANGE_BYTES + text + self.cred.groups.len() * GROUP_BYTES
    }
}

#[derive(Debug)]
struct Dir {
    attr: Attr,
    names: HashMap<Name, Node>,
    template: Arc<LayoutTemplate>,
    /// Nothing more is done here: it is being given up.
    leaving: bool,
}

/// What a name in a held directory stands for.
#[derive(Clone, Debug)]
struct Node {
    fid: Fid,
    file_type: FileType,
    /// `None`: the MDS knows better. Of a held directory its own attributes count.
    attr: Option<Attr>,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    dirs: HashMap<Fid, Dir>,
    /// Where the inodes lie that held directories have names of.
    homes: HashMap<Fid, (Fid, Name)>,
    /// Held directories whose own name is in a directory that is not held.
    tops: HashMap<(Fid, Name), Fid>,
    log: VecDeque<Change>,
    /// Place in the log of its first change; of all that were before it the fate is known.
    first: u64,
    /// Place of the change that has, or had, number 1.
    base: u64,
    /// Of the changes of an inode or of names in it, the last one that is in the log.
    last: HashMap<Fid, u64>,
    /// FIDs to be given: sequence, and the next one of it.
    numbers: Option<(u64, u32)>,
}

/// A regular file that was made here.
#[derive(Debug)]
pub(crate) struct Made {
    pub attr: Attr,
    pub layout: Layout,
}

/// Whether the permission bits, or the superuser's rights, allow all of `wanted` in a directory without ACL.
fn allows(dir: &Attr, who: &Credential, wanted: u32) -> bool {
    let class = match () {
        () if who.uid == 0 => return true,
        () if who.uid == dir.uid => dir.mode >> 6,
        () if who.in_group(dir.gid) => dir.mode >> 3,
        () => dir.mode,
    };
    class & wanted == wanted
}

impl Tree {
    // ---- what is known ----

    /// Whether nothing is held and nothing waits to be told: the usual case of who never makes directories.
    pub fn is_idle(&self) -> bool {
        self.dirs.is_empty() && self.log.is_empty()
    }

    /// What a name stands for, if that is known here.
    pub fn lookup(&self, cred: &Credential, parent: Fid, name: &Name) -> Option<FsResult<Attr>> {
        let dir = self.usable(parent).filter(|dir| allows(&dir.attr, cred, SEARCH))?;
        match dir.names.get(name) {
            Some(node) => self.attr_of(node).map(Ok),
            None => Some(Err(missing(parent, name))),
        }
    }

    /// Attributes of an inode, if they are known here.
    pub fn attr(&self, fid: Fid) -> Option<Attr> {
        if let Some(dir) = self.dirs.get(&fid) {
            return (!dir.leaving).then(|| dir.attr.clone());
        }
        self.attr_of(self.node(fid)?)
    }

    /// The inode that a name in a held directory stands for.
    pub fn child(&self, parent: Fid, name: &Name) -> Option<Fid> {
        Some(self.dirs.get(&parent)?.names.get(name)?.fid)
    }

    /// The held directory that has a name of an inode.
    pub fn home(&self, fid: Fid) -> Option<Fid> {
        self.homes.get(&fid).map(|(dir, _)| *dir)
    }

    fn attr_of(&self, node: &Node) -> Option<Attr> {
        match self.dirs.get(&node.fid) {
            Some(dir) => (!dir.leaving).then(|| dir.attr.clone()),
            None => node.attr.clone(),
        }
    }

    fn node(&self, fid: Fid) -> Option<&Node> {
        let (parent, name) = self.homes.get(&fid)?;
        self.dirs.get(parent)?.names.get(name)
    }

    fn node_mut(&mut self, fid: Fid) -> Option<&mut Node> {
        let (parent, name) = self.homes.get(&fid)?;
        self.dirs.get_mut(parent)?.names.get_mut(name)
    }

    /// The MDS has told attributes of an inode. They count if nothing is in the log that it has not seen.
    pub fn observe(&mut self, attr: &Attr) {
        let waits = self.last.contains_key(&attr.fid);
        if let Some(node) = self.node_mut(attr.fid).filter(|n| n.file_type != FileType::Directory) {
            let newer = node.attr.as_ref().is_none_or(|known| attr.change >= known.change);
            if waits {
                node.attr = None;
            } else if newer {
                node.attr = Some(attr.clone());
            }
        }
    }

    /// The MDS has answered a change of the log with what attributes are now: they count if it was the last one of its inode.
    pub fn made(&mut self, attr: &Attr) {
        let waits = self.last.contains_key(&attr.fid);
        if let Some(node) = self.node_mut(attr.fid).filter(|n| !waits && n.file_type != FileType::Directory) {
            node.attr = Some(attr.clone());
        }
    }

    /// Something about an inode was changed at the MDS that its answer does not tell.
    pub fn doubt(&mut self, fid: Fid) {
        if let Some(node) = self.node_mut(fid) {
            node.attr = None;
        }
    }

    fn usable(&self, dir: Fid) -> Option<&Dir> {
        self.dirs.get(&dir).filter(|dir| !dir.leaving)
    }

    // ---- changes made here ----

    /// A directory in which names may be changed.
    fn changeable(&self, cred: &Credential, dir: Fid) -> Option<&Dir> {
        self.usable(dir).filter(|dir| allows(&dir.attr, cred, CHANGE_NAMES))
    }

    fn room(&self) -> bool {
        self.homes.len() < NAMES_MAX
    }

    fn next_fid(&mut self) -> Option<Fid> {
        let (seq, oid) = self.numbers.as_mut()?;
        if *oid > Fid::SEQ_WIDTH {
            return None;
        }
        *oid += 1;
        Some(Fid { seq: *seq, oid: *oid - 1, ver: 0 })
    }

    /// Makes a regular file and opens it; `None` also if the name is taken.
    pub fn create(
        &mut self,
        cred: &Arc<Credential>,
        place: (Fid, &Name),
        mode: NewMode,
        open: Access,
        at: Timestamp,
    ) -> Option<Made> {
        let dir = self.changeable(cred, place.0)?;
        let template = Arc::clone(&dir.template);
        let attr = self.add(cred, place, FileType::Regular, mode.mode, 0, at)?;
        let (parent, name) = (place.0, place.1.clone());
        // With its layout: what is written goes by it before the MDS has answered.
        let layout = Some(LayoutTemplate::clone(&template));
        let op = Mutation::Create(Create { parent, name, mode, exclusive: true, open: Some(open), layout });
        self.append(cred, op, Some(attr.fid), at, &[place.0, attr.fid]);
        Some(Made { attr, layout: template.resolve(&template) })
    }

    /// Makes a directory, which is held as well if there is room.
    pub fn mkdir(&mut self, cred: &Arc<Credential>, place: (Fid, &Name), mode: NewMode, at: Timestamp) -> Option<Attr> {
        let template = Arc::clone(&self.changeable(cred, place.0)?.template);
        let bits = mode.mode & !(S_ISUID | S_ISGID);
        let attr = self.add(cred, place, FileType::Directory, bits, DIRECTORY_SIZE, at)?;
        let op = Mutation::Mkdir { parent: place.0, name: place.1.clone(), mode };
        self.append(cred, op, Some(attr.fid), at, &[place.0, attr.fid]);
        if bits & S_ISVTX == 0 {
            self.hold(attr.clone(), template);
        }
        Some(attr)
    }

    /// Makes a symbolic link.
    pub fn symlink(
        &mut self,
        cred: &Arc<Credential>,
        place: (Fid, &Name),
        target: &[u8],
        at: Timestamp,
    ) -> Option<Attr> {
        self.changeable(cred, place.0)?;
        if target.is_empty() || target.len() >= PATH_BYTES_MAX || target.contains(&0) {
            return None;
        }
        let attr = self.add(cred, place, FileType::Symlink, 0o777, target.len() as u64, at)?;
        let op = Mutation::Symlink { parent: place.0, name: place.1.clone(), target: target.to_vec() };
        self.append(cred, op, Some(attr.fid), at, &[place.0, attr.fid]);
        Some(attr)
    }

    /// Adds a name of something new.
    fn add(
        &mut self,
        cred: &Credential,
        (parent, name): (Fid, &Name),
        file_type: FileType,
        mode: u32,
        size: u64,
        at: Timestamp,
    ) -> Option<Attr> {
        if !self.room() || self.dirs.get(&parent)?.names.contains_key(name) {
            return None;
        }
        let fid = self.next_fid()?;
        let is_dir = file_type == FileType::Directory;
        let attr = Attr {
            fid,
            file_type,
            mode,
            uid: cred.uid,
            gid: cred.gid,
            nlink: if is_dir { 2 } else { 1 },
            size,
            blocks: 0,
            atime: at,
            mtime: at,
            ctime: at,
            btime: at,
            rdev: 0,
            change: 1,
            has_acl: false,
            has_default_acl: false,
            has_capabilities: false,
        };
        let dir = self.dirs.get_mut(&parent)?;
        dir.attr.nlink += u32::from(is_dir);
        touch(&mut dir.attr, at);
        // Of a directory that is not held others may change what it says.
        let known = (!is_dir).then(|| attr.clone());
        dir.names.insert(name.clone(), Node { fid, file_type, attr: known });
        self.homes.insert(fid, (parent, name.clone()));
        Some(attr)
    }

    /// Removes a name of anything but a directory; `None` also if there is no such name.
    pub fn unlink(&mut self, cred: &Arc<Credential>, place: (Fid, &Name), at: Timestamp) -> Option<()> {
        let node = self.changeable(cred, place.0)?.names.get(place.1)?;
        if node.file_type == FileType::Directory {
            return None;
        }
        let fid = node.fid;
        self.remove(place, at);
        let op = Mutation::Unlink { parent: place.0, name: place.1.clone() };
        self.append(cred, op, None, at, &[place.0, fid]);
        Some(())
    }

    /// Removes an empty directory that is held.
    pub fn rmdir(&mut self, cred: &Arc<Credential>, place: (Fid, &Name), at: Timestamp) -> Option<FsResult<()>> {
        let fid = self.changeable(cred, place.0)?.names.get(place.1)?.fid;
        let child = self.usable(fid)?;
        if !child.names.is_empty() {
            let what = format!("directory {:?} has {} entries", place.1, child.names.len());
            return Some(Err(FsError::new(FsCode::NotEmpty, what)));
        }
        self.dirs.remove(&fid);
        self.remove(place, at);
        if let Some(dir) = self.dirs.get_mut(&place.0) {
            dir.attr.nlink = dir.attr.nlink.saturating_sub(1);
        }
        let op = Mutation::Rmdir { parent: place.0, name: place.1.clone() };
        self.append(cred, op, None, at, &[place.0, fid]);
        Some(Ok(()))
    }

    /// Moves a name of anything but a directory, from one held directory to another or within one.
    pub fn rename(
        &mut self,
        cred: &Arc<Credential>,
        from: (Fid, &Name),
        to: (Fid, &Name),
        mode: RenameMode,
        at: Timestamp,
    ) -> Option<()> {
        let node = self.changeable(cred, from.0)?.names.get(from.1)?.clone();
        let target = self.changeable(cred, to.0)?.names.get(to.1);
        let is_dir = |node: &Node| node.file_type == FileType::Directory;
        let plain = match mode {
            RenameMode::Replace => !target.is_some_and(is_dir),
            RenameMode::NoReplace => target.is_none(),
            RenameMode::Exchange => false,
        };
        if !plain || is_dir(&node) || from == to {
            return None;
        }
        let replaced = target.map(|target| target.fid);
        if replaced.is_some() {
            self.remove(to, at);
        }
        self.remove(from, at);
        let attr = node.attr.map(|mut attr| {
            attr.ctime = at;
            attr.change += 1;
            attr
        });
        let dir = self.dirs.get_mut(&to.0)?;
        touch(&mut dir.attr, at);
        dir.names.insert(to.1.clone(), Node { attr, ..node });
        self.homes.insert(node.fid, (to.0, to.1.clone()));
        let op =
            Mutation::Rename { parent: from.0, name: from.1.clone(), new_parent: to.0, new_name: to.1.clone(), mode };
        let named = [from.0, to.0, node.fid, replaced.unwrap_or(node.fid)];
        self.append(cred, op, None, at, &named);
        Some(())
    }

    /// Takes a name away, and what is known of its inode.
    fn remove(&mut self, (parent, name): (Fid, &Name), at: Timestamp) {
        let Some(dir) = self.dirs.get_mut(&parent) else { return };
        if let Some(node) = dir.names.remove(name) {
            touch(&mut dir.attr, at);
            self.homes.remove(&node.fid);
        }
    }

    /// Changes attributes, where only the owner's and root's plain rights count.
    pub fn setattr(&mut self, cred: &Arc<Credential>, set: &SetAttr, at: Timestamp) -> Option<Attr> {
        if !self.dirs.contains_key(&set.fid) {
            // What is being given up is told up to a certain change, and no further.
            self.usable(self.home(set.fid)?)?;
        }
        let mut attr = self.attr(set.fid)?;
        let special = |mode: u32| mode & !0o777 != 0;
        let chown = set.uid.is_some() || set.gid.is_some();
        let simple = set.size.is_none()
            && (cred.uid == 0 || cred.uid == attr.uid && !chown)
            && !special(attr.mode)
            && !set.mode.is_some_and(special)
            && !(attr.has_acl || attr.has_default_acl || attr.has_capabilities);
        if !simple {
            return None;
        }
        let before = attr.clone();
        attr.uid = set.uid.unwrap_or(attr.uid);
        attr.gid = set.gid.unwrap_or(attr.gid);
        attr.mode = set.mode.unwrap_or(attr.mode);
        // The MDS takes this client's clock as well.
        let fixed = |time: Option<SetTime>| time.map(|t| if let SetTime::At(t) = t { t } else { at });
        let (atime, mtime) = (fixed(set.atime), fixed(set.mtime));
        attr.mtime = mtime.unwrap_or(attr.mtime);
        // As the MDS counts: what changes nothing but when it was read does not make cached data old.
        attr.change += u64::from(attr != before);
        attr.atime = atime.unwrap_or(attr.atime);
        attr.ctime = at;
        match self.dirs.get_mut(&set.fid) {
            Some(dir) => dir.attr = attr.clone(),
            None => self.node_mut(set.fid)?.attr = Some(attr.clone()),
        }
        let set = SetAttr { atime: atime.map(SetTime::At), mtime: mtime.map(SetTime::At), ..set.clone() };
        let fid = set.fid;
        self.append(cred, Mutation::SetAttr(set), None, at, &[fid]);
        Some(attr)
    }

    fn append(&mut self, cred: &Arc<Credential>, op: Mutation, fid: Option<Fid>, at: Timestamp, named: &[Fid]) {
        let place = self.first + self.log.len() as u64;
        self.log.push_back(Change { cred: Arc::clone(cred), op, fid, at });
        self.last.extend(named.iter().map(|fid| (*fid, place)));
    }

    // ---- what is held ----

    /// FIDs may be made of this sequence; from its beginning, unless some were.
    pub fn lent(&mut self, sequence: u64) {
        if self.numbers.is_none_or(|(known, _)| known != sequence) {
            self.numbers = Some((sequence, 1));
        }
    }

    /// Whether FIDs can be made.
    pub fn has_numbers(&self) -> bool {
        self.numbers.is_some_and(|(_, oid)| oid <= Fid::SEQ_WIDTH)
    }

    /// Whether one more directory may be held.
    pub fn may_hold(&self) -> bool {
        self.dirs.len() < DIRS_MAX
    }

    fn hold(&mut self, attr: Attr, template: Arc<LayoutTemplate>) {
        if self.may_hold() {
            self.dirs.insert(attr.fid, Dir { attr, names: HashMap::new(), template, leaving: false });
        }
    }

    /// The MDS has made a directory at `place`, which this client holds and which nobody has used yet.
    pub fn hold_top(&mut self, place: (Fid, &Name), attr: Attr, template: LayoutTemplate) {
        self.tops.insert((place.0, place.1.clone()), attr.fid);
        self.hold(attr, Arc::new(template));
    }

    /// Whether a directory is held, or about to be given up.
    pub fn holds(&self, dir: Fid) -> bool {
        self.dirs.contains_key(&dir)
    }

    /// The inode of this name, if it lies in a held directory or is one.
    pub fn named(&self, parent: Fid, name: &Name) -> Option<Fid> {
        self.child(parent, name).or_else(|| self.tops.get(&(parent, name.clone())).copied())
    }

    /// The held directory that has this name.
    pub fn held_at(&self, parent: Fid, name: &Name) -> Option<Fid> {
        self.named(parent, name).filter(|fid| self.holds(*fid))
    }

    /// Whether a directory, held or not, has names of held ones.
    pub fn has_held_in(&self, dir: Fid) -> bool {
        self.dirs.contains_key(&dir) || self.tops.keys().any(|(parent, _)| *parent == dir)
    }

    /// Every directory that is held.
    pub fn held(&self) -> Vec<Fid> {
        self.dirs.keys().copied().collect()
    }

    /// From now on nothing is done in the directory here. Gives the end of the log up to which the MDS must be told before
    /// it can be given up.
    pub fn leave(&mut self, dir: Fid) -> Option<u64> {
        self.dirs.get_mut(&dir)?.leaving = true;
        Some(self.end())
    }

    /// The directory is not held any more. What lies in it and is held stays so.
    pub fn left(&mut self, dir: Fid) {
        self.tops.retain(|_, top| *top != dir);
        let Some(gone) = self.dirs.remove(&dir) else { return };
        for (name, node) in gone.names {
            self.homes.remove(&node.fid);
            if self.dirs.contains_key(&node.fid)
                && let MapEntry::Vacant(top) = self.tops.entry((dir, name))
            {
                top.insert(node.fid);
            }
        }
    }

    /// A directory was never made: what was done in it is for the MDS to refuse.
    pub fn never_made(&mut self, dir: Fid) {
        let mut gone = vec![dir];
        while let Some(dir) = gone.pop() {
            if let Some(dir) = self.dirs.remove(&dir) {
                for node in dir.names.into_values() {
                    self.homes.remove(&node.fid);
                    gone.push(node.fid);
                }
            }
        }
    }

    /// All that is held is lost, and what the MDS was not told of: gives the changes that nobody will make.
    pub fn lose_all(&mut self) -> Vec<Change> {
        let end = self.end();
        let lost = std::mem::take(&mut self.log).into();
        *self = Tree { first: end, base: end, ..Tree::default() };
        lost
    }

    // ---- the log ----

    /// Up to `most` changes from the beginning of the log, fewer if they are large, and the number of the first.
    pub fn head(&self, most: usize) -> (u64, Vec<Change>) {
        let mut bytes = 0;
        let fits = |change: &&Change| {
            bytes += change.bytes();
            bytes <= PART_BYTES_MAX || bytes == change.bytes()
        };
        (self.first - self.base + 1, self.log.iter().take(most).take_while(fits).cloned().collect())
    }

    /// The place of the next change.
    pub fn end(&self) -> u64 {
        self.first + self.log.len() as u64
    }

    /// Up to where the MDS was told.
    pub fn told(&self) -> u64 {
        self.first
    }

    /// Changes that wait.
    pub fn waiting(&self) -> usize {
        self.log.len()
    }

    /// How far the MDS must be told before it can be asked about an inode; `None` if it knows everything.
    pub fn needed(&self, fid: Fid) -> Option<u64> {
        self.last.get(&fid).map(|place| place + 1)
    }

    /// The first change was made.
    pub fn answered(&mut self) {
        self.first += u64::from(self.log.pop_front().is_some());
    }

    /// The first change was refused.
    pub fn left_out(&mut self) -> Option<Change> {
        let change = self.log.pop_front()?;
        self.first += 1;
        self.forget_told();
        Some(change)
    }

    /// Inodes whose last change is before the beginning of the log are known to the MDS.
    pub fn forget_told(&mut self) {
        let first = self.first;
        self.last.retain(|_, place| *place >= first);
    }
}

/// Names in a directory changed.
fn touch(dir: &mut Attr, at: Timestamp) {
    dir.mtime = at;
    dir.ctime = at;
    dir.change += 1;
}

fn missing(parent: Fid, name: &Name) -> FsError {
    FsError::new(FsCode::NotFound, format!("there is no {name:?} in directory {parent}"))
}

//! Verifies a whole file system's tables: what every operation must leave behind. Run after each step in tests, with all
//! of the tables in memory; `sateen fsck` is [`crate::fsck`], and is held against this one.

mod exports;
mod tasks;

use std::collections::{BTreeMap, BTreeSet};

use sateen_types::attr::FILE_CAPABILITIES_XATTR;
use sateen_types::{Fid, FileType, FsResult, HsmFlags};

use super::tree;
use crate::store::codec::Record;
use crate::store::keys::IntentKind;
use crate::store::records::{
    Body, Dentry, DestroyIntent, HsmRecord, IndexEntry, Inode, LoadRecord, RulesRecord, TruncateIntent,
};
use crate::store::{ReadTxn, Row, Table, keys};

/// Every broken rule, one line each; empty if the tables are sound.
pub fn check(tx: &dyn ReadTxn) -> FsResult<Vec<String>> {
    let mut found = Found::default();
    found.read(tx)?;
    found.names();
    found.counts(tx)?;
    found.satellites(tx)?;
    Ok(found.problems)
}

#[derive(Default)]
struct Found {
    inodes: BTreeMap<Fid, Inode>,
    /// (parent, name bytes) -> entry.
    dentries: BTreeMap<(Fid, Vec<u8>), Dentry>,
    index: BTreeMap<(Fid, u64), IndexEntry>,
    parents: BTreeSet<(Fid, Fid, Vec<u8>)>,
    orphans: BTreeSet<Fid>,
    problems: Vec<String>,
}

fn all(tx: &dyn ReadTxn, table: Table) -> FsResult<Vec<Row>> {
    tx.scan(table, &[], None, usize::MAX >> 1)
}

impl Found {
    fn wrong(&mut self, what: String) {
        self.problems.push(what);
    }

    fn read(&mut self, tx: &dyn ReadTxn) -> FsResult<()> {
        for (key, value) in all(tx, Table::Inodes)? {
            self.inodes.insert(keys::parse_fid(&key)?, Inode::from_bytes(&value)?);
        }
        for (key, value) in all(tx, Table::Dentries)? {
            let (parent, name) = keys::parse_dentry(&key)?;
            self.dentries.insert((parent, name.as_bytes().to_vec()), Dentry::from_bytes(&value)?);
        }
        for (key, value) in all(tx, Table::DirIndex)? {
            self.index.insert(keys::parse_dirindex(&key)?, IndexEntry::from_bytes(&value)?);
        }
        for (key, _) in all(tx, Table::Parents)? {
            let (fid, parent, name) = keys::parse_parent(&key)?;
            self.parents.insert((fid, parent, name.as_bytes().to_vec()));
        }
        for (key, _) in all(tx, Table::Orphans)? {
            self.orphans.insert(keys::parse_fid(&key)?);
        }
        Ok(())
    }

    /// Dentries, index and parents say the same, about inodes that exist.
    fn names(&mut self) {
        let mut problems = Vec::new();
        for ((parent, name), entry) in &self.dentries {
            let at = format!("{:?} in {parent}", String::from_utf8_lossy(name));
            match self.inodes.get(&entry.fid) {
                None => problems.push(format!("{at} stands for {}, which has no inode", entry.fid)),
                Some(i) if i.file_type() != entry.file_type => problems.push(format!("{at} has the wrong type")),
                Some(_) => {}
            }
            match self.index.get(&(*parent, entry.cookie)) {
                Some(row)
                    if row.fid == entry.fid && row.name.as_bytes() == name && row.file_type == entry.file_type => {}
                other => problems.push(format!("{at}: its index row is {other:?}")),
            }
            if !self.parents.contains(&(entry.fid, *parent, name.clone())) {
                problems.push(format!("{at} has no parent row"));
            }
            if !self.inodes.get(parent).is_some_and(Inode::is_dir) {
                problems.push(format!("{at}: the directory does not exist"));
            }
        }
        for (what, n) in [("index", self.index.len()), ("parent", self.parents.len())] {
            if n != self.dentries.len() {
                problems.push(format!("{n} {what} rows for {} names", self.dentries.len()));
            }
        }
        self.problems.extend(problems);
    }

    /// Link counts, entry counts, cookies, orphans, the inode counter, and that every directory hangs from the root.
    fn counts(&mut self, tx: &dyn ReadTxn) -> FsResult<()> {
        let mut links: BTreeMap<Fid, u32> = BTreeMap::new();
        let mut entries: BTreeMap<Fid, u64> = BTreeMap::new();
        let mut subdirs: BTreeMap<Fid, u32> = BTreeMap::new();
        let mut parent_of: BTreeMap<Fid, Fid> = BTreeMap::new();
        let mut cookies: BTreeMap<Fid, u64> = BTreeMap::new();
        for ((parent, _), entry) in &self.dentries {
            *links.entry(entry.fid).or_default() += 1;
            *entries.entry(*parent).or_default() += 1;
            let highest = cookies.entry(*parent).or_default();
            *highest = entry.cookie.max(*highest);
            if entry.file_type == FileType::Directory {
                *subdirs.entry(*parent).or_default() += 1;
                parent_of.insert(entry.fid, *parent);
            }
        }
        let mut problems = Vec::new();
        for (fid, inode) in &self.inodes {
            let names = links.get(fid).copied().unwrap_or(0);
            if let Body::Directory { entries: counted, next_cookie } = inode.body {
                let want = 2 + subdirs.get(fid).copied().unwrap_or(0);
                if inode.nlink != want {
                    problems.push(format!("directory {fid} counts {} links, has {want}", inode.nlink));
                }
                let have = entries.get(fid).copied().unwrap_or(0);
                if counted != have {
                    problems.push(format!("directory {fid} counts {counted} entries, has {have}"));
                }
                if cookies.get(fid).is_some_and(|c| *c >= next_cookie) {
                    problems.push(format!("directory {fid} will give a cookie twice"));
                }
                if names != u32::from(*fid != Fid::ROOT) {
                    problems.push(format!("directory {fid} has {names} names"));
                }
                let mut at = *fid;
                let mut steps = 0;
                while at != Fid::ROOT && steps <= self.inodes.len() {
                    at = parent_of.get(&at).copied().unwrap_or(at);
                    steps += 1;
                }
                if at != Fid::ROOT {
                    problems.push(format!("directory {fid} does not hang from the root"));
                }
            } else if inode.nlink != names {
                problems.push(format!("{fid} counts {} links, has {names}", inode.nlink));
            }
            if !inode.is_dir() && (inode.nlink == 0) != self.orphans.contains(fid) {
                problems.push(format!("{fid} with {} links: wrong in the orphans table", inode.nlink));
            }
        }
        for orphan in self.orphans.iter().filter(|o| !self.inodes.contains_key(o)) {
            problems.push(format!("orphan {orphan} has no inode"));
        }
        if !self.inodes.contains_key(&Fid::ROOT) {
            problems.push("there is no root".into());
        }
        let counted = tree::counter(tx, keys::INODES)?;
        if counted != self.inodes.len() as u64 {
            problems.push(format!("{counted} inodes counted, {} there", self.inodes.len()));
        }
        self.problems.extend(problems);
        Ok(())
    }

    /// Layouts, attributes and intents belong to something.
    fn satellites(&mut self, tx: &dyn ReadTxn) -> FsResult<()> {
        let mut with_layout = BTreeSet::new();
        for (key, _) in all(tx, Table::Layouts)? {
            with_layout.insert(keys::parse_fid(&key)?);
        }
        let regular: BTreeSet<Fid> = self.inodes.iter().filter(|(_, i)| i.is_regular()).map(|(f, _)| *f).collect();
        for fid in with_layout.symmetric_difference(&regular) {
            self.problems.push(format!("{fid}: layouts and regular files differ"));
        }
        for (key, _) in all(tx, Table::DefaultLayouts)? {
            let fid = keys::parse_fid(&key)?;
            if !self.inodes.get(&fid).is_some_and(Inode::is_dir) {
                self.wrong(format!("{fid} has a default layout and is no directory"));
            }
        }
        let mut with_capabilities = BTreeSet::new();
        for (key, _) in all(tx, Table::Xattrs)? {
            let (fid, name) = keys::parse_xattr(&key)?;
            if !self.inodes.contains_key(&fid) {
                self.wrong(format!("an attribute belongs to {fid}, which does not exist"));
            }
            if name == FILE_CAPABILITIES_XATTR {
                with_capabilities.insert(fid);
            }
            if name.starts_with(b"system.") {
                self.wrong(format!("an attribute of {fid} is stored under a name that stands for its inode"));
            }
        }
        for (fid, inode) in &self.inodes {
            if inode.has_capabilities != with_capabilities.contains(fid) {
                self.problems.push(format!("{fid} and its attributes differ about capabilities"));
            }
            let strange = inode.default_acl.is_some() && !inode.is_dir()
                || inode.acl.is_some() && inode.file_type() == FileType::Symlink;
            if strange {
                self.problems.push(format!("{fid} has an ACL that a {:?} does not have", inode.file_type()));
            }
        }
        self.repositories(tx)?;
        exports::check(self, tx)?;
        tasks::check(self, tx)?;
        self.intents(tx)
    }

    /// What is known of repositories belongs to inodes, and files that say they are released are.
    fn repositories(&mut self, tx: &dyn ReadTxn) -> FsResult<()> {
        let mut released = BTreeSet::new();
        let mut states = BTreeMap::new();
        for (key, value) in all(tx, Table::Hsm)? {
            let fid = keys::parse_fid(&key)?;
            if !self.inodes.contains_key(&fid) {
                self.wrong(format!("an HSM state belongs to {fid}, which does not exist"));
            }
            let row = HsmRecord::from_bytes(&value)?;
            if row.flags.has(HsmFlags::RELEASED) {
                released.insert(fid);
            }
            states.insert(fid, row);
        }
        for (key, value) in all(tx, Table::HsmKeys)? {
            let ((id, object), fid) = (keys::parse_hsm_key(&key)?, keys::parse_fid(&value)?);
            if states.get(&fid).is_none_or(|row| row.repository != id || row.key != object) {
                self.wrong(format!("object {:?} of {id} is indexed as {fid}'s", String::from_utf8_lossy(object)));
            }
        }
        for (key, value) in tx.scan(Table::Repositories, keys::RULES, None, usize::MAX >> 1)? {
            let fid = keys::parse_rules(&key)?;
            RulesRecord::from_bytes(&value)?;
            if !self.inodes.get(&fid).is_some_and(Inode::is_regular) {
                self.wrong(format!("{fid} has rules and is no regular file"));
            }
        }
        for (key, _) in tx.scan(Table::Repositories, keys::OPENED, None, usize::MAX >> 1)? {
            let fid = keys::parse_opened(&key)?;
            if !states.contains_key(&fid) {
                self.wrong(format!("{fid} counts as opened for writing and has no HSM state"));
            }
        }
        let (mut loads, mut restored) = (BTreeSet::new(), BTreeSet::new());
        for (key, value) in all(tx, Table::Loads)? {
            let (fid, load) = (keys::parse_fid(&key)?, LoadRecord::from_bytes(&value)?);
            loads.insert(fid);
            if load.restore {
                restored.insert(fid);
            }
            if load.remote.all_loaded() {
                self.wrong(format!("{fid} is loaded in full and has a row that says what is missing"));
            }
        }
        for fid in released.symmetric_difference(&loads) {
            self.wrong(format!("{fid}: released files and those with something to load differ"));
        }
        let rows = tx.scan(Table::Repositories, keys::RESTORE, None, usize::MAX >> 1)?;
        let listed = rows.iter().map(|(key, _)| keys::parse_restore(key)).collect::<FsResult<BTreeSet<_>>>()?;
        if listed != restored {
            self.wrong(format!("files to load in full {restored:?} are listed as {listed:?}"));
        }
        Ok(())
    }

    fn intents(&mut self, tx: &dyn ReadTxn) -> FsResult<()> {
        let next = tree::counter(tx, keys::NEXT_INTENT)?;
        let mut indexed = BTreeSet::new();
        let mut truncates = BTreeSet::new();
        for (key, value) in all(tx, Table::Intents)? {
            if key.first() == Some(&b'f') {
                indexed.insert(keys::parse_truncate_of_file(&key)?);
                continue;
            }
            let id = keys::parse_intent(&key)?;
            if id.number >= next {
                self.wrong(format!("intent {id:?} is above the counter {next}"));
            }
            match id.kind {
                IntentKind::Truncate => {
                    truncates.insert(id);
                    let fid = TruncateIntent::from_bytes(&value)?.fid;
                    if !self.inodes.contains_key(&fid) {
                        self.wrong(format!("truncate {id:?} is for {fid}, which does not exist"));
                    }
                }
                IntentKind::Destroy => drop(DestroyIntent::from_bytes(&value)?),
            }
        }
        if indexed != truncates {
            self.wrong(format!("pending truncates {truncates:?} are indexed as {indexed:?}"));
        }
        Ok(())
    }
}

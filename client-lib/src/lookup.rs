//! Questions about names and attributes.
//!
//! What comes from the MDS is merged with what was written here and is not reported yet, so that a program sees its own
//! writes. Names that are looked up one after the other are fetched ahead ([`crate::ahead`]).

use std::time::{Duration, Instant};

use sateen_proto::{convert, mds as wire};
use sateen_types::{Attr, Credential, Fid, FileType, FsCode, FsError, FsResult, Name};

use crate::ahead::Page;
use crate::client::{Client, Looked};
use crate::session::Session;

/// Symbolic links followed in one path (Linux: 40).
const SYMLINKS_MAX: u32 = 40;

impl Client {
    /// Attributes of a name.
    pub async fn lookup(&self, cred: &Credential, parent: Fid, name: &Name) -> FsResult<Attr> {
        self.look_up(cred, parent, name).await.map(|looked| looked.attr)
    }

    /// Attributes of a name, and whether they last.
    pub async fn look_up(&self, cred: &Credential, parent: Fid, name: &Name) -> FsResult<Looked> {
        let names = &self.inner.session.names;
        if let Some(found) = names.local(|tree, _| tree.lookup(cred, parent, name)) {
            return Ok(self.merge_looked(found?, false));
        }
        let child = names.known(|tree| tree.named(parent, name));
        self.told(&[parent, child.unwrap_or(parent)]).await?;
        if let Some(looked) = self.find_ahead(cred, parent, name) {
            return Ok(looked);
        }
        let reply = ask_name(&self.inner.session, cred, parent, name.as_bytes()).await?;
        self.fetch_ahead(self.inner.session.ahead.asked(cred, parent, reply.cookie));
        let attr = convert::required(reply.attr, "attr")?.try_into()?;
        Ok(self.merge_looked(self.newest(attr), reply.in_use))
    }

    /// Attributes of a directory's parent; of the root's, the root.
    pub async fn lookup_parent(&self, cred: &Credential, dir: Fid) -> FsResult<Attr> {
        if dir == self.root() {
            return self.getattr(dir).await;
        }
        self.told(&[dir]).await?;
        lookup(&self.inner.session, cred, dir, b"..").await
    }

    /// Attributes of an inode, with what was written here.
    pub async fn getattr(&self, fid: Fid) -> FsResult<Attr> {
        self.look(fid).await.map(|looked| looked.attr)
    }

    /// Attributes of an inode, with what was written here, and whether they last.
    pub async fn look(&self, fid: Fid) -> FsResult<Looked> {
        if let Some(attr) = self.inner.session.names.local(|tree, _| tree.attr(fid)) {
            return Ok(self.merge_looked(attr, false));
        }
        self.told(&[fid]).await?;
        let asked = self.inner.session.ask(|mut client, session_id| {
            let fid = Some(fid.into());
            async move { client.get_attr(wire::GetAttrRequest { session_id, fid }).await }
        });
        let reply = asked.await?;
        let attr = self.newest(convert::required(reply.attr, "attr")?.try_into()?);
        Ok(self.merge_looked(attr, reply.in_use))
    }

    /// Walks `path` from [`Client::root`], with or without a leading slash, following symbolic links (the last one only
    /// if `follow`). Links cannot lead out of the root.
    pub async fn resolve(&self, cred: &Credential, path: &[u8], follow: bool) -> FsResult<Attr> {
        let mut todo: Vec<Vec<u8>> = components(path);
        let mut trail: Vec<Attr> = vec![self.getattr(self.root()).await?];
        let mut links = 0;
        while let Some(part) = todo.pop() {
            let here = trail.last().expect("the root is never left");
            if here.file_type != FileType::Directory {
                let what = format!("{:?} is below something that is not a directory", String::from_utf8_lossy(path));
                return Err(FsError::new(FsCode::NotDirectory, what));
            }
            if part == b".." {
                if trail.len() > 1 {
                    trail.pop();
                }
                continue;
            }
            let attr = self.lookup(cred, here.fid, &Name::parse(&part)?).await?;
            if attr.file_type == FileType::Symlink && (follow || !todo.is_empty()) {
                links += 1;
                if links > SYMLINKS_MAX {
                    return Err(FsError::new(FsCode::Loop, format!("more than {SYMLINKS_MAX} symbolic links")));
                }
                let target = self.readlink(attr.fid).await?;
                if target.starts_with(b"/") {
                    trail.truncate(1);
                }
                todo.extend(components(&target));
                continue;
            }
            trail.push(attr);
        }
        Ok(trail.pop().expect("the root is never left"))
    }

    /// What was fetched ahead of a name and is not known better here.
    fn find_ahead(&self, cred: &Credential, parent: Fid, name: &Name) -> Option<Looked> {
        let (found, page) = self.inner.session.ahead.find(cred, parent, name);
        self.fetch_ahead(page);
        let (mut attr, age) = found?;
        let names = &self.inner.session.names;
        if self.inner.table.get(attr.fid).is_some() || names.known(|tree| tree.attr(attr.fid)).is_some() {
            return None;
        }
        attr.atime = self.inner.atimes.newest(attr.fid, attr.atime);
        Some(Looked { attr, in_use: false, age })
    }

    /// Fetches a page of names in the background.
    fn fetch_ahead(&self, page: Option<Page>) {
        let Some(page) = page else { return };
        let inner = &self.inner;
        if inner.session.names.holds(page.dir) {
            return inner.session.ahead.fetched(&page, Instant::now(), None);
        }
        let client = self.clone();
        inner.tasks.spawn_on(
            async move {
                let asked = Instant::now();
                let entries = tokio::select! {
                    listed = client.list(&page.cred, page.dir, page.after, page.max, true) => listed,
                    () = client.inner.stop.cancelled() => return,
                };
                let entries = entries.inspect_err(|error| tracing::debug!(%error, "names were not fetched ahead"));
                let entries = entries.ok().map(|(entries, end, _)| (entries, end));
                client.inner.session.ahead.fetched(&page, asked, entries);
            },
            &inner.runtime,
        );
    }

    /// Attributes from the MDS, or those known here if they are newer.
    pub(crate) fn newest(&self, attr: Attr) -> Attr {
        let names = &self.inner.session.names;
        names.observe(&attr);
        self.inner.session.ahead.told(attr.fid);
        names.known(|tree| tree.attr(attr.fid)).unwrap_or(attr)
    }

    fn merge_looked(&self, attr: Attr, in_use: bool) -> Looked {
        let in_use = in_use || self.is_shared(attr.fid);
        Looked { attr: self.merge(attr), in_use, age: Duration::ZERO }
    }

    /// Attributes from the MDS, with what was written here.
    pub(crate) fn merge(&self, mut attr: Attr) -> Attr {
        attr.atime = self.inner.atimes.newest(attr.fid, attr.atime);
        match self.inner.table.get(attr.fid) {
            Some(inode) => {
                inode.observe(&attr);
                inode.attr()
            }
            None => attr,
        }
    }
}

/// Attributes of a name.
pub(crate) async fn lookup(session: &Session, cred: &Credential, parent: Fid, name: &[u8]) -> FsResult<Attr> {
    convert::required(ask_name(session, cred, parent, name).await?.attr, "attr")?.try_into()
}

async fn ask_name(session: &Session, cred: &Credential, parent: Fid, name: &[u8]) -> FsResult<wire::EntryReply> {
    let asked = session.ask(|mut client, session_id| {
        let (credential, parent, name) = (Some(cred.into()), Some(parent.into()), name.to_vec());
        async move { client.lookup(wire::LookupRequest { session_id, credential, parent, name }).await }
    });
    asked.await
}

/// Parts of a path, last first; empty parts and `.` are left out.
fn components(path: &[u8]) -> Vec<Vec<u8>> {
    let parts = path.split(|b| *b == b'/').filter(|part| !part.is_empty() && *part != b".");
    parts.rev().map(<[u8]>::to_vec).collect()
}

//! The operations of the namespace: names, attributes, layouts, opening.
//!
//! Attributes that come from the MDS are merged with what was written here and is not reported yet, so that a program
//! sees its own writes.

use std::sync::Arc;

use sateen_proto::{convert, mds as wire};
use sateen_types::acl::ACCESS_XATTR;
use sateen_types::limits::READDIR_ENTRIES_MAX;
use sateen_types::op::{
    Access, Create, DirEntry, Entry, Mutation, MutationReply, NewMode, RenameMode, SetAttr, XattrMode,
};
use sateen_types::{
    Acl, Attr, Credential, Fid, FileType, FsCode, FsError, FsResult, Grant, Layout, LayoutTemplate, Name, Space,
    XattrName,
};

use crate::client::{Client, Created, DefaultLayout, NewFile, StatFs};
use crate::file::{Creating, File, Registration};
use crate::inner::Inner;
use crate::inode::Learnt;
use crate::session::Executed;
use crate::writeback::{Made, WriteBack};
use crate::{report, truncate, write};

/// Asks the MDS something that may be asked twice: `ask!(session, rpc, Request { fields })`, the session filled in.
macro_rules! ask {
    ($session:expr, $rpc:ident, $request:ident { $($fields:tt)* }) => {{
        let request = wire::$request { session_id: Vec::new(), $($fields)* };
        $session
            .ask(|mut client, session_id| {
                let mut request = request.clone();
                request.session_id = session_id;
                async move { client.$rpc(request).await }
            })
            .await
    }};
}

impl Client {
    /// Changes attributes; with a size, cuts or extends the file.
    pub async fn setattr(&self, cred: &Credential, set: SetAttr) -> FsResult<Attr> {
        if set.size.is_some() {
            self.told(&[set.fid]).await?;
        }
        let inode = self.inner.table.get(set.fid);
        if set.atime.is_some() {
            self.inner.atimes.forget(set.fid);
            if let Some(inode) = &inode {
                inode.forget_accesses();
            }
        }
        if inode.is_none() && set.size.is_some() {
            return truncate::truncate_unknown(&self.inner, cred, set).await;
        }
        let Some(inode) = inode else {
            return self.change_attributes(cred, set).await;
        };
        if set.size.is_some() {
            return truncate::truncate(&self.inner, &inode, cred, set).await;
        }
        // A report on its way, or the time of an earlier write, must not undo the time that is set here.
        let _reporting = inode.reporting.lock().await;
        let mtime = if set.mtime.is_some() { inode.take_mtime() } else { None };
        // Neither must privileges that are given after a write.
        let clear_suid = set.mode.is_some() && inode.take_clear_suid();
        match self.change_attributes(cred, set).await {
            Ok(attr) => {
                inode.observe_own(&attr);
                Ok(inode.attr())
            }
            Err(e) => {
                inode.give_back_mtime(mtime);
                inode.give_back_clear_suid(clear_suid);
                Err(e)
            }
        }
    }

    async fn change_attributes(&self, cred: &Credential, set: SetAttr) -> FsResult<Attr> {
        let (names, fid) = (&self.inner.session.names, set.fid);
        names.room(&self.inner.session).await?;
        if let Some(attr) = names.local(|tree, at| tree.setattr(&Arc::new(cred.clone()), &set, at)) {
            return Ok(attr);
        }
        self.settle(&[fid]).await?;
        expect_attr("SetAttr", self.execute(cred, Mutation::SetAttr(set)).await?)
    }

    /// Makes a regular file, or, not exclusive, finds it; and opens it.
    pub async fn create(&self, cred: &Credential, new: NewFile) -> FsResult<Created> {
        let access = new.access;
        let (session, place) = (&self.inner.session, (new.parent, &new.name));
        session.names.room(session).await?;
        let made = match new.layout {
            None => session.names.create(session, &Arc::new(cred.clone()), place, new.mode, access),
            Some(_) => None,
        };
        if let Some((Made { attr, layout }, number)) = made {
            let registration = Registration::of_opening(session, attr.fid, number, access.write);
            let learnt = Learnt { remote: None, losses: Some(session.keeps(attr.fid).losses()) };
            let file = File::new(&self.inner, &attr, (layout, Grant::default(), learnt), cred, access, registration);
            return Ok(Created { attr: file.attr(), file, existed: false });
        }
        if let Some(found) = session.names.local(|tree, _| tree.lookup(cred, new.parent, &new.name))
            && let Ok(attr) = found
            && attr.file_type == FileType::Regular
        {
            if new.exclusive {
                let what = format!("{:?} exists in directory {}", new.name, new.parent);
                return Err(FsError::new(FsCode::Exists, what));
            }
            // As it is, and not by its name: that may go meanwhile, here and before the MDS hears of this.
            match self.open(cred, attr.fid, access).await {
                Err(e) if e.code == FsCode::Stale => {}
                opened => return opened.map(|file| Created { attr: file.attr(), file, existed: true }),
            }
        }
        self.settle(&[new.parent]).await?;
        let op = Create {
            parent: new.parent,
            name: new.name,
            mode: new.mode,
            exclusive: new.exclusive,
            open: Some(access),
            layout: new.layout,
        };
        let creating = Creating::new(&self.inner.session);
        let writer = session.incarnation().writer;
        let Executed { reply, grant, remote, registration, .. } = session.create(cred, op, creating.number()).await?;
        let entry = expect_entry("Create", reply)?;
        let registration = convert::required(registration, "open")?;
        drop(creating);
        // It was not among the open files before: had the session been lost, nobody would have noted that.
        let losses = session.keeps(entry.attr.fid).losses();
        let same = session.incarnation().writer == writer && !session.lease.is_over();
        let learnt = Learnt { remote, losses: Some(losses).filter(|_| same) };
        self.inner.session.ahead.told(entry.attr.fid);
        let layout = convert::required(entry.layout, "layout")?;
        let file = File::new(&self.inner, &entry.attr, (layout, grant, learnt), cred, access, registration);
        Ok(Created { attr: file.attr(), file, existed: entry.existed })
    }

    /// Makes a directory.
    pub async fn mkdir(&self, cred: &Credential, parent: Fid, name: &Name, mode: impl Into<NewMode>) -> FsResult<Attr> {
        let (mode, session) = (mode.into(), &self.inner.session);
        session.names.room(session).await?;
        let made = session.names.local(|tree, at| tree.mkdir(&Arc::new(cred.clone()), (parent, name), mode, at));
        if let Some(attr) = made {
            return Ok(attr);
        }
        self.settle(&[parent]).await?;
        let op = Mutation::Mkdir { parent, name: name.clone(), mode };
        let Some(asked_in) = session.names.ask() else {
            return Ok(expect_entry("Mkdir", self.execute(cred, op).await?)?.attr);
        };
        let asked = Asked { names: &session.names, session: asked_in, place: (parent, name), held: None };
        let Executed { reply, held, .. } = session.execute_whole(cred, op, true).await?;
        let attr = expect_entry("Mkdir", reply)?.attr;
        asked.answered(&attr, held);
        Ok(attr)
    }

    /// Makes a FIFO, socket, device, or a regular file that is not opened.
    pub async fn mknod(
        &self,
        cred: &Credential,
        parent: Fid,
        name: &Name,
        mode: impl Into<NewMode>,
        file_type: FileType,
        rdev: u64,
    ) -> FsResult<Attr> {
        self.settle(&[parent]).await?;
        let op = Mutation::Mknod { parent, name: name.clone(), mode: mode.into(), file_type, rdev };
        Ok(expect_entry("Mknod", self.execute(cred, op).await?)?.attr)
    }

    /// Makes a symbolic link.
    pub async fn symlink(&self, cred: &Credential, parent: Fid, name: &Name, target: &[u8]) -> FsResult<Attr> {
        let session = &self.inner.session;
        session.names.room(session).await?;
        let made = session.names.local(|tree, at| tree.symlink(&Arc::new(cred.clone()), (parent, name), target, at));
        if let Some(attr) = made {
            return Ok(attr);
        }
        self.settle(&[parent]).await?;
        let op = Mutation::Symlink { parent, name: name.clone(), target: target.to_vec() };
        Ok(expect_entry("Symlink", self.execute(cred, op).await?)?.attr)
    }

    /// Target of a symbolic link.
    pub async fn readlink(&self, fid: Fid) -> FsResult<Vec<u8>> {
        self.told(&[fid]).await?;
        Ok(ask!(self.inner.session, read_link, ReadLinkRequest { fid: Some(fid.into()) })?.target)
    }

    /// Gives a file another name.
    pub async fn link(&self, cred: &Credential, fid: Fid, parent: Fid, name: &Name) -> FsResult<Attr> {
        let home = self.inner.session.names.known(|tree| tree.home(fid));
        self.settle(&[parent, home.unwrap_or(parent)]).await?;
        let op = Mutation::Link { fid, parent, name: name.clone() };
        Ok(self.merge(expect_entry("Link", self.execute(cred, op).await?)?.attr))
    }

    /// Removes a name of anything but a directory.
    pub async fn unlink(&self, cred: &Credential, parent: Fid, name: &Name) -> FsResult<()> {
        let session = &self.inner.session;
        session.names.room(session).await?;
        if session.names.local(|tree, at| tree.unlink(&Arc::new(cred.clone()), (parent, name), at)).is_some() {
            return Ok(());
        }
        self.settle(&[parent]).await?;
        self.execute(cred, Mutation::Unlink { parent, name: name.clone() }).await.map(drop)
    }

    /// Removes an empty directory.
    pub async fn rmdir(&self, cred: &Credential, parent: Fid, name: &Name) -> FsResult<()> {
        let session = &self.inner.session;
        session.names.room(session).await?;
        let removed = session.names.local(|tree, at| tree.rmdir(&Arc::new(cred.clone()), (parent, name), at));
        if let Some(removed) = removed {
            return removed;
        }
        let child = session.names.known(|tree| tree.held_at(parent, name));
        self.settle(&[parent, child.unwrap_or(parent)]).await?;
        self.execute(cred, Mutation::Rmdir { parent, name: name.clone() }).await.map(drop)
    }

    /// Moves the name `from` (directory, name) to `to`.
    pub async fn rename(
        &self,
        cred: &Credential,
        from: (Fid, &Name),
        to: (Fid, &Name),
        mode: RenameMode,
    ) -> FsResult<()> {
        let session = &self.inner.session;
        session.names.room(session).await?;
        if session.names.local(|tree, at| tree.rename(&Arc::new(cred.clone()), from, to, mode, at)).is_some() {
            return Ok(());
        }
        let named = session.names.known(|tree| Some([tree.held_at(from.0, from.1), tree.held_at(to.0, to.1)]));
        let dirs: Vec<Fid> = named.into_iter().flatten().flatten().chain([from.0, to.0]).collect();
        self.settle(&dirs).await?;
        let op =
            Mutation::Rename { parent: from.0, name: from.1.clone(), new_parent: to.0, new_name: to.1.clone(), mode };
        self.execute(cred, op).await.map(drop)
    }

    /// One page of a directory: entries with cookies above `after` (at most `max`), whether nothing follows, and the
    /// directory's own parent. [`Client::read_dir`] says how old it is, too.
    pub async fn readdir(
        &self,
        cred: &Credential,
        fid: Fid,
        after: u64,
        max: u32,
        with_attr: bool,
    ) -> FsResult<(Vec<DirEntry>, bool, Fid)> {
        let page = self.read_dir(cred, fid, after, max, with_attr).await?;
        Ok((page.entries, page.end, page.parent))
    }

    /// [`Client::readdir`] as the MDS answers, without what is known here.
    pub(crate) async fn list(
        &self,
        cred: &Credential,
        fid: Fid,
        after: u64,
        max: u32,
        with_attr: bool,
    ) -> FsResult<(Vec<DirEntry>, bool, Fid)> {
        let max = max.clamp(1, READDIR_ENTRIES_MAX);
        let reply = ask!(
            self.inner.session,
            read_dir,
            ReadDirRequest { credential: Some(cred.into()), fid: Some(fid.into()), after, max, with_attr }
        )?;
        if reply.entries.len() > max as usize {
            return Err(convert::bad("entries", format_args!("{} were sent, {max} asked for", reply.entries.len())));
        }
        let entries = reply.entries.into_iter().map(DirEntry::try_from).collect::<FsResult<Vec<_>>>()?;
        Ok((entries, reply.end, convert::fid(reply.parent, "parent")?))
    }

    /// Value of an extended attribute.
    pub async fn getxattr(&self, cred: &Credential, fid: Fid, name: &XattrName) -> FsResult<Vec<u8>> {
        self.told(&[fid]).await?;
        let reply = ask!(
            self.inner.session,
            get_xattr,
            GetXattrRequest { credential: Some(cred.into()), fid: Some(fid.into()), name: name.as_bytes().to_vec() }
        )?;
        Ok(reply.value)
    }

    /// Sets an extended attribute. ACLs are `system.posix_acl_access` and `system.posix_acl_default` in Linux's form
    /// ([`sateen_types::Acl`]).
    pub async fn setxattr(
        &self,
        cred: &Credential,
        fid: Fid,
        name: &XattrName,
        value: &[u8],
        mode: XattrMode,
    ) -> FsResult<Attr> {
        if name.as_bytes() == ACCESS_XATTR
            && mode == XattrMode::Set
            && let Some(attr) = self.set_minimal_acl(cred, fid, value).await?
        {
            return Ok(attr);
        }
        // A report of earlier writes takes file capabilities away, so it must not come after them.
        if name.as_bytes().starts_with(b"security.")
            && let Some(inode) = self.inner.table.get(fid)
        {
            write::drain(&self.inner, &inode).await;
            report::report(&self.inner, &inode).await?;
        }
        self.settle(&[fid]).await?;
        let op = Mutation::SetXattr { fid, name: name.clone(), value: value.to_vec(), mode };
        self.changed(self.execute(cred, op).await?)
    }

    /// An ACL that says no more than permission bits do, as `cp -a` gives every file: the log of names takes it for a change of
    /// those bits, if it can take one at all, which it does of nothing that has an ACL.
    async fn set_minimal_acl(&self, cred: &Credential, fid: Fid, value: &[u8]) -> FsResult<Option<Attr>> {
        let Some((bits, None)) = Acl::parse(value)?.map(Acl::split) else { return Ok(None) };
        let names = &self.inner.session.names;
        names.room(&self.inner.session).await?;
        let inode = self.inner.table.get(fid);
        let _reporting = match &inode {
            Some(inode) => Some(inode.reporting.lock().await),
            None => None,
        };
        let set = SetAttr { mode: Some(bits), ..SetAttr::new(fid) };
        let attr = names.local(|tree, at| {
            let may_have_one = tree.attr(fid)?.file_type != FileType::Symlink;
            may_have_one.then(|| tree.setattr(&Arc::new(cred.clone()), &set, at)).flatten()
        });
        if let (Some(inode), Some(attr)) = (&inode, &attr) {
            inode.observe_own(attr);
        }
        Ok(attr)
    }

    /// Names of the extended attributes.
    pub async fn listxattr(&self, cred: &Credential, fid: Fid) -> FsResult<Vec<XattrName>> {
        self.told(&[fid]).await?;
        let reply = ask!(
            self.inner.session,
            list_xattr,
            ListXattrRequest { credential: Some(cred.into()), fid: Some(fid.into()) }
        )?;
        reply.names.iter().map(|name| XattrName::parse(name)).collect()
    }

    /// Removes an extended attribute.
    pub async fn removexattr(&self, cred: &Credential, fid: Fid, name: &XattrName) -> FsResult<Attr> {
        self.settle(&[fid]).await?;
        let op = Mutation::RemoveXattr { fid, name: name.clone() };
        self.changed(self.execute(cred, op).await?)
    }

    /// Space of the file system.
    pub async fn statfs(&self) -> FsResult<StatFs> {
        statfs(&self.inner).await
    }

    /// Layout of a regular file.
    pub async fn layout(&self, fid: Fid) -> FsResult<Layout> {
        self.told(&[fid]).await?;
        let reply = ask!(self.inner.session, get_layout, GetLayoutRequest { fid: Some(fid.into()) })?;
        convert::required(reply.layout, "layout")?.try_into()
    }

    /// Gives a file without data another layout; `Exists` if it has data.
    pub async fn set_layout(&self, cred: &Credential, fid: Fid, layout: LayoutTemplate) -> FsResult<Layout> {
        let inode = self.inner.table.get(fid);
        let _alone = match &inode {
            Some(inode) => {
                // Written bytes belong to the old layout: store them, so that the MDS refuses.
                let alone = inode.exclusion.write().await;
                write::drain(&self.inner, inode).await;
                report::report(&self.inner, inode).await?;
                Some(alone)
            }
            None => None,
        };
        match self.execute(cred, Mutation::SetLayout { fid, layout }).await? {
            MutationReply::Layout(layout) => {
                if let Some(inode) = &inode {
                    inode.observe_layout(layout.clone());
                }
                Ok(layout)
            }
            other => Err(write::unexpected("SetLayout", &other)),
        }
    }

    /// What new files in a directory inherit.
    pub async fn default_layout(&self, fid: Fid) -> FsResult<DefaultLayout> {
        self.told(&[fid]).await?;
        let reply = ask!(self.inner.session, get_default_layout, GetDefaultLayoutRequest { fid: Some(fid.into()) })?;
        Ok(DefaultLayout { layout: convert::required(reply.layout, "layout")?.try_into()?, own: reply.own })
    }

    /// Sets or (`None`) removes a directory's default layout.
    pub async fn set_default_layout(
        &self,
        cred: &Credential,
        fid: Fid,
        layout: Option<LayoutTemplate>,
    ) -> FsResult<()> {
        self.settle(&[fid]).await?;
        self.execute(cred, Mutation::SetDefaultLayout { fid, layout }).await.map(drop)
    }

    /// Opens a regular file: checks the access, and fetches fresh attributes, so that what others wrote before they
    /// closed it is seen.
    pub async fn open(&self, cred: &Credential, fid: Fid, access: Access) -> FsResult<File> {
        self.told(&[fid]).await?;
        let registration = Registration::new(&self.inner.session, fid, access.write);
        let losses = Some(self.inner.session.keeps(fid).losses());
        let Access { read, write, exec } = access;
        let asked = self.inner.session.ask(|mut client, session_id| {
            let (credential, fid, number) = (Some(cred.into()), Some(fid.into()), registration.number());
            let request = wire::OpenRequest { session_id, credential, fid, read, write, exec, number };
            async move { client.open(request).await }
        });
        let reply = asked.await?;
        let mut attr: Attr = convert::required(reply.attr, "attr")?.try_into()?;
        attr.atime = self.inner.atimes.newest(fid, attr.atime);
        if attr.fid != fid {
            return Err(convert::bad("fid", format_args!("{fid} was asked for, {} answered", attr.fid)));
        }
        let layout = convert::required(reply.layout, "layout")?.try_into()?;
        let grant = convert::grant(reply.grant)?;
        let learnt = Learnt { remote: convert::remote(reply.remote)?, losses };
        // Nothing older is told of it from here on.
        self.inner.session.ahead.told(fid);
        Ok(File::new(&self.inner, &attr, (layout, grant, learnt), cred, access, registration))
    }

    /// Waits until the MDS knows what was done here to these inodes.
    pub(crate) async fn told(&self, fids: &[Fid]) -> FsResult<()> {
        self.inner.session.names.told(&self.inner.session, fids).await
    }

    /// Directories among these are given up if they are held: the MDS is about to change them, or names in them.
    async fn settle(&self, fids: &[Fid]) -> FsResult<()> {
        self.inner.session.names.give_up(&self.inner.session, fids).await
    }

    async fn execute(&self, cred: &Credential, op: Mutation) -> FsResult<MutationReply> {
        self.inner.session.execute(cred, op).await
    }

    /// Takes in the attributes that came with a change of something else than data.
    fn changed(&self, reply: MutationReply) -> FsResult<Attr> {
        let attr = expect_attr("SetXattr", reply)?;
        let Some(inode) = self.inner.table.get(attr.fid) else { return Ok(attr) };
        inode.observe_own(&attr);
        Ok(inode.attr())
    }
}

/// A request for a new directory that nobody else may use.
struct Asked<'a> {
    names: &'a WriteBack,
    session: u64,
    place: (Fid, &'a Name),
    held: Option<(Attr, LayoutTemplate)>,
}

impl Asked<'_> {
    fn answered(mut self, attr: &Attr, held: Option<LayoutTemplate>) {
        self.held = held.map(|template| (attr.clone(), template));
    }
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        self.names.asked(self.session, self.place, self.held.take());
    }
}

/// See [`Client::statfs`].
pub(crate) async fn statfs(inner: &Inner) -> FsResult<StatFs> {
    let r = ask!(inner.session, stat_fs, StatFsRequest {})?;
    Ok(StatFs {
        data: Space { total: r.total, used: r.used, available: r.available, objects: 0 },
        inodes_used: r.inodes_used,
        inodes_free: r.inodes_free,
        mdt: Space { total: r.mdt_total, used: r.mdt_used, available: r.mdt_available, objects: r.inodes_used },
    })
}

fn expect_attr(what: &str, reply: MutationReply) -> FsResult<Attr> {
    match reply {
        MutationReply::Attr(attr) => Ok(attr),
        other => Err(write::unexpected(what, &other)),
    }
}

fn expect_entry(what: &str, reply: MutationReply) -> FsResult<Entry> {
    match reply {
        MutationReply::Entry(entry) => Ok(entry),
        other => Err(write::unexpected(what, &other)),
    }
}

//! Names: looking them up, making, moving and removing what they name.

use sateen_client::{Looked, NewFile, NewMode, RenameMode, SetAttr};
use sateen_types::{Attr, Credential, FileType, FsCode, FsError, FsResult};

use super::data::{OpenFile, Opened, access_of};
use super::{MountedFs, gone_is_stale, name};

impl MountedFs {
    /// Attributes of a name. `.` and `..` come from file handles of other programs (`open_by_handle_at`, NFS).
    pub async fn lookup(&self, cred: &Credential, parent: u64, child: &[u8]) -> FsResult<Looked> {
        let fid = self.fid(parent)?;
        match child {
            b"." => gone_is_stale(self.client.look(fid).await),
            b".." if fid == self.fid(super::ROOT_INO)? => self.client.look(fid).await,
            b".." => gone_is_stale(self.client.lookup_parent(cred, fid).await.map(Looked::from)),
            _ => self.client.look_up(cred, fid, &name(child)?).await,
        }
    }

    /// Makes a directory.
    pub async fn mkdir(&self, cred: &Credential, parent: u64, child: &[u8], mode: NewMode) -> FsResult<Attr> {
        self.client.mkdir(cred, self.fid(parent)?, &name(child)?, mode).await
    }

    /// Makes anything but a directory or a symbolic link, closed. `kind` is in mknod(2)'s mode.
    pub async fn mknod(
        &self,
        cred: &Credential,
        parent: u64,
        child: &[u8],
        mode: NewMode,
        kind: u32,
        rdev: u64,
    ) -> FsResult<Attr> {
        let file_type = match kind & libc::S_IFMT {
            // mknod(2) takes 0 for a regular file.
            libc::S_IFREG | 0 => FileType::Regular,
            libc::S_IFIFO => FileType::Fifo,
            libc::S_IFSOCK => FileType::Socket,
            libc::S_IFCHR => FileType::CharDevice,
            libc::S_IFBLK => FileType::BlockDevice,
            other => return Err(FsError::new(FsCode::Invalid, format!("mknod cannot make file type {other:#o}"))),
        };
        self.client.mknod(cred, self.fid(parent)?, &name(child)?, mode, file_type, rdev).await
    }

    /// Makes a symbolic link.
    pub async fn symlink(&self, cred: &Credential, parent: u64, child: &[u8], target: &[u8]) -> FsResult<Attr> {
        self.client.symlink(cred, self.fid(parent)?, &name(child)?, target).await
    }

    /// Gives a file another name.
    pub async fn link(&self, cred: &Credential, ino: u64, parent: u64, child: &[u8]) -> FsResult<Attr> {
        self.client.link(cred, self.fid(ino)?, self.fid(parent)?, &name(child)?).await
    }

    /// Removes a name of anything but a directory.
    pub async fn unlink(&self, cred: &Credential, parent: u64, child: &[u8]) -> FsResult<()> {
        self.client.unlink(cred, self.fid(parent)?, &name(child)?).await
    }

    /// Removes an empty directory.
    pub async fn rmdir(&self, cred: &Credential, parent: u64, child: &[u8]) -> FsResult<()> {
        self.client.rmdir(cred, self.fid(parent)?, &name(child)?).await
    }

    /// Moves a name. `flags` are those of renameat2(2).
    pub async fn rename(
        &self,
        cred: &Credential,
        (parent, child): (u64, &[u8]),
        (new_parent, new_child): (u64, &[u8]),
        flags: u32,
    ) -> FsResult<()> {
        let mode = match flags {
            0 => RenameMode::Replace,
            libc::RENAME_NOREPLACE => RenameMode::NoReplace,
            libc::RENAME_EXCHANGE => RenameMode::Exchange,
            _ => return Err(FsError::new(FsCode::Invalid, format!("rename flags {flags:#x} are not supported"))),
        };
        let (from, to) = (self.fid(parent)?, self.fid(new_parent)?);
        self.client.rename(cred, (from, &name(child)?), (to, &name(new_child)?), mode).await
    }

    /// Makes and opens a regular file, or opens the one that is there.
    pub async fn create(
        &self,
        cred: &Credential,
        parent: u64,
        child: &[u8],
        mode: NewMode,
        flags: i32,
    ) -> FsResult<(Attr, Opened)> {
        let new = NewFile {
            parent: self.fid(parent)?,
            name: name(child)?,
            mode,
            exclusive: flags & libc::O_EXCL != 0,
            access: access_of(flags),
            layout: None,
        };
        let created = self.client.create(cred, new).await?;
        let mut attr = created.attr;
        // Somebody else may have made it between the kernel's lookup and now; the kernel takes it for new and empty.
        if created.existed && flags & libc::O_TRUNC != 0 {
            let mut cut = SetAttr::new(attr.fid);
            (cut.size, cut.via_open_file) = (Some(0), created.file.access().write);
            attr = match self.client.setattr(cred, cut).await {
                Ok(attr) => attr,
                Err(e) => {
                    // The first error is the one to tell.
                    let _ = created.file.close().await;
                    return Err(e);
                }
            };
        }
        let file = OpenFile::new(created.file, flags);
        Ok((attr, self.keep(file).await?))
    }
}

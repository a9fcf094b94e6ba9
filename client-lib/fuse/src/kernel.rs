//! Attaching to and detaching from the kernel: `/dev/fuse`, mount(2), `fusermount3`, the mount table.
//!
//! We mount by ourselves instead of letting fuser do it: the file system type becomes `fuse.sateen` also for root, the
//! error says what the system said, and nothing ever unmounts a path that has become somebody else's mount.

use std::ffi::{CString, OsStr, OsString};
use std::fs::File;
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};
use sateen_client::AccessTimes;
use sateen_types::{FsCode, FsError, FsResult};

use crate::options::MountOptions;

/// File system type as the mount table shows it.
pub const FS_TYPE: &str = "fuse.sateen";
/// The device every FUSE file system talks through.
const DEVICE: &str = "/dev/fuse";
/// Where the kernel lists our mounts.
const MOUNT_TABLE: &str = "/proc/self/mountinfo";

/// Mounts at `point` and gives the connection. The caller must answer the kernel at once: whoever touches `point` waits.
pub fn attach(source: &str, point: &Path, options: &MountOptions) -> FsResult<OwnedFd> {
    check_point(point)?;
    match attach_directly(source, point, options) {
        Err(e) if e.code == FsCode::NotPermitted => attach_by_helper(source, point, options),
        other => other,
    }
}

/// Everything about the mount point that can be wrong, said before anything is mounted.
fn check_point(point: &Path) -> FsResult<()> {
    let shown = point.display();
    match std::fs::metadata(point) {
        Ok(meta) if meta.is_dir() => {}
        Ok(_) => {
            return Err(FsError::new(FsCode::NotDirectory, format!("mount point {shown} is not a directory"))
                .with_hint("name an existing directory"));
        }
        Err(e) if e.raw_os_error() == Some(libc::ENOTCONN) => {
            return Err(FsError::new(FsCode::Busy, format!("mount point {shown} holds the rest of a mount that died"))
                .with_hint(format!("run: umount {shown}   (or fusermount3 -u {shown})")));
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            return Err(FsError::new(FsCode::NotFound, format!("mount point {shown} does not exist"))
                .with_hint(format!("create it: mkdir -p {shown}")));
        }
        Err(e) => {
            return Err(FsError::new(FsCode::AccessDenied, format!("mount point {shown}: {e}"))
                .with_hint("name a directory you may enter"));
        }
    }
    if let Some(there) = mounts()?.into_iter().rev().find(|m| m.point == point)
        && there.fs_type != "autofs"
    {
        return Err(FsError::new(
            FsCode::Busy,
            format!("{shown} is already a mount point (of {}, type {})", there.source, there.fs_type),
        )
        .with_hint(format!("run umount {shown} first, or choose another directory")));
    }
    Ok(())
}

fn attach_directly(source: &str, point: &Path, options: &MountOptions) -> FsResult<OwnedFd> {
    let device = match File::options().read(true).write(true).open(DEVICE) {
        Ok(device) => device,
        Err(e) if e.kind() == std::io::ErrorKind::PermissionDenied => {
            return Err(FsError::new(FsCode::NotPermitted, format!("cannot open {DEVICE}: {e}"))
                .with_hint("mount as root, or install fusermount3 (package fuse3)"));
        }
        Err(e) => {
            return Err(FsError::new(FsCode::NotSupported, format!("cannot open {DEVICE}: {e}"))
                .with_hint("load the fuse module (modprobe fuse); in a container give --device /dev/fuse"));
        }
    };
    let root_mode = std::fs::metadata(point).map_or(0o040_000, |m| m.mode());
    let data = format!(
        "fd={},rootmode={root_mode:o},user_id={},group_id={},default_permissions{}",
        device.as_raw_fd(),
        rustix::process::getuid().as_raw(),
        rustix::process::getgid().as_raw(),
        if options.allow_other || rustix::process::geteuid().is_root() { ",allow_other" } else { "" },
    );
    let data = CString::new(data).expect("numbers and constants have no NUL");
    let mut flags = MountFlags::empty();
    for (wanted, flag) in [
        (options.read_only, MountFlags::RDONLY),
        (options.access_times == AccessTimes::Never, MountFlags::NOATIME),
        (options.access_times == AccessTimes::Strict, MountFlags::STRICTATIME),
        (options.no_suid, MountFlags::NOSUID),
        (options.no_dev, MountFlags::NODEV),
        (options.no_exec, MountFlags::NOEXEC),
    ] {
        flags.set(flag, wanted);
    }
    match rustix::mount::mount(source, point, FS_TYPE, flags, data.as_c_str()) {
        Ok(()) => Ok(device.into()),
        Err(Errno::PERM) => {
            Err(FsError::new(FsCode::NotPermitted, format!("not permitted to mount at {}", point.display()))
                .with_hint("mount as root (in a container with --cap-add SYS_ADMIN), or install fusermount3"))
        }
        Err(Errno::NODEV) => Err(FsError::new(FsCode::NotSupported, "this kernel has no FUSE".to_owned())
            .with_hint("load the fuse module: modprobe fuse")),
        Err(e) => Err(FsError::new(FsCode::Io, format!("cannot mount {source} at {}: {e}", point.display()))),
    }
}

/// Users other than root mount with the setuid program `fusermount3`, which sends us the connection over a socket.
fn attach_by_helper(source: &str, point: &Path, options: &MountOptions) -> FsResult<OwnedFd> {
    let failed = |what: String| {
        FsError::new(FsCode::NotPermitted, format!("cannot mount at {}: {what}", point.display()))
            .with_hint("mount as root, or install fusermount3 (package fuse3) with its setuid bit")
    };
    let (ours, theirs) = UnixStream::pair().map_err(|e| failed(e.to_string()))?;
    rustix::io::fcntl_setfd(&theirs, rustix::io::FdFlags::empty()).map_err(|e| failed(e.to_string()))?;
    // fusermount3 splits at commas that are not escaped.
    let mut list = format!("fsname={},subtype=sateen,default_permissions", source.replace(',', "\\,"));
    for (wanted, name) in [
        (options.allow_other, "allow_other"),
        (options.read_only, "ro"),
        (options.access_times == AccessTimes::Never, "noatime"),
        (options.no_exec, "noexec"),
    ] {
        if wanted {
            list.push(',');
            list.push_str(name);
        }
    }
    let child = Command::new("fusermount3")
        .args(["-o", &list, "--"])
        .arg(point)
        .env("_FUSE_COMMFD", theirs.as_raw_fd().to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| failed(format!("fusermount3: {e}")))?;
    drop(theirs);
    let received = receive_fd(&ours);
    let output = child.wait_with_output().map_err(|e| failed(e.to_string()))?;
    let said = String::from_utf8_lossy(&output.stderr);
    received.ok_or_else(|| failed(said.trim().to_owned()))
}

fn receive_fd(socket: &UnixStream) -> Option<OwnedFd> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0u8];
    rustix::net::recvmsg(socket.as_fd(), &mut [IoSliceMut::new(&mut byte)], &mut control, RecvFlags::CMSG_CLOEXEC)
        .ok()?;
    control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    })
}

/// Unmounts `point`. `lazy` detaches a mount that is in use; it goes when the last user is done.
pub fn detach(point: &Path, lazy: bool) -> FsResult<()> {
    let shown = point.display();
    let flags = if lazy { UnmountFlags::DETACH } else { UnmountFlags::empty() };
    match rustix::mount::unmount(point, flags | UnmountFlags::NOFOLLOW) {
        Ok(()) => Ok(()),
        Err(Errno::BUSY) => Err(FsError::new(FsCode::Busy, format!("{shown} is in use"))
            .with_hint(format!("close what is open below it (see: fuser -vm {shown})"))),
        Err(Errno::INVAL | Errno::NOENT) => Err(FsError::new(FsCode::NotFound, format!("{shown} is not mounted"))),
        Err(Errno::PERM) => {
            let mut command = Command::new("fusermount3");
            command.arg(if lazy { "-uz" } else { "-u" }).arg("--").arg(point).stdin(Stdio::null());
            match command.output() {
                Ok(out) if out.status.success() => Ok(()),
                Ok(out) => Err(FsError::new(FsCode::Busy, String::from_utf8_lossy(&out.stderr).trim().to_owned())),
                Err(e) => Err(FsError::new(FsCode::NotPermitted, format!("cannot unmount {shown}: fusermount3: {e}"))),
            }
        }
        Err(e) => Err(FsError::new(FsCode::Io, format!("cannot unmount {shown}: {e}"))),
    }
}

/// Ends our mount at `point` with all requests that wait in it, because it cannot be served (any longer). Where that is not allowed
/// the process ends, and the mount with it.
pub fn abort(point: &Path) {
    let is_ours =
        |mounts: Vec<MountEntry>| mounts.iter().rfind(|m| m.point == point).is_some_and(|m| m.fs_type == FS_TYPE);
    if !mounts().is_ok_and(is_ours) {
        return;
    }
    let flags = UnmountFlags::FORCE | UnmountFlags::DETACH | UnmountFlags::NOFOLLOW;
    if let Err(error) = rustix::mount::unmount(point, flags) {
        tracing::error!(%error, point = %point.display(), "a mount that cannot be served cannot be ended either: the process ends");
        std::process::abort();
    }
}

/// One line of the mount table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountEntry {
    /// Unique while mounted.
    pub id: u64,
    /// Device number as `MAJOR:MINOR`.
    pub device: String,
    /// Where.
    pub point: PathBuf,
    /// File system type, e.g. [`FS_TYPE`].
    pub fs_type: String,
    /// What is mounted: `HOST:PORT:/FS` for ours.
    pub source: String,
}

/// The mount table, oldest first.
pub fn mounts() -> FsResult<Vec<MountEntry>> {
    let text = std::fs::read(MOUNT_TABLE)
        .map_err(|e| FsError::new(FsCode::Io, format!("cannot read the mount table {MOUNT_TABLE}: {e}")))?;
    Ok(text.split(|b| *b == b'\n').filter_map(parse_entry).collect())
}

/// The mount that `path` lies on: the one with the longest point, the newest of several.
pub fn mount_of<'a>(entries: &'a [MountEntry], path: &Path) -> Option<&'a MountEntry> {
    entries.iter().filter(|m| path.starts_with(&m.point)).max_by_key(|m| m.point.components().count())
}

/// `36 35 98:0 /root /point options [optional fields] - type source superoptions`, with octal escapes.
fn parse_entry(line: &[u8]) -> Option<MountEntry> {
    let text = |b: &[u8]| String::from_utf8_lossy(&unescape(b)).into_owned();
    let fields: Vec<&[u8]> = line.split(|b| *b == b' ').collect();
    let dash = fields.iter().position(|f| *f == b"-")?;
    Some(MountEntry {
        id: text(fields.first()?).parse().ok()?,
        device: text(fields.get(2)?),
        point: PathBuf::from(OsString::from_vec(unescape(fields.get(4)?))),
        fs_type: text(fields.get(dash + 1)?),
        source: text(fields.get(dash + 2)?),
    })
}

fn unescape(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, tail)) = rest.split_first() {
        let octal = (byte == b'\\')
            .then(|| tail.get(..3))
            .flatten()
            .and_then(|d| std::str::from_utf8(d).ok())
            .and_then(|d| u8::from_str_radix(d, 8).ok());
        match octal {
            Some(value) => {
                out.push(value);
                rest = &tail[3..];
            }
            None => {
                out.push(byte);
                rest = tail;
            }
        }
    }
    out
}

/// Lets the kernel read ahead in requests of up to `bytes` on the mount at `device`. It starts with 128 KiB, which
/// is a quarter of a stripe. Best effort: only root may, and only where `/sys` is writable.
pub fn raise_read_ahead(device: &str, bytes: u64) {
    let path = Path::new("/sys/class/bdi").join(OsStr::from_bytes(device.as_bytes())).join("read_ahead_kb");
    if let Err(e) = std::fs::write(&path, (bytes >> 10).to_string()) {
        tracing::debug!(path = %path.display(), error = %e, "read-ahead of the kernel stays as it is");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_mount_table_are_read_with_their_escapes() {
        let line = br"36 35 0:53 / /mnt/with\040space rw,relatime shared:1 master:2 - fuse.sateen h:9880:/scratch rw,user_id=0";
        let entry = parse_entry(line).expect("well formed");
        assert_eq!(entry.point, Path::new("/mnt/with space"));
        assert_eq!((entry.device.as_str(), entry.fs_type.as_str()), ("0:53", FS_TYPE));
        assert_eq!(entry.source, "h:9880:/scratch");
        assert_eq!(parse_entry(b""), None);
        assert_eq!(parse_entry(b"1 2 3 4 5 6"), None);
    }

    #[test]
    fn a_path_belongs_to_the_deepest_and_newest_mount() {
        let entry = |id, point: &str| MountEntry {
            id,
            device: String::new(),
            point: point.into(),
            fs_type: String::new(),
            source: String::new(),
        };
        let table = [entry(1, "/"), entry(2, "/mnt"), entry(3, "/mnt"), entry(4, "/mnt2")];
        assert_eq!(mount_of(&table, Path::new("/mnt/a")).expect("mounted").id, 3);
        assert_eq!(mount_of(&table, Path::new("/mnt2")).expect("mounted").id, 4);
        assert_eq!(mount_of(&table, Path::new("/mn")).expect("mounted").id, 1);
    }

    #[test]
    fn wrong_mount_points_are_explained() {
        let dir = std::env::temp_dir().join(format!("sateen-fuse-point-{}", std::process::id()));
        let err = check_point(&dir).expect_err("missing");
        assert_eq!(err.code, FsCode::NotFound);
        assert!(err.hint.expect("hint").contains("mkdir"));
        std::fs::write(&dir, b"x").expect("temp file");
        assert_eq!(check_point(&dir).expect_err("file").code, FsCode::NotDirectory);
        std::fs::remove_file(&dir).expect("remove");
        assert_eq!(check_point(Path::new("/proc")).expect_err("mounted").code, FsCode::Busy);
    }
}

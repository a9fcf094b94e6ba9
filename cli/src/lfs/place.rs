//! Where a path lies: its mount, the mount's file system, and layouts by extended attribute.

use std::path::{Path, PathBuf};

use rustix::fs::XattrFlags;
use rustix::io::Errno;
use sateen_client::MountSource;
use sateen_fuse::kernel::{self, MountEntry};
use sateen_types::limits::XATTR_VALUE_BYTES_MAX;
use sateen_types::{Fid, Layout, LayoutTemplate, Pattern};
use serde::Deserialize;

use super::hsm_text::Hsm;
use super::{Failure, strerror};

/// The attribute that is a layout.
const LAYOUT: &str = "sateen.layout";
/// The attribute that tells of a file's object, and by which something is asked for it.
const HSM: &str = "sateen.hsm";

/// A mount of ours.
#[derive(Clone, Debug)]
pub struct Place {
    /// Mount point.
    pub point: PathBuf,
    /// MDS and file system.
    pub source: MountSource,
}

impl Place {
    fn of(entry: &MountEntry) -> Option<Place> {
        (entry.fs_type == kernel::FS_TYPE)
            .then(|| entry.source.parse().ok())
            .flatten()
            .map(|source| Place { point: entry.point.clone(), source })
    }

    /// `HOST:PORT,...` of the MDS.
    pub fn mds(&self) -> String {
        self.source.hosts.join(",")
    }
}

/// Every mount of ours, in the order of mounting.
pub fn all() -> Result<Vec<Place>, Failure> {
    let table = kernel::mounts()?;
    // A mount that another one hides cannot be reached by its path.
    let visible = |m: &&MountEntry| kernel::mount_of(&table, &m.point).is_some_and(|top| top.id == m.id);
    Ok(table.iter().filter(visible).filter_map(Place::of).collect())
}

/// The mount that a path lies on.
pub fn of(path: &str) -> Result<Place, Failure> {
    let real = Path::new(path).canonicalize().map_err(|e| Failure::io("cannot access", path, &e))?;
    let table = kernel::mounts()?;
    kernel::mount_of(&table, &real).and_then(Place::of).ok_or_else(|| {
        Failure::new(libc::ENOTTY, format!("'{path}' is not on a Sateen file system"))
            .with_hint("mount one: sateen mount HOST:PORT:/FS PATH")
    })
}

/// The mount of a file system's name or of a path. Two clusters may each have a file system of the same name.
pub fn by_name_or_path(text: &str) -> Result<Place, Failure> {
    if text.contains('/') {
        return of(text);
    }
    let mut named = all()?.into_iter().filter(|p| p.source.fs.as_str() == text);
    match (named.next(), named.next()) {
        (Some(place), None) => Ok(place),
        (Some(one), Some(other)) if one.source == other.source => Ok(one),
        (Some(one), Some(other)) => {
            let (one, other) = (one.point.display().to_string(), other.point.display());
            Err(Failure::new(libc::ENOTUNIQ, format!("several file systems named '{text}' are mounted"))
                .with_hint(format!("give a mount instead: {one} or {other}")))
        }
        (None, _) => of(text),
    }
}

fn get(path: &str, name: &str, follow: bool) -> Result<Vec<u8>, Errno> {
    let mut value = vec![0u8; XATTR_VALUE_BYTES_MAX];
    let len = if follow {
        rustix::fs::getxattr(path, name, &mut value[..])?
    } else {
        rustix::fs::lgetxattr(path, name, &mut value[..])?
    };
    value.truncate(len);
    Ok(value)
}

/// Worded for people: the attribute is how it works, not what they asked for.
fn explain(doing: &str, path: &str, e: Errno) -> Failure {
    match e {
        Errno::OPNOTSUPP | Errno::NODATA => {
            let foreign = of(path).is_err();
            let failure = Failure::new(e.raw_os_error(), format!("{doing} '{path}': {}", strerror(e.raw_os_error())));
            if foreign { failure.with_hint("the path is not on a Sateen file system") } else { failure }
        }
        _ => Failure::new(e.raw_os_error(), format!("{doing} '{path}': {}", strerror(e.raw_os_error()))),
    }
}

fn decode<T: for<'de> Deserialize<'de>>(path: &str, value: &[u8]) -> Result<T, Failure> {
    serde_json::from_slice(value).map_err(|e| {
        Failure::new(libc::EPROTO, format!("'{path}': the mount gives something this lfs cannot read: {e}"))
    })
}

/// FID of anything.
pub fn fid(path: &str, follow: bool) -> Result<Fid, Failure> {
    let text = get(path, "sateen.fid", follow).map_err(|e| explain("cannot get the FID of", path, e))?;
    let text = String::from_utf8_lossy(&text);
    text.parse().map_err(|e| Failure::new(libc::EPROTO, format!("'{path}': {e}")))
}

/// Layout of a regular file.
pub fn layout(path: &str) -> Result<Layout, Failure> {
    let value = get(path, LAYOUT, true).map_err(|e| explain("cannot get the layout of", path, e))?;
    let layout: Layout = decode(path, &value)?;
    layout.validate()?;
    Ok(layout)
}

/// What is known of a file and its object; `None` for one that never was in a repository.
pub fn hsm(path: &str) -> Result<Option<Hsm>, Failure> {
    match get(path, HSM, true) {
        Ok(value) => decode(path, &value).map(Some),
        // One of another file system has no such attribute either.
        Err(Errno::NODATA | Errno::OPNOTSUPP) if of(path).is_ok() => Ok(None),
        Err(e) => Err(explain("cannot get the HSM state of", path, e)),
    }
}

/// Asks for something to be done with a file. The errno is the caller's to explain.
pub fn ask_hsm(path: &str, operation: &str) -> Result<(), Errno> {
    rustix::fs::setxattr(path, HSM, operation.as_bytes(), XattrFlags::empty())
}

/// Layout of a regular file as Lustre shows it: what has no objects of a released file has the pattern `released`.
pub fn shown_layout(path: &str) -> Result<Layout, Failure> {
    let mut layout = layout(path)?;
    let uninstantiated = |layout: &Layout| layout.components.iter().any(|c| !c.is_instantiated());
    if uninstantiated(&layout) && hsm(path)?.is_some_and(|hsm| hsm.is_released()) {
        for component in layout.components.iter_mut().filter(|c| !c.is_instantiated()) {
            component.striping.pattern = Pattern::Released;
        }
    }
    Ok(layout)
}

/// What new files in a directory get.
pub fn default_layout(path: &str) -> Result<LayoutTemplate, Failure> {
    #[derive(Deserialize)]
    struct Default {
        template: LayoutTemplate,
    }
    let value = get(path, LAYOUT, true).map_err(|e| explain("cannot get the layout of", path, e))?;
    let default: Default = decode(path, &value)?;
    default.template.validate()?;
    Ok(default.template)
}

/// Gives a file or a directory a layout. The errno is the caller's to explain.
pub fn set_layout(path: &str, layout: &LayoutTemplate) -> Result<(), Errno> {
    let value = serde_json::to_vec(layout).map_err(|_| Errno::INVAL)?;
    rustix::fs::setxattr(path, LAYOUT, &value, XattrFlags::empty())
}

/// Removes a directory's own default.
pub fn remove_layout(path: &str) -> Result<(), Errno> {
    rustix::fs::removexattr(path, LAYOUT)
}

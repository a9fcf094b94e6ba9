//! One object as it is now, and what it would be as a file. Imports and events see objects with the same eyes.

use std::sync::atomic::Ordering;
use std::time::Duration;

use sateen_types::limits::{ETAG_BYTES_MAX, PATH_BYTES_MAX, SKIPPED_MESSAGE_BYTES_MAX};
use sateen_types::repository::{ImportedObject, ObjectPath, Skipped, skip_code};

use crate::figures::Figures;
use crate::posix::Kind;
use crate::remote::{Head, Listed, Remote, RemoteError, Retries, Trouble};

/// FSx's name for what [`warn_of_archived`] tells.
const ARCHIVED_CODE: &str = "S3ImportUnsupportedTierWarning";

/// What came of one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// A file, a directory or a symbolic link.
    Object(Box<ImportedObject>),
    /// It cannot be one of these.
    Skipped(Skipped),
    /// Nothing is under the key, or it is the prefix itself.
    Nothing(Vec<u8>),
}

impl Seen {
    /// The key within the prefix.
    pub fn key(&self) -> &[u8] {
        match self {
            Seen::Object(object) => &object.key,
            Seen::Skipped(skipped) => &skipped.key,
            Seen::Nothing(key) => key,
        }
    }

    /// Bytes in a message, more or less.
    pub fn weight(&self) -> usize {
        match self {
            Seen::Object(o) => o.key.len() + o.etag.len() + o.symlink.as_ref().map_or(0, Vec::len),
            Seen::Skipped(s) => s.key.len() + s.message.len(),
            Seen::Nothing(key) => key.len(),
        }
    }
}

/// A request, as often as it is worth it within `patience`.
pub async fn retried<T, Fut>(patience: Duration, figures: &Figures, request: impl Fn() -> Fut) -> Result<T, RemoteError>
where
    Fut: Future<Output = Result<T, RemoteError>>,
{
    let mut retries = Retries::within(patience);
    loop {
        match request().await {
            Ok(answer) => return Ok(answer),
            Err(e) => {
                figures.failed(&e);
                if !retries.pause(&e).await {
                    return Err(e);
                }
            }
        }
    }
}

/// Looks at what is under `key`; `listed` is what a listing tells of it, if one was made. What is wrong with the object alone is
/// no error.
pub async fn look(
    remote: &Remote,
    key: &[u8],
    listed: Option<&Listed>,
    patience: Duration,
    figures: &Figures,
) -> Result<Seen, RemoteError> {
    if key.is_empty() {
        return Ok(Seen::Nothing(Vec::new()));
    }
    let skip = |code: &str, message: String| {
        Ok(Seen::Skipped(Skipped {
            key: key.to_vec(),
            code: code.to_owned(),
            message: cut(&message, SKIPPED_MESSAGE_BYTES_MAX),
        }))
    };
    let path = match ObjectPath::parse(key) {
        Ok(path) => path,
        Err(e) => return skip(skip_code::NOT_POSIX, e.message),
    };
    let head = match retried(patience, figures, || remote.head(key)).await {
        Ok(head) => head,
        Err(e) => match e.trouble {
            Trouble::Gone => return Ok(Seen::Nothing(key.to_vec())),
            Trouble::Denied => return skip(skip_code::ACCESS_DENIED, e.message),
            Trouble::Refused => return skip(skip_code::METADATA, e.message),
            Trouble::Changed | Trouble::Expired | Trouble::Throttled | Trouble::Unavailable => return Err(e),
        },
    };
    let mut symlink = None;
    match head.posix.kind() {
        _ if path.directory => {}
        Kind::Plain => {}
        Kind::Special => return skip(skip_code::METADATA, "it is a device, pipe or socket".to_owned()),
        Kind::Symlink if head.archived => {
            return skip(skip_code::SYMLINK_TIER, "its target cannot be read at once".to_owned());
        }
        Kind::Symlink if head.size == 0 || head.size >= PATH_BYTES_MAX as u64 => {
            return skip(skip_code::METADATA, format!("a symbolic link to {} bytes", head.size));
        }
        Kind::Symlink => match retried(patience, figures, || remote.get_all(key, &head.etag, head.size)).await {
            Ok(target) if target.contains(&0) => {
                return skip(skip_code::METADATA, "a symbolic link to bytes with NUL".to_owned());
            }
            Ok(target) => symlink = Some(target),
            // Written anew in this moment: the next look sees it.
            Err(e) if e.trouble == Trouble::Changed => return skip(skip_code::ACCESS_DENIED, e.message),
            Err(e) if e.trouble == Trouble::Gone => return Ok(Seen::Nothing(key.to_vec())),
            Err(e) if e.is_retryable() || e.trouble == Trouble::Expired => return Err(e),
            Err(e) => return skip(skip_code::ACCESS_DENIED, e.message),
        },
    }
    if head.archived && !path.directory {
        warn_of_archived(key, figures);
    }
    if head.etag.is_empty() || head.etag.len() > ETAG_BYTES_MAX {
        return skip(skip_code::METADATA, format!("an ETag of {} bytes", head.etag.len()));
    }
    Ok(Seen::Object(Box::new(imported(key, head, listed, symlink))))
}

/// Its name is there and its bytes are not. Told with the first, the second, the fourth, the eighth...: there may be millions.
fn warn_of_archived(key: &[u8], figures: &Figures) {
    let count = figures.archived.fetch_add(1, Ordering::Relaxed) + 1;
    if count.is_power_of_two() {
        let (key, code) = (String::from_utf8_lossy(key), ARCHIVED_CODE);
        tracing::warn!(code, %key, count, "imported, but cannot be read before it is restored in the store");
    }
}

/// Size, version and metadata are of one answer, so they are of one version; a listing knows the time more exactly.
fn imported(key: &[u8], head: Head, listed: Option<&Listed>, symlink: Option<Vec<u8>>) -> ImportedObject {
    let exact = listed.filter(|listed| listed.etag == head.etag || head.modified.is_none()).map(|l| l.modified);
    ImportedObject {
        key: key.to_vec(),
        size: head.size,
        etag: head.etag,
        modified: exact.or(head.modified).unwrap_or_default(),
        mode: head.posix.mode,
        uid: head.posix.uid,
        gid: head.posix.gid,
        atime: head.posix.atime,
        mtime: head.posix.mtime,
        symlink,
    }
}

/// As much of a text as fits, whole characters.
pub fn cut(text: &str, bytes_max: usize) -> String {
    text[..text.floor_char_boundary(bytes_max)].to_owned()
}

#[cfg(test)]
mod tests {
    use sateen_types::Timestamp;

    use super::*;
    use crate::posix::Posix;

    #[test]
    fn an_object_that_changed_after_the_listing_has_the_newer_time() {
        let modified = Timestamp { seconds: 10, nanos: 5 };
        let listed = Listed { key: b"k".to_vec(), size: 1, etag: "a".into(), modified };
        let whole = Timestamp { seconds: 10, nanos: 0 };
        let head = Head { size: 1, etag: "a".into(), modified: Some(whole), posix: Posix::default(), archived: false };
        let same = imported(b"k", head.clone(), Some(&listed), None);
        assert_eq!(same.modified.nanos, 5, "the listing is more exact");
        let newer = Head { etag: "b".into(), modified: Some(Timestamp { seconds: 99, nanos: 0 }), ..head.clone() };
        let changed = imported(b"k", newer, Some(&listed), None);
        assert_eq!((changed.modified.seconds, changed.etag.as_str()), (99, "b"));
        assert_eq!(imported(b"k", head.clone(), None, None).modified, whole);
        assert_eq!(imported(b"k", Head { modified: None, ..head }, Some(&listed), None).modified.nanos, 5);
    }

    #[test]
    fn messages_are_cut_between_characters() {
        assert_eq!(cut("aü", 2), "a");
        assert_eq!(cut("aü", 3), "aü");
    }
}

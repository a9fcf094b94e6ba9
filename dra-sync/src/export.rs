//! One key of the repository: an object that is stored, copied or deleted there.
//!
//! What is under the key is looked at first, and every write says what it replaces. Whether the file has changed meanwhile is asked right
//! before the object is put in place. If the answer to a write is lost, the number in the object's metadata tells
//! whether it was made. What is reported as failed may have been made all the same: the MDS gives the work out again with
//! that number among the earlier ones.

mod data;
#[cfg(test)]
mod tests;

use std::sync::atomic::Ordering;
use std::time::SystemTime;

use bytes::Bytes;
use sateen_client::{Access, Advice, Client, Credential, Fid, File, Shift};
use sateen_types::limits::EXPORT_BYTES_MAX;
use sateen_types::repository::{
    CopySource, DeleteOutcome, DeleteResult, Export, ExportOutcome, ExportResult, Found, LookOutcome,
};
use sateen_types::{FsCode, FsResult, Payload, Timestamp};
use tokio::sync::OnceCell;

use crate::figures::Figures;
use crate::posix::{Kind, Posix};
use crate::remote::{EXPORT_RETRY_FOR, Expected, Head, Remote, RemoteError, Retries, Stored, Trouble, Upload};
use crate::room::Room;

/// FSx's code for files that are too large.
const CODE_SIZE: &str = "S3ExportFileSizeTooLarge";
/// FSx's code for what should not be.
const CODE_KIND: &str = "S3ExportInternalError";
/// How often what is under a key may be another one of ours before that counts as a failure.
const TURNS_MAX: u32 = 4;

/// Why nothing was put in place.
#[derive(Debug)]
enum Stop {
    /// Something else is under the key, or nothing.
    Conflict(Option<Found>),
    /// The file changed.
    Changed,
    /// What was to be copied is not there any more.
    SourceGone,
    /// Later. It may have been made all the same, or be made yet: the MDS keeps the number.
    Failed(String),
    /// Never as it is: FSx's code, and why.
    Skipped(&'static str, String),
    /// It is somebody else's by now: nothing is said.
    Lost,
}

impl From<RemoteError> for Stop {
    fn from(e: RemoteError) -> Stop {
        Stop::Failed(e.message)
    }
}

/// What an export reads.
trait Source: Send + Sync {
    /// Whether the file was opened for writing or changed since the assignment was given. `Stale` if that is not this worker's
    /// any more.
    fn changed_under_way(&self) -> impl Future<Output = FsResult<bool>> + Send;
    /// So many bytes from `offset` on; fewer only at the end.
    fn read(&self, offset: u64, len: usize) -> impl Future<Output = FsResult<Payload>> + Send;
}

/// A file of the file system.
struct Here<'a> {
    client: &'a Client,
    shift: Shift,
    number: u64,
    fid: Fid,
    /// Opened when it is read: then nothing releases it.
    file: OnceCell<File>,
}

impl Here<'_> {
    async fn open(&self) -> FsResult<File> {
        let file = self.client.open(&Credential::ROOT, self.fid, Access::READ).await?;
        // Each byte is read once.
        file.advise(0, 0, Advice::NoReuse);
        Ok(file)
    }
}

impl Source for Here<'_> {
    async fn changed_under_way(&self) -> FsResult<bool> {
        self.client.changed_under_way(self.shift, self.number).await
    }

    async fn read(&self, offset: u64, len: usize) -> FsResult<Payload> {
        let file = self.file.get_or_try_init(|| self.open()).await?;
        file.read_pieces(offset, len).await
    }
}

/// An export under way.
struct Job<'a, S> {
    remote: &'a Remote,
    number: u64,
    work: &'a Export,
    about: Posix,
    figures: &'a Figures,
    room: &'a Room,
    /// Objects beyond it are copied in parts.
    copy_bytes_max: u64,
    source: S,
}

/// A write, which may be made again.
enum Write<'a> {
    Put(Payload),
    Copy(&'a CopySource),
    Complete(&'a Upload),
}

/// Executes the export `number`, taken in `shift`. `None` if there is nothing to report.
pub async fn run(
    client: &Client,
    shift: Shift,
    number: u64,
    remote: &Remote,
    work: &Export,
    room: &Room,
    figures: &Figures,
) -> Option<ExportOutcome> {
    let source = Here { client, shift, number, fid: work.fid, file: OnceCell::new() };
    let about = about(number, work);
    let job = Job { remote, number, work, about, figures, room, copy_bytes_max: remote.copy_bytes_max(), source };
    let done = job.store().await;
    if let Some(file) = job.source.file.into_inner()
        && let Err(error) = file.close().await
    {
        tracing::debug!(%error, "a file that was exported was not closed");
    }
    report(done, figures)
}

fn report(done: Result<Found, Stop>, figures: &Figures) -> Option<ExportOutcome> {
    let outcome = |result, message, code: &str, object| {
        figures.exported(result);
        Some(ExportOutcome { result, message, code: code.to_owned(), object })
    };
    match done {
        Ok(object) => {
            figures.exported_bytes.fetch_add(object.size, Ordering::Relaxed);
            outcome(ExportResult::Stored, String::new(), "", Some(object))
        }
        Err(Stop::Conflict(object)) => outcome(ExportResult::Conflict, String::new(), "", object),
        Err(Stop::Changed) => outcome(ExportResult::Changed, String::new(), "", None),
        Err(Stop::SourceGone) => outcome(ExportResult::SourceGone, String::new(), "", None),
        Err(Stop::Failed(message)) => outcome(ExportResult::Failed, message, "", None),
        Err(Stop::Skipped(code, message)) => outcome(ExportResult::Skipped, message, code, None),
        Err(Stop::Lost) => {
            figures.lost.fetch_add(1, Ordering::Relaxed);
            None
        }
    }
}

/// What is said of the object.
fn about(number: u64, work: &Export) -> Posix {
    Posix {
        mode: Some(work.mode),
        uid: Some(work.uid),
        gid: Some(work.gid),
        atime: Some(work.atime),
        mtime: Some(work.mtime),
        export: Some(number),
    }
}

/// What is known to be under the key.
fn known(work: &Export) -> Expected {
    match (work.overrule_etag.as_str(), work.known_etag.as_str()) {
        ("", "") => Expected::Nothing,
        ("", etag) | (etag, _) => Expected::Object(etag.to_owned()),
    }
}

impl<S: Source> Job<'_, S> {
    async fn store(&self) -> Result<Found, Stop> {
        let work = self.work;
        if work.size > EXPORT_BYTES_MAX {
            return Err(Stop::Skipped(CODE_SIZE, format!("{} bytes, more than {EXPORT_BYTES_MAX}", work.size)));
        }
        let expected = self.settle(known(work)).await?;
        if !work.earlier.is_empty() {
            self.clean().await;
        }
        if let Some(source) = &work.copy {
            return self.copy(source, expected).await;
        }
        match (self.about.kind(), &work.symlink) {
            (Kind::Plain, _) if work.key.ends_with(b"/") => self.put(Payload::new(), expected).await,
            (Kind::Plain, _) => self.read_and_store(expected).await,
            (Kind::Symlink, Some(target)) => self.put(Payload::from(Bytes::from(target.clone())), expected).await,
            _ => {
                let message = format!("mode {:o} is neither a file nor a directory nor a symbolic link", work.mode);
                Err(Stop::Skipped(CODE_KIND, message))
            }
        }
    }

    /// What must be replaced, if what is under the key now is what is known, or one of ours.
    async fn settle(&self, known: Expected) -> Result<Expected, Stop> {
        let now = self.look().await?;
        self.judge(now.as_ref(), known)
    }

    fn judge(&self, now: Option<&Head>, known: Expected) -> Result<Expected, Stop> {
        match (now, &known) {
            (None, Expected::Nothing) => Ok(known),
            // What was to be deleted, or somebody has decided to replace, is gone.
            (None, Expected::Object(_)) if self.work.may_be_gone || !self.work.overrule_etag.is_empty() => {
                Ok(Expected::Nothing)
            }
            (Some(head), Expected::Object(etag)) if head.etag == *etag => Ok(known),
            (Some(head), _) if head.posix.export.is_some_and(|number| self.is_ours(number)) => {
                Ok(Expected::Object(head.etag.clone()))
            }
            (now, _) => Err(Stop::Conflict(now.map(found))),
        }
    }

    /// Of an earlier attempt, or (where a store gave up a copy in the middle) of this one.
    fn is_ours(&self, number: u64) -> bool {
        number == self.number || self.work.earlier.contains(&number)
    }

    /// The object under the key.
    async fn look(&self) -> Result<Option<Head>, RemoteError> {
        look(self.remote, &self.work.key, self.figures).await
    }

    /// What earlier attempts left behind is no obstacle, and goes.
    async fn clean(&self) {
        match self.remote.clean(&self.work.key, &self.work.earlier).await {
            Ok(0) => {}
            Ok(count) => tracing::info!(count, "gave up uploads of before"),
            Err(error) => tracing::warn!(%error, "uploads of before stay"),
        }
    }

    /// The last question before something is put in place.
    async fn confirm(&self) -> Result<(), Stop> {
        match self.source.changed_under_way().await {
            Ok(false) => Ok(()),
            Ok(true) => Err(Stop::Changed),
            Err(e) if e.code == FsCode::Stale => Err(Stop::Lost),
            Err(e) => Err(Stop::Failed(format!("the MDS does not say whether the file has changed: {e}"))),
        }
    }

    /// Stores a small object at once.
    async fn put(&self, bytes: Payload, expected: Expected) -> Result<Found, Stop> {
        let size = bytes.len() as u64;
        self.write(Write::Put(bytes), size, expected).await
    }

    /// Makes a write, if the file has not changed, until its fate is known. It may be made more than once. `size` is that of the
    /// object.
    async fn write(&self, write: Write<'_>, size: u64, mut expected: Expected) -> Result<Found, Stop> {
        self.confirm().await?;
        let mut retries = Retries::within(EXPORT_RETRY_FOR);
        for _ in 0..TURNS_MAX {
            let error = loop {
                match self.make(&write, &expected).await {
                    Ok(stored) => return Ok(made(stored, size)),
                    Err(e) => {
                        self.figures.failed(&e);
                        if !retries.pause(&e).await {
                            break e;
                        }
                    }
                }
            };
            let now = self.look().await?;
            let whole = |head: &&Head| head.posix.export == Some(self.number) && head.size == size;
            if let Some(head) = now.as_ref().filter(whole) {
                return Ok(found(head));
            }
            if !matches!(error.trouble, Trouble::Changed | Trouble::Gone) {
                return Err(error.into());
            }
            match self.judge(now.as_ref(), expected.clone())? {
                // It is as it was: something else is missing.
                same if same == expected => {
                    return Err(if self.work.copy.is_some() { Stop::SourceGone } else { error.into() });
                }
                other => expected = other,
            }
        }
        Err(Stop::Failed("what is under the key does not stay the same".to_owned()))
    }

    async fn make(&self, write: &Write<'_>, expected: &Expected) -> Result<Stored, RemoteError> {
        let key = &self.work.key;
        match write {
            Write::Put(bytes) => self.remote.put(key, bytes.clone(), &self.about, expected).await,
            Write::Copy(source) => self.remote.copy(&source.key, &source.etag, key, &self.about, expected).await,
            Write::Complete(upload) => upload.complete(expected).await,
        }
    }
}

/// Deletes what is under the key, if it is the object `etag` or one of an earlier assignment.
pub async fn delete(remote: &Remote, key: &[u8], etag: &str, earlier: &[u64], figures: &Figures) -> DeleteOutcome {
    let (result, message, object) = match delete_known(remote, key, etag, earlier, figures).await {
        Ok(None) => (DeleteResult::Deleted, String::new(), None),
        Ok(Some(other)) => (DeleteResult::Conflict, String::new(), Some(found(&other))),
        Err(e) => (DeleteResult::Failed, e.message, None),
    };
    figures.deleted(result);
    DeleteOutcome { result, message, object }
}

/// Gives the object that is there and is another one.
async fn delete_known(
    remote: &Remote,
    key: &[u8],
    etag: &str,
    earlier: &[u64],
    figures: &Figures,
) -> Result<Option<Head>, RemoteError> {
    let mut retries = Retries::within(EXPORT_RETRY_FOR);
    for _ in 0..TURNS_MAX {
        let Some(now) = look(remote, key, figures).await? else { return Ok(None) };
        let ours = now.posix.export.is_some_and(|number| earlier.contains(&number));
        if now.etag != etag && !ours {
            return Ok(Some(now));
        }
        loop {
            match remote.delete(key, &now.etag).await {
                Ok(()) => return Ok(None),
                Err(e) if e.trouble == Trouble::Gone => return Ok(None),
                // Looked at again.
                Err(e) if e.trouble == Trouble::Changed => break,
                Err(e) => {
                    figures.failed(&e);
                    if !retries.pause(&e).await {
                        return Err(e);
                    }
                }
            }
        }
    }
    Err(RemoteError::new(Trouble::Changed, "what is under the key does not stay the same"))
}

/// What is under a key, and who put it there. Never with a message.
pub async fn look_at(remote: &Remote, key: &[u8], figures: &Figures) -> Result<LookOutcome, RemoteError> {
    let head = look(remote, key, figures).await?;
    let number = head.as_ref().and_then(|head| head.posix.export);
    Ok(LookOutcome { object: head.as_ref().map(found), number, message: String::new() })
}

/// The object under a key, asked for as often as it is worth it.
async fn look(remote: &Remote, key: &[u8], figures: &Figures) -> Result<Option<Head>, RemoteError> {
    let mut retries = Retries::within(EXPORT_RETRY_FOR);
    loop {
        match remote.head(key).await {
            Ok(head) => return Ok(Some(head)),
            Err(e) if e.trouble == Trouble::Gone => return Ok(None),
            Err(e) => {
                figures.failed(&e);
                if !retries.pause(&e).await {
                    return Err(e);
                }
            }
        }
    }
}

fn found(head: &Head) -> Found {
    Found { size: head.size, etag: head.etag.clone(), modified: head.modified.unwrap_or_else(now) }
}

fn made(stored: Stored, size: u64) -> Found {
    Found { size, etag: stored.etag, modified: stored.modified.unwrap_or_else(now) }
}

/// For stores that do not say when.
fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp { seconds: i64::try_from(since.as_secs()).unwrap_or(i64::MAX), nanos: since.subsec_nanos() }
}

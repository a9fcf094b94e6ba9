//! The bytes of an export: read from the OSTs, or copied by the store; in parts at the same time if there are many.

use futures::future::{BoxFuture, FutureExt};
use futures::stream::{FuturesUnordered, StreamExt, TryStreamExt};
use sateen_types::repository::{CopySource, Found};
use sateen_types::{Extent, FsCode, Payload};

use super::{Job, Source, Stop, Write};
use crate::remote::{EXPORT_RETRY_FOR, Expected, PART_BYTES_MIN, PARTS_MAX, RemoteError, Retries, Trouble, Upload};
use crate::room::Taken;

/// Files up to this size are stored with one request; parts of larger ones have it, unless there would be too many.
pub(super) const PART_BYTES: u64 = 16 << 20;
/// The same for copies, whose bytes do not come here.
const COPY_PART_BYTES: u64 = 512 << 20;
/// Parts of one file under way.
const PARTS_UNDER_WAY: usize = 8;
/// Bytes that are asked for at a time.
const READ_BYTES: u64 = 4 << 20;

/// Where parts come from.
#[derive(Clone, Copy)]
enum Parts<'a> {
    Read,
    Copied(&'a CopySource),
}

/// Bytes of each part of an object but the last.
fn part_bytes(size: u64, usual: u64) -> u64 {
    size.div_ceil(PARTS_MAX).next_multiple_of(PART_BYTES_MIN).max(usual)
}

/// The range of part `index`.
fn part(index: u64, size: u64, part_bytes: u64) -> Extent {
    let start = index * part_bytes;
    Extent { start, end: size.min(start + part_bytes) }
}

impl<S: Source> Job<'_, S> {
    /// The store copies the object; in parts if it is large.
    pub(super) async fn copy(&self, source: &CopySource, expected: Expected) -> Result<Found, Stop> {
        if source.size <= self.copy_bytes_max {
            return self.write(Write::Copy(source), source.size, expected).await;
        }
        let each = part_bytes(source.size, COPY_PART_BYTES.min(self.copy_bytes_max));
        self.in_parts(Parts::Copied(source), source.size, each, expected).await
    }

    /// Reads the file and stores it; in parts if it is large.
    pub(super) async fn read_and_store(&self, expected: Expected) -> Result<Found, Stop> {
        let size = self.work.size;
        if size <= PART_BYTES {
            let _room = self.room(size).await?;
            let bytes = self.read(Extent { start: 0, end: size }).await?;
            return self.put(bytes, expected).await;
        }
        let each = part_bytes(size, PART_BYTES);
        if each > self.room.bytes() {
            let (mib, has) = (each >> 20, self.room.bytes() >> 20);
            let message =
                format!("a file of {size} bytes is stored in parts of {mib} MiB, and there is room for {has}");
            return Err(Stop::Failed(format!("{message}: raise limits.export_memory of sateen-dra-sync")));
        }
        self.in_parts(Parts::Read, size, each, expected).await
    }

    /// Stores `size` bytes in parts of `each`.
    async fn in_parts(&self, parts: Parts<'_>, size: u64, each: u64, expected: Expected) -> Result<Found, Stop> {
        let upload = self.begin(parts).await?;
        let stored = self.all_parts(&upload, parts, size, each).await;
        let done = match stored {
            Ok(()) => self.write(Write::Complete(&upload), size, expected).await,
            Err(stop) => Err(stop),
        };
        // A completion whose answer was lost has been made or cannot be any more.
        if done.is_err()
            && let Err(error) = upload.abort().await
            && error.trouble != Trouble::Gone
        {
            tracing::warn!(%error, "parts of an upload stay in the bucket");
        }
        self.checked(done?, size).await
    }

    /// Some at a time.
    async fn all_parts(&self, upload: &Upload, parts: Parts<'_>, size: u64, each: u64) -> Result<(), Stop> {
        let mut under_way: FuturesUnordered<BoxFuture<'_, Result<(), Stop>>> = FuturesUnordered::new();
        for index in 0..size.div_ceil(each) {
            while under_way.len() >= PARTS_UNDER_WAY {
                under_way.next().await.unwrap_or(Ok(()))?;
            }
            under_way.push(self.part(upload, parts, index, part(index, size, each)).boxed());
        }
        under_way.try_collect().await
    }

    /// Waits for room for so many bytes.
    async fn room(&self, bytes: u64) -> Result<Taken, Stop> {
        self.room.take(bytes).await.ok_or_else(|| Stop::Failed(format!("{bytes} bytes find no room")))
    }

    async fn part(&self, upload: &Upload, parts: Parts<'_>, index: u64, range: Extent) -> Result<(), Stop> {
        match parts {
            Parts::Copied(source) => {
                let mut retries = Retries::within(EXPORT_RETRY_FOR);
                loop {
                    match upload.copy_part(index, &source.key, &source.etag, range).await {
                        Ok(()) => return Ok(()),
                        Err(e) if matches!(e.trouble, Trouble::Changed | Trouble::Gone) => {
                            return Err(Stop::SourceGone);
                        }
                        Err(e) => self.again(&mut retries, e).await?,
                    }
                }
            }
            Parts::Read => {
                let _room = self.room(range.end - range.start).await?;
                let bytes = self.read(range).await?;
                let mut retries = Retries::within(EXPORT_RETRY_FOR);
                loop {
                    match upload.part(index, range.start, bytes.clone()).await {
                        Ok(()) => return Ok(()),
                        Err(e) => self.again(&mut retries, e).await?,
                    }
                }
            }
        }
    }

    async fn begin(&self, parts: Parts<'_>) -> Result<Upload, Stop> {
        let copied = match parts {
            Parts::Copied(source) => Some((source.key.as_slice(), source.etag.as_str())),
            Parts::Read => None,
        };
        let mut retries = Retries::within(EXPORT_RETRY_FOR);
        loop {
            match self.remote.upload(&self.work.key, &self.about, copied).await {
                Ok(upload) => return Ok(upload),
                Err(e) if copied.is_some() && matches!(e.trouble, Trouble::Changed | Trouble::Gone) => {
                    return Err(Stop::SourceGone);
                }
                Err(e) => self.again(&mut retries, e).await?,
            }
        }
    }

    /// What was put together has as many bytes as were sent.
    async fn checked(&self, made: Found, size: u64) -> Result<Found, Stop> {
        match self.look().await? {
            Some(head) if head.etag == made.etag && head.size != size => {
                let message = format!("the object has {} bytes, {size} were stored", head.size);
                Err(Stop::Failed(message))
            }
            _ => Ok(made),
        }
    }

    /// Waits before a request is made again, or says that it is not worth it.
    async fn again(&self, retries: &mut Retries, error: RemoteError) -> Result<(), Stop> {
        self.figures.failed(&error);
        if retries.pause(&error).await { Ok(()) } else { Err(error.into()) }
    }

    /// A range of the file. Less than that: it was changed.
    async fn read(&self, range: Extent) -> Result<Payload, Stop> {
        let mut bytes = Payload::new();
        let mut at = range.start;
        while at < range.end {
            let len = (range.end - at).min(READ_BYTES);
            let read = self.source.read(at, len as usize).await.map_err(|e| match e.code {
                FsCode::NotFound | FsCode::Stale => Stop::Changed,
                _ => Stop::Failed(format!("the file cannot be read: {e}")),
            })?;
            if (read.len() as u64) < len {
                return Err(Stop::Changed);
            }
            at += len;
            bytes.extend(read.pieces().cloned());
        }
        Ok(bytes)
    }
}

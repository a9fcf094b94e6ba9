//! What S3 asks of the store.

use std::collections::HashMap;
use std::io::{Read, Seek, SeekFrom, Write};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use s3s::dto::*;
use s3s::{S3, S3Error, S3Request, S3Response, S3Result, s3_error};
use sateen_types::{FsCode, FsError};

use crate::store::{Record, Store};

/// Bytes that are read from a file at a time.
const PIECE_BYTES: usize = 256 << 10;
/// Most keys in one page of a listing (S3).
const KEYS_MAX: usize = 1000;

/// How slow the server pretends to be.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pace {
    /// Before every answer.
    pub delay: Duration,
    /// Of each answer; 0: as fast as it goes.
    pub bytes_per_second: u64,
}

/// The store as S3 sees it.
#[derive(Debug)]
pub struct Service {
    /// Where everything is.
    pub store: Arc<Store>,
    /// How slow.
    pub pace: Pace,
}

fn refused(e: FsError) -> S3Error {
    match e.code {
        FsCode::NotFound => s3_error!(NoSuchBucket, "{}", e.message),
        FsCode::NameTooLong => s3_error!(KeyTooLongError, "{}", e.message),
        FsCode::Invalid => s3_error!(InvalidBucketName, "{}", e.message),
        _ => s3_error!(InternalError, "{}", e.message),
    }
}

/// Runs `work` on a thread for such work.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> std::io::Result<T> + Send + 'static) -> S3Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(e)) => Err(s3_error!(InternalError, "{e}")),
        Err(e) => Err(s3_error!(InternalError, "{e}")),
    }
}

fn etag(record: &Record) -> ETag {
    ETag::Strong(record.etag())
}

/// Whether a condition names this object.
fn names(condition: &ETagCondition, record: &Record) -> bool {
    condition.is_any() || condition.as_etag().is_some_and(|tag| tag.as_strong() == Some(record.etag().as_str()))
}

impl Service {
    /// The object under a key, if the conditions of a read hold.
    fn find(
        &self,
        bucket: &str,
        key: &str,
        if_match: Option<&ETagCondition>,
        if_none_match: Option<&ETagCondition>,
    ) -> S3Result<Record> {
        let record = self.store.get(bucket, key).map_err(refused)?.ok_or_else(|| s3_error!(NoSuchKey))?;
        if if_match.is_some_and(|condition| !names(condition, &record)) {
            return Err(s3_error!(PreconditionFailed));
        }
        if if_none_match.is_some_and(|condition| names(condition, &record)) {
            return Err(s3_error!(NotModified));
        }
        Ok(record)
    }

    async fn wait(&self) {
        if !self.pace.delay.is_zero() {
            tokio::time::sleep(self.pace.delay).await;
        }
    }
}

fn metadata(record: &Record) -> Option<HashMap<String, String>> {
    (!record.metadata.is_empty()).then(|| record.metadata.clone().into_iter().collect())
}

fn size(bytes: u64) -> Option<i64> {
    i64::try_from(bytes).ok()
}

/// A key in a listing, percent-encoded if that was asked for.
fn shown(key: &str, encoded: bool) -> String {
    if !encoded {
        return key.to_owned();
    }
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~' | b'/');
    key.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

/// The key to go on behind, for the eyes of this server only.
fn token_of(key: &str) -> String {
    key.bytes().map(|b| format!("{b:02x}")).collect()
}

fn key_of(token: &str) -> Option<String> {
    let digits = |i: usize| token.get(i..i + 2).and_then(|pair| u8::from_str_radix(pair, 16).ok());
    let bytes: Option<Vec<u8>> = (0..token.len()).step_by(2).map(digits).collect();
    String::from_utf8(bytes?).ok()
}

#[async_trait::async_trait]
impl S3 for Service {
    async fn create_bucket(&self, req: S3Request<CreateBucketInput>) -> S3Result<S3Response<CreateBucketOutput>> {
        if !self.store.create_bucket(&req.input.bucket).map_err(refused)? {
            return Err(s3_error!(BucketAlreadyOwnedByYou));
        }
        Ok(S3Response::new(CreateBucketOutput::default()))
    }

    async fn list_buckets(&self, _req: S3Request<ListBucketsInput>) -> S3Result<S3Response<ListBucketsOutput>> {
        let bucket = |name| Bucket { name: Some(name), ..Bucket::default() };
        let buckets = Some(self.store.buckets().into_iter().map(bucket).collect());
        Ok(S3Response::new(ListBucketsOutput { buckets, ..ListBucketsOutput::default() }))
    }

    async fn head_bucket(&self, req: S3Request<HeadBucketInput>) -> S3Result<S3Response<HeadBucketOutput>> {
        match self.store.buckets().contains(&req.input.bucket) {
            true => Ok(S3Response::new(HeadBucketOutput::default())),
            false => Err(s3_error!(NoSuchBucket)),
        }
    }

    async fn get_bucket_location(
        &self,
        _req: S3Request<GetBucketLocationInput>,
    ) -> S3Result<S3Response<GetBucketLocationOutput>> {
        Ok(S3Response::new(GetBucketLocationOutput::default()))
    }

    async fn list_objects_v2(&self, req: S3Request<ListObjectsV2Input>) -> S3Result<S3Response<ListObjectsV2Output>> {
        self.wait().await;
        let input = req.input;
        let encoded = input.encoding_type.as_ref().is_some_and(|e| e.as_str() == EncodingType::URL);
        let prefix = input.prefix.clone().unwrap_or_default();
        let after = match &input.continuation_token {
            Some(token) => {
                key_of(token).ok_or_else(|| s3_error!(InvalidArgument, "the continuation token is not one"))?
            }
            None => input.start_after.clone().unwrap_or_default(),
        };
        let max = input.max_keys.map_or(KEYS_MAX, |max| usize::try_from(max).unwrap_or(0).min(KEYS_MAX));
        let found =
            self.store.list(&input.bucket, &prefix, &after, input.delimiter.as_deref(), max).map_err(refused)?;
        let object = |(key, record): &(String, Record)| Object {
            key: Some(shown(key, encoded)),
            size: size(record.size),
            e_tag: Some(etag(record)),
            last_modified: Some(record.modified().into()),
            storage_class: Some(ObjectStorageClass::from_static(ObjectStorageClass::STANDARD)),
            ..Object::default()
        };
        let folded = |prefix: &String| CommonPrefix { prefix: Some(shown(prefix, encoded)) };
        Ok(S3Response::new(ListObjectsV2Output {
            name: Some(input.bucket),
            prefix: Some(shown(&prefix, encoded)),
            delimiter: input.delimiter,
            max_keys: input.max_keys,
            encoding_type: input.encoding_type,
            key_count: i32::try_from(found.objects.len() + found.prefixes.len()).ok(),
            is_truncated: Some(found.next.is_some()),
            contents: Some(found.objects.iter().map(object).collect()),
            common_prefixes: Some(found.prefixes.iter().map(folded).collect()),
            continuation_token: input.continuation_token,
            next_continuation_token: found.next.as_deref().map(token_of),
            start_after: input.start_after.as_deref().map(|key| shown(key, encoded)),
            ..ListObjectsV2Output::default()
        }))
    }

    async fn head_object(&self, req: S3Request<HeadObjectInput>) -> S3Result<S3Response<HeadObjectOutput>> {
        self.wait().await;
        let input = req.input;
        let record = self.find(&input.bucket, &input.key, input.if_match.as_ref(), input.if_none_match.as_ref())?;
        Ok(S3Response::new(HeadObjectOutput {
            content_length: size(record.size),
            e_tag: Some(etag(&record)),
            last_modified: Some(record.modified().into()),
            metadata: metadata(&record),
            ..HeadObjectOutput::default()
        }))
    }

    async fn get_object(&self, req: S3Request<GetObjectInput>) -> S3Result<S3Response<GetObjectOutput>> {
        self.wait().await;
        let input = req.input;
        let record = self.find(&input.bucket, &input.key, input.if_match.as_ref(), input.if_none_match.as_ref())?;
        let range = match &input.range {
            Some(range) => range.check(record.size)?,
            None => 0..record.size,
        };
        let mut file = self.store.data(&input.bucket, &record).map_err(refused)?;
        let start = range.start;
        let file = blocking(move || file.seek(SeekFrom::Start(start)).map(|_| file)).await?;
        let pace = self.pace;
        let body = futures::stream::unfold((file, range.end - range.start), move |(mut file, rest)| async move {
            if rest == 0 {
                return None;
            }
            let len = rest.min(PIECE_BYTES as u64) as usize;
            if pace.bytes_per_second > 0 {
                tokio::time::sleep(Duration::from_secs_f64(len as f64 / pace.bytes_per_second as f64)).await;
            }
            let read = tokio::task::spawn_blocking(move || {
                let mut piece = vec![0; len];
                file.read_exact(&mut piece).map(|()| (Bytes::from(piece), file))
            });
            match read.await.map_err(std::io::Error::other).flatten() {
                Ok((piece, file)) => Some((Ok(piece), (file, rest - len as u64))),
                // The answer is cut off: there is no other way to say it by now.
                Err(e) => {
                    tracing::warn!(error = %e, "the bytes of an object cannot be read");
                    None
                }
            }
        });
        let content_range = input
            .range
            .as_ref()
            .map(|_| format!("bytes {}-{}/{}", range.start, range.end.saturating_sub(1), record.size));
        let mut response = S3Response::new(GetObjectOutput {
            body: Some(StreamingBlob::wrap(body.map(|part: Result<Bytes, std::io::Error>| part))),
            content_length: size(range.end - range.start),
            content_range,
            e_tag: Some(etag(&record)),
            last_modified: Some(record.modified().into()),
            metadata: metadata(&record),
            ..GetObjectOutput::default()
        });
        if input.range.is_some() {
            response.status = Some(hyper::StatusCode::PARTIAL_CONTENT);
        }
        Ok(response)
    }

    async fn put_object(&self, req: S3Request<PutObjectInput>) -> S3Result<S3Response<PutObjectOutput>> {
        self.wait().await;
        let input = req.input;
        let mut incoming = self.store.begin(&input.bucket).map_err(refused)?;
        if let Some(mut body) = input.body {
            while let Some(part) = body.next().await {
                let part = part.map_err(|e| s3_error!(IncompleteBody, "{e}"))?;
                incoming = blocking(move || incoming.file.write_all(&part).map(|()| incoming)).await?;
            }
        }
        // Looked at when the bytes are there: nobody else takes the key in between but by a race that S3 has, too.
        let there = self.store.get(&input.bucket, &input.key).map_err(refused)?;
        let matches = |condition: &ETagCondition| there.as_ref().is_some_and(|record| names(condition, record));
        if input.if_none_match.as_ref().is_some_and(matches) || input.if_match.as_ref().is_some_and(|c| !matches(c)) {
            return Err(s3_error!(PreconditionFailed));
        }
        let metadata = input.metadata.unwrap_or_default().into_iter().collect();
        let record = self.store.commit(&input.bucket, &input.key, incoming, metadata).map_err(refused)?;
        Ok(S3Response::new(PutObjectOutput { e_tag: Some(etag(&record)), ..PutObjectOutput::default() }))
    }

    async fn delete_objects(&self, req: S3Request<DeleteObjectsInput>) -> S3Result<S3Response<DeleteObjectsOutput>> {
        let mut deleted = Vec::new();
        for object in req.input.delete.objects {
            self.store.delete(&req.input.bucket, &object.key).map_err(refused)?;
            deleted.push(DeletedObject { key: Some(object.key), ..DeletedObject::default() });
        }
        Ok(S3Response::new(DeleteObjectsOutput { deleted: Some(deleted), ..DeleteObjectsOutput::default() }))
    }

    async fn delete_object(&self, req: S3Request<DeleteObjectInput>) -> S3Result<S3Response<DeleteObjectOutput>> {
        self.store.delete(&req.input.bucket, &req.input.key).map_err(refused)?;
        Ok(S3Response::new(DeleteObjectOutput::default()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_name_keys_and_nothing_else() {
        for key in ["", "a/b", "\u{1}\n\0", "\u{fc}"] {
            assert_eq!(key_of(&token_of(key)).as_deref(), Some(key));
        }
        for token in ["0", "zz", "\u{fc}", "ff"] {
            assert_eq!(key_of(token), None, "{token}");
        }
        assert_eq!(shown("a b+%/\u{1}", true), "a%20b%2B%25/%01");
    }
}

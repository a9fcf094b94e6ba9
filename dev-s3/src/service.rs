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
use tokio::time::Instant;

use crate::multipart::Uploads;
use crate::store::{About, HEADERS, Incoming, Record, Store};

/// Bytes that are read from a file at a time.
const PIECE_BYTES: usize = 256 << 10;
/// Most keys in one page of a listing (S3).
const KEYS_MAX: usize = 1000;

/// How slow the server pretends to be.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pace {
    /// Before every answer.
    pub delay: Duration,
    /// Of each body, in either direction; 0: as fast as it goes.
    pub bytes_per_second: u64,
}

impl Pace {
    /// Waits until so many bytes of a body may be through that began at `start`.
    async fn keep(&self, start: Instant, bytes: usize) {
        if self.bytes_per_second > 0 {
            let after = Duration::from_secs_f64(bytes as f64 / self.bytes_per_second as f64);
            tokio::time::sleep_until(start + after).await;
        }
    }
}

/// The store as S3 sees it.
#[derive(Debug)]
pub struct Service {
    /// Where everything is.
    pub store: Arc<Store>,
    /// How slow.
    pub pace: Pace,
    /// What is being put together.
    pub uploads: Uploads,
}

pub(crate) fn refused(e: FsError) -> S3Error {
    match e.code {
        FsCode::NotFound => s3_error!(NoSuchBucket, "{}", e.message),
        FsCode::NameTooLong => s3_error!(KeyTooLongError, "{}", e.message),
        FsCode::Invalid => s3_error!(InvalidBucketName, "{}", e.message),
        _ => s3_error!(InternalError, "{}", e.message),
    }
}

/// Runs `work` on a thread for such work.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> S3Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(e)) => Err(s3_error!(InternalError, "{e}")),
        Err(e) => Err(s3_error!(InternalError, "{e}")),
    }
}

pub(crate) fn etag(record: &Record) -> ETag {
    ETag::Strong(record.etag())
}

/// Whether a condition names this object.
pub(crate) fn names(condition: &ETagCondition, record: &Record) -> bool {
    condition.is_any() || condition.as_etag().is_some_and(|tag| tag.as_strong() == Some(record.etag().as_str()))
}

/// Under which conditions something may take a key.
#[derive(Debug, Default)]
pub(crate) struct Conditions {
    /// This is there now.
    pub if_match: Option<ETagCondition>,
    /// This is not.
    pub if_none_match: Option<ETagCondition>,
}

impl Conditions {
    fn hold(&self, there: Option<&Record>) -> bool {
        let matches = |condition: &ETagCondition| there.is_some_and(|record| names(condition, record));
        self.if_match.as_ref().is_none_or(matches) && !self.if_none_match.as_ref().is_some_and(matches)
    }
}

/// What is kept beside the bytes of what is written.
pub(crate) fn about(
    metadata: Option<Metadata>,
    content_type: Option<String>,
    // In the order of their names.
    headers: [Option<String>; HEADERS.len()],
) -> About {
    let given = HEADERS.into_iter().zip(headers).filter_map(|(name, value)| Some((name.to_owned(), value?)));
    About { metadata: metadata.unwrap_or_default().into_iter().collect(), content_type, headers: given.collect() }
}

/// One of [`HEADERS`] of an object.
pub(crate) fn header(record: &Record, name: &str) -> Option<String> {
    record.headers.get(name).cloned()
}

impl Service {
    /// The body of a write.
    pub(crate) async fn receive(&self, bucket: &str, body: Option<StreamingBlob>) -> S3Result<Incoming> {
        let mut incoming = self.store.begin(bucket).map_err(refused)?;
        let Some(mut body) = body else { return Ok(incoming) };
        let (start, mut received) = (Instant::now(), 0);
        while let Some(part) = body.next().await {
            let part = part.map_err(|e| s3_error!(IncompleteBody, "{e}"))?;
            received += part.len();
            self.pace.keep(start, received).await;
            incoming = blocking(move || incoming.file.write_all(&part).map(|()| incoming)).await?;
        }
        Ok(incoming)
    }

    /// What was received takes its key, if the conditions hold in that moment.
    pub(crate) fn take_key(
        &self,
        bucket: &str,
        key: &str,
        incoming: Incoming,
        about: About,
        conditions: &Conditions,
    ) -> S3Result<Record> {
        let put = self.store.commit(bucket, key, incoming, about, |there| conditions.hold(there)).map_err(refused)?;
        let record = put.ok_or_else(|| s3_error!(PreconditionFailed))?;
        self.answer()?;
        Ok(record)
    }

    /// What was done is answered, unless a test wants otherwise.
    pub(crate) fn answer(&self) -> S3Result<()> {
        match self.store.loses_answer() {
            true => Err(s3_error!(InternalError, "this answer was lost on purpose")),
            false => Ok(()),
        }
    }

    /// The object under a key, if the conditions of a read hold.
    pub(crate) fn find(
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

    pub(crate) async fn wait(&self) {
        if !self.pace.delay.is_zero() {
            tokio::time::sleep(self.pace.delay).await;
        }
    }
}

fn metadata(record: &Record) -> Option<HashMap<String, String>> {
    (!record.metadata.is_empty()).then(|| record.metadata.clone().into_iter().collect())
}

pub(crate) fn size(bytes: u64) -> Option<i64> {
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
            content_type: record.content_type.clone(),
            cache_control: header(&record, "cache-control"),
            content_disposition: header(&record, "content-disposition"),
            content_encoding: header(&record, "content-encoding"),
            content_language: header(&record, "content-language"),
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
            content_type: record.content_type.clone(),
            cache_control: header(&record, "cache-control"),
            content_disposition: header(&record, "content-disposition"),
            content_encoding: header(&record, "content-encoding"),
            content_language: header(&record, "content-language"),
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
        let incoming = self.receive(&input.bucket, input.body).await?;
        let headers = [input.cache_control, input.content_disposition, input.content_encoding, input.content_language];
        let about = about(input.metadata, input.content_type, headers);
        let conditions = Conditions { if_match: input.if_match, if_none_match: input.if_none_match };
        let record = self.take_key(&input.bucket, &input.key, incoming, about, &conditions)?;
        Ok(S3Response::new(PutObjectOutput { e_tag: Some(etag(&record)), ..PutObjectOutput::default() }))
    }

    async fn copy_object(&self, req: S3Request<CopyObjectInput>) -> S3Result<S3Response<CopyObjectOutput>> {
        self.copy(req).await
    }

    async fn create_multipart_upload(
        &self,
        req: S3Request<CreateMultipartUploadInput>,
    ) -> S3Result<S3Response<CreateMultipartUploadOutput>> {
        self.begin_upload(req).await
    }

    async fn upload_part(&self, req: S3Request<UploadPartInput>) -> S3Result<S3Response<UploadPartOutput>> {
        self.receive_part(req).await
    }

    async fn upload_part_copy(
        &self,
        req: S3Request<UploadPartCopyInput>,
    ) -> S3Result<S3Response<UploadPartCopyOutput>> {
        self.copy_part(req).await
    }

    async fn complete_multipart_upload(
        &self,
        req: S3Request<CompleteMultipartUploadInput>,
    ) -> S3Result<S3Response<CompleteMultipartUploadOutput>> {
        self.complete_upload(req).await
    }

    async fn abort_multipart_upload(
        &self,
        req: S3Request<AbortMultipartUploadInput>,
    ) -> S3Result<S3Response<AbortMultipartUploadOutput>> {
        let input = req.input;
        self.uploads.end(&input.upload_id, &input.bucket, &input.key)?;
        Ok(S3Response::new(AbortMultipartUploadOutput::default()))
    }

    async fn list_multipart_uploads(
        &self,
        req: S3Request<ListMultipartUploadsInput>,
    ) -> S3Result<S3Response<ListMultipartUploadsOutput>> {
        self.list_uploads(req)
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
        self.wait().await;
        let input = req.input;
        let expected = |record: &Record| input.if_match.as_ref().is_none_or(|condition| names(condition, record));
        if !self.store.delete_if(&input.bucket, &input.key, expected).map_err(refused)? {
            return Err(s3_error!(PreconditionFailed));
        }
        self.answer()?;
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

//! Objects that are put together from parts, and copies made here.
//!
//! Uploads are kept in memory: they do not survive the process. Their parts are files like objects' bytes, and go when an upload
//! ends.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::sync::Arc;

use parking_lot::Mutex;
use s3s::dto::*;
use s3s::{S3Request, S3Response, S3Result, s3_error};

use crate::service::{Conditions, Service, about, blocking, etag, names, refused};
use crate::store::{About, Incoming, Record};

/// Most uploads at a time.
const UPLOADS_MAX: usize = 10_000;
/// Most parts of one (S3).
const PARTS_MAX: i32 = 10_000;
/// Least bytes of a part that is not the last one (S3).
const PART_BYTES_MIN: u64 = 5 << 20;
/// Most bytes that are copied in one request (S3).
const COPY_BYTES_MAX: u64 = 5 << 30;

/// A part that was received.
#[derive(Clone, Debug)]
struct Part {
    incoming: Arc<Incoming>,
    bytes: u64,
}

/// One upload.
#[derive(Debug)]
struct Upload {
    bucket: String,
    key: String,
    about: About,
    parts: BTreeMap<i32, Part>,
    began: Timestamp,
}

/// All uploads, by their names.
#[derive(Debug, Default)]
pub struct Uploads(Mutex<(u64, BTreeMap<String, Upload>)>);

impl Uploads {
    fn begin(&self, bucket: &str, key: &str, about: About) -> S3Result<String> {
        let mut all = self.0.lock();
        if all.1.len() >= UPLOADS_MAX {
            return Err(s3_error!(SlowDown, "there are {UPLOADS_MAX} uploads: complete or abort some"));
        }
        all.0 += 1;
        // An upload of before this process has another name.
        let id = format!("{:016x}-{:x}", all.0, std::process::id());
        let began = Timestamp::from(std::time::SystemTime::now());
        let (bucket, key) = (bucket.to_owned(), key.to_owned());
        all.1.insert(id.clone(), Upload { bucket, key, about, parts: BTreeMap::new(), began });
        Ok(id)
    }

    fn with<T>(&self, id: &str, bucket: &str, key: &str, work: impl FnOnce(&mut Upload) -> S3Result<T>) -> S3Result<T> {
        let mut all = self.0.lock();
        let upload = all.1.get_mut(id).filter(|upload| upload.bucket == bucket && upload.key == key);
        work(upload.ok_or_else(|| s3_error!(NoSuchUpload))?)
    }

    /// The upload is over, with all of its parts.
    pub(crate) fn end(&self, id: &str, bucket: &str, key: &str) -> S3Result<()> {
        self.with(id, bucket, key, |_| Ok(()))?;
        self.0.lock().1.remove(id);
        Ok(())
    }
}

/// The bytes from `start` on, at most `len` of them, of one file behind the end of another.
fn append(from: &mut File, start: u64, len: u64, to: &mut File) -> std::io::Result<u64> {
    from.seek(SeekFrom::Start(start))?;
    std::io::copy(&mut from.take(len), to)
}

/// Bucket and key of what is copied.
fn source_of(source: &CopySource) -> S3Result<(&str, &str)> {
    match source {
        CopySource::Bucket { bucket, key, .. } => Ok((bucket, key)),
        _ => Err(s3_error!(NotImplemented, "only objects of buckets can be copied")),
    }
}

/// `bytes=FIRST-LAST`.
fn range_of(text: Option<&str>, size: u64) -> S3Result<std::ops::Range<u64>> {
    let Some(text) = text else { return Ok(0..size) };
    let bounds = text.strip_prefix("bytes=").and_then(|rest| rest.split_once('-'));
    let numbers = bounds.and_then(|(first, last)| Some((first.parse::<u64>().ok()?, last.parse::<u64>().ok()?)));
    match numbers {
        Some((first, last)) if first <= last && last < size => Ok(first..last + 1),
        _ => Err(s3_error!(InvalidArgument, "{text} is no range of an object of {size} bytes")),
    }
}

fn condition_of<T>(req: &S3Request<T>, name: &str) -> S3Result<Option<ETagCondition>> {
    let Some(value) = req.headers.get(name) else { return Ok(None) };
    ETagCondition::parse_http_header(value.as_bytes()).map(Some).map_err(|e| s3_error!(InvalidArgument, "{name}: {e}"))
}

impl Service {
    /// What is copied, if the condition on it holds.
    fn source(&self, source: &CopySource, if_match: Option<&ETagCondition>) -> S3Result<(Record, File)> {
        let (bucket, key) = source_of(source)?;
        let record = self.find(bucket, key, None, None)?;
        if if_match.is_some_and(|condition| !names(condition, &record)) {
            return Err(s3_error!(PreconditionFailed));
        }
        let file = self.store.data(bucket, &record).map_err(refused)?;
        Ok((record, file))
    }

    pub(crate) async fn copy(&self, req: S3Request<CopyObjectInput>) -> S3Result<S3Response<CopyObjectOutput>> {
        self.wait().await;
        // s3s does not name the conditions on what is there already.
        let if_match = condition_of(&req, "if-match")?;
        let conditions = Conditions { if_match, if_none_match: condition_of(&req, "if-none-match")? };
        let input = req.input;
        let (source, mut file) = self.source(&input.copy_source, input.copy_source_if_match.as_ref())?;
        if source.size > COPY_BYTES_MAX {
            return Err(s3_error!(InvalidRequest, "an object of {} bytes is copied in parts", source.size));
        }
        let replace = input.metadata_directive.as_ref().is_some_and(|d| d.as_str() == MetadataDirective::REPLACE);
        let about = match replace {
            true => {
                let headers =
                    [input.cache_control, input.content_disposition, input.content_encoding, input.content_language];
                about(input.metadata, input.content_type, headers)
            }
            false => About { metadata: source.metadata, content_type: source.content_type, headers: source.headers },
        };
        let mut incoming = self.store.begin(&input.bucket).map_err(refused)?;
        let incoming =
            blocking(move || append(&mut file, 0, source.size, &mut incoming.file).map(|_| incoming)).await?;
        let record = self.take_key(&input.bucket, &input.key, incoming, about, &conditions)?;
        let result = CopyObjectResult {
            e_tag: Some(etag(&record)),
            last_modified: Some(record.modified().into()),
            ..CopyObjectResult::default()
        };
        Ok(S3Response::new(CopyObjectOutput { copy_object_result: Some(result), ..CopyObjectOutput::default() }))
    }

    pub(crate) async fn begin_upload(
        &self,
        req: S3Request<CreateMultipartUploadInput>,
    ) -> S3Result<S3Response<CreateMultipartUploadOutput>> {
        self.wait().await;
        let input = req.input;
        if !self.store.buckets().contains(&input.bucket) {
            return Err(s3_error!(NoSuchBucket));
        }
        let headers = [input.cache_control, input.content_disposition, input.content_encoding, input.content_language];
        let about = about(input.metadata, input.content_type, headers);
        let id = self.uploads.begin(&input.bucket, &input.key, about)?;
        Ok(S3Response::new(CreateMultipartUploadOutput {
            bucket: Some(input.bucket),
            key: Some(input.key),
            upload_id: Some(id),
            ..CreateMultipartUploadOutput::default()
        }))
    }

    pub(crate) async fn receive_part(&self, req: S3Request<UploadPartInput>) -> S3Result<S3Response<UploadPartOutput>> {
        self.wait().await;
        let input = req.input;
        self.uploads.with(&input.upload_id, &input.bucket, &input.key, |_| Ok(()))?;
        let incoming = self.receive(&input.bucket, input.body).await?;
        let tag = self.keep_part(&input.upload_id, &input.bucket, &input.key, input.part_number, incoming)?;
        Ok(S3Response::new(UploadPartOutput { e_tag: Some(tag), ..UploadPartOutput::default() }))
    }

    pub(crate) async fn copy_part(
        &self,
        req: S3Request<UploadPartCopyInput>,
    ) -> S3Result<S3Response<UploadPartCopyOutput>> {
        self.wait().await;
        let input = req.input;
        self.uploads.with(&input.upload_id, &input.bucket, &input.key, |_| Ok(()))?;
        let (source, mut file) = self.source(&input.copy_source, input.copy_source_if_match.as_ref())?;
        let range = range_of(input.copy_source_range.as_deref(), source.size)?;
        let mut incoming = self.store.begin(&input.bucket).map_err(refused)?;
        let (start, len) = (range.start, range.end - range.start);
        let incoming = blocking(move || append(&mut file, start, len, &mut incoming.file).map(|_| incoming)).await?;
        let tag = self.keep_part(&input.upload_id, &input.bucket, &input.key, input.part_number, incoming)?;
        let result = CopyPartResult { e_tag: Some(tag), ..CopyPartResult::default() };
        Ok(S3Response::new(UploadPartCopyOutput { copy_part_result: Some(result), ..UploadPartCopyOutput::default() }))
    }

    fn keep_part(&self, id: &str, bucket: &str, key: &str, number: i32, incoming: Incoming) -> S3Result<ETag> {
        if !(1..=PARTS_MAX).contains(&number) {
            return Err(s3_error!(InvalidArgument, "part {number} is not between 1 and {PARTS_MAX}"));
        }
        let bytes = incoming.file.metadata().map_err(|e| s3_error!(InternalError, "{e}"))?.len();
        let tag = ETag::Strong(incoming.etag());
        let part = Part { incoming: Arc::new(incoming), bytes };
        self.uploads.with(id, bucket, key, |upload| {
            upload.parts.insert(number, part);
            Ok(())
        })?;
        Ok(tag)
    }

    pub(crate) async fn complete_upload(
        &self,
        req: S3Request<CompleteMultipartUploadInput>,
    ) -> S3Result<S3Response<CompleteMultipartUploadOutput>> {
        self.wait().await;
        let input = req.input;
        let named = input.multipart_upload.and_then(|upload| upload.parts).unwrap_or_default();
        let chosen = |upload: &mut Upload| Ok((choose(&upload.parts, &named)?, upload.about.clone()));
        let (parts, about) = self.uploads.with(&input.upload_id, &input.bucket, &input.key, chosen)?;
        let mut incoming = self.store.begin(&input.bucket).map_err(refused)?;
        let incoming = blocking(move || {
            for part in parts {
                append(&mut part.incoming.file.try_clone()?, 0, part.bytes, &mut incoming.file)?;
            }
            Ok(incoming)
        })
        .await?;
        let conditions = Conditions { if_match: input.if_match, if_none_match: input.if_none_match };
        let put = self.take_key(&input.bucket, &input.key, incoming, about, &conditions);
        // Its answer may be lost on purpose.
        if put.as_ref().err().is_none_or(|e| e.code().as_str() == "InternalError") {
            self.uploads.end(&input.upload_id, &input.bucket, &input.key)?;
        }
        let record = put?;
        Ok(S3Response::new(CompleteMultipartUploadOutput {
            bucket: Some(input.bucket),
            key: Some(input.key),
            e_tag: Some(etag(&record)),
            ..CompleteMultipartUploadOutput::default()
        }))
    }

    pub(crate) fn list_uploads(
        &self,
        req: S3Request<ListMultipartUploadsInput>,
    ) -> S3Result<S3Response<ListMultipartUploadsOutput>> {
        let input = req.input;
        let prefix = input.prefix.clone().unwrap_or_default();
        let all = self.uploads.0.lock();
        let wanted = |upload: &&Upload| upload.bucket == input.bucket && upload.key.starts_with(&prefix);
        let mut uploads: Vec<MultipartUpload> = Vec::new();
        for (id, upload) in all.1.iter().filter(|(_, upload)| wanted(upload)) {
            uploads.push(MultipartUpload {
                key: Some(upload.key.clone()),
                upload_id: Some(id.clone()),
                initiated: Some(upload.began.clone()),
                ..MultipartUpload::default()
            });
        }
        uploads.sort_by(|a, b| (&a.key, &a.upload_id).cmp(&(&b.key, &b.upload_id)));
        Ok(S3Response::new(ListMultipartUploadsOutput {
            bucket: Some(input.bucket.clone()),
            prefix: input.prefix,
            is_truncated: Some(false),
            uploads: Some(uploads),
            ..ListMultipartUploadsOutput::default()
        }))
    }
}

/// The parts that a completion names, in order.
fn choose(parts: &BTreeMap<i32, Part>, named: &[CompletedPart]) -> S3Result<Vec<Part>> {
    let mut chosen = Vec::new();
    let mut last = 0;
    for one in named {
        let number = one.part_number.unwrap_or(0);
        if number <= last {
            return Err(s3_error!(InvalidPartOrder));
        }
        last = number;
        let part = parts.get(&number).ok_or_else(|| s3_error!(InvalidPart, "part {number} was not received"))?;
        if one.e_tag.as_ref().and_then(ETag::as_strong) != Some(part.incoming.etag().as_str()) {
            return Err(s3_error!(InvalidPart, "part {number} has another ETag"));
        }
        chosen.push(part.clone());
    }
    let Some((_, before)) = chosen.split_last() else { return Err(s3_error!(MalformedXML, "no part is named")) };
    if let Some(small) = before.iter().find(|part| part.bytes < PART_BYTES_MIN) {
        return Err(s3_error!(EntityTooSmall, "a part of {} bytes", small.bytes));
    }
    Ok(chosen)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_lie_within_the_source() {
        assert_eq!(range_of(None, 7).expect("all"), 0..7);
        assert_eq!(range_of(Some("bytes=2-6"), 7).expect("a range"), 2..7);
        for bad in ["bytes=2-7", "bytes=3-2", "bytes=-5", "bytes=2-", "2-3", "bytes=a-b"] {
            range_of(Some(bad), 7).expect_err(bad);
        }
    }
}

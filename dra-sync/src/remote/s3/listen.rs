//! A bucket that tells of its changes itself: MinIO's ListenBucketNotification, and whoever speaks like it.

use std::time::Duration;

use bytes::Bytes;
use futures::stream::BoxStream;
use http::Method;
use percent_encoding::percent_encode;

use super::super::http::{UNRESERVED, streamed};
use super::{Bucket, RemoteError, Trouble};

/// How long a stream may be silent: servers write a blank each half second, or what `ping` asks for.
const SILENCE_MAX: Duration = Duration::from_secs(45);
/// Seconds between signs of life that are asked for.
const PING_S: u32 = 10;

impl Bucket {
    /// Bytes of the stream of events of all keys with the prefix: JSON documents, a line each, and blank lines. Ends or fails when
    /// the connection does; what happens until it is opened again is not told.
    pub async fn listen(&self) -> Result<BoxStream<'static, Result<Bytes, RemoteError>>, RemoteError> {
        let prefix = percent_encode(self.prefix.as_bytes(), UNRESERVED);
        let events = ["s3:ObjectCreated:*", "s3:ObjectRemoved:*"].map(|event| {
            let event = percent_encode(event.as_bytes(), UNRESERVED);
            format!("&events={event}")
        });
        let url = format!("{}/?ping={PING_S}&prefix={prefix}&suffix={}", self.base, events.concat());
        let what = || format!("listening to {}", self.name);
        let response = self.send(Method::GET, &url, &[], &what).await?;
        // A store that does not know of it answers with a listing.
        let kind = response.headers().get("content-type").and_then(|v| v.to_str().ok()).unwrap_or_default();
        if kind.contains("xml") {
            let error = format!("{}: the store cannot be listened to: use webhooks, SQS, or comparisons alone", what());
            return Err(RemoteError::new(Trouble::Refused, error));
        }
        Ok(streamed(response, what(), SILENCE_MAX))
    }
}

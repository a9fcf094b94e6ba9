//! What changes in buckets, told to who asks: MinIO's ListenBucketNotification, and a webhook.
//!
//! Nothing is kept for who is not there: events are told once, and those that a slow listener has not taken are lost to it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use hyper::client::conn::http1;
use hyper::http::Extensions;
use hyper::{HeaderMap, Method, Request, StatusCode, Uri, header};
use hyper_util::rt::TokioIo;
use s3s::route::S3Route;
use s3s::{Body, S3Request, S3Response, S3Result, s3_error};
use sateen_types::{FsCode, FsError, FsResult};
use tokio::net::TcpStream;
use tokio::sync::broadcast;

use crate::store::Store;

/// Changes that wait for a listener.
const WAITING_MAX: usize = 8192;
/// How often a blank shows that the server is there.
const BLANK_INTERVAL: Duration = Duration::from_millis(500);
/// How long the webhook may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// Pause before the webhook is told again.
const RETRY_PAUSE: Duration = Duration::from_millis(500);
/// How often the webhook is told of a change that it does not take.
const TRIES_MAX: u32 = 120;

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Where.
    pub bucket: String,
    /// Whole.
    pub key: String,
    /// Bytes and ETag of the new object; `None`: it was removed.
    pub object: Option<(u64, String)>,
}

/// Where changes go.
#[derive(Clone, Debug)]
pub struct Changes(broadcast::Sender<Arc<Change>>);

impl Default for Changes {
    fn default() -> Changes {
        Changes(broadcast::channel(WAITING_MAX).0)
    }
}

impl Changes {
    /// Something has changed.
    pub fn tell(&self, change: Change) {
        // Nobody may listen.
        let _ = self.0.send(Arc::new(change));
    }

    /// What changes from now on.
    pub fn listen(&self) -> broadcast::Receiver<Arc<Change>> {
        self.0.subscribe()
    }
}

impl Change {
    /// As MinIO writes it.
    fn to_json(&self) -> serde_json::Value {
        let name = if self.object.is_some() { "s3:ObjectCreated:Put" } else { "s3:ObjectRemoved:Delete" };
        let mut object = serde_json::json!({"key": form_encoded(&self.key)});
        if let Some((size, etag)) = &self.object {
            object["size"] = (*size).into();
            object["eTag"] = etag.as_str().into();
        }
        serde_json::json!({"Records": [{
            "eventVersion": "2.0", "eventSource": "sateen:dev-s3", "eventName": name,
            "s3": {"s3SchemaVersion": "1.0", "bucket": {"name": self.bucket}, "object": object},
        }]})
    }
}

fn form_encoded(key: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~' | b'/');
    let encoded = |b: u8| match b {
        b' ' => "+".to_owned(),
        b if plain(b) => char::from(b).to_string(),
        b => format!("%{b:02X}"),
    };
    key.bytes().map(encoded).collect()
}

/// Answers `GET /BUCKET?events=...&prefix=...`.
#[derive(Debug)]
pub struct Listening {
    /// Whose changes.
    pub store: Arc<Store>,
}

/// The values of a parameter of a query, decoded.
fn values(uri: &Uri, name: &str) -> Vec<String> {
    let parts = uri.query().unwrap_or_default().split('&').filter_map(|part| part.split_once('='));
    parts.filter(|(key, _)| *key == name).map(|(_, value)| decoded(value)).collect()
}

fn decoded(value: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = value.as_bytes();
    while let Some((first, behind)) = rest.split_first() {
        let pair = behind.get(..2).filter(|_| *first == b'%').and_then(|pair| std::str::from_utf8(pair).ok());
        let byte = pair.and_then(|pair| u8::from_str_radix(pair, 16).ok());
        bytes.push(byte.unwrap_or(*first));
        rest = if byte.is_some() { &behind[2..] } else { behind };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[async_trait::async_trait]
impl S3Route for Listening {
    fn is_match(&self, method: &Method, uri: &Uri, _headers: &HeaderMap, _extensions: &mut Extensions) -> bool {
        let bucket = uri.path().trim_matches('/');
        method == Method::GET && !bucket.is_empty() && !bucket.contains('/') && !values(uri, "events").is_empty()
    }

    async fn call(&self, req: S3Request<Body>) -> S3Result<S3Response<Body>> {
        let bucket = decoded(req.uri.path().trim_matches('/'));
        if !self.store.buckets().contains(&bucket) {
            return Err(s3_error!(NoSuchBucket));
        }
        let prefix = values(&req.uri, "prefix").pop().unwrap_or_default();
        let kinds = values(&req.uri, "events");
        let wanted = move |change: &Change| {
            let kind = if change.object.is_some() { "s3:ObjectCreated:" } else { "s3:ObjectRemoved:" };
            change.bucket == bucket && change.key.starts_with(&prefix) && kinds.iter().any(|k| k.starts_with(kind))
        };
        let changes = self.store.changes().listen();
        let blanks = tokio::time::interval(BLANK_INTERVAL);
        let parts = futures::stream::unfold((changes, blanks), move |(mut changes, mut blanks)| {
            let wanted = wanted.clone();
            async move {
                loop {
                    let line = tokio::select! {
                        change = changes.recv() => match change {
                            Ok(change) if wanted(&change) => format!("{}\n", change.to_json()),
                            Ok(_) => continue,
                            // It cannot be told what was missed: the end of the stream says that something was.
                            Err(_) => return None,
                        },
                        _ = blanks.tick() => " ".to_owned(),
                    };
                    return Some((Ok::<_, std::io::Error>(Frame::data(Bytes::from(line))), (changes, blanks)));
                }
            }
        });
        let mut response = S3Response::new(Body::http_body_unsync(StreamBody::new(parts.boxed())));
        let kind = header::HeaderValue::from_static("text/event-stream");
        response.headers.insert(header::CONTENT_TYPE, kind);
        Ok(response)
    }
}

/// Where a webhook is: `http://HOST:PORT/PATH`, on this machine.
#[derive(Clone, Debug)]
pub struct Target {
    host: String,
    path: String,
}

impl std::str::FromStr for Target {
    type Err = FsError;
    fn from_str(s: &str) -> FsResult<Target> {
        let parts = s.strip_prefix("http://").and_then(|rest| rest.split_once('/'));
        let (host, path) = parts.filter(|(host, _)| host.contains(':')).ok_or_else(|| {
            FsError::new(FsCode::Invalid, "the webhook is not of the form http://HOST:PORT/PATH")
                .with_hint("give --webhook http://127.0.0.1:9886/events/TOKEN")
        })?;
        Ok(Target { host: host.to_owned(), path: format!("/{path}") })
    }
}

/// Tells a webhook of every change, one after the other, each until it is taken. Does not end.
pub async fn tell(target: Target, mut changes: broadcast::Receiver<Arc<Change>>) {
    loop {
        let change = match changes.recv().await {
            Ok(change) => change,
            Err(broadcast::error::RecvError::Lagged(lost)) => {
                tracing::warn!(lost, "the webhook is too slow: it is not told of these changes");
                continue;
            }
            Err(broadcast::error::RecvError::Closed) => return,
        };
        let text = Bytes::from(change.to_json().to_string());
        for attempt in 1..=TRIES_MAX {
            let why = match tokio::time::timeout(ANSWER_TIMEOUT, post(&target, text.clone())).await {
                Ok(Ok(status)) if status.is_success() => break,
                Ok(Ok(status)) => status.to_string(),
                Ok(Err(e)) => e.to_string(),
                Err(_) => "no answer".to_owned(),
            };
            tracing::debug!(attempt, why, "the webhook did not take a change");
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }
}

async fn post(target: &Target, text: Bytes) -> std::io::Result<StatusCode> {
    let stream = TcpStream::connect(&target.host).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(std::io::Error::other)?;
    let request = Request::post(&target.path)
        .header(header::HOST, &target.host)
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::new(text))
        .map_err(std::io::Error::other)?;
    let asked = async {
        let reply = sender.send_request(request).await.map_err(std::io::Error::other)?;
        let status = reply.status();
        reply.into_body().collect().await.map_err(std::io::Error::other)?;
        Ok(status)
    };
    // The connection ends with the answer, or before it.
    tokio::select! {
        status = asked => status,
        ended = connection => Err(ended.err().map_or_else(|| std::io::ErrorKind::ConnectionReset.into(), std::io::Error::other)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_and_keys_are_read_and_written_as_forms_are() {
        let uri: Uri = "/b/?ping=10&prefix=a%2Fb+c%&events=s3%3AObjectCreated%3A%2A&events=x".parse().expect("a URI");
        assert_eq!(values(&uri, "prefix"), ["a/b+c%"]);
        assert_eq!(values(&uri, "events"), ["s3:ObjectCreated:*", "x"]);
        assert_eq!(form_encoded("a b+\u{fc}/c"), "a+b%2B%C3%BC/c");
    }

    #[tokio::test]
    async fn every_change_is_told_once() {
        let dir = tempfile::tempdir().expect("temp dir");
        let store = Store::open(dir.path()).expect("opens");
        store.create_bucket("data").expect("made");
        let mut changes = store.changes().listen();
        let put = store.put("data", "k", b"abc", &[]).expect("put");
        store.delete("data", "k").expect("deleted");
        store.delete("data", "k").expect("nothing to delete");
        store.put("data", "z", b"", &[]).expect("put");
        let change = |key: &str, object| Arc::new(Change { bucket: "data".into(), key: key.into(), object });
        assert_eq!(changes.recv().await, Ok(change("k", Some((3, put.etag())))));
        assert_eq!(changes.recv().await, Ok(change("k", None)));
        assert_eq!(changes.recv().await.expect("a change").key, "z");
        assert_eq!(changes.try_recv(), Err(broadcast::error::TryRecvError::Empty));
    }
}

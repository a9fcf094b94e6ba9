//! An HTTP endpoint for events: `POST /events`, with `Authorization: Bearer TOKEN`, or `POST /events/TOKEN` for senders that cannot
//! say more than an address.
//!
//! It answers 200 when the MDS was told what is under every key that is a link's, so that a sender that tries again loses nothing. A key
//! that is busy then is looked at again here: senders tell one event after the other, and must not be held up by one file.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Body;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use sateen_runtime::Shutdown;
use sateen_types::{FsCode, FsError, FsName, FsResult};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc, oneshot};

use super::desk::Delivery;
use super::event::{self, EVENT_BYTES_MAX};
use crate::figures::{Figures, Source};

/// Connections served at once; others wait. Each may hold one text of [`EVENT_BYTES_MAX`].
const CONNECTIONS_MAX: usize = 64;
/// How long a peer may take for the head of a request, and for its body.
const REQUEST_TIME_MAX: Duration = Duration::from_secs(10);
/// How long the keys of a request may take to be answered. Then the sender is asked to try again.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(25);
/// Seconds after which a sender should try again.
const RETRY_AFTER_S: u32 = 2;
/// How long a token is used before its file is read again.
const TOKEN_AGE_MAX: Duration = Duration::from_secs(30);
/// Shortest token, in bytes: 64 random bits as text are not guessed.
const TOKEN_BYTES_MIN: usize = 16;
/// Longest token, in bytes.
const TOKEN_BYTES_MAX: usize = 512;
const PATH: &str = "/events";

/// The endpoint, as the workers of the file systems see it.
#[derive(Debug)]
pub struct Webhook {
    token_file: PathBuf,
    token: Mutex<(Instant, Vec<u8>)>,
    desks: Mutex<HashMap<FsName, mpsc::Sender<Delivery>>>,
    figures: Arc<Figures>,
}

impl Webhook {
    /// Reads the token. `Invalid` if its file has none that could be used.
    pub fn open(token_file: &Path, figures: Arc<Figures>) -> FsResult<Webhook> {
        let token = read_token(token_file)?;
        let (token_file, token) = (token_file.to_owned(), Mutex::new((Instant::now(), token)));
        Ok(Webhook { token_file, token, desks: Mutex::default(), figures })
    }

    /// From now on deliveries for `fs` go there.
    pub fn register(&self, fs: &FsName, desk: mpsc::Sender<Delivery>) {
        self.desks.lock().unwrap_or_else(PoisonError::into_inner).insert(fs.clone(), desk);
    }

    /// Nobody takes deliveries for `fs`.
    pub fn leave(&self, fs: &FsName) {
        self.desks.lock().unwrap_or_else(PoisonError::into_inner).remove(fs);
    }

    /// Serves on `listen` until `stop`, in a task of its own; returns the bound address.
    pub async fn serve(self: Arc<Self>, listen: &str, stop: Shutdown) -> FsResult<SocketAddr> {
        let failed = |e: std::io::Error| {
            FsError::new(FsCode::Io, format!("cannot listen on {listen} for events: {e}"))
                .with_hint("choose a free port and an address of this machine with [webhook] listen = \"HOST:PORT\"")
        };
        let listener = TcpListener::bind(listen).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        tokio::spawn(self.accept(listener, stop));
        tracing::info!(%address, "events are taken");
        Ok(address)
    }

    async fn accept(self: Arc<Self>, listener: TcpListener, stop: Shutdown) {
        let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = stop.requested() => return,
            };
            let Ok((stream, _)) = accepted else {
                // No descriptors left, most likely: others need the next one more.
                tokio::time::sleep(Duration::from_secs(1)).await;
                continue;
            };
            let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
            let (hook, stop) = (Arc::clone(&self), stop.clone());
            tokio::spawn(async move {
                let service = service_fn(move |request| {
                    let hook = Arc::clone(&hook);
                    async move { Ok::<_, Infallible>(hook.answer(request).await) }
                });
                let mut http = http1::Builder::new();
                http.timer(TokioTimer::new()).header_read_timeout(REQUEST_TIME_MAX);
                tokio::select! {
                    // A peer that went away is nobody's loss.
                    _ = http.serve_connection(TokioIo::new(stream), service) => {}
                    () = stop.requested() => {}
                }
                drop(permit);
            });
        }
    }

    /// One request.
    async fn answer<B>(&self, request: Request<B>) -> Response<Full<Bytes>>
    where
        B: Body,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let (status, text) = match self.take(request).await {
            Ok(keys) => (StatusCode::OK, format!("{keys} keys\n")),
            Err((status, why)) => {
                self.figures.watch_failed(Source::Webhook);
                tracing::debug!(%status, why, "a webhook was refused");
                (status, format!("{why}\n"))
            }
        };
        let mut reply = Response::new(Full::new(Bytes::from(text)));
        *reply.status_mut() = status;
        reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        if status == StatusCode::SERVICE_UNAVAILABLE {
            reply.headers_mut().insert(RETRY_AFTER, HeaderValue::from(RETRY_AFTER_S));
        }
        reply
    }

    /// How many keys were a link's.
    async fn take<B>(&self, request: Request<B>) -> Result<usize, (StatusCode, String)>
    where
        B: Body,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let refused = |status, why: &str| Err((status, why.to_owned()));
        let Some(token) = given_token(request.uri().path(), request.headers()) else {
            return refused(StatusCode::NOT_FOUND, "events are taken at /events");
        };
        if !same(token, &self.token()) {
            return refused(StatusCode::UNAUTHORIZED, "send the token as Authorization: Bearer TOKEN");
        }
        if request.method() != Method::POST {
            return refused(StatusCode::METHOD_NOT_ALLOWED, "events are taken by POST");
        }
        let body = Limited::new(request.into_body(), EVENT_BYTES_MAX).collect();
        let text = match tokio::time::timeout(REQUEST_TIME_MAX, body).await {
            Ok(Ok(body)) => body.to_bytes(),
            Ok(Err(e)) if e.is::<http_body_util::LengthLimitError>() => {
                return Err((StatusCode::PAYLOAD_TOO_LARGE, format!("at most {EVENT_BYTES_MAX} bytes are read")));
            }
            Ok(Err(e)) => return Err((StatusCode::BAD_REQUEST, format!("the body cannot be read: {e}"))),
            Err(_) => return refused(StatusCode::REQUEST_TIMEOUT, "the body did not come"),
        };
        let told = event::parse(&text).map_err(|why| {
            self.figures.unreadable();
            (StatusCode::BAD_REQUEST, why)
        })?;
        self.figures.events(Source::Webhook, &told);
        if told.touched.is_empty() {
            return Ok(0);
        }
        let delivered = tokio::time::timeout(ANSWER_TIME_MAX, self.deliver(told.touched.into())).await;
        delivered.ok().flatten().ok_or_else(|| {
            (StatusCode::SERVICE_UNAVAILABLE, "not all keys could be looked at yet: send it again".to_owned())
        })
    }

    /// To every file system; `None` if one did not answer, or there is none.
    async fn deliver(&self, touched: Arc<[event::Touched]>) -> Option<usize> {
        let desks: Vec<_> = self.desks.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
        if desks.is_empty() {
            return None;
        }
        let each = desks.into_iter().map(|desk| {
            let (done, answered) = oneshot::channel();
            let delivery = Delivery { touched: Arc::clone(&touched), done };
            async move {
                desk.send(delivery).await.ok()?;
                answered.await.ok()
            }
        });
        futures::future::join_all(each).await.into_iter().sum()
    }

    /// As it is now. One that cannot be read any more stays what it was.
    fn token(&self) -> Vec<u8> {
        let mut token = self.token.lock().unwrap_or_else(PoisonError::into_inner);
        if token.0.elapsed() >= TOKEN_AGE_MAX {
            match read_token(&self.token_file) {
                Ok(now) => token.1 = now,
                Err(error) => tracing::warn!(%error, "the token of the webhook stays what it was"),
            }
            token.0 = Instant::now();
        }
        token.1.clone()
    }
}

/// What a request says as the token; `None` if it is for another path.
fn given_token<'a>(path: &'a str, headers: &'a HeaderMap) -> Option<&'a [u8]> {
    let rest = path.strip_prefix(PATH)?;
    match rest.strip_prefix('/') {
        Some(token) if !token.is_empty() => Some(token.as_bytes()),
        _ if !rest.is_empty() && rest != "/" => None,
        _ => {
            let mut values = headers.get_all(AUTHORIZATION).iter();
            let value = values.next().filter(|_| values.next().is_none());
            Some(value.and_then(|v| v.as_bytes().strip_prefix(b"Bearer ")).unwrap_or_default())
        }
    }
}

/// Compares in a time that tells nothing of where they differ.
fn same(given: &[u8], token: &[u8]) -> bool {
    let differ = given.iter().zip(token).fold(0, |all, (a, b)| all | (a ^ b));
    given.len() == token.len() && std::hint::black_box(differ) == 0
}

fn read_token(path: &Path) -> FsResult<Vec<u8>> {
    let failed = |what: String| {
        FsError::new(FsCode::Invalid, format!("[webhook] token_file {}: {what}", path.display()))
            .with_hint("write 16 to 512 letters, digits, '-' or '_' into it: openssl rand -hex 32")
    };
    let size = std::fs::metadata(path).map_err(|e| failed(e.to_string()))?.len();
    if size > 2 * TOKEN_BYTES_MAX as u64 {
        return Err(failed(format!("{size} bytes")));
    }
    let text = std::fs::read(path).map_err(|e| failed(e.to_string()))?;
    let token = text.trim_ascii();
    let plain = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
    if !(TOKEN_BYTES_MIN..=TOKEN_BYTES_MAX).contains(&token.len()) || !token.iter().all(plain) {
        return Err(failed("it holds no token".to_owned()));
    }
    Ok(token.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "0123456789abcdef";
    const EVENT: &str = r#"{"Records":[{"eventName":"s3:ObjectCreated:Put",
        "s3":{"bucket":{"name":"b"},"object":{"key":"k"}}}]}"#;

    fn webhook() -> (tempfile::TempDir, Arc<Webhook>) {
        let dir = tempfile::tempdir().expect("temp dir");
        let file = dir.path().join("token");
        std::fs::write(&file, format!("{TOKEN}\n")).expect("written");
        let hook = Webhook::open(&file, Arc::default()).expect("a token");
        (dir, Arc::new(hook))
    }

    async fn post(hook: &Webhook, path: &str, bearer: Option<&str>, body: impl Into<Bytes>) -> StatusCode {
        let mut request = Request::post(path);
        if let Some(bearer) = bearer {
            request = request.header(AUTHORIZATION, format!("Bearer {bearer}"));
        }
        hook.answer(request.body(Full::new(body.into())).expect("a request")).await.status()
    }

    /// A file system that says of every delivery how many keys were a link's, or nothing.
    fn desk(hook: &Webhook, name: &str, answer: Option<usize>) {
        let (send, mut deliveries) = mpsc::channel::<Delivery>(1);
        hook.register(&name.parse().expect("a name"), send);
        tokio::spawn(async move {
            while let Some(delivery) = deliveries.recv().await {
                if let Some(keys) = answer {
                    delivery.done.send(keys).expect("somebody waits");
                }
            }
        });
    }

    #[tokio::test]
    async fn who_does_not_know_the_token_is_told_nothing_and_changes_nothing() {
        let (_dir, hook) = webhook();
        desk(&hook, "fs", Some(1));
        for (path, bearer) in [
            ("/events", None),
            ("/events", Some("")),
            ("/events", Some("0123456789abcdeF")),
            ("/events", Some("0123456789abcdef0")),
            ("/events/0123456789abcde", Some(TOKEN)),
            ("/events/", None),
        ] {
            assert_eq!(post(&hook, path, bearer, EVENT).await, StatusCode::UNAUTHORIZED, "{path} {bearer:?}");
        }
        assert_eq!(post(&hook, "/", Some(TOKEN), EVENT).await, StatusCode::NOT_FOUND);
        assert_eq!(post(&hook, "/eventsX", Some(TOKEN), EVENT).await, StatusCode::NOT_FOUND);
        assert_eq!(post(&hook, "/events", Some(TOKEN), EVENT).await, StatusCode::OK);
        assert_eq!(post(&hook, &format!("/events/{TOKEN}"), None, EVENT).await, StatusCode::OK);
        let get = Request::get("/events").header(AUTHORIZATION, format!("Bearer {TOKEN}"));
        let reply = hook.answer(get.body(Full::new(Bytes::new())).expect("a request")).await;
        assert_eq!(reply.status(), StatusCode::METHOD_NOT_ALLOWED);
    }

    #[tokio::test]
    async fn what_is_no_event_or_too_much_is_refused() {
        let (_dir, hook) = webhook();
        desk(&hook, "fs", Some(1));
        assert_eq!(post(&hook, "/events", Some(TOKEN), "hello").await, StatusCode::BAD_REQUEST);
        let long = vec![b' '; EVENT_BYTES_MAX + 1];
        assert_eq!(post(&hook, "/events", Some(TOKEN), long).await, StatusCode::PAYLOAD_TOO_LARGE);
        let test = r#"{"Event":"s3:TestEvent"}"#;
        assert_eq!(post(&hook, "/events", Some(TOKEN), test).await, StatusCode::OK);
    }

    #[tokio::test]
    async fn what_was_not_answered_by_every_file_system_is_to_be_sent_again() {
        let (_dir, hook) = webhook();
        assert_eq!(post(&hook, "/events", Some(TOKEN), EVENT).await, StatusCode::SERVICE_UNAVAILABLE, "nobody is here");
        desk(&hook, "one", Some(1));
        assert_eq!(post(&hook, "/events", Some(TOKEN), EVENT).await, StatusCode::OK);
        desk(&hook, "two", None);
        assert_eq!(post(&hook, "/events", Some(TOKEN), EVENT).await, StatusCode::SERVICE_UNAVAILABLE);
        hook.leave(&"two".parse().expect("a name"));
        assert_eq!(post(&hook, "/events", Some(TOKEN), EVENT).await, StatusCode::OK);
    }

    #[test]
    fn a_token_that_could_be_guessed_or_not_be_sent_is_refused() {
        let dir = tempfile::tempdir().expect("temp dir");
        let file = dir.path().join("token");
        for bad in ["", "short", "0123456789abcde/", "0123456789abcdef 0", &"x".repeat(TOKEN_BYTES_MAX + 1)] {
            std::fs::write(&file, bad).expect("written");
            let error = read_token(&file).expect_err(bad);
            assert!(error.hint.is_some() && (bad.is_empty() || !error.message.contains(bad)), "{error}");
        }
        assert!(read_token(&dir.path().join("none")).is_err());
    }
}

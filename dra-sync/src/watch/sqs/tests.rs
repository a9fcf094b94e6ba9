//! Tests of `sqs.rs` against a queue that checks signatures as AWS does. (`tests/tests/peers.rs` has one against moto.)

use std::collections::VecDeque;
use std::net::SocketAddr;

use hmac::{Hmac, KeyInit, Mac};
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use sha2::{Digest, Sha256};
use tokio::net::TcpListener;

use super::*;
use crate::credentials::Credentials;
use crate::watch::pending::Pending;

const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
const REGION: &str = "eu-west-1";
/// How long something may take that happens at once.
const SOON: Duration = Duration::from_secs(20);

/// A queue with one queue.
#[derive(Default)]
struct Peer {
    messages: Mutex<VecDeque<(String, String)>>,
    hidden: Mutex<Vec<(String, String)>>,
    deleted: Mutex<Vec<String>>,
    refusals: Mutex<Vec<String>>,
    /// So many requests are answered with an error.
    broken: Mutex<u32>,
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn hmac(key: &[u8], text: &str) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("any length");
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().to_vec()
}

/// Signature version 4, as its description says.
fn signature(request: &Request<()>, body: &[u8]) -> Result<(), String> {
    let header = |name: &str| request.headers().get(name).and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned();
    let given = header("authorization");
    let part = |name: &str| {
        let rest = given.split_once(&format!("{name}=")).map(|(_, rest)| rest).unwrap_or_default();
        rest.split(',').next().unwrap_or_default().trim().to_owned()
    };
    let (signed, date) = (part("SignedHeaders"), header("x-amz-date"));
    for needed in ["host", "x-amz-date", "x-amz-target"] {
        if !signed.split(';').any(|name| name == needed) {
            return Err(format!("{needed} is not signed: {signed}"));
        }
    }
    let canonical: String = signed.split(';').map(|name| format!("{name}:{}\n", header(name).trim())).collect();
    let digest = hex(&Sha256::digest(body));
    let path = request.uri().path();
    let canonical = format!("{}\n{path}\n\n{canonical}\n{signed}\n{digest}", request.method());
    let scope = format!("{}/{REGION}/sqs/aws4_request", &date[..8.min(date.len())]);
    if part("Credential") != format!("AK/{scope}") {
        return Err(format!("{given} is not of {scope}"));
    }
    let to_sign = format!("AWS4-HMAC-SHA256\n{date}\n{scope}\n{}", hex(&Sha256::digest(canonical)));
    let mut key = format!("AWS4{SECRET}").into_bytes();
    for step in scope.split('/') {
        key = hmac(&key, step);
    }
    match hex(&hmac(&key, &to_sign)) == part("Signature") {
        true => Ok(()),
        false => Err("the signature is another one".to_owned()),
    }
}

impl Peer {
    fn with(bodies: &[&str]) -> Arc<Peer> {
        let peer = Peer::default();
        let numbered = bodies.iter().enumerate().map(|(i, body)| (format!("handle-{i}"), (*body).to_owned()));
        peer.messages.lock().expect("lock").extend(numbered);
        Arc::new(peer)
    }

    fn deleted(&self) -> Vec<String> {
        let mut deleted = self.deleted.lock().expect("lock").clone();
        deleted.sort();
        deleted
    }

    async fn serve(self: &Arc<Peer>) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let peer = Arc::clone(self);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let peer = Arc::clone(&peer);
                tokio::spawn(async move {
                    let service = service_fn(move |request| Arc::clone(&peer).answer(request));
                    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        address
    }

    async fn answer(self: Arc<Peer>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, hyper::Error> {
        let (parts, body) = request.into_parts();
        let body = body.collect().await?.to_bytes();
        let request = Request::from_parts(parts, ());
        let reply = |status: u16, text: serde_json::Value| {
            let mut reply = Response::new(Full::new(Bytes::from(text.to_string())));
            *reply.status_mut() = http::StatusCode::from_u16(status).expect("a status");
            Ok(reply)
        };
        if let Err(why) = signature(&request, &body) {
            self.refusals.lock().expect("lock").push(why);
            return reply(
                403,
                json!({"__type": "com.amazon.coral.service#InvalidSignatureException", "message": "no"}),
            );
        }
        let broken = {
            let mut left = self.broken.lock().expect("lock");
            left.checked_sub(1).map(|less| *left = less).is_some()
        };
        if broken {
            let text = json!({"__type": "com.amazonaws.sqs#QueueDoesNotExist", "message": "there is no such queue"});
            return reply(400, text);
        }
        let asked: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
        match request.headers()["x-amz-target"].to_str().expect("text") {
            "AmazonSQS.ReceiveMessage" => loop {
                let mut given = Vec::new();
                let max = asked["MaxNumberOfMessages"].as_u64().expect("a number") as usize;
                {
                    let mut messages = self.messages.lock().expect("lock");
                    while given.len() < max
                        && let Some((handle, body)) = messages.pop_front()
                    {
                        given.push(json!({"MessageId": "m", "ReceiptHandle": handle, "Body": body}));
                        self.hidden.lock().expect("lock").push((handle, body));
                    }
                }
                if !given.is_empty() || asked["WaitTimeSeconds"] == 0 {
                    return reply(200, json!({"Messages": given}));
                }
                tokio::task::yield_now().await;
            },
            "AmazonSQS.DeleteMessageBatch" => {
                let entries = asked["Entries"].as_array().expect("entries");
                assert!((1..=10).contains(&entries.len()));
                let handles = entries.iter().map(|e| e["ReceiptHandle"].as_str().expect("a handle").to_owned());
                self.deleted.lock().expect("lock").extend(handles);
                reply(200, json!({"Successful": entries, "Failed": []}))
            }
            other => panic!("{other} is not asked for"),
        }
    }
}

fn event(bucket: &str, keys: &[&str]) -> String {
    let record = |key: &&str| json!({"eventName": "ObjectCreated:Put", "s3": {"bucket": {"name": bucket}, "object": {"key": key}}});
    json!({"Records": keys.iter().map(record).collect::<Vec<_>>()}).to_string()
}

fn queue(address: SocketAddr, secret: &str) -> Queue {
    let url = format!("http://{address}/000000000000/events");
    assert_eq!(root_of(&url), format!("http://{address}/"));
    let (root, secret) = (root_of(&url), secret.to_owned());
    let open = move || {
        let (access_key, secret_key) = ("AK".to_owned(), secret.clone());
        let credentials = Credentials { access_key, secret_key, token: None };
        Service::open("sqs", REGION, &root, Some(credentials))
            .map_err(|e| sateen_types::FsError::new(sateen_types::FsCode::Io, e.message))
    };
    Queue::new(&url, Box::new(open))
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let waited = tokio::time::timeout(SOON, async {
        while !condition() {
            tokio::task::yield_now().await;
        }
    });
    waited.await.unwrap_or_else(|_| panic!("waited in vain for {what}"));
}

/// Runs the queue while `script` does.
async fn while_it_runs<T>(
    queue: &Queue,
    script: impl AsyncFnOnce(mpsc::Receiver<Batch>, watch::Receiver<String>) -> T,
) -> T {
    let settings = sateen_types::repository::RepositorySettings::new(
        "/d".parse().expect("a path"),
        "s3://data/p/".parse().expect("a URL"),
    );
    let (send, batches) = mpsc::channel(100);
    let (trouble, heard) = watch::channel(String::new());
    let (keys, figures) = (Keys::new(&settings), Figures::default());
    tokio::select! {
        never = queue.run(&keys, &send, &trouble, &figures) => match never {},
        done = script(batches, heard) => done,
    }
}

#[tokio::test]
async fn a_message_is_deleted_only_after_its_keys_are_answered() {
    let test = r#"{"Service":"Amazon S3","Event":"s3:TestEvent","Bucket":"data"}"#;
    let peer = Peer::with(&[
        &event("data", &["p/a", "p/b"]),
        &event("other", &["p/a"]),
        "somebody else's",
        test,
        &event("data", &["p/c"]),
    ]);
    let queue = queue(peer.serve().await, SECRET);
    while_it_runs(&queue, async |mut batches, _| {
        let (mut pending, now) = (Pending::default(), std::time::Instant::now());
        for _ in 0..2 {
            let batch = batches.recv().await.expect("keys");
            batch.keys.into_iter().for_each(|key| pending.add(key, batch.ticket.clone(), now));
        }
        until("messages that are nobody's", || peer.deleted() == ["handle-1", "handle-3"]).await;
        let mut taken = pending.take(10, now);
        let names: Vec<_> = taken.iter().map(|t| t.key.clone()).collect();
        assert_eq!(names, [b"a", b"b", b"c"]);
        taken.pop().expect("c").answered();
        until("c", || peer.deleted() == ["handle-1", "handle-3", "handle-4"]).await;
        taken.pop().expect("b").answered();
        // As the other answer was: had it been deleted with b alone, it would be among these.
        peer.messages.lock().expect("lock").push_back(("handle-5".to_owned(), event("other", &["x"])));
        until("one more", || peer.deleted().len() == 4).await;
        assert_eq!(peer.deleted(), ["handle-1", "handle-3", "handle-4", "handle-5"]);
        taken.pop().expect("a").answered();
        until("a and b", || peer.deleted().first().is_some_and(|first| first == "handle-0")).await;
    })
    .await;
    assert_eq!(peer.refusals.lock().expect("lock").as_slice(), [] as [String; 0]);
    assert!(peer.hidden.lock().expect("lock").iter().any(|(handle, _)| handle == "handle-2"), "it stays in the queue");
}

#[tokio::test]
async fn what_was_not_answered_is_not_deleted() {
    let peer = Peer::with(&[&event("data", &["p/a"])]);
    let queue = queue(peer.serve().await, SECRET);
    while_it_runs(&queue, async |mut batches, _| {
        drop(batches.recv().await.expect("keys"));
        peer.messages.lock().expect("lock").push_back(("next".to_owned(), event("other", &["x"])));
        until("the next", || !peer.deleted().is_empty()).await;
        assert_eq!(peer.deleted(), ["next"]);
    })
    .await;
}

#[tokio::test]
async fn a_queue_that_fails_is_told_of_and_asked_again() {
    let peer = Peer::with(&[&event("data", &["p/a"])]);
    *peer.broken.lock().expect("lock") = RECEIVERS as u32;
    let queue = queue(peer.serve().await, SECRET);
    while_it_runs(&queue, async |mut batches, mut trouble| {
        trouble.wait_for(|said| said.contains("QueueDoesNotExist")).await.expect("said");
        let said = trouble.borrow().clone();
        assert!(said.contains("there is no such queue") && said.contains("/000000000000/events"), "{said}");
        batches.recv().await.expect("keys");
        trouble.wait_for(String::is_empty).await.expect("it works again");
    })
    .await;
}

#[tokio::test]
async fn a_wrong_key_is_told_of_without_the_key() {
    let peer = Peer::with(&[]);
    let queue = queue(peer.serve().await, "guessed/secret");
    while_it_runs(&queue, async |_batches, mut trouble| {
        trouble.wait_for(|said| said.contains("InvalidSignatureException")).await.expect("said");
        assert!(!trouble.borrow().contains("guessed"));
    })
    .await;
    assert!(!peer.refusals.lock().expect("lock").is_empty());
}

//! Events from an SQS queue, or one that speaks like it.
//!
//! A message is deleted only after the MDS has answered for all keys that it names. Until then it comes again: to this worker, or,
//! when this one is gone, to the next. So nothing that is in the queue is lost, and whatever comes twice costs a look.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use sateen_types::FsResult;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};

use super::look::Batch;
use super::pending::Ticket;
use super::{Backoff, Keys, event, say};
use crate::figures::{Figures, Source};
use crate::remote::{RemoteError, Service, Trouble};

/// Most messages in one answer, and in one request to delete some (SQS).
const MESSAGES_MAX: usize = 10;
/// Messages that were received and are not deleted: they are in memory, if only their handles.
const MESSAGES_OPEN_MAX: usize = 1000;
/// Questions for messages at a time: an answer has ten at most, and takes a way there and back.
const RECEIVERS: usize = 2;
/// How long the queue may wait for a message before it answers: the longest that SQS allows.
const POLL: Duration = Duration::from_secs(20);
/// How long an answer may take beyond that.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a message that was received is kept from others: longer than its keys are looked at (`pending::LOOKS_MAX`).
const HIDDEN: Duration = Duration::from_secs(180);
/// Largest answer that is read: ten messages of the largest size, with room for escapes.
const ANSWER_BYTES_MAX: usize = 24 << 20;
/// How long a delete is tried. What is not deleted comes again, and is deleted then.
const DELETE_TRIES: u32 = 3;
/// How long connections and keys are used before they are looked up again.
const SERVICE_AGE_MAX: Duration = Duration::from_secs(60);

/// One queue.
pub struct Queue {
    url: String,
    open: Box<dyn Fn() -> FsResult<Service> + Send + Sync>,
    current: Mutex<Option<(Instant, Arc<Service>)>>,
}

#[derive(Deserialize)]
struct Received {
    #[serde(rename = "Messages", default)]
    messages: Option<Vec<Message>>,
}

#[derive(Deserialize)]
struct Message {
    #[serde(rename = "ReceiptHandle")]
    handle: String,
    #[serde(rename = "Body")]
    body: String,
}

#[derive(Deserialize)]
struct Deleted {
    #[serde(rename = "Failed", default)]
    failed: Option<Vec<NotDeleted>>,
}

#[derive(Deserialize)]
struct NotDeleted {
    #[serde(rename = "Message", default)]
    message: Option<String>,
}

/// A message whose keys are being looked at.
struct Open {
    handle: String,
    answered: Option<oneshot::Receiver<()>>,
    _room: OwnedSemaphorePermit,
}

/// Where the service of a queue answers: the root of its URL, which was checked when the link was made.
pub fn root_of(url: &str) -> String {
    match url.split_once("://").and_then(|(scheme, rest)| Some((scheme, rest.split_once('/')?.0))) {
        Some((scheme, host)) => format!("{scheme}://{host}/"),
        None => url.to_owned(),
    }
}

impl Queue {
    /// The queue at `url`, through what `open` gives now and then.
    pub fn new(url: &str, open: Box<dyn Fn() -> FsResult<Service> + Send + Sync>) -> Queue {
        Queue { url: url.to_owned(), open, current: Mutex::new(None) }
    }

    /// Receives, again and again. One that ends takes no message with it: they come again.
    pub async fn run(
        &self,
        keys: &Keys,
        send: &mpsc::Sender<Batch>,
        trouble: &watch::Sender<String>,
        figures: &Figures,
    ) -> Infallible {
        let room = Arc::new(Semaphore::new(MESSAGES_OPEN_MAX));
        let (opened, open) = mpsc::channel(MESSAGES_OPEN_MAX);
        let receivers = (0..RECEIVERS).map(|_| {
            let (room, opened) = (Arc::clone(&room), opened.clone());
            self.receive_on(keys, send, trouble, figures, room, opened).boxed()
        });
        let receivers = futures::future::select_all(receivers);
        match futures::future::select(receivers, self.delete_on(open, figures).boxed()).await {
            futures::future::Either::Left(((never, _, _), _)) => never,
            futures::future::Either::Right((never, _)) => never,
        }
    }

    async fn receive_on(
        &self,
        keys: &Keys,
        send: &mpsc::Sender<Batch>,
        trouble: &watch::Sender<String>,
        figures: &Figures,
        room: Arc<Semaphore>,
        opened: mpsc::Sender<Open>,
    ) -> Infallible {
        let mut backoff = Backoff::default();
        // The first answer says that the queue is there, and is not waited for.
        let mut wait = Duration::ZERO;
        loop {
            let mut places = Vec::new();
            while places.len() < MESSAGES_MAX {
                // Never closed.
                if let Ok(place) = Arc::clone(&room).acquire_owned().await {
                    places.push(place);
                }
            }
            let messages = match self.receive(wait).await {
                Ok(messages) => messages,
                Err(error) => {
                    tracing::warn!(queue = self.url, %error, "no messages can be received");
                    figures.watch_failed(Source::Sqs);
                    figures.failed(&error);
                    say(trouble, error.message);
                    drop(places);
                    backoff.pause().await;
                    continue;
                }
            };
            (backoff, wait) = (Backoff::default(), POLL);
            say(trouble, String::new());
            for (message, place) in messages.into_iter().zip(places) {
                let told = match event::parse(message.body.as_bytes()) {
                    Ok(told) => told,
                    // It may be somebody else's: it stays, and comes again until the queue gives it up.
                    Err(why) => {
                        tracing::warn!(queue = self.url, why, "a message was left in the queue");
                        figures.unreadable();
                        continue;
                    }
                };
                figures.events(Source::Sqs, &told);
                let keys = keys.of(&told.touched);
                let answered = match keys.is_empty() {
                    true => None,
                    false => {
                        let (ticket, hears) = Ticket::new(keys.len());
                        // Nobody looks any more: it ends with this.
                        let _ = send.send(Batch { keys, ticket: Some(ticket) }).await;
                        Some(hears)
                    }
                };
                let _ = opened.send(Open { handle: message.handle, answered, _room: place }).await;
            }
        }
    }

    /// Deletes messages when their keys are answered.
    async fn delete_on(&self, mut opened: mpsc::Receiver<Open>, figures: &Figures) -> Infallible {
        let mut waits = FuturesUnordered::new();
        loop {
            let mut done: Vec<Open> = Vec::new();
            tokio::select! {
                Some(mut open) = opened.recv() => waits.push(async move {
                    let answered = match open.answered.take() {
                        Some(answered) => answered.await.is_ok(),
                        None => true,
                    };
                    answered.then_some(open)
                }),
                Some(open) = waits.next(), if !waits.is_empty() => done.extend(open),
            }
            while done.len() < MESSAGES_MAX
                && !done.is_empty()
                && let Some(Some(open)) = waits.next().now_or_never()
            {
                done.extend(open);
            }
            if !done.is_empty() {
                self.delete(&done, figures).await;
            }
        }
    }

    async fn receive(&self, wait: Duration) -> Result<Vec<Message>, RemoteError> {
        let request = json!({
            "QueueUrl": self.url,
            "MaxNumberOfMessages": MESSAGES_MAX,
            "WaitTimeSeconds": wait.as_secs(),
            "VisibilityTimeout": HIDDEN.as_secs(),
        });
        let answer = self.ask("AmazonSQS.ReceiveMessage", &request, wait + PATIENCE).await?;
        let received: Received = read(&answer)?;
        let mut messages = received.messages.unwrap_or_default();
        // What is too much comes again.
        messages.truncate(MESSAGES_MAX);
        Ok(messages)
    }

    async fn delete(&self, done: &[Open], figures: &Figures) {
        let entries: Vec<_> = done
            .iter()
            .enumerate()
            .map(|(i, open)| json!({"Id": i.to_string(), "ReceiptHandle": open.handle}))
            .collect();
        let request = json!({"QueueUrl": self.url, "Entries": entries});
        let mut backoff = Backoff::default();
        for attempt in 1..=DELETE_TRIES {
            let deleted = match self.ask("AmazonSQS.DeleteMessageBatch", &request, PATIENCE).await {
                Ok(answer) => read::<Deleted>(&answer),
                Err(e) => Err(e),
            };
            let why = match deleted {
                Ok(Deleted { failed }) => match failed.unwrap_or_default().into_iter().next() {
                    None => return,
                    Some(failed) => failed.message.unwrap_or_default(),
                },
                Err(e) => {
                    figures.failed(&e);
                    e.message
                }
            };
            tracing::warn!(queue = self.url, why, attempt, "messages were not deleted");
            if attempt < DELETE_TRIES {
                backoff.pause().await;
            }
        }
        figures.watch_failed(Source::Sqs);
    }

    async fn ask(
        &self,
        operation: &str,
        request: &serde_json::Value,
        patience: Duration,
    ) -> Result<Bytes, RemoteError> {
        let service = self.service().map_err(|e| RemoteError::new(Trouble::Denied, e.to_string()))?;
        let document = request.to_string().into_bytes();
        match service.ask(operation, document, patience, ANSWER_BYTES_MAX).await? {
            Ok(answer) => Ok(answer),
            Err(refusal) => {
                let trouble = match (refusal.status, refusal.code.as_str()) {
                    (_, "RequestThrottled" | "ThrottlingException") | (429, _) => Trouble::Throttled,
                    (401 | 403, _) => Trouble::Denied,
                    (500.., _) => Trouble::Unavailable,
                    _ => Trouble::Refused,
                };
                let what = operation.rsplit('.').next().unwrap_or_default();
                let said = format!("{}: {} ({})", refusal.code, refusal.message, refusal.status);
                Err(RemoteError::new(trouble, format!("{what} of {}: {said}", self.url)))
            }
        }
    }

    /// As it is now: keys change.
    fn service(&self) -> FsResult<Arc<Service>> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        match &*current {
            Some((since, service)) if since.elapsed() < SERVICE_AGE_MAX => Ok(Arc::clone(service)),
            _ => {
                let service = Arc::new((self.open)()?);
                *current = Some((Instant::now(), Arc::clone(&service)));
                Ok(service)
            }
        }
    }
}

fn read<'a, T: Deserialize<'a>>(answer: &'a [u8]) -> Result<T, RemoteError> {
    serde_json::from_slice(answer)
        .map_err(|e| RemoteError::new(Trouble::Refused, format!("this is no answer of a queue: {e}")))
}

#[cfg(test)]
mod tests;

//! Events that the store itself tells, over a connection that stays open.
//!
//! What happens while there is no connection is told by nobody; the next comparison finds it.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::future::BoxFuture;
use sateen_types::FsResult;
use tokio::sync::{mpsc, watch};

use super::event::{self, EVENT_BYTES_MAX};
use super::look::Batch;
use super::{Backoff, Keys, say};
use crate::figures::{Figures, Source};
use crate::remote::Remote;

/// A connection that held for so long is opened again without a pause to speak of.
const HELD_WELL: Duration = Duration::from_secs(30);

/// Listens, again and again.
pub async fn run(
    remote: &(dyn Fn() -> BoxFuture<'static, FsResult<Arc<Remote>>> + Send + Sync),
    keys: &Keys,
    send: &mpsc::Sender<Batch>,
    trouble: &watch::Sender<String>,
    figures: &Figures,
) -> Infallible {
    let mut backoff = Backoff::default();
    loop {
        let began = std::time::Instant::now();
        let why = once(remote, keys, send, trouble, figures).await;
        tracing::info!(bucket = keys.bucket(), why, "the stream of events ended and is opened again");
        figures.watch_failed(Source::Listen);
        say(trouble, why);
        if began.elapsed() >= HELD_WELL {
            backoff = Backoff::default();
        }
        backoff.pause().await;
    }
}

/// Why it ended.
async fn once(
    remote: &(dyn Fn() -> BoxFuture<'static, FsResult<Arc<Remote>>> + Send + Sync),
    keys: &Keys,
    send: &mpsc::Sender<Batch>,
    trouble: &watch::Sender<String>,
    figures: &Figures,
) -> String {
    let remote = match remote().await {
        Ok(remote) => remote,
        Err(e) => return e.to_string(),
    };
    let mut parts = match remote.listen().await {
        Ok(parts) => parts,
        Err(e) => {
            figures.failed(&e);
            return e.message;
        }
    };
    say(trouble, String::new());
    let mut lines = Lines::default();
    while let Some(part) = parts.next().await {
        let complete = match part.map_err(|e| e.message).and_then(|part| lines.push(&part)) {
            Ok(complete) => complete,
            Err(why) => return why,
        };
        for line in complete {
            match event::parse(&line) {
                Ok(told) => {
                    figures.events(Source::Listen, &told);
                    let keys = keys.of(&told.touched);
                    if !keys.is_empty() && send.send(Batch { keys, ticket: None }).await.is_err() {
                        return "nobody looks any more".to_owned();
                    }
                }
                Err(why) => {
                    tracing::debug!(why, "a line of the stream was left out");
                    figures.unreadable();
                }
            }
        }
    }
    "the store ended the stream of events".to_owned()
}

/// Cuts a stream into its lines. Blank ones are left out.
#[derive(Debug, Default)]
struct Lines {
    rest: Vec<u8>,
}

impl Lines {
    /// The lines that are complete now. An error for one that does not end.
    fn push(&mut self, part: &[u8]) -> Result<Vec<Vec<u8>>, String> {
        let mut complete = Vec::new();
        for piece in part.split_inclusive(|b| *b == b'\n') {
            // Blanks show that the server is there, for hours on end.
            let piece = if self.rest.is_empty() { piece.trim_ascii_start() } else { piece };
            self.rest.extend_from_slice(piece);
            if self.rest.len() > EVENT_BYTES_MAX {
                return Err(format!("a line of more than {EVENT_BYTES_MAX} bytes in the stream of events"));
            }
            if self.rest.ends_with(b"\n") {
                complete.push(std::mem::take(&mut self.rest));
            }
        }
        Ok(complete)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_line_without_end_is_an_error_and_blanks_are_not() {
        let mut lines = Lines::default();
        for _ in 0..3 {
            assert_eq!(lines.push(&vec![b' '; EVENT_BYTES_MAX]), Ok(Vec::new()));
        }
        assert_eq!(lines.push(b"\n \n{}\n"), Ok(vec![b"{}\n".to_vec()]));
        assert_eq!(lines.push(&vec![b'x'; EVENT_BYTES_MAX]), Ok(Vec::new()));
        assert!(lines.push(b"x").is_err());
    }

    proptest! {
        #[test]
        fn lines_are_the_same_however_the_stream_is_cut(
            texts in proptest::collection::vec("[a-z{}][a-z{} ]{0,10}", 0..20),
            cut in 1usize..7,
        ) {
            let stream: Vec<u8> = texts.iter().flat_map(|t| format!(" {t}\n \n").into_bytes()).collect();
            let mut lines = Lines::default();
            let mut got = Vec::new();
            for part in stream.chunks(cut) {
                got.extend(lines.push(part).expect("short lines"));
            }
            let expected: Vec<Vec<u8>> = texts.iter().map(|t| format!("{t}\n").into_bytes()).collect();
            prop_assert_eq!(got, expected);
        }
    }
}

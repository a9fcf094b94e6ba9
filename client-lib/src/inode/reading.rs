//! What a reader sees of a file.

use std::sync::Arc;

use bytes::Bytes;
use sateen_types::{Extent, FsResult, Layout};

use super::{Inode, Provisional, Purpose, State};
use crate::plan::{self, Span};

/// What a reader saw when it began: decides whether what it fetched may be cached.
#[derive(Clone, Debug)]
pub(crate) struct View {
    pub layout: Arc<Layout>,
    pub epoch: u64,
    /// What is not durable yet: replies with bytes of it are compared.
    pub provisional: Option<Arc<Provisional>>,
    stored_changes: u64,
    losses: u64,
}

/// How a read begins.
#[derive(Debug)]
pub(crate) enum Begun {
    /// At or beyond the end of the file.
    AtEnd,
    /// Something has to be loaded from the repository first.
    Missing,
    /// What the reader sees, and its chunks.
    Reading(View, Vec<ReadSpan>),
}

/// One chunk's part of a read: what to fetch, and what to lay over it, oldest first.
#[derive(Debug)]
pub(crate) struct ReadSpan {
    pub span: Span,
    /// Bytes written here, by offset in the chunk.
    pub overlay: Vec<(u32, Bytes)>,
    /// The overlay is all that is wanted.
    pub complete: bool,
}

impl Inode {
    /// Cuts a read at the end of the file and collects what was written here.
    pub fn begin_read(&self, offset: u64, len: u64) -> FsResult<Begun> {
        let state = self.state();
        let size = state.size();
        if offset >= size || len == 0 {
            return Ok(Begun::AtEnd);
        }
        let len = len.min(size - offset);
        if state.missing(offset, len, Purpose::Read).is_some() {
            return Ok(Begun::Missing);
        }
        let spans = plan::spans(&state.layout, offset, len)?;
        let spans = spans.into_iter().map(|span| state.read_span(span)).collect();
        Ok(Begun::Reading(state.view(), spans))
    }

    /// What a reader of a range sees that begins now, and the first part of the range that it may not read yet.
    pub fn view_of(&self, offset: u64, len: u64) -> (View, Option<Extent>) {
        let state = self.state();
        (state.view(), state.missing(offset, len, Purpose::Read))
    }

    /// Whether what a reader fetched under `view` was the file's, for certain: if the session was lost meanwhile the file may
    /// have been released and its objects destroyed under the reader.
    pub fn stands(&self, view: &View) -> bool {
        self.state().keeps.stands(view.losses)
    }

    /// What a reader that begins now sees.
    pub fn view(&self) -> View {
        self.state().view()
    }

    /// Runs `put` if what a reader fetched for `chunk` under `view` is still what is stored.
    pub fn if_current(&self, view: &View, chunk: u64, put: impl FnOnce()) {
        let state = self.state();
        let same = state.epoch == view.epoch && state.stored_changes == view.stored_changes;
        if same && !state.writing.contains_key(&chunk) {
            put();
        }
    }
}

impl State {
    fn view(&self) -> View {
        View {
            layout: Arc::clone(&self.layout),
            epoch: self.epoch,
            provisional: self.provisional(),
            stored_changes: self.stored_changes,
            losses: self.keeps.losses(),
        }
    }

    fn read_span(&self, span: Span) -> ReadSpan {
        let mut overlay = Vec::new();
        if let Some(Some(outgoing)) = self.writing.get(&span.chunk) {
            overlay.extend(outgoing.within(span.from, span.to));
        }
        let mut complete = overlay.first().is_some_and(|(at, b)| *at == span.from && at + b.len() as u32 == span.to);
        if let Some(dirty) = self.dirty.get(&span.chunk) {
            overlay.extend(dirty.copies(span.from, span.to));
            complete |= dirty.covers(span.from, span.to);
        }
        ReadSpan { span, overlay, complete }
    }
}

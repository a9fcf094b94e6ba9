//! The ranges of keys that an import lists at once: which keys belong to which, how far each is, and how one is cut in two.

use std::sync::Arc;

use parking_lot::Mutex;
use sateen_types::repository::KeyRange;
use tokio::sync::Notify;

use super::split;
use crate::remote::{Listed, RemoteError};

/// Ranges of an import that are listed at once. Each takes as much memory as some pages of objects.
pub const SPANS_MAX: usize = 8;
/// Pages that are listed of a range before it is worth a cut.
const PAGES_BEFORE_CUT: u64 = 2;

/// A range that is being listed.
#[derive(Debug)]
pub struct Span {
    range: KeyRange,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Listed up to here.
    after: Vec<u8>,
    end: Option<Vec<u8>>,
    /// Behind this there is no key up to `end`.
    nothing_behind: Option<String>,
    /// Everything up to `end` is listed.
    ended: bool,
    pages: u64,
    /// When it is cut next.
    cut_at: u64,
}

/// How a range goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Behind this key.
    Behind(Vec<u8>),
    /// It was listed up to its end.
    End(Option<Vec<u8>>),
}

impl Span {
    fn new(range: KeyRange, nothing_behind: Option<String>) -> Arc<Span> {
        let KeyRange { after, end } = range.clone();
        let state = State { after, end, nothing_behind, ended: false, pages: 0, cut_at: PAGES_BEFORE_CUT };
        Arc::new(Span { range, state: Mutex::new(state) })
    }

    /// What it began with; its end may be nearer now.
    pub fn range(&self) -> &KeyRange {
        &self.range
    }

    /// Takes what was listed behind the last page, `more` if more follows in the bucket: what is behind the end goes.
    pub fn take(&self, listed: &mut Vec<Listed>, more: bool) -> Next {
        let mut state = self.state.lock();
        let within = listed.partition_point(|o| state.end.as_ref().is_none_or(|end| o.key <= *end));
        let is_all = within < listed.len() || !more;
        listed.truncate(within);
        if let Some(last) = listed.last() {
            state.after.clone_from(&last.key);
        }
        state.pages += 1;
        state.ended = is_all || state.end.as_ref() == Some(&state.after);
        match state.ended {
            true => Next::End(state.end.clone()),
            false => Next::Behind(state.after.clone()),
        }
    }

    /// Leaves what is behind `at` to another one, if it has not come that far.
    fn cut(&self, at: &str, nothing_behind: Option<String>) -> Option<Arc<Span>> {
        let mut state = self.state.lock();
        if state.ended || state.after.as_slice() >= at.as_bytes() {
            return None;
        }
        let end = state.end.replace(at.into());
        state.nothing_behind = Some(at.to_owned());
        state.cut_at = state.pages + PAGES_BEFORE_CUT;
        Some(Span::new(KeyRange { after: at.into(), end }, nothing_behind))
    }
}

/// All of them.
#[derive(Debug, Default)]
pub struct Spans {
    /// Those that have not ended.
    all: Mutex<Vec<Arc<Span>>>,
    /// One has become longer.
    listed: Notify,
}

/// Where a cut is looked for.
struct Candidate {
    span: Arc<Span>,
    after: String,
    end: Option<Vec<u8>>,
    nothing_behind: Option<String>,
}

impl Spans {
    /// A range that is listed from here on.
    pub fn add(&self, range: KeyRange) -> Arc<Span> {
        let nothing_behind = range.end.clone().and_then(|end| String::from_utf8(end).ok());
        let span = Span::new(range, nothing_behind);
        self.all.lock().push(Arc::clone(&span));
        span
    }

    /// A page of one was listed.
    pub fn told(&self) {
        self.all.lock().retain(|span| !span.state.lock().ended);
        self.listed.notify_one();
    }

    /// That of which most was listed, and which is to be cut.
    fn candidate(&self) -> Option<Candidate> {
        let all = self.all.lock();
        if all.len() >= SPANS_MAX {
            return None;
        }
        let longest = all.iter().filter(|span| {
            let state = span.state.lock();
            !state.ended && state.pages >= state.cut_at
        });
        let span = longest.max_by_key(|span| span.state.lock().pages)?;
        let mut state = span.state.lock();
        // Each time in vain makes the next one rarer.
        state.cut_at = 2 * state.pages;
        let after = String::from_utf8(state.after.clone()).ok()?;
        let (end, nothing_behind) = (state.end.clone(), state.nothing_behind.clone());
        Some(Candidate { span: Arc::clone(span), after, end, nothing_behind })
    }

    /// Waits until a range is worth it, and cuts it: gives what is listed beside it from here on. `first_behind` gives the first key
    /// behind another one.
    pub async fn cut<F>(&self, first_behind: impl Fn(String) -> F) -> Result<Arc<Span>, RemoteError>
    where
        F: Future<Output = Result<Option<Vec<u8>>, RemoteError>>,
    {
        loop {
            let Some(Candidate { span, after, end, nothing_behind }) = self.candidate() else {
                self.listed.notified().await;
                continue;
            };
            let (at, nothing_behind) = split::cut(&after, end.as_deref(), nothing_behind, &first_behind).await?;
            let right = match at {
                Some(at) => span.cut(&at, nothing_behind),
                None => {
                    span.state.lock().nothing_behind = nothing_behind;
                    None
                }
            };
            if let Some(right) = right {
                self.all.lock().push(Arc::clone(&right));
                return Ok(right);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use sateen_types::Timestamp;

    use super::*;

    fn listed(keys: &[&str]) -> Vec<Listed> {
        let one = |key: &&str| {
            let (etag, modified) = (String::new(), Timestamp::default());
            Listed { key: key.as_bytes().to_vec(), size: 1, etag, modified }
        };
        keys.iter().map(one).collect()
    }

    fn keys(listed: &[Listed]) -> Vec<&[u8]> {
        listed.iter().map(|o| o.key.as_slice()).collect()
    }

    #[test]
    fn what_is_behind_the_end_is_not_its() {
        let spans = Spans::default();
        let span = spans.add(KeyRange { after: b"a".to_vec(), end: Some(b"m".to_vec()) });
        let mut page = listed(&["b", "c"]);
        assert_eq!(span.take(&mut page, true), Next::Behind(b"c".to_vec()));
        let right = span.cut("k", Some("l".to_owned())).expect("not there yet");
        assert_eq!(*right.range(), KeyRange { after: b"k".to_vec(), end: Some(b"m".to_vec()) });
        assert!(span.cut("c", None).is_none(), "it is there already");
        let mut page = listed(&["d", "k", "l", "n"]);
        assert_eq!(span.take(&mut page, true), Next::End(Some(b"k".to_vec())));
        assert_eq!(keys(&page), [b"d", b"k"]);
        assert!(span.cut("z", None).is_none(), "it has ended");
        let mut page = listed(&["l", "m"]);
        assert_eq!(right.take(&mut page, true), Next::End(Some(b"m".to_vec())), "its last key is there");
        assert_eq!(keys(&page), [b"l", b"m"]);
    }

    #[test]
    fn only_what_goes_on_for_long_is_cut_and_not_again_and_again_in_vain() {
        let spans = Spans::default();
        let span = spans.add(KeyRange::ALL);
        let none = |_: String| std::future::ready(Ok(None));
        let some = |_: String| std::future::ready(Ok(Some(b"zz".to_vec())));
        for key in ["a", "b"] {
            assert!(spans.cut(some).now_or_never().is_none(), "{key}");
            span.take(&mut listed(&[key]), true);
            spans.told();
        }
        assert!(spans.cut(none).now_or_never().is_none(), "nothing is behind");
        assert!(spans.cut(some).now_or_never().is_none(), "it was tried a moment ago");
        for key in ["c", "d"] {
            span.take(&mut listed(&[key]), true);
            spans.told();
        }
        // What was guessed in vain is not guessed again.
        let right = spans.cut(some).now_or_never();
        assert!(right.is_none_or(|right| right.expect("never fails").range().after < b"e".to_vec()));
        span.take(&mut listed(&["y"]), false);
        spans.told();
        assert!(spans.candidate().is_none_or(|candidate| !Arc::ptr_eq(&candidate.span, &span)));
    }
}

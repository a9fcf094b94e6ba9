//! Listings of containers.
//!
//! Azure's pages go on with markers that only the store understands. It may be that they name the key that follows: then what is written right before
//! that key in the meantime is passed over, and a comparison would take it for gone. So ours begin at a key with each page, which Azure knows since
//! version 2026-02-06 of its interface. Of stores that ignore that, some (Azurite 3.35) have last keys for markers, which is as good; others are
//! listed from the first key on, with each page.

use std::sync::atomic::{AtomicU8, Ordering};

use http::{HeaderValue, Method};
use percent_encoding::percent_encode;

use super::super::http::LIST_BYTES_MAX;
use super::super::{LIST_PAGE_MAX, Listed, Page};
use super::{Container, RemoteError, Trouble, UNRESERVED, VERSION_HEADER, read_all, told, xml};

/// The version of the interface that knows where to begin.
const VERSION: &str = "2026-02-06";

/// How a store is told where a page begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seek {
    /// By a key, as Azure. Believed until it is seen that the store does not listen.
    ByKey = 0,
    /// By a marker, which is the key before.
    ByMarker = 1,
    /// Not at all.
    Never = 2,
}

/// What was seen of a store.
#[derive(Debug, Default)]
pub(super) struct Seeks(AtomicU8);

impl Seeks {
    fn get(&self) -> Seek {
        match self.0.load(Ordering::Relaxed) {
            0 => Seek::ByKey,
            1 => Seek::ByMarker,
            _ => Seek::Never,
        }
    }

    fn set(&self, seen: Seek) {
        self.0.store(seen as u8, Ordering::Relaxed);
    }
}

/// Where a page begins.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Start {
    /// At the first key.
    First,
    /// At this key.
    Key(Vec<u8>),
    /// As a page before it has said, or behind a key.
    Marker(Vec<u8>),
}

impl Container {
    /// Whether a listing can begin at any key, as far as is known.
    pub fn seeks(&self) -> bool {
        self.seeks.get() != Seek::Never
    }

    /// See [`super::super::Remote::list`].
    pub async fn list(&self, after: &[u8], max: usize) -> Result<Page, RemoteError> {
        let behind = [self.prefix.as_bytes(), after].concat();
        let mut start = match self.seeks.get() {
            _ if after.is_empty() => Start::First,
            Seek::ByKey => Start::Key(behind.clone()),
            Seek::ByMarker => Start::Marker(behind.clone()),
            Seek::Never => Start::First,
        };
        let mut passing = !after.is_empty() && start == Start::First;
        loop {
            // The key where a page begins is on it, if it is there. What is passed over is passed over in large pages.
            let most = match start {
                _ if passing => LIST_PAGE_MAX,
                Start::Key(_) => max.saturating_add(1).min(LIST_PAGE_MAX),
                Start::First | Start::Marker(_) => max,
            };
            let (mut objects, next) = self.page(&start, most).await?;
            let ignored = objects.first().is_some_and(|first| first.key.as_slice() < after);
            if ignored && matches!(start, Start::Key(_)) {
                let last = objects.last().map(|last| [self.prefix.as_bytes(), &last.key].concat());
                let by_marker = next.is_some() && last == next;
                self.seeks.set(if by_marker { Seek::ByMarker } else { Seek::Never });
                if by_marker {
                    start = Start::Marker(behind.clone());
                    continue;
                }
                passing = true;
            }
            objects.retain(|object| object.key.as_slice() > after || after.is_empty());
            let cut = objects.len() > max;
            objects.truncate(max);
            match next {
                Some(next) if objects.is_empty() => start = Start::Marker(next),
                next => return Ok(Page { objects, more: cut || next.is_some() }),
            }
        }
    }

    /// One page with what follows it.
    async fn page(&self, start: &Start, max: usize) -> Result<(Vec<Listed>, Option<Vec<u8>>), RemoteError> {
        let encoded = |text: &[u8]| percent_encode(text, UNRESERVED).to_string();
        let mut query = format!("?restype=container&comp=list&maxresults={max}");
        if !self.prefix.is_empty() {
            query.push_str(&format!("&prefix={}", encoded(self.prefix.as_bytes())));
        }
        match start {
            Start::First => {}
            Start::Key(key) => query.push_str(&format!("&startFrom={}", encoded(key))),
            Start::Marker(marker) => query.push_str(&format!("&marker={}", encoded(marker))),
        }
        let what = || format!("listing {}", self.name);
        let refused = |why: String| RemoteError::new(Trouble::Refused, format!("{}: {why}", what()));
        let headers = [(VERSION_HEADER, HeaderValue::from_static(VERSION))];
        let response = self.send(Method::GET, &format!("{}{query}", self.base), &headers, &what).await?;
        let text = read_all(response, LIST_BYTES_MAX).await.map_err(|e| told(&what, e))?;
        let page = xml::blobs(&text).map_err(|e| refused(format!("this is no listing: {e}")))?;
        let within = |mut object: Listed| {
            object.key = object.key.strip_prefix(self.prefix.as_bytes())?.to_vec();
            Some(object)
        };
        let objects: Option<Vec<Listed>> = page.objects.into_iter().map(within).collect();
        let objects = objects.ok_or_else(|| refused("it has keys outside of the prefix".to_owned()))?;
        Ok((objects, page.next.map(String::into_bytes)))
    }
}

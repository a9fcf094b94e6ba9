//! Listings of containers.
//!
//! Azure's pages go on with markers that only the store understands. Since version 2026-02-06 of its interface a listing can begin at any key,
//! and that is how ours go on: workers keep nothing. Stores that ignore where they should begin (they are of before, as Azurite 3.35) are listed by
//! the markers of the pages before, as far as these are remembered, or else from the start.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;

use http::{HeaderValue, Method};
use percent_encoding::percent_encode;

use super::super::http::LIST_BYTES_MAX;
use super::super::{LIST_PAGE_MAX, Listed, Page};
use super::{Container, RemoteError, Trouble, UNRESERVED, VERSION_HEADER, read_all, told, xml};

/// The version of the interface that knows where to begin.
const VERSION: &str = "2026-02-06";
/// Markers that are remembered.
const MARKERS_MAX: usize = 64;

/// Last keys of pages, and what the pages behind them are asked for with.
#[derive(Debug, Default)]
pub(super) struct Markers(VecDeque<(Vec<u8>, String)>);

impl Markers {
    fn after(&self, key: &[u8]) -> Option<String> {
        self.0.iter().find(|(last, _)| last == key).map(|(_, marker)| marker.clone())
    }

    fn remember(&mut self, last: Vec<u8>, marker: String) {
        self.0.retain(|(known, _)| *known != last);
        self.0.truncate(MARKERS_MAX - 1);
        self.0.push_front((last, marker));
    }
}

/// Where a page begins.
enum Start {
    /// At the first key.
    First,
    /// At this key, if the store knows how.
    Key(Vec<u8>),
    /// Where another page has ended.
    Marker(String),
}

impl Container {
    /// Whether a listing can begin at any key, as far as is known.
    pub fn seeks(&self) -> bool {
        self.seeks.load(Ordering::Relaxed)
    }

    /// See [`super::super::Remote::list`].
    pub async fn list(&self, after: &[u8], max: usize) -> Result<Page, RemoteError> {
        let mut start = match self.markers.lock().after(after) {
            _ if after.is_empty() => Start::First,
            Some(marker) => Start::Marker(marker),
            None if self.seeks() => Start::Key(after.to_vec()),
            None => Start::First,
        };
        let mut passing = matches!(start, Start::First) && !after.is_empty();
        loop {
            // The key where a page begins is on it, if it is there. What is passed over is passed over in large pages.
            let most = match start {
                _ if passing => LIST_PAGE_MAX,
                Start::Key(_) => max.saturating_add(1).min(LIST_PAGE_MAX),
                Start::First | Start::Marker(_) => max,
            };
            let (mut objects, next) = self.page(&start, most).await?;
            let before = objects.first().is_some_and(|first| first.key.as_slice() < after);
            if matches!(start, Start::Key(_)) && before {
                self.seeks.store(false, Ordering::Relaxed);
            }
            let last = objects.last().map(|last| last.key.clone());
            objects.retain(|object| object.key.as_slice() > after || after.is_empty());
            let cut = objects.len() > max;
            objects.truncate(max);
            if let (Some(last), Some(next), false) = (&last, &next, cut) {
                self.markers.lock().remember(last.clone(), next.clone());
            }
            match next {
                Some(next) if objects.is_empty() => (start, passing) = (Start::Marker(next), before || passing),
                next => return Ok(Page { objects, more: cut || next.is_some() }),
            }
        }
    }

    /// One page with what follows it.
    async fn page(&self, start: &Start, max: usize) -> Result<(Vec<Listed>, Option<String>), RemoteError> {
        let encoded = |text: &[u8]| percent_encode(text, UNRESERVED).to_string();
        let mut query = format!("?restype=container&comp=list&maxresults={max}");
        if !self.prefix.is_empty() {
            query.push_str(&format!("&prefix={}", encoded(self.prefix.as_bytes())));
        }
        match start {
            Start::First => {}
            Start::Key(key) => {
                let key = [self.prefix.as_bytes(), key].concat();
                query.push_str(&format!("&startFrom={}", encoded(&key)));
            }
            Start::Marker(marker) => query.push_str(&format!("&marker={}", encoded(marker.as_bytes()))),
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
        Ok((objects, page.next))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_newest_markers_are_remembered() {
        let mut markers = Markers::default();
        for i in 0..=MARKERS_MAX {
            markers.remember(vec![i as u8], i.to_string());
        }
        assert_eq!(markers.after(&[0]), None);
        assert_eq!(markers.after(&[MARKERS_MAX as u8]).as_deref(), Some("64"));
        markers.remember(vec![5], "anew".to_owned());
        assert_eq!(markers.after(&[5]).as_deref(), Some("anew"));
        assert_eq!(markers.0.len(), MARKERS_MAX);
    }
}

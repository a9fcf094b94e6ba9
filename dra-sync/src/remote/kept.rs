//! What a copy keeps of an object that is nothing to this file system: the headers that browsers and programs go by, and user metadata
//! of others. Pure.

use http::header::{
    CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_TYPE, EXPIRES, HeaderMap,
    HeaderName, HeaderValue,
};

use super::http::Headers;
use crate::posix::{self, Spelling};

/// What all user metadata of an object come to at most (S3), names and values, in bytes.
const METADATA_BYTES_MAX: usize = 2 << 10;
/// Headers that belong to an object and are lost where a copy does not name them again.
const HEADERS: [HeaderName; 6] =
    [CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_TYPE, EXPIRES];
/// What some programs send and some stores keep as if it were an encoding.
const NO_ENCODING: &str = "aws-chunked";

/// Adds what the object with the headers `there` has to the `headers` of its copy, which have the last word. How many metadata found no
/// room, or cannot be sent.
pub(super) fn keep(spelling: &Spelling, headers: &mut Headers, there: &HeaderMap) -> usize {
    for name in HEADERS {
        if let Some(value) =
            there.get(&name).filter(|value| can_be_sent(value) && value.as_bytes() != NO_ENCODING.as_bytes())
        {
            headers.retain(|(known, _)| *known != name);
            headers.push((name, value.clone()));
        }
    }
    keep_metadata(spelling, headers, there, METADATA_BYTES_MAX)
}

/// The same of user metadata alone, of which there may be `bytes_max` bytes.
pub(super) fn keep_metadata(spelling: &Spelling, headers: &mut Headers, there: &HeaderMap, bytes_max: usize) -> usize {
    let bytes = |name: &HeaderName, value: &HeaderValue| name.as_str().len() + value.len();
    let ours = headers.iter().filter(|(name, _)| spelling.is_metadata(name));
    let mut room = bytes_max.saturating_sub(ours.map(|(name, value)| bytes(name, value)).sum());
    let mut left_out = 0;
    let foreign = there.iter().filter(|(name, _)| spelling.is_metadata(name) && !posix::is_ours(spelling, name));
    for (name, value) in foreign {
        match room.checked_sub(bytes(name, value)) {
            Some(rest) if can_be_sent(value) => {
                room = rest;
                headers.push((name.clone(), value.clone()));
            }
            _ => left_out += 1,
        }
    }
    left_out
}

/// Only these can be signed.
fn can_be_sent(value: &HeaderValue) -> bool {
    !value.is_empty() && value.to_str().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const AMAZON: Spelling = Spelling { prefix: "x-amz-meta-", separator: '-' };

    fn map(of: &[(&'static str, &str)]) -> HeaderMap {
        let value = |value: &str| HeaderValue::from_bytes(value.as_bytes()).expect("a value");
        of.iter().map(|(name, text)| (HeaderName::from_static(name), value(text))).collect()
    }

    fn kept(ours: &[(&'static str, &str)], there: &[(&'static str, &str)]) -> (Vec<(String, String)>, usize) {
        let mut headers: Vec<_> = map(ours).into_iter().filter_map(|(name, value)| Some((name?, value))).collect();
        let left_out = keep(&AMAZON, &mut headers, &map(there));
        let text = |value: &HeaderValue| value.to_str().expect("text").to_owned();
        let mut shown: Vec<_> = headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect();
        shown.sort();
        (shown, left_out)
    }

    fn pairs(of: &[(&str, &str)]) -> Vec<(String, String)> {
        of.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn what_belongs_to_the_object_is_kept_and_ours_wins() {
        let ours = [("content-type", "application/octet-stream"), ("x-amz-meta-file-owner", "7")];
        let there = [
            ("content-type", "text/html"),
            ("content-encoding", "gzip"),
            ("cache-control", "no-store"),
            ("content-length", "7"),
            ("etag", "x"),
            ("x-amz-meta-file-owner", "8"),
            ("x-amz-meta-file-mtime", "1ns"),
            ("x-amz-meta-colour", "red"),
            ("x-amz-storage-class", "STANDARD_IA"),
        ];
        let expected = [
            ("cache-control", "no-store"),
            ("content-encoding", "gzip"),
            ("content-type", "text/html"),
            ("x-amz-meta-colour", "red"),
            ("x-amz-meta-file-owner", "7"),
        ];
        assert_eq!(kept(&ours, &there), (pairs(&expected), 0));
        assert_eq!(kept(&ours, &[("content-encoding", "aws-chunked")]), (pairs(&ours), 0));
    }

    #[test]
    fn metadata_that_find_no_room_or_cannot_be_signed_are_left_out() {
        let ours = [("x-amz-meta-file-owner", "7")];
        // Name and value, and those of ours.
        let fits = "x".repeat(METADATA_BYTES_MAX - "x-amz-meta-a".len() - "x-amz-meta-file-owner7".len());
        let with = |value: &str, more: &[(&'static str, &str)]| {
            let there: Vec<_> = [("x-amz-meta-a", value)].into_iter().chain(more.iter().copied()).collect();
            let (kept, left_out) = kept(&ours, &there);
            (kept.len() - 1, left_out)
        };
        assert_eq!(with(&fits, &[]), (1, 0));
        assert_eq!(with(&fits, &[("x-amz-meta-b", "1")]), (1, 1));
        assert_eq!(with(&format!("{fits}x"), &[("x-amz-meta-b", "1")]), (1, 1), "the one that fits");
        assert_eq!(with("ü", &[]), (0, 1));
    }
}

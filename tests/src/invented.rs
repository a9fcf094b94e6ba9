//! A bucket that nobody has: an S3 server in this process that invents objects from their numbers. It stores nothing, so that it can
//! have as many as a test likes.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

use crate::ports::Port;
use crate::s3_proxy::Operation;

/// Objects in each directory.
const IN_EACH: u64 = 1000;
/// Most keys of one page (S3).
const PAGE_MAX: u64 = 1000;
/// How long it takes to list a page, as at a store some way off: long enough that listings that go on at once are seen to.
const LIST_TAKES: Duration = Duration::from_millis(20);
/// When all of them were put.
const PUT_AT: (&str, &str) = ("2025-03-04T05:06:07.000Z", "Tue, 04 Mar 2025 05:06:07 GMT");

/// The server. Dropping it ends it.
#[derive(Debug)]
pub struct Invented {
    port: Port,
    asked: Arc<Asked>,
    runtime: Option<Runtime>,
}

/// What it was asked.
#[derive(Debug, Default)]
struct Asked {
    heads: AtomicU64,
    lists: AtomicU64,
    /// Pages that are being listed now, and most of them so far.
    listing: AtomicU64,
    listing_max: AtomicU64,
}

/// Key of an object. Keys rise with their numbers.
fn key(number: u64) -> String {
    format!("d{:05}/{number:08}", number / IN_EACH)
}

/// Number of an object.
fn number(key: &str) -> Option<u64> {
    let number = key.rsplit_once('/')?.1.parse().ok()?;
    (self::key(number) == key).then_some(number)
}

/// Number of the first object behind a key, which need not be one.
fn first_behind(key: &str, objects: u64) -> u64 {
    let (mut from, mut to) = (0, objects);
    while from < to {
        let middle = from + (to - from) / 2;
        if *self::key(middle) <= *key {
            from = middle + 1;
        } else {
            to = middle;
        }
    }
    from
}

/// What a part of an address says.
fn plain(encoded: &str) -> String {
    percent_encoding::percent_decode_str(encoded).decode_utf8_lossy().into_owned()
}

impl Invented {
    /// Starts one with so many objects, each of as many bytes as its number, in any bucket.
    #[track_caller]
    pub fn start(objects: u64) -> Invented {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime can be built");
        let port = Port::free();
        let listener = runtime.block_on(TcpListener::bind(port.address())).expect("the port is ours");
        let asked = Arc::new(Asked::default());
        let counted = Arc::clone(&asked);
        runtime.spawn(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else { continue };
                let _ = stream.set_nodelay(true);
                let asked = Arc::clone(&counted);
                let service = service_fn(move |request: Request<Incoming>| {
                    let asked = Arc::clone(&asked);
                    async move {
                        let (method, uri, headers) = (request.method(), request.uri(), request.headers());
                        Ok::<_, Infallible>(answer(method, uri, headers, objects, &asked).await)
                    }
                });
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service),
                );
            }
        });
        Invented { port, asked, runtime: Some(runtime) }
    }

    /// Where it answers.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.port.address())
    }

    /// How often the metadata of an object were asked for.
    pub fn heads(&self) -> u64 {
        self.asked.heads.load(Ordering::Relaxed)
    }

    /// How often a page was listed.
    pub fn lists(&self) -> u64 {
        self.asked.lists.load(Ordering::Relaxed)
    }

    /// How many pages were being listed at once, at most.
    pub fn lists_at_once(&self) -> u64 {
        self.asked.listing_max.load(Ordering::Relaxed)
    }

    /// Directories that so many objects are in.
    pub fn directories(objects: u64) -> u64 {
        objects.div_ceil(IN_EACH)
    }
}

impl Drop for Invented {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn answer(method: &Method, uri: &Uri, headers: &HeaderMap, objects: u64, asked: &Asked) -> Response<Full<Bytes>> {
    let refused = |status: StatusCode| {
        let mut response = Response::new(Full::default());
        *response.status_mut() = status;
        response
    };
    match Operation::of(method, uri, headers) {
        Operation::List => {
            asked.lists.fetch_add(1, Ordering::Relaxed);
            let now = asked.listing.fetch_add(1, Ordering::Relaxed) + 1;
            asked.listing_max.fetch_max(now, Ordering::Relaxed);
            tokio::time::sleep(LIST_TAKES).await;
            asked.listing.fetch_sub(1, Ordering::Relaxed);
            match page(uri.query().unwrap_or_default(), objects) {
                Some(text) => Response::new(Full::new(text.into())),
                None => refused(StatusCode::BAD_REQUEST),
            }
        }
        Operation::Head => {
            asked.heads.fetch_add(1, Ordering::Relaxed);
            let path = plain(uri.path());
            // Behind the name of the bucket.
            let key = path.trim_start_matches('/').split_once('/').map(|(_, key)| key);
            match key.and_then(number).filter(|number| *number < objects) {
                Some(number) => Response::builder()
                    .header("content-length", number)
                    .header("etag", format!("\"{number:032x}\""))
                    .header("last-modified", PUT_AT.1)
                    .header("x-amz-meta-file-permissions", "0100640")
                    .body(Full::default())
                    .expect("a response"),
                None => refused(StatusCode::NOT_FOUND),
            }
        }
        _ => refused(StatusCode::NOT_IMPLEMENTED),
    }
}

/// A page of the listing; `None` for a question that no worker asks.
fn page(query: &str, objects: u64) -> Option<String> {
    let value = |name: &str| {
        let found = query.split('&').find_map(|part| part.strip_prefix(name)?.strip_prefix('='))?;
        Some(plain(found))
    };
    let first = match value("start-after") {
        Some(key) => first_behind(&key, objects),
        None => 0,
    };
    let max = value("max-keys")?.parse::<u64>().ok()?.min(PAGE_MAX);
    let end = objects.min(first.saturating_add(max));
    let mut text = format!(
        "<?xml version=\"1.0\"?><ListBucketResult><EncodingType>url</EncodingType><IsTruncated>{}</IsTruncated>",
        end < objects
    );
    for number in first..end {
        text.push_str(&format!(
            "<Contents><Key>{}</Key><LastModified>{}</LastModified><ETag>&quot;{number:032x}&quot;</ETag>\
             <Size>{number}</Size><StorageClass>STANDARD</StorageClass></Contents>",
            key(number),
            PUT_AT.0
        ));
    }
    Some(text + "</ListBucketResult>")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_rise_with_their_numbers_and_pages_follow_each_other() {
        let numbers = [0, 1, 999, 1000, 4_999_999];
        let keys: Vec<_> = numbers.iter().map(|n| key(*n)).collect();
        assert!(keys.is_sorted());
        assert!(numbers.iter().zip(&keys).all(|(n, key)| number(key) == Some(*n)));
        assert_eq!((number("d00000/1"), number("x")), (None, None));
        let count = |query: &str| page(query, 1500).map(|text| text.matches("<Key>").count());
        assert_eq!(count("list-type=2&max-keys=1000"), Some(1000));
        assert_eq!(count("list-type=2&max-keys=1000&start-after=d00000%2F00000999"), Some(500));
        assert_eq!(count("list-type=2&max-keys=1000&start-after=d00001%2F00001499"), Some(0));
        assert_eq!(count("list-type=2&max-keys=1000&start-after=d00001"), Some(500));
        assert_eq!(count("list-type=2&max-keys=1000&start-after=elsewhere"), Some(0));
        assert_eq!(count("list-type=2"), None);
        let last = page("max-keys=500&start-after=d00000%2F00000999", 1500).expect("a page");
        assert!(last.contains("<IsTruncated>false"), "{last}");
        assert!(page("max-keys=500", 1500).is_some_and(|text| text.contains("<IsTruncated>true")));
    }
}

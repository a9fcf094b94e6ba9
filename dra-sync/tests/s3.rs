//! The S3 client of the worker against a real S3 server: raw keys, conditions, and what errors mean.

use std::net::SocketAddr;
use std::sync::Arc;

use futures::StreamExt;
use sateen_dev_s3::server::{self, Keys, Pace};
use sateen_dev_s3::store::Store;
use sateen_dra_sync::config::Config;
use sateen_dra_sync::credentials::Profile;
use sateen_dra_sync::remote::{Remote, Trouble};
use sateen_runtime::Shutdown;
use sateen_types::repository::RepositorySettings;
use sateen_types::{Extent, FsCode};

struct Served {
    store: Arc<Store>,
    address: SocketAddr,
    config: Config,
    stop: Shutdown,
    dir: tempfile::TempDir,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.stop.request();
    }
}

async fn serve() -> Served {
    let dir = tempfile::tempdir().expect("temp dir");
    let keys = dir.path().join("keys");
    std::fs::write(
        &keys,
        "[default]\naws_access_key_id = AK\naws_secret_access_key = S/K+\n[wrong]\naws_access_key_id = AK\n\
         aws_secret_access_key = guessed\n",
    )
    .expect("written");
    let store = Arc::new(Store::open(&dir.path().join("s3")).expect("opens"));
    store.create_bucket("data").expect("made");
    let stop = Shutdown::new();
    let (send, receive) = tokio::sync::oneshot::channel();
    let served = {
        let (store, keys, stop) = (Arc::clone(&store), Keys::read(&keys).expect("keys"), stop.clone());
        let listen = "127.0.0.1:0".parse().expect("an address");
        async move {
            let ready = |address| send.send(address).expect("somebody waits");
            server::run(store, listen, keys, Pace::default(), stop, ready).await.expect("serves");
        }
    };
    tokio::spawn(served);
    let mut config = Config::default();
    for name in ["default", "wrong"] {
        config.profiles.insert(name.to_owned(), Profile { file: keys.clone(), ..Profile::default() });
    }
    Served { store, address: receive.await.expect("listens"), config, stop, dir }
}

impl Served {
    fn settings(&self, url: &str) -> RepositorySettings {
        RepositorySettings {
            endpoint: format!("http://{}", self.address),
            ..RepositorySettings::new("/d".parse().expect("path"), url.parse().expect("url"))
        }
    }

    fn remote(&self, url: &str) -> Remote {
        Remote::open(&self.settings(url), &self.config).expect("opens")
    }

    fn put(&self, key: &str, bytes: &[u8]) {
        self.store.put("data", key, bytes, &[("file-permissions", "0100640")]).expect("put");
    }
}

async fn keys(remote: &Remote, max: usize) -> Vec<String> {
    let (mut found, mut after) = (Vec::new(), Vec::new());
    loop {
        let page = remote.list(&after, max).await.expect("a page");
        found.extend(page.objects.iter().map(|o| String::from_utf8(o.key.clone()).expect("UTF-8")));
        match page.objects.last() {
            Some(last) if page.more => after = last.key.clone(),
            _ => return found,
        }
    }
}

#[tokio::test]
async fn every_key_is_listed_as_it_is_in_order_and_page_by_page() {
    let served = serve().await;
    let all = [
        "\0",
        "\u{1}\n\r",
        " blank + plus",
        "%2F&<>\"'",
        "../up",
        "a",
        "a/",
        "a//b",
        "a/./c",
        "a/b",
        "a\\b",
        "\u{fc}/\u{1f980}",
    ];
    all.iter().for_each(|key| served.put(key, key.as_bytes()));
    all.iter().for_each(|key| served.put(&format!("p re/{key}"), key.as_bytes()));
    served.put("p re", b"not below the prefix");
    for max in [1, 3, 1000] {
        let mut below = all.to_vec();
        below.sort();
        assert_eq!(keys(&served.remote("s3://data/p re/"), max).await, below, "{max} at a time");
    }
    assert_eq!(keys(&served.remote("s3://data/"), 5).await.len(), 2 * all.len() + 1);

    // What can be imported can be asked for: every key that is a path.
    let remote = served.remote("s3://data/p re/");
    for key in ["\u{1}\n\r", " blank + plus", "%2F&<>\"'", "a", "a/", "a/b", "a\\b", "\u{fc}/\u{1f980}"] {
        let head = remote.head(key.as_bytes()).await.unwrap_or_else(|e| panic!("{key:?}: {e}"));
        assert_eq!((head.size, head.posix.mode), (key.len() as u64, Some(0o100640)), "{key:?}");
        let bytes = remote.get_all(key.as_bytes(), &head.etag, head.size).await.expect("bytes");
        assert_eq!(bytes, key.as_bytes());
    }
}

#[tokio::test]
async fn a_range_is_of_the_version_that_was_asked_for_or_an_error() {
    let served = serve().await;
    let bytes: Vec<u8> = (0..3_000_000u32).map(|i| (i % 251) as u8).collect();
    served.put("k", &bytes);
    let remote = served.remote("s3://data/");
    let listed = remote.list(b"", 10).await.expect("a page").objects.remove(0);
    let head = remote.head(b"k").await.expect("there");
    assert_eq!((&listed.etag, listed.size), (&head.etag, 3_000_000));
    let range = Extent { start: 1_000_001, end: 2_999_999 };
    let mut got = Vec::new();
    let mut body = remote.get(b"k", &head.etag, range).await.expect("opens");
    while let Some(part) = body.next().await {
        got.extend_from_slice(&part.expect("read"));
    }
    assert!(got == bytes[1_000_001..2_999_999]);

    served.put("k", &bytes[..10]);
    let trouble =
        |result: Result<_, sateen_dra_sync::remote::RemoteError>| result.map(drop).expect_err("refused").trouble;
    assert_eq!(trouble(remote.get(b"k", &head.etag, range).await.map(drop)), Trouble::Changed);
    let now = remote.head(b"k").await.expect("there");
    assert_eq!(trouble(remote.get(b"k", &now.etag, range).await.map(drop)), Trouble::Changed, "behind the end");
    served.store.delete("data", "k").expect("deleted");
    assert_eq!(trouble(remote.get(b"k", &now.etag, range).await.map(drop)), Trouble::Gone);
    assert_eq!(trouble(remote.head(b"k").await.map(drop)), Trouble::Gone);
}

#[tokio::test]
async fn what_is_wrong_is_said_without_the_keys() {
    let served = serve().await;
    let settings = RepositorySettings { profile: "wrong".to_owned(), ..served.settings("s3://data/") };
    let wrong = Remote::open(&settings, &served.config).expect("opens");
    let error = wrong.list(b"", 1).await.expect_err("the signature is wrong");
    assert_eq!(error.trouble, Trouble::Denied, "{error}");
    assert!(error.message.contains("SignatureDoesNotMatch") && !error.message.contains("guessed"), "{error}");
    let error = served.remote("s3://other/").list(b"", 1).await.expect_err("no such bucket");
    assert_eq!(error.trouble, Trouble::Refused, "{error}");
    assert!(error.message.contains("NoSuchBucket") && error.message.contains("other"), "{error}");

    let open = |settings: &RepositorySettings| Remote::open(settings, &served.config).expect_err("refused");
    let unknown = RepositorySettings { profile: "nobody".to_owned(), ..served.settings("s3://data/") };
    assert!(open(&unknown).message.contains("nobody"));
    let error = open(&served.settings("gs://data/"));
    assert!(error.code == FsCode::NotSupported && error.hint.is_some(), "{error}");
    let error = open(&served.settings("az://data/"));
    assert!(error.message.contains("azure_storage_key") && error.hint.is_some(), "the file has keys for S3: {error}");
    let dir = format!("file://{}/", served.dir.path().display());
    assert_eq!(open(&served.settings(&dir)).code, FsCode::AccessDenied);
}

#[tokio::test]
async fn a_store_tells_who_listens_of_changes_behind_the_prefix() {
    let served = serve().await;
    let remote = served.remote("s3://data/p re/");
    let mut stream = remote.listen().await.expect("opens");
    served.put("elsewhere", b"");
    served.put("p re/a b+", b"");
    served.store.delete("data", "p re/a b+").expect("deleted");
    let mut text = String::new();
    while text.lines().filter(|line| line.contains("Records")).count() < 2 || !text.ends_with('\n') {
        let part = stream.next().await.expect("it goes on").expect("read");
        text.push_str(std::str::from_utf8(&part).expect("text"));
    }
    let lines: Vec<&str> = text.lines().filter(|line| line.contains("Records")).collect();
    assert!(lines[0].contains("s3:ObjectCreated:") && lines[0].contains("p+re/a+b%2B"), "{text}");
    assert!(lines[1].contains("s3:ObjectRemoved:") && !text.contains("elsewhere"), "{text}");

    let wrong = RepositorySettings { profile: "wrong".to_owned(), ..served.settings("s3://data/") };
    let wrong = Remote::open(&wrong, &served.config).expect("opens");
    assert_eq!(wrong.listen().await.err().expect("refused").trouble, Trouble::Denied, "who listens must sign");
    let error = served.remote("s3://other/").listen().await.err().expect("no such bucket");
    assert_eq!(error.trouble, Trouble::Refused, "{error}");
    let directory = RepositorySettings { endpoint: String::new(), ..served.settings("file:///x/") };
    let config = Config { directories: vec!["/x".into()], ..Config::default() };
    let directory = Remote::open(&directory, &config).expect("opens");
    assert_eq!(directory.listen().await.err().expect("cannot").trouble, Trouble::Refused);
}

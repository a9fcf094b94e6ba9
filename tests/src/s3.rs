//! An S3 server with one bucket, as a process: `sateen-dev-s3`.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::Read;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::{Attribute, Attributes, ObjectStore, ObjectStoreExt, PutOptions};
use sateen_dev_s3::store::Store;

use crate::ports::Port;
use crate::process::Process;
use crate::{azurite, bins, rpc, wait};

/// The bucket.
pub const BUCKET: &str = "dataset";
/// Where every store of the tests is.
pub(crate) const REGION: &str = "us-east-1";
/// Keys that requests are signed with.
pub(crate) const ACCESS_KEY: &str = "GK7e57acce55000000000000aa";
pub(crate) const SECRET_KEY: &str = "7e57ac3e7000000000000000000000000000000000000000000000000000007e";

/// How slow a server pretends to be, so that there is something to be in the middle of.
#[derive(Debug, Clone, Copy, Default)]
pub struct Pace {
    /// Before every answer.
    pub delay: Duration,
    /// Of each answer; 0: no limit.
    pub bytes_per_second: u64,
}

/// The server. Dropping it ends it; its directory is the cluster's.
#[derive(Debug)]
pub struct S3 {
    dir: PathBuf,
    log: PathBuf,
    keys: PathBuf,
    port: Port,
    pace: Pace,
    /// Writes that are made and answered with errors when it starts next.
    lose_answers: u32,
    /// Where changes are told.
    webhook: Option<String>,
    process: Option<Process>,
}

/// An object as it lies in the bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Without quotes.
    pub etag: String,
    /// User metadata, without `x-amz-meta-`.
    pub metadata: BTreeMap<String, String>,
}

impl S3 {
    /// Starts a server with a bucket that `fill` fills. (Before it runs: so keys may be there that no HTTP client can send.)
    #[track_caller]
    pub fn start(dir: &Path, pace: Pace, fill: impl FnOnce(&Store)) -> S3 {
        let (log, keys) = (dir.join("log/s3.log"), dir.join("etc/s3-credentials"));
        let text = format!(
            "[default]\naws_access_key_id = {ACCESS_KEY}\naws_secret_access_key = {SECRET_KEY}\n\
             azure_storage_account = {}\nazure_storage_key = {}\n",
            azurite::ACCOUNT,
            azurite::KEY
        );
        std::fs::write(&keys, text).expect("the keys can be written");
        let dir = dir.join("s3");
        let store = Store::open(&dir).expect("the directory can be opened");
        store.create_bucket(BUCKET).expect("a bucket can be made");
        fill(&store);
        drop(store);
        let mut s3 = S3 { dir, log, keys, port: Port::free(), pace, lose_answers: 0, webhook: None, process: None };
        s3.run();
        s3
    }

    /// Starts it again after [`S3::kill9`].
    #[track_caller]
    pub fn run(&mut self) {
        assert!(self.process.is_none(), "the S3 server runs already");
        let mut args: Vec<OsString> = vec![
            "--dir".into(),
            self.dir.clone().into(),
            "--listen".into(),
            self.port.address().to_string().into(),
            "--access-key-file".into(),
            self.keys.clone().into(),
            "--delay-ms".into(),
            self.pace.delay.as_millis().to_string().into(),
            "--bytes-per-second".into(),
            self.pace.bytes_per_second.to_string().into(),
            "--lose-answers".into(),
            std::mem::take(&mut self.lose_answers).to_string().into(),
        ];
        if let Some(webhook) = &self.webhook {
            args.extend(["--webhook".into(), webhook.into()]);
        }
        let mut process = Process::start("s3", &bins::path("sateen-dev-s3"), &args, &self.log, |_| {});
        wait::until("an S3 server that listens", wait::SERVER, || {
            process.assert_runs();
            TcpStream::connect(self.port.address()).ok()
        });
        self.process = Some(process);
    }

    /// Starts it again, as slow as this.
    #[track_caller]
    pub fn restart(&mut self, pace: Pace) {
        self.kill9();
        self.pace = pace;
        self.run();
    }

    /// Starts it again; the first so many writes are made, and answered with errors.
    #[track_caller]
    pub fn restart_losing(&mut self, answers: u32) {
        self.kill9();
        self.lose_answers = answers;
        self.run();
    }

    /// Starts it again; it tells all changes to `webhook`.
    #[track_caller]
    pub fn restart_telling(&mut self, webhook: String) {
        self.kill9();
        self.webhook = Some(webhook);
        self.run();
    }

    /// Everything in the bucket, whatever its key; `None` if it changed in this moment.
    pub fn objects(&self) -> Option<BTreeMap<String, Object>> {
        let store = Store::peek(&self.dir).ok()?;
        let mut all = BTreeMap::new();
        let mut after = String::new();
        loop {
            let page = store.list(BUCKET, "", &after, None, 1000).ok()?;
            for (key, record) in page.objects {
                let mut bytes = Vec::new();
                store.data(BUCKET, &record).ok()?.read_to_end(&mut bytes).ok()?;
                let object = Object { bytes, etag: record.etag(), metadata: record.metadata };
                all.insert(key, object);
            }
            match page.next {
                Some(next) => after = next,
                None => return Some(all),
            }
        }
    }

    /// `kill -9`.
    pub fn kill9(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill9();
        }
    }

    /// The keys are temporary ones from now on, with this session token. (The server takes any.)
    pub fn set_token(&self, token: &str) {
        let keys = format!("aws_access_key_id = {ACCESS_KEY}\naws_secret_access_key = {SECRET_KEY}\n");
        self.set_keys(&format!("{keys}aws_session_token = {token}\n"));
    }

    /// The file has these keys from now on, of whatever store.
    pub fn set_keys(&self, keys: &str) {
        let next = self.keys.with_extension("next");
        std::fs::write(&next, format!("[default]\n{keys}")).expect("the keys can be written");
        // Whoever reads them reads all of them.
        std::fs::rename(&next, &self.keys).expect("the keys can be replaced");
    }

    /// Writes the metadata of an object anew, as S3 does when an object is copied onto itself: with the same ETag and another time.
    #[track_caller]
    pub fn touch(&mut self, key: &str, metadata: &[(&str, &str)]) {
        self.kill9();
        let store = Store::open(&self.dir).expect("the directory can be opened");
        store.touch(BUCKET, key, metadata).expect("the object is there");
        drop(store);
        self.run();
    }

    /// Where it answers.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.port.address())
    }

    /// The file with its keys.
    pub fn keys(&self) -> &Path {
        &self.keys
    }

    /// Puts an object, with user metadata.
    #[track_caller]
    pub fn put(&self, key: &str, bytes: &[u8], metadata: &[(&'static str, &str)]) {
        let mut attributes = Attributes::new();
        for (name, value) in metadata {
            attributes.insert(Attribute::Metadata((*name).into()), (*value).to_owned().into());
        }
        let options = PutOptions { attributes, ..PutOptions::default() };
        let key = object_store::path::Path::parse(key).expect("a key that object_store can name");
        let client = self.client();
        let bytes = bytes.to_vec();
        rpc::block_on(async { client.put_opts(&key, bytes.into(), options).await }).expect("the object can be put");
    }

    /// Removes an object.
    #[track_caller]
    pub fn delete(&self, key: &str) {
        let key = object_store::path::Path::parse(key).expect("a key that object_store can name");
        let client = self.client();
        rpc::block_on(async { client.delete(&key).await }).expect("the object can be deleted");
    }

    /// Another client than the worker's.
    pub fn client(&self) -> AmazonS3 {
        AmazonS3Builder::new()
            .with_bucket_name(BUCKET)
            .with_endpoint(self.endpoint())
            .with_region(REGION)
            .with_allow_http(true)
            .with_access_key_id(ACCESS_KEY)
            .with_secret_access_key(SECRET_KEY)
            .build()
            .expect("a client can be made")
    }
}

//! Azure Blob Storage: signed requests for raw keys.
//!
//! Reading is here, writing in [`write`], listings in [`list`]. object_store brings HTTP, TLS, tokens and signatures; why its own store is not
//! used is in decision 0021. What requests and answers mean: Azure's Blob service REST API.

mod list;
mod write;

use std::time::Duration;

use http::header::{HeaderMap, HeaderName, HeaderValue, IF_MATCH, RANGE};
use http::{Method, StatusCode};
use object_store::RetryConfig;
use object_store::azure::{AzureAuthorizer, AzureCredential, AzureCredentialProvider, MicrosoftAzureBuilder};
use object_store::client::{HttpClient, HttpResponse};
use percent_encoding::percent_encode;
use sateen_types::repository::RepositorySettings;
use sateen_types::{Extent, FsCode, FsError, FsResult, Payload};

use super::http::{
    ANSWER_TIMEOUT, ERROR_BYTES_MAX, Headers, IN_PATH, UNRESERVED, by_status, bytes_of, client, etag_in, exchange,
    header, options, quoted, ranged, read_all, request, told, unsuccessful, with_causes,
};
use super::{Body, Head, RemoteError, Trouble, xml};
use crate::credentials::{AzureAccount, AzureKeys};
use crate::posix::{self, Spelling};
use list::Seeks;

pub use write::Upload;

/// Version of the REST API that requests are made in.
const VERSION: &str = "2023-11-03";
/// Names it.
const VERSION_HEADER: HeaderName = HeaderName::from_static("x-ms-version");
/// Says what is wrong, also where an answer has no body.
const ERROR_CODE: &str = "x-ms-error-code";
/// What became of a copy.
const COPY_STATUS: &str = "x-ms-copy-status";
/// Where it is stored: of `Archive` nothing can be read.
const ACCESS_TIER: &str = "x-ms-access-tier";
/// How user metadata are named: their names are identifiers.
const METADATA: Spelling = Spelling { prefix: "x-ms-meta-", separator: '_' };
/// Who gives tokens is asked again so often.
const TOKEN_RETRIES_MAX: usize = 2;

/// A container and a prefix in it.
pub struct Container {
    http: HttpClient,
    /// Whose it is.
    account: String,
    /// `None`: requests are not signed.
    credentials: Option<AzureCredentialProvider>,
    /// `https://ACCOUNT.blob.core.windows.net/CONTAINER`, without a slash at the end.
    base: String,
    prefix: String,
    /// Where listings of it can begin.
    seeks: Seeks,
    /// For messages: the container's name and where it is.
    name: String,
}

impl std::fmt::Debug for Container {
    /// Without keys.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Container({:?}, {:?})", self.base, self.prefix)
    }
}

impl Container {
    /// The container of a link. Nothing is sent yet.
    pub fn open(settings: &RepositorySettings, account: AzureAccount) -> FsResult<Container> {
        let failed = |what: String| FsError::new(FsCode::Invalid, format!("{}: {what}", settings.url));
        let plain = settings.endpoint.starts_with("http://");
        let http = client(plain).map_err(|e| failed(format!("cannot prepare connections: {e}")))?;
        let name = match (&account.account, host_label(&settings.endpoint)) {
            (name, _) if !name.is_empty() => name.clone(),
            (_, Some(label)) => label.to_owned(),
            _ => {
                return Err(failed("whose container it is is not known".to_owned()).with_hint(
                    "set azure_storage_account in the file of the profile, or AZURE_STORAGE_ACCOUNT for sateen-dra-sync",
                ));
            }
        };
        let container = settings.url.bucket();
        let base = base_url(&settings.endpoint, &name, container);
        let credentials = match &account.keys {
            None => None,
            Some(keys) => Some(provider(&name, container, keys, plain).map_err(|e| {
                failed(format!("the keys for it cannot be used: {}", with_causes(&e)))
                    .with_hint("an account key is base64, a shared access signature a query (sv=...&sig=...)")
            })?),
        };
        Ok(Container {
            http,
            credentials,
            name: format!(
                "container {container} at {}",
                base.strip_suffix(container).unwrap_or(&base).trim_end_matches('/')
            ),
            account: name,
            base,
            prefix: settings.url.prefix().to_owned(),
            seeks: Seeks::default(),
        })
    }

    /// See [`super::Remote::head`].
    pub async fn head(&self, key: &[u8]) -> Result<Head, RemoteError> {
        Ok(self.head_and_headers(key).await?.0)
    }

    /// The same, and all that the store says of the object.
    async fn head_and_headers(&self, key: &[u8]) -> Result<(Head, HeaderMap), RemoteError> {
        let what = self.about("attributes of", key);
        let mut response = self.send(Method::HEAD, &self.object_url(key), &[], &what).await?;
        let there = response.headers();
        if there.get(COPY_STATUS).is_some_and(|status| status == "pending") {
            return Err(RemoteError::new(Trouble::Unavailable, format!("{}: it is still being copied", what())));
        }
        let posix = posix::parse(|name| there.get(METADATA.name(name)).map(HeaderValue::as_bytes));
        let archived = there.get(ACCESS_TIER).is_some_and(|tier| tier == "Archive");
        let head = super::http::head(there, posix, archived, &what)?;
        let headers = std::mem::take(response.headers_mut());
        Ok((head, headers))
    }

    /// See [`super::Remote::get`].
    pub async fn get(&self, key: &[u8], etag: &str, range: Extent) -> Result<Body, RemoteError> {
        let what = self.about(&format!("bytes {}-{} of", range.start, range.end), key);
        let headers = [(IF_MATCH, header(&quoted(etag), &what)?), (RANGE, header(&bytes_of(range), &what)?)];
        let response = self.send(Method::GET, &self.object_url(key), &headers, &what).await?;
        let version = etag_in(response.headers());
        if version != Some(etag) {
            let now = version.unwrap_or("none");
            return Err(RemoteError::new(Trouble::Changed, format!("{}: its ETag is {now}, not {etag}", what())));
        }
        ranged(response, range, &what)
    }

    fn object_url(&self, key: &[u8]) -> String {
        let key = [self.prefix.as_bytes(), key].concat();
        format!("{}/{}", self.base, percent_encode(&key, IN_PATH))
    }

    /// What is done, for messages.
    fn about(&self, doing: &str, key: &[u8]) -> impl Fn() -> String + use<> {
        let text = format!("{doing} {:?} in {}", String::from_utf8_lossy(key), self.name);
        move || text.clone()
    }

    /// One request without a body; an answer that is no success is an error. `what` is what was wanted, for messages.
    async fn send(
        &self,
        method: Method,
        url: &str,
        headers: &[(HeaderName, HeaderValue)],
        what: &impl Fn() -> String,
    ) -> Result<HttpResponse, RemoteError> {
        self.send_body(method, url, headers, Payload::new(), ANSWER_TIMEOUT, what).await
    }

    /// [`Container::send`] with a body. The answer begins within `patience`.
    async fn send_body(
        &self,
        method: Method,
        url: &str,
        headers: &[(HeaderName, HeaderValue)],
        body: Payload,
        patience: Duration,
        what: &impl Fn() -> String,
    ) -> Result<HttpResponse, RemoteError> {
        let refused = |why: String| RemoteError::new(Trouble::Refused, format!("{}: {why}", what()));
        let mut request = request(method, url, headers, &body).map_err(&refused)?;
        request.headers_mut().entry(VERSION_HEADER).or_insert(HeaderValue::from_static(VERSION));
        if let Some(credential) = self.credential(what).await? {
            let authorizer = AzureAuthorizer::new(&credential, &self.account);
            authorizer.try_authorize(&mut request).map_err(|e| refused(format!("cannot be signed: {e}")))?;
        }
        let response = exchange(&self.http, request, patience, what).await?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let told = response.headers().get(ERROR_CODE).and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned();
        let text = read_all(response, ERROR_BYTES_MAX).await.unwrap_or_default();
        let (code, message) = xml::error(&text);
        let code = if told.is_empty() { code } else { told };
        Err(unsuccessful(status, (&code, &message), classify(status, &code), what))
    }

    /// What requests are signed with now: tokens are renewed before they expire.
    async fn credential(
        &self,
        what: &impl Fn() -> String,
    ) -> Result<Option<std::sync::Arc<AzureCredential>>, RemoteError> {
        let Some(provider) = &self.credentials else { return Ok(None) };
        let failed = |why: String| told(what, RemoteError::new(Trouble::Unavailable, format!("no token: {why}")));
        match tokio::time::timeout(ANSWER_TIMEOUT, provider.get_credential()).await {
            Ok(Ok(credential)) => Ok(Some(credential)),
            Ok(Err(e)) => Err(failed(with_causes(&e))),
            Err(_) => Err(failed(format!("who gives it did not answer for {} s", ANSWER_TIMEOUT.as_secs()))),
        }
    }
}

/// Gives what requests are signed with.
fn provider(
    account: &str,
    container: &str,
    keys: &AzureKeys,
    plain: bool,
) -> object_store::Result<AzureCredentialProvider> {
    let builder = match keys {
        AzureKeys::Key(key) => MicrosoftAzureBuilder::new().with_access_key(key),
        AzureKeys::Signature(query) => {
            MicrosoftAzureBuilder::new().with_config(object_store::azure::AzureConfigKey::SasKey, query)
        }
        // Managed identity, workload identity, a client's secret.
        AzureKeys::Environment => MicrosoftAzureBuilder::from_env().with_use_emulator(false),
    };
    let retries =
        RetryConfig { max_retries: TOKEN_RETRIES_MAX, retry_timeout: ANSWER_TIMEOUT, ..RetryConfig::default() };
    let store = builder
        .with_account(account)
        .with_container_name(container)
        .with_client_options(options(plain))
        .with_retry(retries)
        .build()?;
    Ok(store.credentials().clone())
}

/// The first label of the host of an endpoint, which is the name of the account in Azure's own names.
fn host_label(endpoint: &str) -> Option<&str> {
    let host = endpoint.split_once("://")?.1;
    let (label, rest) = host.split_once('.')?;
    (rest.contains("blob") && !label.is_empty()).then_some(label)
}

/// Where the objects of a container are, without a slash at the end. Emulators and gateways have the account in the path.
fn base_url(endpoint: &str, account: &str, container: &str) -> String {
    match endpoint.trim_end_matches('/') {
        "" => format!("https://{account}.blob.core.windows.net/{container}"),
        endpoint if host_label(endpoint) == Some(account) => format!("{endpoint}/{container}"),
        endpoint => format!("{endpoint}/{account}/{container}"),
    }
}

/// What an answer that is no success means.
fn classify(status: StatusCode, code: &str) -> Trouble {
    match code {
        "ContainerNotFound" | "ContainerBeingDeleted" | "ResourceTypeMismatch" => Trouble::Refused,
        // Told as a conflict where nothing must be there, and something is.
        "BlobAlreadyExists" => Trouble::Changed,
        // Somebody holds it for himself: the condition that fails is not ours.
        "LeaseIdMissing" | "LeaseLost" => Trouble::Refused,
        "ServerBusy" => Trouble::Throttled,
        // Blocks that another attempt to store the same object has thrown away: they are sent again.
        "InvalidBlockList" | "PendingCopyOperation" | "OperationTimedOut" | "InternalError" => Trouble::Unavailable,
        _ => by_status(status),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "c2VjcmV0IHNlY3JldA==";

    fn settings(endpoint: &str) -> RepositorySettings {
        RepositorySettings {
            endpoint: endpoint.to_owned(),
            ..RepositorySettings::new("/d".parse().expect("path"), "az://data/p/".parse().expect("url"))
        }
    }

    fn account(name: &str) -> AzureAccount {
        AzureAccount { account: name.to_owned(), keys: Some(AzureKeys::Key(KEY.to_owned())) }
    }

    #[test]
    fn containers_are_found_where_they_are() {
        assert_eq!(base_url("", "lab", "data"), "https://lab.blob.core.windows.net/data");
        let china = "https://lab.blob.core.chinacloudapi.cn";
        assert_eq!(base_url(china, "lab", "data"), format!("{china}/data"));
        assert_eq!(
            base_url("http://127.0.0.1:10000/", "devstoreaccount1", "data"),
            "http://127.0.0.1:10000/devstoreaccount1/data"
        );
        assert_eq!(host_label(china), Some("lab"));
        assert_eq!(host_label("http://127.0.0.1:10000"), None);
    }

    #[test]
    fn an_account_is_needed_and_no_key_is_shown() {
        let error = Container::open(&settings(""), account("")).expect_err("whose?");
        assert!(error.hint.is_some_and(|hint| hint.contains("AZURE_STORAGE_ACCOUNT")));
        let container = Container::open(&settings("https://lab.blob.core.windows.net"), account("")).expect("opens");
        assert_eq!(container.account, "lab");
        assert_eq!(
            container.object_url("a b/ü+%".as_bytes()),
            "https://lab.blob.core.windows.net/data/p/a%20b/%C3%BC%2B%25"
        );
        assert!(!format!("{container:?}").contains(KEY));
        let keys = AzureAccount { keys: Some(AzureKeys::Key("no base64!".to_owned())), ..account("lab") };
        let error = Container::open(&settings(""), keys).expect_err("no key");
        assert!(!error.message.contains("no base64!") && error.hint.is_some(), "{error}");
    }

    #[test]
    fn answers_are_told_apart() {
        let of = |status: u16, code: &str| classify(StatusCode::from_u16(status).expect("a status"), code);
        assert_eq!(of(404, "BlobNotFound"), Trouble::Gone);
        assert_eq!(of(404, "ContainerNotFound"), Trouble::Refused, "its objects are not gone one by one");
        assert_eq!(of(409, "BlobAlreadyExists"), Trouble::Changed);
        assert_eq!(of(412, "ConditionNotMet"), Trouble::Changed);
        assert_eq!(of(412, "LeaseIdMissing"), Trouble::Refused);
        assert_eq!(of(409, "BlobArchived"), Trouble::Refused);
        assert_eq!(of(403, "AuthenticationFailed"), Trouble::Denied);
        assert_eq!(of(503, "ServerBusy"), Trouble::Throttled);
        assert_eq!(of(400, "InvalidBlockList"), Trouble::Unavailable);
        assert_eq!(of(500, "InternalError"), Trouble::Unavailable);
        assert_eq!(of(400, "InvalidHeaderValue"), Trouble::Refused);
    }
}

//! Signed requests to services beside buckets. What they mean is not known here.

use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use http::{Method, StatusCode};

use super::super::http::{ERROR_BYTES_MAX, client, exchange, read_all, told};
use super::{AwsAuthorizer, AwsCredential, HttpClient, HttpRequest, HttpRequestBody, RemoteError, Trouble};
use crate::credentials::Credentials;

/// Names the operation in AWS's JSON protocol.
const TARGET: HeaderName = HeaderName::from_static("x-amz-target");

/// A service of AWS that speaks JSON 1.0, or one that speaks like it.
#[derive(Debug)]
pub struct Service {
    http: HttpClient,
    credentials: Option<AwsCredential>,
    /// As signatures name it.
    name: &'static str,
    region: String,
    /// `http://HOST:PORT/` or `https://...`.
    url: String,
}

/// What a service answered that did not do what it was asked for: the name of the error, or nothing, and what to tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// HTTP's.
    pub status: u16,
    /// Without the name space, as `QueueDoesNotExist`.
    pub code: String,
    /// As it came.
    pub message: String,
}

impl Service {
    /// The service `name` of a region at `url`. Nothing is sent yet.
    pub fn open(
        name: &'static str,
        region: &str,
        url: &str,
        credentials: Option<Credentials>,
    ) -> Result<Service, RemoteError> {
        let http = client(url.starts_with("http://"))
            .map_err(|e| RemoteError::new(Trouble::Refused, format!("cannot prepare connections to {url}: {e}")))?;
        let credentials =
            credentials.map(|c| AwsCredential { key_id: c.access_key, secret_key: c.secret_key, token: c.token });
        Ok(Service { http, credentials, name, region: region.to_owned(), url: url.to_owned() })
    }

    /// Asks for `operation` with a JSON document and gives that of the answer, of at most `max` bytes. The answer must begin within
    /// `patience`.
    pub async fn ask(
        &self,
        operation: &str,
        document: Vec<u8>,
        patience: Duration,
        max: usize,
    ) -> Result<Result<Bytes, Refusal>, RemoteError> {
        let what = || format!("{operation} at {}", self.url);
        let refused = |why: String| RemoteError::new(Trouble::Refused, format!("{}: {why}", what()));
        let mut request: HttpRequest = http::Request::builder()
            .method(Method::POST)
            .uri(&self.url)
            .header(CONTENT_TYPE, "application/x-amz-json-1.0")
            .body(HttpRequestBody::from(document))
            .map_err(|e| refused(e.to_string()))?;
        let target = HeaderValue::from_str(operation).map_err(|e| refused(e.to_string()))?;
        request.headers_mut().insert(TARGET, target);
        if let Some(credentials) = &self.credentials {
            AwsAuthorizer::new(credentials, self.name, &self.region)
                .try_authorize(&mut request, None)
                .map_err(|e| refused(format!("cannot be signed: {e}")))?;
        }
        let response = exchange(&self.http, request, patience, &what).await?;
        let status = response.status();
        if status == StatusCode::OK {
            return Ok(Ok(read_all(response, max).await.map_err(|e| told(&what, e))?));
        }
        let text = read_all(response, ERROR_BYTES_MAX).await.unwrap_or_default();
        let said: serde_json::Value = serde_json::from_slice(&text).unwrap_or_default();
        let of = |name: &str| said.get(name).and_then(serde_json::Value::as_str).unwrap_or_default();
        let code = of("__type").rsplit('#').next().unwrap_or_default().to_owned();
        let message = if of("message").is_empty() { of("Message") } else { of("message") }.to_owned();
        Ok(Err(Refusal { status: status.as_u16(), code, message }))
    }
}

//! Requests of which something was taken out, signed again: headers are part of what was signed.

use http::header::{AUTHORIZATION, HOST, HeaderName, HeaderValue};
use http::request::Parts;
use object_store::aws::{AwsAuthorizer, AwsCredential};
use object_store::client::{HttpRequest, HttpRequestBody};

use crate::s3::{ACCESS_KEY, SECRET_KEY};

/// Of the body, in hexadecimal digits.
const DIGEST: HeaderName = HeaderName::from_static("x-amz-content-sha256");
const DATE: HeaderName = HeaderName::from_static("x-amz-date");

/// Takes headers out of a request that a client of the tests' keys has signed.
pub(super) fn without(parts: &mut Parts, headers: &[HeaderName]) -> Result<(), String> {
    let text = |name: &HeaderName| parts.headers.get(name).and_then(|value| value.to_str().ok());
    let host = text(&HOST).ok_or("a request without a host")?;
    let host_value = HeaderValue::from_str(host).map_err(|e| e.to_string())?;
    let digest = text(&DIGEST).and_then(bytes_of).ok_or("a request without the digest of its body")?;
    let mut request: HttpRequest = http::Request::builder()
        .method(parts.method.clone())
        .uri(format!("http://{host}{}", parts.uri))
        .body(HttpRequestBody::empty())
        .map_err(|e| e.to_string())?;
    *request.headers_mut() = parts.headers.clone();
    for name in [AUTHORIZATION, DIGEST, DATE].iter().chain(headers) {
        request.headers_mut().remove(name);
    }
    let (key_id, secret_key) = (ACCESS_KEY.to_owned(), SECRET_KEY.to_owned());
    let credential = AwsCredential { key_id, secret_key, token: None };
    AwsAuthorizer::new(&credential, "s3", crate::s3::REGION)
        .try_authorize(&mut request, Some(&digest))
        .map_err(|e| e.to_string())?;
    parts.headers = std::mem::take(request.headers_mut());
    // It was signed and is left to whoever sends.
    parts.headers.insert(HOST, host_value);
    Ok(())
}

fn bytes_of(hex: &str) -> Option<Vec<u8>> {
    let pairs = hex.as_bytes().chunks(2);
    pairs.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_read() {
        assert_eq!(bytes_of("00ff1a"), Some(vec![0, 255, 26]));
        assert_eq!(bytes_of("UNSIGNED-PAYLOAD"), None);
    }
}

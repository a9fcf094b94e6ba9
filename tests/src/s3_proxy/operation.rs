//! Which operation of S3 a request is.

use http::{HeaderMap, Method, Uri};

/// What a request asks for, as far as Sateen's workers ask for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operation {
    /// `ListObjectsV2`.
    List,
    /// `ListMultipartUploads`.
    Uploads,
    /// `HeadObject`.
    Head,
    /// `GetObject`.
    Get,
    /// `PutObject`.
    Put,
    /// `CopyObject`.
    Copy,
    /// `CreateMultipartUpload`.
    Begin,
    /// `UploadPart`.
    Part,
    /// `UploadPartCopy`.
    CopyPart,
    /// `CompleteMultipartUpload`.
    Complete,
    /// `AbortMultipartUpload`.
    Abort,
    /// `DeleteObject`.
    Delete,
    /// Anything else.
    Other,
}

impl Operation {
    /// Every operation that changes the bucket.
    pub const WRITES: [Operation; 7] = [
        Operation::Put,
        Operation::Copy,
        Operation::Begin,
        Operation::Part,
        Operation::CopyPart,
        Operation::Complete,
        Operation::Delete,
    ];

    /// Of a request whose path is `/BUCKET` or `/BUCKET/KEY`.
    pub fn of(method: &Method, uri: &Uri, headers: &HeaderMap) -> Operation {
        let query = uri.query().unwrap_or_default();
        let asks = |name: &str| query.split('&').any(|part| part.split('=').next() == Some(name));
        let object = uri.path().trim_start_matches('/').split_once('/').is_some_and(|(_, key)| !key.is_empty());
        let copies = headers.contains_key("x-amz-copy-source");
        match (method.as_str(), object) {
            ("GET", false) if asks("list-type") => Operation::List,
            ("GET", false) if asks("uploads") => Operation::Uploads,
            ("GET", true) => Operation::Get,
            ("HEAD", true) => Operation::Head,
            ("PUT", true) if asks("partNumber") && copies => Operation::CopyPart,
            ("PUT", true) if asks("partNumber") => Operation::Part,
            ("PUT", true) if copies => Operation::Copy,
            ("PUT", true) => Operation::Put,
            ("POST", true) if asks("uploads") => Operation::Begin,
            ("POST", true) if asks("uploadId") => Operation::Complete,
            ("DELETE", true) if asks("uploadId") => Operation::Abort,
            ("DELETE", true) => Operation::Delete,
            _ => Operation::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_told_apart() {
        let of = |method: &str, uri: &str, copies: bool| {
            let mut headers = HeaderMap::new();
            if copies {
                headers.insert("x-amz-copy-source", "/b/k".parse().expect("a value"));
            }
            Operation::of(&method.parse().expect("a method"), &uri.parse().expect("a URI"), &headers)
        };
        assert_eq!(of("GET", "/b/?list-type=2&prefix=a", false), Operation::List);
        assert_eq!(of("GET", "/b/?uploads=&prefix=a", false), Operation::Uploads);
        assert_eq!(of("GET", "/b/k", false), Operation::Get);
        assert_eq!(of("HEAD", "/b/k/", false), Operation::Head);
        assert_eq!(of("HEAD", "/b", false), Operation::Other);
        assert_eq!(of("PUT", "/b/k?partNumber=1&uploadId=x", false), Operation::Part);
        assert_eq!(of("PUT", "/b/k?partNumber=1&uploadId=x", true), Operation::CopyPart);
        assert_eq!(of("PUT", "/b/k", true), Operation::Copy);
        assert_eq!(of("PUT", "/b/k", false), Operation::Put);
        assert_eq!(of("POST", "/b/k?uploads=", false), Operation::Begin);
        assert_eq!(of("POST", "/b/k?uploadId=x", false), Operation::Complete);
        assert_eq!(of("DELETE", "/b/k?uploadId=x", false), Operation::Abort);
        assert_eq!(of("DELETE", "/b/k", false), Operation::Delete);
        assert_eq!(of("PATCH", "/b/k", false), Operation::Other);
    }
}

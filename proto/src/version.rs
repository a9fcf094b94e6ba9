//! Protocol versions, agreed in the first message of every connection.
//!
//! | version | change |
//! | ------: | ------ |
//! |       1 | first version |

use sateen_types::{ClusterId, FsCode, FsError, FsResult};

use crate::common::{HelloReply, HelloRequest};

/// Lowest version this build speaks.
pub const PROTOCOL_MIN: u32 = 1;
/// Highest version this build speaks.
pub const PROTOCOL_MAX: u32 = 1;
/// Longest `software` text that is kept.
const SOFTWARE_BYTES_MAX: usize = 128;

/// What this process says first. `program` is its name.
pub fn hello(program: &str) -> HelloRequest {
    HelloRequest { protocol_min: PROTOCOL_MIN, protocol_max: PROTOCOL_MAX, software: software(program) }
}

/// `program` with the version of this build.
pub fn software(program: &str) -> String {
    format!("{program} {}", env!("CARGO_PKG_VERSION"))
}

/// The server's side: the highest version both speak, or `VersionMismatch`.
pub fn negotiate(request: &HelloRequest) -> FsResult<u32> {
    let highest = request.protocol_max.min(PROTOCOL_MAX);
    if request.protocol_min == 0
        || request.protocol_min > request.protocol_max
        || highest < request.protocol_min.max(PROTOCOL_MIN)
    {
        return Err(FsError::new(
            FsCode::VersionMismatch,
            format!(
                "{:?} speaks protocol versions {} to {}, this server {PROTOCOL_MIN} to {PROTOCOL_MAX}",
                request.software.chars().take(SOFTWARE_BYTES_MAX).collect::<String>(),
                request.protocol_min,
                request.protocol_max
            ),
        )
        .with_hint("run client and servers from the same release, or from neighbouring ones"));
    }
    Ok(highest)
}

/// The server's answer to an accepted hello.
pub fn welcome(request: &HelloRequest, cluster: ClusterId, program: &str) -> FsResult<HelloReply> {
    Ok(HelloReply { protocol: negotiate(request)?, cluster_id: cluster.0.to_vec(), software: software(program) })
}

/// The client's side: checks the version the server chose.
pub fn accept(reply: &HelloReply) -> FsResult<u32> {
    if !(PROTOCOL_MIN..=PROTOCOL_MAX).contains(&reply.protocol) {
        return Err(FsError::new(
            FsCode::VersionMismatch,
            format!(
                "the server chose protocol version {}, this program speaks {PROTOCOL_MIN} to {PROTOCOL_MAX}",
                reply.protocol
            ),
        )
        .with_hint("run client and servers from the same release, or from neighbouring ones"));
    }
    Ok(reply.protocol)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(min: u32, max: u32) -> HelloRequest {
        HelloRequest { protocol_min: min, protocol_max: max, software: "test".into() }
    }

    #[test]
    fn the_highest_common_version_is_chosen() {
        assert_eq!(negotiate(&request(1, 1)).expect("same"), 1);
        assert_eq!(negotiate(&request(1, 9)).expect("newer client"), PROTOCOL_MAX);
    }

    #[test]
    fn no_common_version_and_nonsense_are_refused() {
        for (min, max) in [(PROTOCOL_MAX + 1, PROTOCOL_MAX + 2), (0, 0), (0, 1), (2, 1)] {
            let err = negotiate(&request(min, max)).expect_err("refused");
            assert_eq!(err.code, FsCode::VersionMismatch);
            assert!(err.hint.is_some());
        }
    }
}

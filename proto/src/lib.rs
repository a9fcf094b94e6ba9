//! The wire: gRPC services generated from `proto/sateen/**`, and the only place where wire messages become domain
//! values ([`convert`]), errors become statuses ([`status`]) and protocol versions are agreed ([`version`]).
//!
//! Generated types have public fields without rules; they stop here and in the `rpc` modules of the servers.

pub mod bulk;
pub mod convert;
pub mod socket;
pub mod status;
pub mod version;

/// Generated modules, nested as the packages are: `sateen.mds.v1` is `wire::mds::v1`.
#[allow(missing_docs, clippy::all, reason = "generated; documented in the .proto files")]
mod wire {
    pub mod common {
        pub mod v1 {
            tonic::include_proto!("sateen.common.v1");
        }
    }
    pub mod mds {
        pub mod v1 {
            tonic::include_proto!("sateen.mds.v1");
        }
    }
    pub mod oss {
        pub mod v1 {
            tonic::include_proto!("sateen.oss.v1");
        }
    }
}

pub use wire::common::v1 as common;
pub use wire::mds::v1 as mds;
pub use wire::oss::v1 as oss;

/// The compiled descriptors of every service, for gRPC reflection.
pub const DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptor.bin"));

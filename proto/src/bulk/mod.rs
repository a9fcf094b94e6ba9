//! The bulk lane: `Read`, `ReadMany`, `Write` and `WriteMany` of `sateen.oss.v1.ObjectStore` as HTTP/2 bodies whose payload is never copied.
//!
//! On the wire it is ordinary gRPC, and any gRPC client may be the peer. The difference is within the process: tonic
//! copies every message into a buffer when it is sent and out of one when it is received; here the fields in front of
//! the payload are encoded into a small buffer of their own, and the payload goes out as the pieces it already is in.
//! What arrives stays in the pieces in which the network delivered it ([`sateen_types::Payload`]).
//!
//! | file      | holds                                                        |
//! |-----------|--------------------------------------------------------------|
//! | `message` | a message with a payload: to pieces and back                 |
//! | `body`    | gRPC framing over HTTP bodies: one message, then the status  |
//! | `call`    | one unary call, as a client makes it                         |
//!
//! Compressed messages are not accepted (no peer may send them: we never announce that we can read them).

mod body;
mod call;
mod message;

pub use body::{Outgoing, receive, respond, respond_with};
pub use call::call;
pub use message::{Bulk, Lane, decode, encode};

/// gRPC path of Write.
pub const WRITE_PATH: &str = "/sateen.oss.v1.ObjectStore/Write";
/// gRPC path of WriteMany.
pub const WRITE_MANY_PATH: &str = "/sateen.oss.v1.ObjectStore/WriteMany";
/// gRPC path of Read.
pub const READ_PATH: &str = "/sateen.oss.v1.ObjectStore/Read";
/// gRPC path of ReadMany.
pub const READ_MANY_PATH: &str = "/sateen.oss.v1.ObjectStore/ReadMany";

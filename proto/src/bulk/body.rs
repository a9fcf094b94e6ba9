//! gRPC framing over HTTP bodies: one message, then (from a server) the status in the trailers.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use http::{HeaderMap, HeaderValue, Response};
use http_body::{Body as _, Frame};
use sateen_types::limits::MESSAGE_BYTES_MAX;
use sateen_types::{FsCode, FsError, FsResult, Payload};
use tonic::Status;
use tonic::body::Body;

use super::message::{Bulk, Lane, PREFIX_BYTES, decode, encode};
use crate::status;

/// A body of pieces that are in memory already, and trailers.
#[derive(Debug)]
pub struct Outgoing {
    pieces: Payload,
    trailers: Option<HeaderMap>,
}

impl Outgoing {
    /// A request: a message and nothing after it.
    pub fn request(head: &impl Bulk, payload: Payload) -> Outgoing {
        Outgoing { pieces: encode(head, payload), trailers: None }
    }

    /// A good answer: a message and the status "ok".
    pub fn reply(head: &impl Bulk, payload: Payload) -> Outgoing {
        let mut trailers = HeaderMap::with_capacity(1);
        trailers.insert(Status::GRPC_STATUS, HeaderValue::from_static("0"));
        Outgoing { pieces: encode(head, payload), trailers: Some(trailers) }
    }
}

impl http_body::Body for Outgoing {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if let Some(piece) = self.pieces.pop() {
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        Poll::Ready(self.trailers.take().map(|trailers| Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.pieces.is_empty() && self.trailers.is_none()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        http_body::SizeHint::with_exact(self.pieces.len() as u64)
    }
}

/// The HTTP response for the outcome of a call.
pub fn respond(outcome: Result<Lane<impl Bulk>, Status>) -> Response<Body> {
    match outcome {
        Ok((head, payload)) => respond_with(Outgoing::reply(&head, payload)),
        Err(status) => status.into_http(),
    }
}

/// The HTTP response for a good answer in a body of the caller's own.
pub fn respond_with(body: impl http_body::Body<Data = Bytes, Error = Status> + Send + 'static) -> Response<Body> {
    let mut response = Response::new(Body::new(body));
    response.headers_mut().insert(http::header::CONTENT_TYPE, super::call::GRPC);
    response
}

/// The one message of a body, and the trailers behind it if there are any.
///
/// Memory: at most [`MESSAGE_BYTES_MAX`] and one HTTP/2 frame; a longer message is refused before it is received.
pub async fn receive<M: Bulk>(body: Body) -> Result<(Option<Lane<M>>, Option<HeaderMap>), Status> {
    let mut body = std::pin::pin!(body);
    let (mut arrived, mut trailers, mut expected) = (Payload::new(), None, None);
    while let Some(frame) = std::future::poll_fn(|cx| body.as_mut().poll_frame(cx)).await {
        match frame?.into_data() {
            Ok(piece) => arrived.push(piece),
            Err(frame) => trailers = frame.into_trailers().ok(),
        }
        if expected.is_none() && arrived.len() >= PREFIX_BYTES {
            expected = Some(message_len(&mut arrived).map_err(status::to_status)?);
        }
        if expected.is_some_and(|len| arrived.len() > len) {
            return Err(status::to_status(FsError::new(FsCode::Invalid, "message: more than one in a unary call")));
        }
    }
    match expected {
        None if arrived.is_empty() => Ok((None, trailers)),
        Some(len) if arrived.len() == len => Ok((Some(decode(arrived).map_err(status::to_status)?), trailers)),
        // A peer or a connection that went away; whether to try again is the caller's to decide.
        _ => Err(Status::unavailable("the message was cut off")),
    }
}

/// Takes the gRPC prefix away and returns the length it promises.
fn message_len(arrived: &mut Payload) -> FsResult<usize> {
    if arrived.get_u8() != 0 {
        return Err(FsError::new(FsCode::NotSupported, "message: compressed; this server reads plain ones only")
            .with_hint("turn gRPC compression off: data is compressed before it is sent"));
    }
    let len = arrived.get_u32() as usize;
    if len > MESSAGE_BYTES_MAX {
        return Err(FsError::new(FsCode::TooBig, format!("message: {len} bytes, at most {MESSAGE_BYTES_MAX}")));
    }
    Ok(len)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oss::{ReadRequest, WriteReply, WriteRequest};

    /// A body that arrives in the given pieces.
    struct Pieces(Payload);

    impl http_body::Body for Pieces {
        type Data = Bytes;
        type Error = Status;
        fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
            Poll::Ready(self.0.pop().map(|piece| Ok(Frame::data(piece))))
        }
    }

    async fn arrive(bytes: &[u8], step: usize) -> Result<Option<Lane<WriteRequest>>, Status> {
        let pieces = bytes.chunks(step).map(Bytes::copy_from_slice).collect();
        receive(Body::new(Pieces(pieces))).await.map(|(message, _)| message)
    }

    fn message() -> Bytes {
        let head = WriteRequest { ost: 9, ..Default::default() };
        encode(&head, Payload::from(Bytes::from_static(b"payload"))).into_bytes()
    }

    #[tokio::test]
    async fn a_message_is_the_same_however_the_network_cuts_it() {
        for step in [1, 2, 3, 5, 7, 100] {
            let (head, payload) = arrive(&message(), step).await.expect("good").expect("one");
            assert_eq!((head.ost, &payload.into_bytes()[..]), (9, &b"payload"[..]), "pieces of {step}");
        }
    }

    #[tokio::test]
    async fn what_is_not_one_plain_message_is_refused() {
        let code = |e: Status| status::from_status(&e).code;
        let whole = message();
        assert!(arrive(b"", 1).await.expect("empty").is_none());
        for cut in 1..whole.len() {
            assert_eq!(code(arrive(&whole[..cut], 4).await.expect_err("cut")), FsCode::Unavailable, "after {cut}");
        }
        let twice = [&whole[..], &whole[..]].concat();
        assert_eq!(code(arrive(&twice, 6).await.expect_err("two")), FsCode::Invalid);
        let mut compressed = whole.to_vec();
        compressed[0] = 1;
        assert_eq!(code(arrive(&compressed, 6).await.expect_err("compressed")), FsCode::NotSupported);
        let long = [0, 0xff, 0xff, 0xff, 0xff];
        assert_eq!(code(arrive(&long, 6).await.expect_err("long")), FsCode::TooBig);
    }

    #[tokio::test]
    async fn a_reply_ends_with_its_status() {
        let reply = WriteReply { verifier: vec![1; 16], allocated_delta: -5 };
        let response = respond(Ok((reply.clone(), Payload::new())));
        let (got, trailers) = receive::<WriteReply>(response.into_body()).await.expect("good");
        assert_eq!(got.expect("one").0, reply);
        assert_eq!(trailers.expect("some")[Status::GRPC_STATUS], "0");
        let refused: Result<Lane<ReadRequest>, _> = Err(status::to_status(FsError::new(FsCode::NoSpace, "full")));
        let response = respond(refused);
        let status = Status::from_header_map(response.headers()).expect("in the headers");
        assert_eq!(status::from_status(&status).code, FsCode::NoSpace);
    }
}

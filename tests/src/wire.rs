//! gRPC by hand over HTTP/2, for what no well-behaved client does: frames of any size, windows that stay closed, requests
//! that break off.

use std::net::SocketAddr;

use bytes::{BufMut, Bytes, BytesMut};
use h2::client::{ResponseFuture, SendRequest};
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, Request};
use prost::Message;

/// Method that writes.
pub const WRITE: &str = "/sateen.oss.v1.ObjectStore/Write";
/// Method that reads.
pub const READ: &str = "/sateen.oss.v1.ObjectStore/Read";

/// One connection.
pub struct Wire {
    requests: SendRequest<Bytes>,
    address: SocketAddr,
}

/// A call that has begun.
pub struct Call {
    body: SendStream<Bytes>,
    answer: ResponseFuture,
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    /// `grpc-status`; `None` if there was none.
    pub status: Option<i32>,
    /// `grpc-message`, as it was sent.
    pub said: String,
    /// The message without its prefix.
    pub message: Bytes,
}

impl Wire {
    /// Connects, giving the server `window` bytes for each answer and for all of them together. The connection is driven
    /// by a task of the current runtime.
    pub async fn connect(address: SocketAddr, window: u32) -> Wire {
        let socket = tokio::net::TcpStream::connect(address).await.expect("connect");
        socket.set_nodelay(true).expect("TCP_NODELAY");
        let mut builder = h2::client::Builder::new();
        builder.initial_window_size(window).initial_connection_window_size(window.max(65_535));
        let (requests, connection) = builder.handshake(socket).await.expect("HTTP/2");
        tokio::spawn(async move {
            // Its end is seen by every call on it.
            let _ = connection.await;
        });
        Wire { requests, address }
    }

    /// Begins a call of `method` with more headers.
    pub async fn call(&self, method: &str, headers: &[(&'static str, &'static str)]) -> Call {
        let mut request = Request::post(format!("http://{}{method}", self.address))
            .header("te", "trailers")
            .header("content-type", "application/grpc");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(()).expect("a valid request");
        let mut requests = self.requests.clone().ready().await.expect("a connection that lives");
        let (answer, body) = requests.send_request(request, false).expect("a stream");
        Call { body, answer }
    }

    /// A whole call: `bytes` in DATA frames of the sizes that `sizes` gives, then the answer.
    pub async fn exchange(&self, method: &str, bytes: Bytes, sizes: impl Iterator<Item = usize>) -> Answer {
        let mut call = self.call(method, &[]).await;
        call.send(bytes, sizes).await;
        call.answer().await
    }
}

impl Call {
    /// Sends `bytes` in frames of these sizes and ends the request.
    pub async fn send(&mut self, mut bytes: Bytes, mut sizes: impl Iterator<Item = usize>) {
        while !bytes.is_empty() {
            let size = sizes.next().expect("sizes without end").clamp(1, bytes.len());
            self.send_part(bytes.split_to(size)).await;
        }
        // The server may have answered and closed the stream before it was told everything.
        let _ = self.body.send_data(Bytes::new(), true);
    }

    /// Sends `part` as one DATA frame (or several, if the server's limits ask for it), and does not end the request.
    pub async fn send_part(&mut self, mut part: Bytes) {
        while !part.is_empty() {
            self.body.reserve_capacity(part.len());
            let Some(Ok(room)) = std::future::poll_fn(|cx| self.body.poll_capacity(cx)).await else { return };
            if self.body.send_data(part.split_to(room.min(part.len())), false).is_err() {
                return;
            }
        }
    }

    /// Breaks the call off.
    pub fn cancel(mut self) {
        self.body.send_reset(Reason::CANCEL);
    }

    /// Waits for the whole answer.
    pub async fn answer(self) -> Answer {
        let response = self.answer.await.expect("a response");
        let (head, mut body) = response.into_parts();
        let mut bytes = BytesMut::new();
        while let Some(part) = body.data().await {
            let part = part.expect("the answer does not break off");
            body.flow_control().release_capacity(part.len()).expect("what arrived");
            bytes.extend_from_slice(&part);
        }
        let trailers = body.trailers().await.expect("trailers or none").unwrap_or_default();
        let find = |name: &str| trailers.get(name).or_else(|| head.headers.get(name)).map(text);
        let status = find("grpc-status").and_then(|s| s.parse().ok());
        let message = if bytes.len() >= 5 { bytes.split_off(5).freeze() } else { Bytes::new() };
        Answer { status, said: find("grpc-message").unwrap_or_default(), message }
    }

    /// Waits for the beginning of the answer and takes no more of it than the window: the server is stuck with the rest
    /// for as long as what is returned lives.
    pub async fn stall(self) -> Option<(RecvStream, HeaderMap)> {
        let (head, body) = self.answer.await.ok()?.into_parts();
        Some((body, head.headers))
    }
}

fn text(value: &http::HeaderValue) -> String {
    String::from_utf8_lossy(value.as_bytes()).into_owned()
}

/// A message as gRPC frames it.
pub fn framed(message: &impl Message) -> Bytes {
    framed_bytes(&message.encode_to_vec())
}

/// Bytes as gRPC frames a message.
pub fn framed_bytes(message: &[u8]) -> Bytes {
    let mut bytes = BytesMut::with_capacity(5 + message.len());
    bytes.put_u8(0);
    bytes.put_u32(message.len() as u32);
    bytes.put_slice(message);
    bytes.freeze()
}

//! Read, ReadMany, Write and WriteMany at the level of HTTP bodies; every other method goes to tonic.
//!
//! Same service, same wire format (see [`sateen_proto::bulk`]), but payloads are the pieces they arrived in or were
//! read into. What a reply takes of the memory for payloads stays counted until the last of it was handed to the
//! network, however slow its reader is.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{Request, Response};
use sateen_proto::bulk::{self, Bulk, Outgoing, READ_MANY_PATH, READ_PATH, WRITE_MANY_PATH, WRITE_PATH};
use sateen_proto::oss::object_store_server::ObjectStoreServer;
use sateen_proto::oss::{WriteManyRequest, WriteRequest};
use sateen_proto::status::to_status;
use sateen_types::limits::MESSAGE_BYTES_MAX;
use sateen_types::{FsCode, FsError, Payload};
use tonic::Status;
use tonic::body::Body;
use tonic::server::NamedService;

use super::{Memory, Service};

/// The `ObjectStore` service with its bulk methods out of tonic's hands.
#[derive(Clone)]
pub struct Lane {
    service: Arc<Service>,
    rest: ObjectStoreServer<Service>,
}

impl Lane {
    /// Serves `service`.
    pub fn new(service: Service) -> Lane {
        let service = Arc::new(service);
        let rest = ObjectStoreServer::from_arc(service.clone())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        Lane { service, rest }
    }
}

impl NamedService for Lane {
    const NAME: &'static str = <ObjectStoreServer<Service> as NamedService>::NAME;
}

impl tower::Service<Request<Body>> for Lane {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let service = self.service.clone();
        match request.uri().path() {
            READ_PATH => Box::pin(async move {
                let answer = async { service.read_parts(message(request.into_body()).await?).await };
                Ok(send(&service, answer.await))
            }),
            READ_MANY_PATH => Box::pin(async move {
                let answer = async { service.read_many_parts(message(request.into_body()).await?).await };
                Ok(send(&service, answer.await))
            }),
            WRITE_PATH => Box::pin(async move {
                let answer = async {
                    let (head, payload) = whole::<WriteRequest>(request.into_body()).await?;
                    Ok((service.write_parts(head, payload).await?, Payload::new()))
                };
                Ok(bulk::respond(answer.await))
            }),
            WRITE_MANY_PATH => Box::pin(async move {
                let answer = async {
                    let (head, payload) = whole::<WriteManyRequest>(request.into_body()).await?;
                    Ok((service.write_many_parts(head, payload).await?, Payload::new()))
                };
                Ok(bulk::respond(answer.await))
            }),
            _ => self.rest.call(request),
        }
    }
}

/// The request of a method, and its payload.
async fn whole<M: Bulk>(body: Body) -> Result<bulk::Lane<M>, Status> {
    let (message, _) = bulk::receive::<M>(body).await?;
    message.ok_or_else(no_message)
}

/// The request of a method that takes no payload.
async fn message<M: Bulk>(body: Body) -> Result<M, Status> {
    whole(body).await.map(|(message, _)| message)
}

/// The answer of a method with a payload, which holds its memory until it is sent.
fn send(service: &Service, answer: Result<(impl Bulk, Payload, Memory), Status>) -> Response<Body> {
    match answer {
        Ok((head, payload, memory)) => {
            bulk::respond_with(service.replies.send(Outgoing::reply(&head, payload), memory))
        }
        Err(status) => status.into_http(),
    }
}

fn no_message() -> Status {
    to_status(FsError::new(FsCode::Invalid, "message: none in the request"))
}

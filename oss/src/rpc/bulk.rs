//! Read and Write at the level of HTTP bodies; every other method goes to tonic.
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
use sateen_proto::bulk::{self, Outgoing, READ_PATH, WRITE_PATH};
use sateen_proto::oss::object_store_server::ObjectStoreServer;
use sateen_proto::oss::{ReadRequest, WriteRequest};
use sateen_proto::status::to_status;
use sateen_types::limits::MESSAGE_BYTES_MAX;
use sateen_types::{FsCode, FsError, Payload};
use tonic::Status;
use tonic::body::Body;
use tonic::server::NamedService;

use super::Service;

/// The `ObjectStore` service with its two bulk methods out of tonic's hands.
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
            READ_PATH => Box::pin(async move { Ok(read(&service, request.into_body()).await) }),
            WRITE_PATH => Box::pin(async move { Ok(write(&service, request.into_body()).await) }),
            _ => self.rest.call(request),
        }
    }
}

async fn write(service: &Service, body: Body) -> Response<Body> {
    let answer = async {
        let (message, _) = bulk::receive::<WriteRequest>(body).await?;
        let (head, payload) = message.ok_or_else(no_message)?;
        Ok((service.write_parts(head, payload).await?, Payload::new()))
    };
    bulk::respond(answer.await)
}

async fn read(service: &Service, body: Body) -> Response<Body> {
    let answer = async {
        let (message, _) = bulk::receive::<ReadRequest>(body).await?;
        service.read_parts(message.ok_or_else(no_message)?.0).await
    };
    match answer.await {
        Ok((head, payload, memory)) => {
            bulk::respond_with(service.replies.send(Outgoing::reply(&head, payload), memory))
        }
        Err(status) => status.into_http(),
    }
}

fn no_message() -> Status {
    to_status(FsError::new(FsCode::Invalid, "message: none in the request"))
}

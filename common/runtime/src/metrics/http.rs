//! `GET /metrics`, and nothing else.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode, header};
use hyper_util::rt::{TokioIo, TokioTimer};
use sateen_types::{FsCode, FsError, FsResult};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use super::Page;
use crate::Shutdown;

/// Connections served at once; others wait.
const CONNECTIONS_MAX: usize = 8;
/// How long a peer may take for its request, and a connection in all.
const CONNECTION_TIME_MAX: Duration = Duration::from_secs(10);
const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Serves what `fill` writes at `http://LISTEN/metrics` until `stop`, in a task of its own; returns the bound address.
pub async fn serve(
    listen: &str,
    fill: impl Fn(&mut Page) + Send + Sync + 'static,
    stop: Shutdown,
) -> FsResult<SocketAddr> {
    let failed = |e: std::io::Error| {
        FsError::new(FsCode::Io, format!("cannot listen on {listen} for metrics: {e}"))
            .with_hint("choose a free port and an address of this machine with metrics_listen = \"HOST:PORT\"")
    };
    let listener = TcpListener::bind(listen).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    tokio::spawn(accept(listener, Arc::new(fill), stop));
    tracing::info!(%address, "metrics are served");
    Ok(address)
}

async fn accept(listener: TcpListener, fill: Arc<impl Fn(&mut Page) + Send + Sync + 'static>, stop: Shutdown) {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.requested() => return,
        };
        let Ok((stream, _)) = accepted else {
            // No descriptors left, most likely: others need the next one more.
            tokio::time::sleep(Duration::from_secs(1)).await;
            continue;
        };
        let Ok(permit) = room.clone().acquire_owned().await else { return };
        let fill = fill.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                let reply = answer(&request, &*fill);
                async move { Ok::<_, Infallible>(reply) }
            });
            let mut http = http1::Builder::new();
            http.timer(TokioTimer::new()).header_read_timeout(CONNECTION_TIME_MAX);
            // A peer that went away is nobody's loss.
            let _ =
                tokio::time::timeout(CONNECTION_TIME_MAX, http.serve_connection(TokioIo::new(stream), service)).await;
            drop(permit);
        });
    }
}

fn answer(request: &Request<Incoming>, fill: &impl Fn(&mut Page)) -> Response<Full<Bytes>> {
    let (status, text) = match (request.method(), request.uri().path()) {
        (&Method::GET | &Method::HEAD, "/metrics") => {
            let mut page = Page::default();
            fill(&mut page);
            (StatusCode::OK, page.into_text())
        }
        _ => (StatusCode::NOT_FOUND, "metrics are at /metrics\n".to_owned()),
    };
    let mut reply = Response::new(Full::new(Bytes::from(text)));
    *reply.status_mut() = status;
    reply.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(CONTENT_TYPE));
    reply
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;

    async fn get(address: SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).await.expect("reachable");
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("sent");
        let mut reply = String::new();
        stream.read_to_string(&mut reply).await.expect("text");
        reply
    }

    #[tokio::test]
    async fn the_page_is_made_for_each_request_and_other_paths_are_not_found() {
        let asked = std::sync::atomic::AtomicU64::new(0);
        let fill = move |page: &mut Page| {
            let n = asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            page.counter("asked_total", "How often.").sample(&[], n);
        };
        let stop = Shutdown::new();
        let address = serve("127.0.0.1:0", fill, stop.clone()).await.expect("listens");
        for n in 0..2 {
            let reply = get(address, "/metrics").await;
            assert!(reply.starts_with("HTTP/1.1 200") && reply.contains(&format!("\nasked_total {n}\n")), "{reply}");
        }
        assert!(get(address, "/").await.starts_with("HTTP/1.1 404"));
        assert!(serve(&address.to_string(), |_| {}, stop.clone()).await.is_err(), "the port is taken");
        stop.request();
    }
}

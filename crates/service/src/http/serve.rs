//! Connections: taking them, and giving up those that send half a request.
//!
//! **Invariant:** whoever sends nothing holds nothing: neither a connection, for longer than [`HEAD`], nor anything that a
//! request holds.

use std::future::Future;
use std::time::Duration;

use axum::Router;
use axum::serve::Listener;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;

/// How long the head of a request may take, and how long a connection may rest between two requests. The client of this
/// project gives up a resting connection sooner, so that none is closed under a request of its.
const HEAD: Duration = Duration::from_secs(30);

/// Serves until `stop` ends, then lets requests that are under way finish.
pub(crate) async fn serve<L: Listener>(listener: L, router: Router, stop: impl Future<Output = ()>) {
    serve_with(listener, router, stop, HEAD).await;
}

async fn serve_with<L: Listener>(mut listener: L, router: Router, stop: impl Future<Output = ()>, head: Duration) {
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(head);
    let connections = GracefulShutdown::new();
    let mut stop = std::pin::pin!(stop);
    loop {
        let (stream, _) = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut stop => break,
        };
        let service = TowerToHyperService::new(router.clone());
        let connection = connections.watch(builder.serve_connection(TokioIo::new(stream), service));
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "Connection ended");
            }
        });
    }
    // New ones are refused while the others finish.
    drop(listener);
    connections.shutdown().await;
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use axum::routing::get;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn half_a_request_is_given_up_and_a_whole_one_that_takes_long_is_not() {
        let slow = || async {
            tokio::time::sleep(Duration::from_millis(400)).await; // tidy: wait for longer than a head may take
            "slept"
        };
        let router = Router::new().route("/slow", get(slow));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (end, ended) = tokio::sync::oneshot::channel::<()>();
        let stop = async { drop(ended.await) };
        let serving = tokio::spawn(serve_with(listener, router, stop, Duration::from_millis(100)));
        let mut answer = String::new();
        for half in ["", "GET /slow HTTP/1.1\r\nHost: local"] {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(half.as_bytes()).await.unwrap();
            // It ends, or this test hangs.
            let _ = stream.read_to_string(&mut answer).await;
        }
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
        let (mut found, mut buffer) = (Vec::new(), [0; 1024]);
        while !found.ends_with(b"slept") {
            let read = stream.read(&mut buffer).await.unwrap();
            assert!(read > 0, "{}", String::from_utf8_lossy(&found));
            found.extend_from_slice(&buffer[..read]);
        }
        end.send(()).unwrap();
        serving.await.unwrap();
    }
}

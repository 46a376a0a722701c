//! Bodies of many megabytes over lines that are slow, and may be dead.
//!
//! A time for the whole would refuse a slow line, and none would wait for a dead one: what counts is whether it goes on.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::CONTENT_LENGTH;
use reqwest::{Body, RequestBuilder, Response};
use tokio::time::{Instant, timeout};

use super::Client;
use crate::error::{ApiError, Code};

/// A body is handed over in pieces of this many bytes: on the slowest line that a service takes one passes every few seconds.
const PIECE: usize = 64 * 1024;

impl Client {
    /// Sends a body and waits for the answer as long as the line takes pieces of it, and for `stall` after the last.
    pub(super) async fn send_large(&self, request: RequestBuilder, body: Bytes) -> Result<Response, ApiError> {
        let taken = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&taken);
        let len = body.len();
        let piece = move |at: usize| {
            counted.fetch_add(1, Ordering::Relaxed);
            Ok::<_, Infallible>(body.slice(at..len.min(at + PIECE)))
        };
        let pieces = futures_util::stream::iter((0..len).step_by(PIECE).map(piece));
        let request = request.header(CONTENT_LENGTH, len).body(Body::wrap_stream(pieces));
        let mut sending = pin!(self.send(request));
        let (mut before, mut since) = (0, Instant::now());
        loop {
            if let Ok(answer) = timeout(self.stall / 8, &mut sending).await {
                return answer;
            }
            let now = taken.load(Ordering::Relaxed);
            if now != before {
                (before, since) = (now, Instant::now());
            } else if since.elapsed() >= self.stall {
                let seconds = self.stall.as_secs();
                let text = format!("Service {} has taken nothing of a request for {seconds} seconds", self.url());
                return Err(ApiError::new(Code::Unreachable, text));
            }
        }
    }

    /// The same client, which takes a line for dead after another time.
    #[must_use]
    pub fn with_stall(mut self, stall: Duration) -> Self {
        self.stall = stall;
        self
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use reqwest::Method;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    /// More than the kernel keeps for both sides.
    const LEN: usize = 24 << 20;

    async fn listener() -> TcpListener {
        TcpListener::bind("127.0.0.1:0").await.unwrap()
    }

    async fn send(listener: &TcpListener, stall: Duration) -> Result<(), ApiError> {
        let client = Client::new(&format!("http://{}", listener.local_addr().unwrap())).unwrap().with_stall(stall);
        let request = client.request_of(&client.patient, Method::POST, "/");
        client.send_large(request, Bytes::from(vec![7; LEN])).await.map(|_| ())
    }

    /// Reads the head and so much of the body, with a rest after each piece.
    async fn take(stream: &mut TcpStream, mut bytes: usize, rest: Duration) {
        let mut buffer = vec![0; 256 * 1024];
        while bytes > 0 {
            let read = stream.read(&mut buffer).await.unwrap();
            assert!(read > 0, "it ended early");
            bytes = bytes.saturating_sub(read);
            tokio::time::sleep(rest).await; // tidy: wait as a slow line does
        }
    }

    #[tokio::test]
    async fn a_slow_line_is_waited_for_much_longer_than_a_dead_one() {
        let listener = listener().await;
        let stall = Duration::from_millis(800);
        let begun = Instant::now();
        let serve = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            take(&mut stream, LEN, Duration::from_millis(20)).await;
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
            stream
        };
        let (sent, _stream) = tokio::join!(send(&listener, stall), serve);
        sent.unwrap();
        assert!(begun.elapsed() > stall, "the line was not slow");
    }

    #[tokio::test]
    async fn a_line_that_takes_nothing_any_more_is_given_up() {
        let listener = listener().await;
        let serve = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            take(&mut stream, LEN / 8, Duration::ZERO).await;
            stream
        };
        let (sent, _stream) = tokio::join!(send(&listener, Duration::from_millis(400)), serve);
        let error = sent.unwrap_err();
        assert!(error.code == Code::Unreachable && error.message.contains("taken nothing"), "{error:?}");
    }
}

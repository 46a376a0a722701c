//! Bodies of requests and answers.
//!
//! Reading is bounded; what is too long is refused before it is in memory.
//!
//! **Invariant:** a body that cannot be read is an error that names the message.

use std::time::Duration;

use axum::body::{Body, HttpBody as _};
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use isotherm_api::limits::{BODY_MAX, JSON_MAX};
use isotherm_api::{Code, wire};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::fault::Fault;

/// How fast bodies have to come.
#[derive(Clone, Copy, Debug)]
struct Pace {
    /// A body that has not arrived after this time is given up.
    whole: Duration,
    /// Neither is one waited for of which less than `piece` bytes came in this time.
    pause: Duration,
    piece: usize,
}

/// The largest body takes this long at half a megabit a second, and nothing may come at less than 70 kilobits: a few that hold
/// their places and send nothing would hold up everybody.
const PACE: Pace = Pace { whole: Duration::from_secs(1_200), pause: Duration::from_secs(30), piece: 256 * 1024 };

/// The whole body, if it is not longer than `limit`.
pub(super) async fn whole(body: Body, limit: usize) -> Result<Bytes, Fault> {
    at_pace(body, limit, PACE).await
}

async fn at_pace(body: Body, limit: usize, pace: Pace) -> Result<Bytes, Fault> {
    let too_long = || Fault::new(Code::TooLarge, format!("Body is longer than {limit} bytes"));
    // Announced lengths are believed, so that nobody has to send it all to be refused.
    if body.size_hint().lower() > limit as u64 {
        return Err(too_long());
    }
    let late = |_| Fault::new(Code::Unavailable, format!("Body has not arrived within {} seconds", pace.whole.as_secs()));
    tokio::time::timeout(pace.whole, collect(body, limit, pace)).await.map_err(late)?
}

async fn collect(body: Body, limit: usize, pace: Pace) -> Result<Bytes, Fault> {
    let announced = body.size_hint().lower().min(limit as u64);
    let mut bytes = BytesMut::with_capacity(announced as usize);
    let mut pieces = body.into_data_stream();
    let (mut since, mut before) = (tokio::time::Instant::now(), 0);
    loop {
        let slow = |_| {
            let (came, seconds) = (bytes.len() - before, pace.pause.as_secs());
            Fault::new(Code::Unavailable, format!("Body comes too slowly: {came} bytes in {seconds} seconds"))
        };
        let piece = tokio::time::timeout_at(since + pace.pause, pieces.next()).await.map_err(slow)?;
        match piece {
            None => return Ok(bytes.freeze()),
            Some(Err(error)) => return Err(Fault::new(Code::Decode, format!("Body broke off: {}", innermost(&error)))),
            Some(Ok(piece)) if bytes.len() + piece.len() > limit => {
                return Err(Fault::new(Code::TooLarge, format!("Body is longer than {limit} bytes")));
            }
            Some(Ok(piece)) => bytes.extend_from_slice(&piece),
        }
        if bytes.len() - before >= pace.piece {
            (since, before) = (tokio::time::Instant::now(), bytes.len());
        }
    }
}

fn innermost(error: &dyn std::error::Error) -> String {
    let mut reason = error;
    while let Some(inner) = reason.source() {
        reason = inner;
    }
    reason.to_string()
}

/// A binary request.
pub(super) async fn binary<T: DeserializeOwned>(body: Body) -> Result<T, Fault> {
    Ok(wire::decode(&whole(body, BODY_MAX).await?)?)
}

/// A JSON request.
pub(super) async fn from_json<T: DeserializeOwned>(body: Body) -> Result<T, Fault> {
    let bytes = whole(body, JSON_MAX).await?;
    serde_json::from_slice(&bytes).map_err(|error| {
        let name = std::any::type_name::<T>();
        let name = name.rsplit("::").next().unwrap_or(name);
        Fault::new(Code::Decode, format!("{name} cannot be read: {error}"))
    })
}

/// A JSON answer.
pub(super) fn json<T: Serialize>(value: &T) -> Response {
    let text = serde_json::to_vec(value).expect("messages are plain JSON");
    ([(CONTENT_TYPE, "application/json")], text).into_response()
}

/// A binary answer.
pub(super) fn bytes<T: Serialize>(value: &T) -> Response {
    ([(CONTENT_TYPE, "application/octet-stream")], wire::encode(value)).into_response()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use futures_util::stream;

    use super::*;

    const QUICK: Pace = Pace { whole: Duration::from_secs(60), pause: Duration::from_millis(100), piece: 10 };

    /// Pieces of so many bytes, each after a pause.
    fn dripping(pieces: Vec<usize>, pause: Duration) -> Body {
        Body::from_stream(stream::iter(pieces).then(move |len| async move {
            tokio::time::sleep(pause).await; // tidy: wait as a slow client does
            Ok::<_, std::io::Error>(Bytes::from(vec![7; len]))
        }))
    }

    #[tokio::test]
    async fn a_body_that_comes_too_slowly_is_given_up() {
        let slow = dripping(vec![1; 100_000], Duration::from_millis(40));
        let fault = at_pace(slow, 1_000_000, QUICK).await.unwrap_err();
        assert!(fault.code == Code::Unavailable && fault.message.contains("too slowly"), "{fault}");
        let steady = dripping(vec![10; 8], Duration::from_millis(40));
        assert_eq!(at_pace(steady, 80, QUICK).await.unwrap().len(), 80);
        let late = dripping(vec![10; 8], Duration::from_millis(40));
        let fault = at_pace(late, 80, Pace { whole: Duration::from_millis(100), ..QUICK }).await.unwrap_err();
        assert!(fault.message.contains("has not arrived"), "{fault}");
        let long = dripping(vec![10; 8], Duration::ZERO);
        assert_eq!(at_pace(long, 79, QUICK).await.unwrap_err().code, Code::TooLarge);
    }
}

//! Bodies of requests and answers.
//!
//! Reading is bounded; what is too long is refused before it is in memory.
//!
//! **Invariant:** a body that cannot be read is an error that names the message.

use std::time::Duration;

use axum::body::{Body, HttpBody as _, to_bytes};
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use isotherm_api::limits::{BODY_MAX, JSON_MAX};
use isotherm_api::{Code, wire};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::fault::Fault;

/// A body that has not arrived after this time is given up: the largest one takes this long at two megabits a second.
const ARRIVAL: Duration = Duration::from_secs(300);

/// The whole body, if it is not longer than `limit`.
pub(super) async fn whole(body: Body, limit: usize) -> Result<Bytes, Fault> {
    let too_long = || Fault::new(Code::TooLarge, format!("Body is longer than {limit} bytes"));
    // Announced lengths are believed, so that nobody has to send it all to be refused.
    if body.size_hint().lower() > limit as u64 {
        return Err(too_long());
    }
    let late = |_| Fault::new(Code::Unavailable, format!("Body has not arrived within {} seconds", ARRIVAL.as_secs()));
    tokio::time::timeout(ARRIVAL, to_bytes(body, limit)).await.map_err(late)?.map_err(|error| {
        let mut reason: &dyn std::error::Error = &error;
        while let Some(inner) = reason.source() {
            reason = inner;
        }
        match reason.to_string() {
            text if text.contains("length limit") => too_long(),
            text => Fault::new(Code::Decode, format!("Body broke off: {text}")),
        }
    })
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

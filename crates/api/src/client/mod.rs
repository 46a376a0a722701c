//! The HTTP client: one typed method for each request of the service.
//!
//! It never retries and never waits on its own account; `ApiError::retryable` tells the caller, who has the policy.
//!
//! **Invariant:** nothing the service sends makes the client allocate without limit, and a broken answer is an error.

mod management;
mod revisions;
mod sending;
mod share;
mod streams;
mod sync;

pub use streams::{Download, ObjectStream, SnapshotStream};

use std::net::IpAddr;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use reqwest::{Method, RequestBuilder, Response, Url};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{ApiError, Code, ErrorBody};
use crate::limits::{ANSWER_MAX, WAIT_MAX_MS};
use crate::{PROTOCOL, PROTOCOL_HEADER, wire};

/// Time to set up a connection.
const CONNECT: Duration = Duration::from_secs(5);
/// Longest silence of a service that is at work, beyond the time that a long poll may wait.
const SILENCE: Duration = Duration::from_secs(60);

/// Longest silence inside any answer; above the longest long poll.
const STALL: Duration = Duration::from_millis(SILENCE.as_millis() as u64 + WAIT_MAX_MS);
/// A connection that has rested for so long is not used again: the service closes it ten seconds later.
const IDLE: Duration = Duration::from_secs(20);

/// A connection pool to one service. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Client {
    http: reqwest::Client,
    /// For requests that watch over themselves how it goes on.
    patient: reqwest::Client,
    stall: Duration,
    base: Url,
    protocol: u32,
}

impl Client {
    /// A client of the service at this address. Nothing is sent yet.
    ///
    /// # Errors
    /// `invalid`: not an address of this machine. Connections to other machines need TLS, which is not built yet.
    pub fn new(url: &str) -> Result<Self, ApiError> {
        let invalid = |why: &str| ApiError::new(Code::Invalid, format!("Service address `{url}` {why}"));
        let base = Url::parse(url).map_err(|error| invalid(&format!("is not a URL: {error}")))?;
        if base.scheme() != "http" {
            return Err(invalid("does not begin with `http://`"));
        }
        let host = base.host_str().unwrap_or_default().trim_matches(['[', ']']);
        if host != "localhost" && !host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback()) {
            return Err(invalid("is not on this machine (only loopback addresses are allowed without TLS)"));
        }
        if base.path() != "/" || base.query().is_some() || base.fragment().is_some() || !base.username().is_empty() {
            return Err(invalid("has more than host and port"));
        }
        // A proxy of the environment could never reach a loopback address of this machine.
        let common = || {
            let builder = reqwest::Client::builder().no_proxy().connect_timeout(CONNECT).tcp_nodelay(true);
            builder.pool_idle_timeout(IDLE)
        };
        let built = |builder: reqwest::ClientBuilder| {
            builder.build().map_err(|error| ApiError::new(Code::Internal, format!("HTTP client cannot start: {error}")))
        };
        // The time between two reads begins with the request, so it also limits how long a body may be on its way.
        let (http, patient) = (built(common().read_timeout(STALL))?, built(common())?);
        Ok(Self { http, patient, stall: STALL, base, protocol: PROTOCOL })
    }

    /// The same client speaking another version of the sync protocol, to see what a service says to it.
    #[must_use]
    pub fn with_protocol(mut self, protocol: u32) -> Self {
        self.protocol = protocol;
        self
    }

    /// The service's address.
    #[must_use]
    pub fn url(&self) -> &str {
        self.base.as_str().trim_end_matches('/')
    }

    /// Asks whether the service answers at all; gives its version.
    ///
    /// # Errors
    /// As all methods: those of the service, `unreachable`, or `answer`.
    pub async fn version(&self) -> Result<String, ApiError> {
        self.json(Method::GET, "/v1/version", None::<&()>).await
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.request_of(&self.http, method, path)
    }

    fn request_of(&self, http: &reqwest::Client, method: Method, path: &str) -> RequestBuilder {
        let url = format!("{}{path}", self.url());
        http.request(method, url).header(PROTOCOL_HEADER, self.protocol)
    }

    /// Sends; an answer that is not a success becomes its error.
    async fn send(&self, request: RequestBuilder) -> Result<Response, ApiError> {
        let response = request.send().await.map_err(|error| self.broken(&error))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let body = self.read(response).await?;
        Err(match serde_json::from_slice::<ErrorBody>(&body) {
            Ok(error) => error.into(),
            Err(_) => ApiError::new(Code::Answer, format!("{} answered {status} without a reason", self.url())),
        })
    }

    /// Reads a whole body of at most [`ANSWER_MAX`].
    async fn read(&self, mut response: Response) -> Result<Bytes, ApiError> {
        let mut body = BytesMut::new();
        while let Some(piece) = response.chunk().await.map_err(|error| self.broken(&error))? {
            if body.len() + piece.len() > ANSWER_MAX {
                return Err(ApiError::new(Code::Answer, format!("{} answered more than {ANSWER_MAX} bytes", self.url())));
            }
            body.extend_from_slice(&piece);
        }
        Ok(body.freeze())
    }

    fn broken(&self, error: &reqwest::Error) -> ApiError {
        // The outer error only says "error sending request"; the reason is the innermost one.
        let mut reason: &dyn std::error::Error = error;
        while let Some(inner) = reason.source() {
            reason = inner;
        }
        ApiError::new(Code::Unreachable, format!("Service {} cannot be reached: {reason}", self.url()))
    }

    /// A request and an answer of the sync protocol. `wait_ms` is what the service may take before it begins.
    async fn binary<T: DeserializeOwned>(&self, path: &str, body: Vec<u8>, wait_ms: u64) -> Result<T, ApiError> {
        let request = self.request(Method::POST, path).body(body).timeout(SILENCE + Duration::from_millis(wait_ms));
        let response = self.send(request).await?;
        Ok(wire::decode(&self.read(response).await?)?)
    }

    async fn json<T: DeserializeOwned>(&self, method: Method, path: &str, body: Option<&impl Serialize>) -> Result<T, ApiError> {
        self.json_waiting(method, path, body, 0).await
    }

    async fn json_waiting<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
        wait_ms: u64,
    ) -> Result<T, ApiError> {
        let mut request = self.request(method, path).timeout(SILENCE + Duration::from_millis(wait_ms));
        if let Some(body) = body {
            let body = serde_json::to_vec(body).expect("messages are plain JSON");
            request = request.header("content-type", "application/json").body(body);
        }
        let response = self.send(request).await?;
        let body = self.read(response).await?;
        serde_json::from_slice(&body)
            .map_err(|error| ApiError::new(Code::Answer, format!("{} answered what cannot be read: {error}", self.url())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_accepted() {
        for good in ["http://127.0.0.1:8420", "http://localhost:1/", "http://[::1]:8420"] {
            assert!(Client::new(good).is_ok(), "{good}");
        }
        for bad in [
            "https://127.0.0.1",
            "http://10.0.0.1",
            "http://example.org",
            "127.0.0.1:80",
            "http://localhost/x",
            "http://a@localhost",
        ] {
            assert_eq!(Client::new(bad).map_err(|error| error.code).err(), Some(Code::Invalid), "{bad}");
        }
    }
}

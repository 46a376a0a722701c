//! What every request must pass before it is looked at.
//!
//! There is no authentication yet; the listener is on a loopback address, and this keeps web pages out that a browser on
//! this machine happens to show.
//!
//! **Invariant:** a client of another protocol version learns both versions and nothing else.

use axum::extract::Request;
use axum::http::{HeaderMap, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use isotherm_api::{Code, PROTOCOL, PROTOCOL_HEADER};

use crate::fault::Fault;

/// Refuses other versions of the sync protocol.
pub(super) async fn protocol(request: Request, next: Next) -> Response {
    let found = request.headers().get(PROTOCOL_HEADER).and_then(|value| value.to_str().ok());
    if found.and_then(|text| text.parse().ok()) == Some(PROTOCOL) {
        return next.run(request).await;
    }
    let found = match found {
        Some(found) => format!("version {}", isotherm_core::name::escape(found.as_bytes())),
        None => "no version".to_owned(),
    };
    let message = format!("Client speaks {found} of the sync protocol, this service speaks version {PROTOCOL}");
    Fault::new(Code::Protocol, message).into_response()
}

/// Refuses requests that a web page of another origin made, and those for another host's name: a name that an attacker
/// points at this machine would make his page one of the same origin.
pub(super) async fn local_callers(request: Request, next: Next) -> Response {
    let Some(host) = text(request.headers(), header::HOST) else {
        return Fault::new(Code::Denied, "Request does not name its host").into_response();
    };
    if !is_local(host) {
        let host = isotherm_core::name::escape(host.as_bytes());
        return Fault::new(Code::Denied, format!("Host {host} is not a name of this service")).into_response();
    }
    let origin = text(request.headers(), header::ORIGIN);
    if origin.is_some_and(|origin| origin != format!("http://{host}")) {
        return Fault::new(Code::Denied, "Request comes from a page of another origin").into_response();
    }
    next.run(request).await
}

fn text(headers: &HeaderMap, name: header::HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}

fn is_local(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let name = name.trim_matches(['[', ']']);
    name.eq_ignore_ascii_case("localhost") || name.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_this_machine() {
        for local in ["127.0.0.1:80", "127.0.0.1", "localhost:1", "LOCALHOST", "[::1]:80", "[::1]"] {
            assert!(is_local(local), "{local}");
        }
        for other in ["example.org", "10.0.0.1:80", "localhost.example.org", ""] {
            assert!(!is_local(other), "{other}");
        }
    }
}

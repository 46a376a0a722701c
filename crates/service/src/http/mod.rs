//! HTTP: routes, bodies, answers.
//!
//! Each request is a function of this module's files; what it does is elsewhere. `/v1/shares` and the paths of agents
//! are the sync protocol, the rest is the management API.
//!
//! **Invariant:** every answer that is an error is JSON with a code of the API, whatever went wrong.

mod barrier;
mod body;
mod download;
mod guard;
mod management;
mod moments;
mod plans;
mod revisions;
mod serve;
mod share;
mod stream;
mod sync;

use std::sync::Arc;

use axum::Router;
use axum::http::Method;
use axum::middleware::from_fn;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, patch, post};
use isotherm_api::error::ErrorBody;
use isotherm_api::{ApiError, Code};

use crate::State;
use crate::fault::Fault;

pub(crate) use serve::serve;

type Shared = axum::extract::State<Arc<State>>;
type Answered = Result<Response, Fault>;

impl IntoResponse for Fault {
    fn into_response(self) -> Response {
        match self.code {
            Code::Corrupt | Code::Internal => tracing::error!(code = %self.code, fault = %self, "Request failed"),
            Code::Full => tracing::warn!(fault = %self, "Request failed for want of space"),
            _ => tracing::debug!(code = %self.code, fault = %self, "Request refused"),
        }
        let status = axum::http::StatusCode::from_u16(self.code.status()).expect("the table of codes has real statuses");
        let body = ErrorBody { code: self.code, message: self.message };
        (status, body::json(&body)).into_response()
    }
}

impl From<ApiError> for Fault {
    fn from(error: ApiError) -> Self {
        Self::new(error.code, error.message)
    }
}

/// All routes.
pub(crate) fn router(state: Arc<State>) -> Router {
    let sync = Router::new()
        .route("/v1/attach", post(sync::attach))
        .route("/v1/servers/{server}/assignments", get(sync::assignments))
        .route("/v1/servers/{server}/report", post(sync::report))
        .route("/v1/shares/{group}/commit", post(share::commit))
        .route("/v1/shares/{group}/feed", post(share::feed))
        .route("/v1/shares/{group}/snapshot", get(share::snapshot))
        .route("/v1/shares/{group}/have", post(share::have))
        .route("/v1/shares/{group}/packs", post(share::put_pack))
        .route("/v1/shares/{group}/manifests", post(share::put_manifests))
        .route("/v1/shares/{group}/manifests/get", post(share::get_manifests))
        .route("/v1/shares/{group}/chunks/get", post(share::get_chunks))
        .route("/v1/shares/{group}/history", post(share::history))
        .route("/v1/shares/{group}/wanted", post(share::wanted))
        .layer(from_fn(guard::protocol));
    let management = Router::new()
        .route("/v1/version", get(management::version))
        .route("/v1/status", get(management::status))
        .route("/v1/groups", get(management::groups).post(management::create_group))
        .route("/v1/groups/{name}", get(management::group).patch(management::change_group).delete(management::delete_group))
        .route("/v1/groups/{name}/barrier", post(barrier::set))
        .route("/v1/groups/{name}/barrier/{number}", get(barrier::show))
        .route("/v1/groups/{name}/versions/{*path}", get(revisions::versions))
        .route("/v1/groups/{name}/restore/plan", post(plans::plan))
        .route("/v1/groups/{name}/restore/apply", post(revisions::apply_plan))
        .route("/v1/groups/{name}/restore/copy", post(revisions::copy))
        .route("/v1/groups/{name}/conflicts", get(management::conflicts))
        .route("/v1/groups/{name}/files/{*path}", get(download::file))
        .route("/v1/groups/{name}/tree", get(download::tree))
        .route("/v1/groups/{name}/tree/", get(download::tree))
        .route("/v1/groups/{name}/tree/{*path}", get(download::tree))
        .route("/v1/servers", get(management::servers))
        .route("/v1/servers/{server}", patch(management::change_server).delete(management::delete_server))
        .route("/v1/endpoints", get(management::endpoints).post(management::create_endpoint))
        .route(
            "/v1/endpoints/{id}",
            patch(management::change_endpoint).get(management::endpoint).delete(management::delete_endpoint),
        )
        .route("/v1/endpoints/{id}/confirm-deletes", post(management::confirm_deletes))
        .route("/v1/problems", get(management::problems))
        .route("/v1/check", get(management::check).post(management::start_check))
        .route("/v1/collection", get(management::collection).post(management::start_collection))
        .route("/v1/audit", get(management::audit));
    sync.merge(management)
        .method_not_allowed_fallback(no_method)
        .fallback(no_route)
        .layer(from_fn(guard::local_callers))
        .with_state(state)
}

async fn no_route(uri: axum::http::Uri) -> Fault {
    Fault::new(Code::NoRoute, format!("Path {} means nothing here", uri.path()))
}

async fn no_method(method: Method, uri: axum::http::Uri) -> Fault {
    Fault::new(Code::NoRoute, format!("Method {method} means nothing at {}", uri.path()))
}

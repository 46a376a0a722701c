//! Groups, servers, endpoints, status, barriers, conflicts, problems, audit log, trees.
//!
//! Names go into URLs as they are: the service allows only names that need no escape, and the client refuses others
//! before it sends.
//!
//! **Invariant:** each method is one request.

use isotherm_core::ids::EndpointId;
use reqwest::Method;

use super::Client;
use crate::check::{CheckRequest, CheckStatus};
use crate::collect::{CollectRequest, CollectStatus};
use crate::error::{ApiError, Code};
use crate::limits::name_problem;
use crate::management::{
    AuditEntry, Barrier, BarrierStatus, Conflict, Endpoint, EndpointChange, EndpointStatus, Group, GroupChange, NewEndpoint,
    NewGroup, Problems, Server, ServerChange, Status, Tree,
};
use crate::path::percent_encode;
use crate::sync::OnStubs;

const NOTHING: Option<&()> = None;

/// A name as a part of a URL.
pub(super) fn part(name: &str) -> Result<&str, ApiError> {
    match name_problem(name) {
        None => Ok(name),
        Some(why) => Err(ApiError::new(Code::Invalid, format!("Name `{}` {why}", isotherm_core::name::escape(name.as_bytes())))),
    }
}

impl Client {
    /// Makes a sync group.
    ///
    /// # Errors
    /// `exists`, `invalid`.
    pub async fn create_group(&self, group: &NewGroup) -> Result<Group, ApiError> {
        self.json(Method::POST, "/v1/groups", Some(group)).await
    }

    /// All groups, by name.
    ///
    /// # Errors
    /// None of its own.
    pub async fn groups(&self) -> Result<Vec<Group>, ApiError> {
        self.json(Method::GET, "/v1/groups", NOTHING).await
    }

    /// One group.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn group(&self, name: &str) -> Result<Group, ApiError> {
        self.json(Method::GET, &format!("/v1/groups/{}", part(name)?), NOTHING).await
    }

    /// Changes a group.
    ///
    /// # Errors
    /// `not_found`, `invalid`.
    pub async fn change_group(&self, name: &str, change: &GroupChange) -> Result<Group, ApiError> {
        self.json(Method::PATCH, &format!("/v1/groups/{}", part(name)?), Some(change)).await
    }

    /// Deletes a group with its share.
    ///
    /// # Errors
    /// `not_found`; `in_use`: it has endpoints.
    pub async fn delete_group(&self, name: &str) -> Result<(), ApiError> {
        self.json(Method::DELETE, &format!("/v1/groups/{}", part(name)?), NOTHING).await
    }

    /// Starts a check of all that the service keeps.
    ///
    /// # Errors
    /// `in_use`: one is running.
    pub async fn start_check(&self, wanted: CheckRequest) -> Result<Option<CheckStatus>, ApiError> {
        self.json(Method::POST, "/v1/check", Some(&wanted)).await
    }

    /// The check that runs, or the last one since the service was started.
    ///
    /// # Errors
    /// None of its own.
    pub async fn check(&self) -> Result<Option<CheckStatus>, ApiError> {
        self.json(Method::GET, "/v1/check", NOTHING).await
    }

    /// Starts a garbage collection.
    ///
    /// # Errors
    /// `in_use`: one is running, or servers are waited for.
    pub async fn start_collection(&self, wanted: CollectRequest) -> Result<Option<CollectStatus>, ApiError> {
        self.json(Method::POST, "/v1/collection", Some(&wanted)).await
    }

    /// The collection that runs, or the last one since the service was started.
    ///
    /// # Errors
    /// None of its own.
    pub async fn collection(&self) -> Result<Option<CollectStatus>, ApiError> {
        self.json(Method::GET, "/v1/collection", NOTHING).await
    }

    /// All servers, by name.
    ///
    /// # Errors
    /// None of its own.
    pub async fn servers(&self) -> Result<Vec<Server>, ApiError> {
        self.json(Method::GET, "/v1/servers", NOTHING).await
    }

    /// Changes a server.
    ///
    /// # Errors
    /// `not_found`, `invalid`.
    pub async fn change_server(&self, name: &str, change: &ServerChange) -> Result<Server, ApiError> {
        self.json(Method::PATCH, &format!("/v1/servers/{}", part(name)?), Some(change)).await
    }

    /// Forgets a server.
    ///
    /// # Errors
    /// `not_found`; `in_use`: it has endpoints.
    pub async fn delete_server(&self, name: &str) -> Result<(), ApiError> {
        self.json(Method::DELETE, &format!("/v1/servers/{}", part(name)?), NOTHING).await
    }

    /// Makes an endpoint.
    ///
    /// # Errors
    /// `not_found`, `invalid`, `overlap`, `exists`, `limit`.
    pub async fn create_endpoint(&self, endpoint: &NewEndpoint) -> Result<Endpoint, ApiError> {
        self.json(Method::POST, "/v1/endpoints", Some(endpoint)).await
    }

    /// All endpoints, by group and server.
    ///
    /// # Errors
    /// None of its own.
    pub async fn endpoints(&self) -> Result<Vec<Endpoint>, ApiError> {
        self.json(Method::GET, "/v1/endpoints", NOTHING).await
    }

    /// One endpoint with its last report.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn endpoint(&self, id: EndpointId) -> Result<EndpointStatus, ApiError> {
        self.json(Method::GET, &format!("/v1/endpoints/{id}"), NOTHING).await
    }

    /// Changes an endpoint.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn change_endpoint(&self, id: EndpointId, change: &EndpointChange) -> Result<Endpoint, ApiError> {
        self.json(Method::PATCH, &format!("/v1/endpoints/{id}"), Some(change)).await
    }

    /// Nothing moves at the endpoint until it is resumed.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn pause_endpoint(&self, id: EndpointId) -> Result<Endpoint, ApiError> {
        self.change_endpoint(id, &EndpointChange { paused: Some(true), ..EndpointChange::default() }).await
    }

    /// Ends a pause.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn resume_endpoint(&self, id: EndpointId) -> Result<Endpoint, ApiError> {
        self.change_endpoint(id, &EndpointChange { paused: Some(false), ..EndpointChange::default() }).await
    }

    /// Asks the agent to let go of the folder; the endpoint is gone when it has. Its files stay.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn delete_endpoint(&self, id: EndpointId, on_stubs: OnStubs) -> Result<(), ApiError> {
        let stubs = match on_stubs {
            OnStubs::Wait => "wait",
            OnStubs::Recall => "recall",
            OnStubs::Leave => "leave",
        };
        self.json(Method::DELETE, &format!("/v1/endpoints/{id}?stubs={stubs}"), NOTHING).await
    }

    /// Deletes an endpoint whose server will not come back.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn forget_endpoint(&self, id: EndpointId) -> Result<(), ApiError> {
        self.json(Method::DELETE, &format!("/v1/endpoints/{id}?forget=true"), NOTHING).await
    }

    /// Lets the plan go on that waits because it deletes much.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn confirm_deletes(&self, id: EndpointId) -> Result<Endpoint, ApiError> {
        self.json(Method::POST, &format!("/v1/endpoints/{id}/confirm-deletes"), NOTHING).await
    }

    /// All groups and endpoints with their reports, and all servers.
    ///
    /// # Errors
    /// None of its own.
    pub async fn status(&self) -> Result<Status, ApiError> {
        self.json(Method::GET, "/v1/status", NOTHING).await
    }

    /// Sets a barrier behind all that has been changed anywhere in the group; gives its number.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn set_barrier(&self, group: &str) -> Result<u64, ApiError> {
        let barrier: Barrier = self.json(Method::POST, &format!("/v1/groups/{}/barrier", part(group)?), NOTHING).await?;
        Ok(barrier.barrier)
    }

    /// Whether a barrier is reached; waits up to `wait_ms` for it.
    ///
    /// # Errors
    /// `not_found`: the group, or a number that was never given.
    pub async fn barrier(&self, group: &str, barrier: u64, wait_ms: u64) -> Result<BarrierStatus, ApiError> {
        let path = format!("/v1/groups/{}/barrier/{barrier}?wait_ms={wait_ms}", part(group)?);
        self.json_waiting(Method::GET, &path, NOTHING, wait_ms).await
    }

    /// The conflict copies of a group.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn conflicts(&self, group: &str) -> Result<Vec<Conflict>, ApiError> {
        self.json(Method::GET, &format!("/v1/groups/{}/conflicts", part(group)?), NOTHING).await
    }

    /// The problems of all endpoints.
    ///
    /// # Errors
    /// None of its own.
    pub async fn problems(&self) -> Result<Problems, ApiError> {
        self.json(Method::GET, "/v1/problems", NOTHING).await
    }

    /// The audit log, newest first, at most `limit`, before the entry with this number.
    ///
    /// # Errors
    /// None of its own.
    pub async fn audit(&self, before: Option<u64>, limit: u32) -> Result<Vec<AuditEntry>, ApiError> {
        let before = before.map_or_else(String::new, |number| format!("&before={number}"));
        self.json(Method::GET, &format!("/v1/audit?limit={limit}{before}"), NOTHING).await
    }

    /// What is at a path of a share; the root for an empty path.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn tree(&self, group: &str, path: &[u8]) -> Result<Tree, ApiError> {
        let path = percent_encode(path);
        self.json(Method::GET, &format!("/v1/groups/{}/tree/{}", part(group)?, path.trim_start_matches('/')), NOTHING).await
    }
}

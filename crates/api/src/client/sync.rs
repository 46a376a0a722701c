//! The server itself: attach, assignments, reports.
//!
//! It keeps no state; id and epoch are the caller's.
//!
//! **Invariant:** each method is one request.

use isotherm_core::bandwidth::{InForce, Rate};
use isotherm_core::ids::{Epoch, ServerId};

use super::Client;
use crate::error::ApiError;
use crate::sync::{Assignments, Attach, Attached, Report};
use crate::wire;

impl Client {
    /// Starts a run of a server's agent; earlier runs are fenced from now on.
    ///
    /// # Errors
    /// `exists`: another server has the name. `invalid`: not a name.
    pub async fn attach(&self, attach: &Attach) -> Result<Attached, ApiError> {
        self.binary("/v1/attach", wire::encode(attach), 0).await
    }

    /// The server's endpoints. Where `revision` is the present one, waits up to `wait_ms` for another.
    ///
    /// # Errors
    /// `fenced`: a newer run has taken over. `not_found`: the service does not know the server.
    pub async fn assignments(
        &self,
        server: ServerId,
        epoch: Epoch,
        revision: u64,
        wait_ms: u64,
    ) -> Result<Assignments, ApiError> {
        let path = format!("/v1/servers/{server}/assignments?epoch={}&revision={revision}&wait_ms={wait_ms}", epoch.0);
        let request = self.request(reqwest::Method::GET, &path);
        let response = self.send(request.timeout(super::SILENCE + std::time::Duration::from_millis(wait_ms))).await?;
        Ok(wire::decode(&self.read(response).await?)?)
    }

    /// Tells how the server's endpoints are, and which limits of its traffic are in force.
    ///
    /// # Errors
    /// `fenced`: a newer run has taken over. `not_found`: the service does not know the server.
    pub async fn report(&self, server: ServerId, report: &Report, in_force: InForce) -> Result<(), ApiError> {
        // Beside the body, which has one form: a service that does not know of limits takes the report all the same.
        let rates = [("up", in_force.up), ("down", in_force.down), ("demand", in_force.demand)];
        let said = rates.into_iter().filter_map(|(name, rate)| Some(format!("{name}={}", rate.map(Rate::bytes_per_s)?)));
        let query = said.collect::<Vec<_>>().join("&");
        self.binary(&format!("/v1/servers/{server}/report?{query}"), wire::encode(report), 0).await
    }
}

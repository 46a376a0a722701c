//! Versions of a path, and restores.
//!
//! **Invariant:** each method is one request.

use isotherm_core::ids::Version;
use reqwest::Method;

use super::Client;
use super::management::part;
use crate::error::ApiError;
use crate::path::percent_encode;
use crate::revisions::{RestoreCopy, RestoreOne, RestoreOutcome, RestorePlan, RestoreRequest, VersionEntry};

impl Client {
    /// All versions that are kept of whatever has or had this path, newest first.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn versions(&self, group: &str, path: &[u8]) -> Result<Vec<VersionEntry>, ApiError> {
        let url = format!("/v1/groups/{}/versions/{}", part(group)?, percent_encode(path));
        self.json(Method::GET, &url, None::<&()>).await
    }

    /// A page of a plan of what would be brought back.
    ///
    /// # Errors
    /// `not_found`, `invalid`.
    pub async fn restore_plan(&self, group: &str, request: &RestoreRequest) -> Result<RestorePlan, ApiError> {
        self.json(Method::POST, &format!("/v1/groups/{}/restore/plan", part(group)?), Some(request)).await
    }

    /// Brings nodes back; an outcome for each, in order.
    ///
    /// # Errors
    /// `not_found`, `invalid`: too many.
    pub async fn restore(&self, group: &str, items: &[RestoreOne]) -> Result<Vec<RestoreOutcome>, ApiError> {
        self.json(Method::POST, &format!("/v1/groups/{}/restore/apply", part(group)?), Some(&items)).await
    }

    /// Makes a new file of an earlier version.
    ///
    /// # Errors
    /// `not_found`; `exists`: the name is in use; `invalid`.
    pub async fn restore_copy(&self, group: &str, copy: &RestoreCopy) -> Result<Version, ApiError> {
        self.json(Method::POST, &format!("/v1/groups/{}/restore/copy", part(group)?), Some(copy)).await
    }
}

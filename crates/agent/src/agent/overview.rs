//! What the control socket shows: the agent at a glance, always the latest, never waited for.
//!
//! **Invariant:** it holds copies only; whoever reads it cannot hold up the agent.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use isotherm_api::management::ShownReport;
use isotherm_api::path::ShownPath;
use isotherm_api::sync::{Assignment, Problem};
use isotherm_core::ids::{EndpointId, GroupId, ServerId};
use isotherm_core::name::Case;
use serde::{Deserialize, Serialize};

use super::Options;
use crate::endpoint::Published;
use crate::remote::Attachment;

/// The agent at a glance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Overview {
    /// Version of the agent's program.
    pub agent_version: String,
    /// Process number.
    pub pid: u32,
    /// The server's name.
    pub name: String,
    /// Its id, once it has attached.
    pub server: Option<ServerId>,
    /// Address of the service.
    pub service: String,
    /// Why the service cannot be reached, if so.
    pub away: Option<String>,
    /// All endpoints.
    pub endpoints: Vec<EndpointView>,
    #[serde(skip)]
    pub(crate) state: PathBuf,
}

/// One endpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EndpointView {
    /// The endpoint.
    pub endpoint: EndpointId,
    /// Its sync group.
    pub group: GroupId,
    /// The group's name.
    pub group_name: String,
    /// Absolute path of the folder.
    pub path: String,
    /// How it is, as the service is told.
    pub report: ShownReport,
    /// Why its share cannot be reached, if so.
    pub offline: Option<String>,
    /// Paths that are not agreed on, at most a hundred.
    pub open: Vec<ShownPath>,
    #[serde(skip)]
    pub(crate) problems: Vec<Problem>,
    #[serde(skip)]
    pub(crate) exclusions: Vec<String>,
    #[serde(skip)]
    pub(crate) case: Case,
}

impl Overview {
    pub(super) fn new(options: &Options) -> Self {
        Self {
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            name: options.name.clone(),
            server: None,
            service: options.service.clone(),
            away: None,
            endpoints: Vec::new(),
            state: options.state.clone(),
        }
    }
}

pub(super) fn set_away(overview: &Mutex<Overview>, away: Option<String>) {
    overview.lock().unwrap_or_else(PoisonError::into_inner).away = away;
}

pub(super) fn update(overview: &Mutex<Overview>, attachment: Option<&Attachment>, views: &[(Assignment, Published)]) {
    let endpoints = views.iter().map(|(assignment, published)| view(assignment, published)).collect();
    let mut overview = overview.lock().unwrap_or_else(PoisonError::into_inner);
    overview.server = attachment.map(|attachment| attachment.server);
    overview.endpoints = endpoints;
}

fn view(assignment: &Assignment, published: &Published) -> EndpointView {
    EndpointView {
        endpoint: assignment.endpoint,
        group: assignment.group,
        group_name: assignment.group_name.clone(),
        path: assignment.path.clone(),
        // How far the share is ahead only the service knows.
        report: ShownReport::new(&published.report, published.report.cursor.version),
        offline: published.offline.clone(),
        open: published.open.iter().map(|path| ShownPath::new(path)).collect(),
        problems: published.report.problems.clone(),
        exclusions: assignment.exclusions.clone(),
        case: assignment.case,
    }
}

//! Changes of what an endpoint lets go.
//!
//! **Invariant:** a change that would make no sense changes nothing.

use isotherm_core::tiering::{Download, Initial, Policy, PolicyError, ProgramRule};
use serde::{Deserialize, Serialize};

/// What to change of an endpoint's tiering policy; what is absent stays. See [`Policy`] for what each means.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyChange {
    /// Percent of the volume that are to stay free.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub free_percent: Option<u8>,
    /// Seconds without use after which contents go; 0: never for that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub older_than_s: Option<u64>,
    /// Seconds for which a content stays after it came or was changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grace_s: Option<u64>,
    /// Smaller files stay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_size: Option<u64>,
    /// Percent of the room for contents above which one goes before all others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub largest_percent: Option<u8>,
    /// Which contents come by themselves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub download: Option<Download>,
    /// What comes of the files that the share has when the endpoint begins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initial: Option<Initial>,
    /// Bytes from which on a file is streamed; 0: none is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream_from: Option<u64>,
    /// Whether clients of Samba see tiered files as offline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offline_attribute: Option<bool>,
    /// Patterns of what stays; they replace the earlier ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep: Option<Vec<String>>,
    /// Rules for programs; they replace the earlier ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub programs: Option<Vec<ProgramRule>>,
}

impl PolicyChange {
    /// Whether it changes nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The policy with the change.
    ///
    /// # Errors
    /// It makes no sense then.
    pub fn apply(&self, to: Policy) -> Result<Policy, PolicyError> {
        let policy = Policy {
            free_percent: self.free_percent.unwrap_or(to.free_percent),
            older_than_s: self.older_than_s.map_or(to.older_than_s, |seconds| (seconds > 0).then_some(seconds)),
            grace_s: self.grace_s.unwrap_or(to.grace_s),
            min_size: self.min_size.unwrap_or(to.min_size),
            largest_percent: self.largest_percent.unwrap_or(to.largest_percent),
            download: self.download.unwrap_or(to.download),
            initial: self.initial.unwrap_or(to.initial),
            stream_from: self.stream_from.map_or(to.stream_from, |size| (size > 0).then_some(size)),
            offline_attribute: self.offline_attribute.unwrap_or(to.offline_attribute),
            keep: self.keep.clone().unwrap_or(to.keep),
            programs: self.programs.clone().unwrap_or(to.programs),
        };
        policy.check().map(|()| policy)
    }
}

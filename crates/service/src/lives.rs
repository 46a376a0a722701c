//! Of which shares this run of the service has begun a life.
//!
//! A service cannot see that its folder, or its whole machine, was put back to an earlier state while it did not run. So each
//! run begins a life of a share before it first changes that: then a version never stands for two changes, and a reader that
//! knows more than the life before gave out is told from one that does not ([`isotherm_core::namespace::History`]).

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use isotherm_core::ids::{GroupId, Incarnation};

use crate::clock::random;
use crate::fault::Fault;

/// The shares whose present life is this run's.
#[derive(Debug, Default)]
pub(crate) struct OwnLives {
    begun: Mutex<BTreeSet<GroupId>>,
}

impl OwnLives {
    /// The life that a change of a share has to begin first; none where this run has begun one. To be drawn before the
    /// transaction, and told to [`OwnLives::begun`] after it. Two at once begin two lives, which harms nobody.
    pub(crate) fn to_begin(&self, group: GroupId) -> Result<Option<Incarnation>, Fault> {
        if self.has_begun(group) {
            return Ok(None);
        }
        Ok(Some(Incarnation(u64::from_be_bytes(random()?))))
    }

    pub(crate) fn has_begun(&self, group: GroupId) -> bool {
        self.begun.lock().unwrap_or_else(PoisonError::into_inner).contains(&group)
    }

    /// A life was begun, durably.
    pub(crate) fn begun(&self, group: GroupId) {
        self.begun.lock().unwrap_or_else(PoisonError::into_inner).insert(group);
    }
}

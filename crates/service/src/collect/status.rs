//! The collection that runs, and what the last one has done.

use std::sync::{Mutex, PoisonError};

use isotherm_api::collect::{CollectStatus, Collected};

use crate::clock::now_ms;
use crate::fault::Fault;

/// The collection that runs, or the last one.
#[derive(Debug, Default)]
pub(crate) struct Collections(Mutex<Option<CollectStatus>>);

impl Collections {
    pub(crate) fn status(&self) -> Option<CollectStatus> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn begin(&self) {
        let begun = CollectStatus { started_ms: now_ms(), ended: false, collected: None, failed: None };
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(begun);
    }

    pub(super) fn end(&self, outcome: &Result<Collected, Fault>) {
        if let Some(status) = self.0.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            status.ended = true;
            status.collected = outcome.as_ref().ok().copied();
            status.failed = outcome.as_ref().err().map(|fault| fault.message.clone());
        }
    }
}

//! How far the check is that runs, and what the last one found.
//!
//! **Invariant:** all findings are counted, however many are listed.

use std::sync::{Mutex, PoisonError};

use isotherm_api::check::{CheckPhase, CheckStatus, FINDINGS_MAX};

use crate::clock::now_ms;
use crate::fault::Fault;

/// The check that runs, or the last one.
#[derive(Debug, Default)]
pub(crate) struct Checks(Mutex<Option<CheckStatus>>);

impl Checks {
    pub(crate) fn status(&self) -> Option<CheckStatus> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn change(&self, change: impl FnOnce(&mut CheckStatus)) {
        if let Some(status) = self.0.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            change(status);
        }
    }

    pub(super) fn find(&self, finding: String) {
        tracing::error!(finding, "Check found damage");
        self.change(|status| {
            status.findings_count += 1;
            if status.findings.len() < FINDINGS_MAX {
                status.findings.push(finding);
            }
        });
    }

    /// Begins a check unless one runs.
    pub(super) fn begin(&self, deep: bool) -> Result<(), Fault> {
        let mut status = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if status.as_ref().is_some_and(|status| status.phase != CheckPhase::Done) {
            return Err(Fault::new(isotherm_api::Code::InUse, "A check is running already".to_owned()));
        }
        *status = Some(CheckStatus {
            deep,
            phase: CheckPhase::Names,
            done_bytes: 0,
            all_bytes: 0,
            nodes: 0,
            contents: 0,
            chunks: 0,
            packs: 0,
            stray_packs: 0,
            stray_bytes: 0,
            deleted_strays: 0,
            deleted_bytes: 0,
            findings: Vec::new(),
            findings_count: 0,
            hurt: Vec::new(),
            hurt_count: 0,
            rewritten_packs: 0,
            repaired: 0,
            failed: None,
            started_ms: now_ms(),
        });
        Ok(())
    }
}

//! An endpoint's part in guarding its volume.
//!
//! **Invariant:** contents come as stubs only while somebody answers for them.

use std::path::PathBuf;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex};

use super::{CATALOG, Input, Spec};
use crate::catalog::CatalogReader;
use crate::engine::Event;
use crate::guarded::{Ask, GuardedVolumes, Membership, Part};
use crate::recall::{News, Tell};
use crate::remote::Share;
use crate::volume::{StubGuard, StubRules, Volume};

/// Joins a guarded volume as soon as there is one.
pub(super) struct Guarding {
    guarded: Arc<GuardedVolumes>,
    endpoint: isotherm_core::ids::EndpointId,
    volume: Arc<Volume>,
    share: Arc<Share>,
    known: Arc<Mutex<CatalogReader>>,
    stubs: Arc<StubRules>,
    inputs: Sender<Input>,
    catalog: PathBuf,
    membership: Option<Membership>,
}

impl Guarding {
    pub(super) fn begin(
        spec: &Spec,
        volume: &Arc<Volume>,
        (share, known): (&Arc<Share>, &Arc<Mutex<CatalogReader>>),
        stubs: &Arc<StubRules>,
        inputs: &Sender<Input>,
    ) -> Self {
        let mut guarding = Self {
            guarded: Arc::clone(&spec.guarded),
            endpoint: spec.assignment.endpoint,
            volume: Arc::clone(volume),
            share: Arc::clone(share),
            known: Arc::clone(known),
            stubs: Arc::clone(stubs),
            inputs: inputs.clone(),
            catalog: spec.state.join(CATALOG),
            membership: None,
        };
        guarding.look_again();
        guarding
    }

    /// The gate may have come since, or the volume may be guarded now.
    pub(super) fn look_again(&mut self) {
        if self.membership.is_some() {
            return;
        }
        let inputs = self.inputs.clone();
        let tell: Tell = Box::new(move |news| {
            let event = match news {
                News::Came(files) | News::Went(files) => Event::Touched(files),
                News::Failed(file, why) => Event::NotRecalled(file, why),
                // The volume's business.
                News::Used(..) | News::Happened(_) => return,
            };
            // Nobody listens any more only when the endpoint stops.
            let _ = inputs.send(Input::Event(event));
        });
        let inputs = self.inputs.clone();
        let ask: Ask = Box::new(move |command| {
            let _ = inputs.send(Input::Event(Event::Command(command)));
        });
        let catalog = self.catalog.clone();
        let part = Part { share: &self.share, known: &self.known, catalog, stubs: &self.stubs, tell, ask };
        self.membership = self.guarded.join(self.endpoint, self.volume.root(), part);
        self.stubs.set_guard(self.membership.as_ref().map(|membership| membership.volume() as Arc<dyn StubGuard>));
    }
}

impl Drop for Guarding {
    fn drop(&mut self) {
        self.stubs.set_guard(None);
    }
}

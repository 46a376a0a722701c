//! Lanes: effects with steps that are under way at a time.
//!
//! **Invariant:** a node has work under way in one lane only, and so has a name.

use std::collections::BTreeSet;

use isotherm_core::ids::NodeId;
use isotherm_core::node::Place;
use isotherm_core::plan::{Action, Parent, Step};

use super::work::{Work, places};
use super::{Catalog, Effect, Engine, Places};

/// Effects with steps that may be under way at a time: one for all kinds of steps in their order; one for large contents; and one more for
/// what is only made in directories that are there, so that a new endpoint's volume and the engine work at the same time.
pub(super) const LANES: usize = 3;
const ORDINARY: usize = 0;
const LARGE: usize = 1;
const MAKING: usize = 2;

/// Large contents that are fetched together.
const LARGE_STEPS: usize = 4;

impl Work {
    /// Whether steps are under way.
    pub(super) fn is_performing(&self) -> bool {
        self.performing.contains(&true)
    }

    /// An effect with a step for this node has ended.
    pub(super) fn lane_ended(&mut self, node: Option<NodeId>) {
        let lane = node.and_then(|node| self.lanes.get(&node)).copied().unwrap_or(ORDINARY);
        self.performing[lane] = false;
    }
}

impl<C: Catalog> Engine<C> {
    /// Hands steps out: small ones in order, large contents apart, and what is only made beside others of its kind.
    pub(super) fn hand_out(&mut self, steps: Vec<Step>) {
        let mut handing = Handing::default();
        let mut left = Vec::new();
        for step in steps {
            let used = places(&step);
            // One that is left may be about to make room for a later one.
            let is_held = |place| self.work.held.contains(place) || handing.left.contains(place);
            let is_busy = self.work.busy.contains(&step.node) || used.iter().any(is_held);
            match self.lane_for(&step, &handing).filter(|lane| !is_busy && handing.is_free_for(*lane, step.node, &used)) {
                Some(lane) => handing.take(lane, step, used),
                None => {
                    left.push(step.node);
                    handing.left.extend(used);
                }
            }
        }
        for (lane, steps) in handing.steps.into_iter().enumerate().filter(|(_, steps)| !steps.is_empty()) {
            for step in &steps {
                self.work.busy.insert(step.node);
                if matches!(step.action, Action::Move { .. }) {
                    self.about_to_move(step.node);
                }
                self.work.held.extend(places(step));
                if lane != ORDINARY {
                    self.work.lanes.insert(step.node, lane);
                }
            }
            self.work.performing[lane] = true;
            self.begin_placing(&steps);
            self.effects.push(Effect::Perform(steps));
        }
        self.work.left_over.extend(left);
    }

    /// The lane in which there is room for a step, if there is.
    fn lane_for(&self, step: &Step, handing: &Handing) -> Option<usize> {
        let limits = &self.settings.limits;
        let has_room = |lane: usize, limit: usize| !self.work.performing[lane] && handing.steps[lane].len() < limit;
        let is_in_place = matches!(&step.action, Action::Create { at, .. } if matches!(at.parent, Parent::Inode(_)));
        // Where a limit makes contents wait, what has none does not wait with them. Where most of what comes is a stub, none is waited for.
        let limited = self.limited.filter(|_| self.tiers.is_none());
        if content_bytes(step) > limited.map_or(limits.bulk_bytes, |_| 0) {
            // Its directory would be made in the other lane.
            let depends = matches!(&step.action, Action::Create { .. }) && !is_in_place;
            let has_room = match limited {
                Some(most) => has_room(LARGE, limits.steps) && handing.large_bytes < most,
                None => has_room(LARGE, LARGE_STEPS),
            };
            return (!depends && has_room).then_some(LARGE);
        }
        if has_room(ORDINARY, limits.steps) {
            return Some(ORDINARY);
        }
        let is_alone = is_in_place && matches!(&step.action, Action::Create { link_to: None, .. });
        (is_alone && has_room(MAKING, limits.steps)).then_some(MAKING)
    }
}

/// Steps that are being handed out.
#[derive(Default)]
struct Handing {
    steps: [Vec<Step>; LANES],
    nodes: [BTreeSet<NodeId>; LANES],
    places: [Places; LANES],
    /// Places of steps that were left.
    left: Places,
    /// Of contents in the lane for large ones.
    large_bytes: u64,
}

impl Handing {
    /// Whether none of the other lanes has steps for this node or these places. A node has work under way in one effect only: what else it
    /// needs is planned again after that. The same goes for a name: the results come in any order.
    fn is_free_for(&self, lane: usize, node: NodeId, used: &[Place]) -> bool {
        let others = (0..LANES).filter(|other| *other != lane);
        let is_taken =
            |other: usize| self.nodes[other].contains(&node) || used.iter().any(|place| self.places[other].contains(place));
        !others.into_iter().any(is_taken)
    }

    fn take(&mut self, lane: usize, step: Step, used: Vec<Place>) {
        self.nodes[lane].insert(step.node);
        self.places[lane].extend(used);
        self.large_bytes += if lane == LARGE { content_bytes(&step) } else { 0 };
        self.steps[lane].push(step);
    }
}

fn content_bytes(step: &Step) -> u64 {
    match &step.action {
        Action::Create { content, link_to: None, .. } | Action::Replace { content, link_to: None, .. } => content.size(),
        _ => 0,
    }
}

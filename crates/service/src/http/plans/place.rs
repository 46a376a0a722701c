//! Where the nodes of a plan will be.
//!
//! It is told beforehand, so that people can look at it. **Invariant:** nothing is decided here; a restore finds its names
//! itself when it comes to it.

use isotherm_core::ids::NodeId;
use isotherm_core::namespace::{Records as _, has_namesake, standing_place};
use isotherm_core::node::{Node, Place};

use super::{Goal, Page};
use crate::fault::Fault;

/// Most directories above a node, and most names that are tried for one.
const DEPTH_MAX: usize = 4096;
const NAMES_MAX: u32 = 100;

impl Page<'_, '_> {
    /// The path of a node when the whole plan is carried out.
    pub(super) fn path_after(&mut self, then: &Node) -> Result<Vec<u8>, Fault> {
        let place = self.free_place(then)?;
        let (mut at, mut parts) = (place.parent, vec![place.name]);
        while at != NodeId::ROOT && parts.len() < DEPTH_MAX {
            let Some(directory) = self.directory_after(at)? else { break };
            let place = self.place_after(directory)?;
            at = place.parent;
            parts.push(place.name);
        }
        Ok(parts.iter().rev().map(|part| part.as_bytes()).collect::<Vec<_>>().join(&b'/'))
    }

    /// A directory as the plan leaves it.
    fn directory_after(&self, directory: NodeId) -> Result<Option<Node>, Fault> {
        if let Goal::AsOf { at, above, .. } = self.goal
            && let Some(then) = self.records.version_at(directory, at)?.filter(Node::is_live)
            && self.records.was_below(&then, above, at)?
        {
            return Ok(Some(then));
        }
        self.records.node(directory)
    }

    /// The place of a directory above when it has come back, or that of the one that stands for it.
    fn place_after(&mut self, mut directory: Node) -> Result<Place, Fault> {
        let is_gone = self.records.node(directory.id)?.is_none_or(|now| now.deleted);
        if is_gone && !self.is_exact() {
            directory.place = standing_place(self.records, &directory)?;
            if has_namesake(self.records, &directory)? {
                return Ok(directory.place);
            }
        }
        self.free_place(&directory)
    }

    /// Whether what was not there goes, and with it whatever has the name of something that is gone.
    pub(super) fn is_exact(&self) -> bool {
        matches!(self.goal, Goal::AsOf { exact: true, .. })
    }

    /// The place that a node had, or one beside it where another node has the name and keeps it.
    fn free_place(&mut self, then: &Node) -> Result<Place, Fault> {
        let case = self.records.share()?.case;
        let (parent, own) = (then.place.parent, &then.place.name);
        let names = std::iter::once(own.clone()).chain((0..NAMES_MAX).map(|number| own.conflict("restored", number)));
        for name in names {
            let key = name.key(case).to_vec();
            let holder = self.records.child(parent, &key)?.filter(|holder| *holder != then.id);
            let is_kept = holder.map_or(Ok(false), |holder| self.keeps_name(holder))?;
            if !is_kept && *self.given.entry((parent, key)).or_insert(then.id) == then.id {
                return Ok(Place { parent, name });
            }
        }
        Ok(then.place.clone())
    }

    /// Whether a live node still has its name when the plan is carried out.
    fn keeps_name(&self, holder: NodeId) -> Result<bool, Fault> {
        let Some(now) = self.records.node(holder)? else { return Ok(false) };
        match &self.goal {
            Goal::Undeleted => Ok(true),
            Goal::Undone(servers) => Ok(!servers.contains(&now.author)),
            Goal::AsOf { at, exact, .. } => Ok(match self.records.version_at(holder, *at)?.filter(Node::is_live) {
                Some(then) => then.place == now.place,
                None => !exact,
            }),
        }
    }
}

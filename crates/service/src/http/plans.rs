//! Plans of restores: which nodes would change, and how.
//!
//! **Invariants:** a plan is one page read in one transaction; nothing is planned from what is not known any more.

mod place;
mod undelete;

use std::collections::{BTreeMap, BTreeSet};

use axum::body::Body;
use axum::extract::{Path, State};
use isotherm_api::management::Group;
use isotherm_api::path::ShownPath;
use isotherm_api::revisions::{RESTORE_ITEMS_MAX, RestoreAction, RestoreItem, RestorePlan, RestoreRequest, RestoreWhat};
use isotherm_core::ids::{NodeId, ServerId, Version};
use isotherm_core::name::{Name, escape};
use isotherm_core::namespace::{Records as _, Revisions as _, has_namesake, standing_place};
use isotherm_core::node::{Kind, Node};
use rusqlite::Connection;

use super::moments::{check_kept, check_span, check_time, check_version};
use super::revisions::{bytes_of, moment};
use super::{Answered, Shared, body};
use crate::clock::now_ms;
use crate::fault::Fault;
use crate::records::{self, Moment, Revision, SqlRecords};

/// Nodes that a page looks at; fewer of them may be in it.
const LOOKED_AT_MAX: usize = 4_000;
/// Most nodes that one undelete brings back.
const UNDELETE_MAX: usize = 200_000;

pub(super) async fn plan(State(state): Shared, Path(group): Path<String>, request: Body) -> Answered {
    let wanted: RestoreRequest = body::from_json(request).await?;
    let path = bytes_of(&wanted.path)?;
    let read = move |connection: &Connection| {
        let group = records::group(connection, &group)?;
        let records = SqlRecords::open(connection, group.id, 0)?;
        let mut page = Page::new(connection, &records);
        let next = match &wanted.what {
            RestoreWhat::Deleted => {
                page.deleted(&path, UNDELETE_MAX)?;
                None
            }
            RestoreWhat::AsOf { moment: at, exact } => {
                let at = moment(*at);
                page.check(&group, &path, at)?;
                page.as_of(&path, at, *exact, wanted.before)?
            }
            RestoreWhat::Server { server, from_ms, until_ms } => {
                check_span(&group, (*from_ms, *until_ms), now_ms())?;
                check_kept(&group, Moment::Time(*from_ms), records::kept_since(connection, group.id)?)?;
                page.of_server(&path, server, (*from_ms, *until_ms), wanted.before)?
            }
        };
        Ok(RestorePlan { items: page.items, next, more: page.more })
    };
    Ok(body::json(&state.database.read(read).await?))
}

pub(super) struct Page<'a, 'c> {
    connection: &'c Connection,
    records: &'a SqlRecords<'c>,
    items: Vec<RestoreItem>,
    paths: BTreeMap<NodeId, Vec<u8>>,
    goal: Goal,
    /// Names in directories, and which nodes get them.
    given: BTreeMap<(NodeId, Vec<u8>), NodeId>,
    /// More was found than one plan holds.
    more: bool,
}

/// What everything in a plan becomes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum Goal {
    /// What it was before it was deleted.
    #[default]
    Undeleted,
    /// What it was at a moment, in a directory; also what was not there goes.
    AsOf { at: Moment, above: NodeId, exact: bool },
    /// What it was before some servers changed it.
    Undone(BTreeSet<ServerId>),
}

impl<'a, 'c> Page<'a, 'c> {
    pub(super) fn new(connection: &'c Connection, records: &'a SqlRecords<'c>) -> Self {
        let (items, paths, given) = (Vec::new(), BTreeMap::new(), BTreeMap::new());
        Self { connection, records, items, paths, goal: Goal::default(), given, more: false }
    }

    fn add(&mut self, now: &Node, target: Option<&Node>, action: RestoreAction) -> Result<(), Fault> {
        let path = self.records.path_now(now, &mut self.paths)?;
        let name = target.map(|then| &then.place.name).filter(|name| **name != now.place.name);
        let to = match target {
            Some(then) if matches!(action, RestoreAction::Undelete | RestoreAction::Revert) => self.path_after(then)?,
            _ => path.clone(),
        };
        self.items.push(RestoreItem {
            node: now.id,
            expected: now.versions.last,
            target: target.map(|then| then.versions.last),
            action,
            to: (to != path).then(|| ShownPath::new(&to)),
            path: ShownPath::new(&path),
            name: name.map(|name| ShownPath::new(name.as_bytes())),
            size: target.map_or(0, |then| then.content.size()),
        });
        Ok(())
    }

    /// What makes a node what it was, unless it is that already. Where it was not there it is deleted, if that is wanted.
    fn back_to(&mut self, now: &Node, then: Option<Node>, delete: bool) -> Result<(), Fault> {
        let Some(mut then) = then.filter(Node::is_live) else {
            return if delete && now.is_live() { self.add(now, None, RestoreAction::Delete) } else { Ok(()) };
        };
        if !self.is_exact() {
            if now.deleted && has_namesake(self.records, &then)? {
                return Ok(());
            }
            then.place = standing_place(self.records, &then)?;
        }
        if now.deleted {
            return self.add(now, Some(&then), RestoreAction::Undelete);
        }
        let is_it = then.place == now.place && then.metadata == now.metadata && then.content == now.content;
        if is_it { Ok(()) } else { self.add(now, Some(&then), RestoreAction::Revert) }
    }

    /// The node that a path means at a moment: the one that had it then, else the one that has it.
    pub(super) fn node_at(&self, path: &[u8], at: Moment) -> Result<NodeId, Fault> {
        let candidates = self.records.ever_at(path)?;
        let last = path.rsplit(|&byte| byte == b'/').find(|part| !part.is_empty()).unwrap_or_default();
        let Ok(name) = Name::new(last) else {
            return candidates.first().copied().ok_or_else(|| Fault::not_found("Path", escape(path)));
        };
        let case = self.records.share()?.case;
        for node in &candidates {
            let then = self.records.version_at(*node, at)?.filter(Node::is_live);
            if then.is_some_and(|then| then.place.name.key(case) == name.key(case)) {
                return Ok(*node);
            }
        }
        candidates.first().copied().ok_or_else(|| Fault::not_found("Path", escape(path)))
    }

    /// Refuses a moment at which nothing can have been or of which not all is known, and a version that is none of this path.
    pub(super) fn check(&self, group: &Group, path: &[u8], at: Moment) -> Result<(), Fault> {
        let node = self.node_at(path, at)?;
        match at {
            Moment::Time(ms) => check_time(group, ms, now_ms())?,
            Moment::Version(version) => check_version(group, version)?,
        }
        let is_directory = self.records.node(node)?.is_none_or(|node| node.kind() == Kind::Directory);
        let kept = records::kept_since(self.connection, group.id)?;
        if is_directory {
            // What a directory held is asked for by any moment of the share.
            return check_kept(group, at, kept);
        }
        let Moment::Version(version) = at else {
            // Of one file an older version may be kept than of all.
            return if self.records.version_at(node, at)?.is_some() { Ok(()) } else { check_kept(group, at, kept) };
        };
        for node in self.records.ever_at(path)? {
            if self.records.revision(node, version)?.is_some() {
                return Ok(());
            }
        }
        let path = escape(path);
        let text = format!("Version {version} is none of {path}, or is not kept any more; `isotherm versions` lists them");
        Err(Fault::invalid(text))
    }

    fn as_of(&mut self, path: &[u8], at: Moment, exact: bool, before: Option<Version>) -> Result<Option<Version>, Fault> {
        let above = self.node_at(path, at)?;
        self.goal = Goal::AsOf { at, above, exact };
        let now = self.records.node(above)?.filter(|now| now.kind() != Kind::Directory);
        let was_there = self.records.version_at(above, at)?.is_some_and(|then| then.is_live());
        if now.is_some() && !was_there && !exact {
            return Err(Fault::not_found("Path at that moment", escape(path)));
        }
        let changed = self.records.changed_since(at, before, LOOKED_AT_MAX)?;
        let full = changed.len() == LOOKED_AT_MAX;
        let mut last = None;
        for Revision { node: now, .. } in changed {
            last = Some(now.versions.last);
            let then = self.records.version_at(now.id, at)?;
            let was = then.as_ref().is_some_and(|then| then.is_live());
            let inside = match &then {
                Some(then) if was => self.records.was_below(then, above, at)?,
                _ => self.is_below(&now, above)?,
            };
            if inside {
                self.back_to(&now, then, exact)?;
            }
            if self.items.len() >= RESTORE_ITEMS_MAX {
                return Ok(last);
            }
        }
        Ok(last.filter(|_| full))
    }

    fn is_below(&self, now: &Node, above: NodeId) -> Result<bool, Fault> {
        self.records.was_below(now, above, Moment::Version(Version(i64::MAX as u64)))
    }

    fn of_server(
        &mut self,
        path: &[u8],
        server: &str,
        (from_ms, until_ms): (u64, u64),
        before: Option<Version>,
    ) -> Result<Option<Version>, Fault> {
        let servers = records::ever_called(self.connection, server)?;
        self.goal = Goal::Undone(servers.clone());
        let above = self.records.ever_at(path)?.first().copied().ok_or_else(|| Fault::not_found("Path", escape(path)))?;
        let changed = self.records.changed_since(Moment::Time(from_ms), before, LOOKED_AT_MAX)?;
        let full = changed.len() == LOOKED_AT_MAX;
        let mut last = None;
        for Revision { node: now, .. } in changed {
            last = Some(now.versions.last);
            if self.is_below(&now, above)? {
                self.undo(&now, &servers, from_ms..=until_ms)?;
            }
            if self.items.len() >= RESTORE_ITEMS_MAX {
                return Ok(last);
            }
        }
        Ok(last.filter(|_| full))
    }

    /// The changes of these servers to one node are undone if nobody else has changed the node after them.
    fn undo(&mut self, now: &Node, servers: &BTreeSet<ServerId>, span: std::ops::RangeInclusive<u64>) -> Result<(), Fault> {
        let versions = self.records.versions(now.id)?;
        let is_its = |revision: &Revision| servers.contains(&revision.node.author) && span.contains(&revision.at_ms);
        if !versions.iter().any(is_its) {
            return Ok(());
        }
        let then = versions.iter().skip_while(|revision| is_its(revision)).map(|revision| revision.node.clone()).next();
        if !versions.first().is_some_and(is_its) {
            // Unless it has come back already to what it was before.
            let earlier = versions.iter().skip_while(|revision| !is_its(revision)).find(|revision| !is_its(revision));
            let is_back = earlier.map_or(now.deleted, |revision| is_same(&revision.node, now));
            return if is_back { Ok(()) } else { self.add(now, Some(now), RestoreAction::Skip) };
        }
        // An older version that is not kept any more must not look as if the node had been made by this server.
        let is_whole =
            then.is_some() || versions.last().is_some_and(|oldest| oldest.node.versions.created == oldest.node.versions.last);
        match (then, is_whole) {
            (None, false) => self.add(now, Some(now), RestoreAction::Lost),
            (then, _) if now.deleted && then.as_ref().is_none_or(|then| then.deleted) => Ok(()),
            (then, _) => self.back_to(now, then, true),
        }
    }
}

fn is_same(a: &Node, b: &Node) -> bool {
    (a.deleted && b.deleted)
        || (a.deleted == b.deleted && a.place == b.place && a.metadata == b.metadata && a.content == b.content)
}

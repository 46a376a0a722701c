//! Requests about what was: versions, plans of restores, and restores.
//!
//! **Invariant:** a plan is one page read in one transaction; what is applied is written in one transaction and is
//! logged, and the agents hear of it as of any change.

use std::collections::{BTreeMap, BTreeSet};

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::Uri;
use isotherm_api::management::Group;
use isotherm_api::path::ShownPath;
use isotherm_api::revisions::{
    AsOf, RESTORE_ITEMS_MAX, RestoreAction, RestoreCopy, RestoreItem, RestoreOne, RestoreOutcome, RestorePlan, RestoreRequest,
    RestoreWhat, VersionEntry,
};
use isotherm_core::ids::{Epoch, GroupId, NodeId, OperationId, ServerId, Version};
use isotherm_core::name::{Name, escape};
use isotherm_core::namespace::{
    Answer, Batch, Change, Operation, Records as _, Restoration, Restored, Revisions as _, apply, restore,
};
use isotherm_core::node::{Kind, Node, Place};
use rusqlite::Connection;

use super::download::parts_of;
use super::moments::{check_span, check_time, check_version};
use super::{Answered, Shared, body};
use crate::clock::{now_ms, random};
use crate::fault::Fault;
use crate::records::{self, Moment, Revision, SqlRecords};

/// Nodes that a page looks at; fewer of them may be in it.
const LOOKED_AT_MAX: usize = 4_000;
/// What was deleted in this time before a directory was, and lay in it, went with it. Deleting a large tree takes a while.
const WITH_DIRECTORY_MS: u64 = 60 * 60 * 1000;
/// Most nodes that one undelete brings back.
const UNDELETE_MAX: usize = 200_000;

pub(super) async fn versions(State(state): Shared, uri: Uri) -> Answered {
    let (group, path) = parts_of(&uri)?;
    let read = move |connection: &Connection| {
        let records = SqlRecords::open(connection, records::group(connection, &group)?.id, 0)?;
        let mut found = Vec::new();
        for node in records.ever_at(&path)? {
            for revision in records.versions(node)? {
                found.push(entry(connection, revision)?);
            }
        }
        if found.is_empty() {
            return Err(Fault::not_found("Path", escape(&path)));
        }
        found.sort_by_key(|entry| std::cmp::Reverse(entry.version));
        Ok(found)
    };
    Ok(body::json(&state.database.read(read).await?))
}

fn entry(connection: &Connection, revision: Revision) -> Result<VersionEntry, Fault> {
    let Revision { node, at_ms, replaced_ms } = revision;
    let file = node.content.file();
    Ok(VersionEntry {
        node: node.id,
        version: node.versions.last,
        name: ShownPath::new(node.place.name.as_bytes()),
        kind: node.kind(),
        size: node.content.size(),
        modified_ns: file.map(|file| file.modified.0),
        manifest: file.map(|file| file.manifest),
        at_ms,
        replaced_ms,
        server: author(connection, node.author)?,
        deleted: node.deleted,
    })
}

/// Who made a version; none for the service itself.
fn author(connection: &Connection, author: ServerId) -> Result<Option<String>, Fault> {
    if author == ServerId::SERVICE {
        return Ok(None);
    }
    Ok(Some(records::server_name(connection, author)?.unwrap_or_else(|| author.to_string())))
}

fn moment(wanted: AsOf) -> Moment {
    match wanted {
        AsOf::Ms(ms) => Moment::Time(ms),
        AsOf::Version(version) => Moment::Version(version),
    }
}

fn bytes_of(path: &ShownPath) -> Result<Vec<u8>, Fault> {
    path.bytes().ok_or_else(|| Fault::invalid("Path cannot be decoded".to_owned()))
}

pub(super) async fn plan(State(state): Shared, Path(group): Path<String>, request: Body) -> Answered {
    let wanted: RestoreRequest = body::from_json(request).await?;
    let path = bytes_of(&wanted.path)?;
    let read = move |connection: &Connection| {
        let group = records::group(connection, &group)?;
        let records = SqlRecords::open(connection, group.id, 0)?;
        let mut page = Page { connection, records: &records, items: Vec::new(), paths: BTreeMap::new() };
        let next = match &wanted.what {
            RestoreWhat::Deleted => page.deleted(&path)?,
            RestoreWhat::AsOf { moment: at, exact } => {
                let at = moment(*at);
                page.check(&group, &path, at)?;
                page.as_of(&path, at, *exact, wanted.before)?
            }
            RestoreWhat::Server { server, from_ms, until_ms } => {
                check_span(&group, (*from_ms, *until_ms), now_ms())?;
                page.of_server(&path, server, (*from_ms, *until_ms), wanted.before)?
            }
        };
        Ok(RestorePlan { items: page.items, next })
    };
    Ok(body::json(&state.database.read(read).await?))
}

struct Page<'a, 'c> {
    connection: &'c Connection,
    records: &'a SqlRecords<'c>,
    items: Vec<RestoreItem>,
    paths: BTreeMap<NodeId, Vec<u8>>,
}

impl Page<'_, '_> {
    fn add(&mut self, now: &Node, target: Option<&Node>, action: RestoreAction) -> Result<(), Fault> {
        let path = ShownPath::new(&self.records.path_now(now, &mut self.paths)?);
        let name = target.map(|then| &then.place.name).filter(|name| **name != now.place.name);
        self.items.push(RestoreItem {
            node: now.id,
            expected: now.versions.last,
            target: target.map(|then| then.versions.last),
            action,
            path,
            name: name.map(|name| ShownPath::new(name.as_bytes())),
            size: target.map_or(0, |then| then.content.size()),
        });
        Ok(())
    }

    /// What makes a node what it was, unless it is that already.
    fn back_to(&mut self, now: &Node, then: Option<Node>, delete: bool) -> Result<(), Fault> {
        let then = then.filter(Node::is_live);
        match then {
            Some(then) if now.deleted => self.add(now, Some(&then), RestoreAction::Undelete),
            Some(then) if then.place != now.place || then.metadata != now.metadata || then.content != now.content => {
                self.add(now, Some(&then), RestoreAction::Revert)
            }
            None if delete && !now.deleted => self.add(now, None, RestoreAction::Delete),
            _ => Ok(()),
        }
    }

    /// The node that a path means at a moment: the one that had it then, else the one that has it.
    fn node_at(&self, path: &[u8], at: Moment) -> Result<NodeId, Fault> {
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

    /// Refuses a moment at which nothing can have been, and a version that is none of this path.
    fn check(&self, group: &Group, path: &[u8], at: Moment) -> Result<(), Fault> {
        let node = self.node_at(path, at)?;
        match at {
            Moment::Time(ms) => check_time(group, ms, now_ms())?,
            Moment::Version(version) => check_version(group, version)?,
        }
        let is_directory = self.records.node(node)?.is_none_or(|node| node.kind() == Kind::Directory);
        // What a directory held is asked for by any version of the share.
        let Moment::Version(version) = at else { return Ok(()) };
        if is_directory {
            return Ok(());
        }
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
        let servers = records::servers(self.connection)?;
        let server = servers.iter().find(|row| row.name == server).ok_or_else(|| Fault::not_found("Server", server))?.id;
        let above = self.records.ever_at(path)?.first().copied().ok_or_else(|| Fault::not_found("Path", escape(path)))?;
        let changed = self.records.changed_since(Moment::Time(from_ms), before, LOOKED_AT_MAX)?;
        let full = changed.len() == LOOKED_AT_MAX;
        let mut last = None;
        for Revision { node: now, .. } in changed {
            last = Some(now.versions.last);
            if self.is_below(&now, above)? {
                self.undo(&now, server, from_ms..=until_ms)?;
            }
            if self.items.len() >= RESTORE_ITEMS_MAX {
                return Ok(last);
            }
        }
        Ok(last.filter(|_| full))
    }

    /// The changes of one server to one node are undone if nobody else has changed the node after them.
    fn undo(&mut self, now: &Node, server: ServerId, span: std::ops::RangeInclusive<u64>) -> Result<(), Fault> {
        let versions = self.records.versions(now.id)?;
        let is_its = |revision: &Revision| revision.node.author == server && span.contains(&revision.at_ms);
        if !versions.iter().any(is_its) {
            return Ok(());
        }
        let then = versions.iter().skip_while(|revision| is_its(revision)).map(|revision| revision.node.clone()).next();
        if !versions.first().is_some_and(is_its) {
            // Unless it has come back already to what it was before.
            let earlier = versions.iter().skip_while(|revision| !is_its(revision)).find(|revision| !is_its(revision));
            let is_back = earlier.is_some_and(|revision| is_same(&revision.node, now));
            return if is_back { Ok(()) } else { self.add(now, Some(now), RestoreAction::Skip) };
        }
        // An older version that is not kept any more must not look as if the node had been made by this server.
        let is_whole =
            then.is_some() || versions.last().is_some_and(|oldest| oldest.node.versions.created == oldest.node.versions.last);
        match (then, is_whole) {
            (None, false) => self.add(now, Some(now), RestoreAction::Skip),
            (then, _) if now.deleted && then.as_ref().is_none_or(|then| then.deleted) => Ok(()),
            (then, _) => self.back_to(now, then, true),
        }
    }

    fn deleted(&mut self, path: &[u8]) -> Result<Option<Version>, Fault> {
        let shown = || escape(path).into_owned();
        let candidates = self.records.ever_at(path)?;
        let Some(first) = candidates.first().copied().filter(|node| *node != NodeId::ROOT) else {
            return Err(Fault::not_found("Path", shown()));
        };
        let top = self.records.versions(first)?.into_iter().next().ok_or_else(|| Fault::not_found("Path", shown()))?;
        if top.node.is_live() {
            let text = format!("Path {} is not deleted; a restore brings back what it was at a moment", shown());
            return Err(Fault::invalid(text));
        }
        let since = top.at_ms.saturating_sub(WITH_DIRECTORY_MS);
        let mut open = vec![top];
        let mut seen = BTreeSet::new();
        while let Some(Revision { node, .. }) = open.pop() {
            if !seen.insert(node.id) || seen.len() > UNDELETE_MAX {
                continue;
            }
            let before = Moment::Version(Version(node.versions.last.0.saturating_sub(1)));
            let then = self.records.version_at(node.id, before)?;
            self.back_to(&node, then, false)?;
            if node.kind() == Kind::Directory {
                open.extend(self.records.deleted_in(node.id)?.into_iter().filter(|inside| inside.at_ms >= since));
            }
        }
        Ok(None)
    }
}

fn is_same(a: &Node, b: &Node) -> bool {
    (a.deleted && b.deleted)
        || (a.deleted == b.deleted && a.place == b.place && a.metadata == b.metadata && a.content == b.content)
}

/// Restores the nodes of a plan, and answers for each in order.
pub(super) async fn apply_plan(State(state): Shared, Path(group): Path<String>, request: Body) -> Answered {
    let wanted: Vec<RestoreOne> = body::from_json(request).await?;
    if wanted.len() > RESTORE_ITEMS_MAX {
        return Err(Fault::invalid(format!("More than {RESTORE_ITEMS_MAX} items are asked for at once")));
    }
    let drawn: [u8; 16] = random()?;
    let id = state.database.read(move |connection| Ok(records::group(connection, &group)?.id)).await?;
    let fresh = state.lives.to_begin(id)?;
    let work = move |connection: &Connection| {
        let mut records = SqlRecords::open_for_change(connection, id, now_ms(), fresh)?;
        let mut draw = ids(drawn);
        let mut outcomes = Vec::with_capacity(wanted.len());
        for RestoreOne { node, expected, target } in wanted {
            outcomes.push(outcome(restore(&mut records, Restoration { node, expected, target }, &mut draw)?));
        }
        records.flush()?;
        let done = outcomes.iter().filter(|one| matches!(one, RestoreOutcome::Done | RestoreOutcome::Beside { .. })).count();
        let name = records::group_by_id(connection, id)?.name;
        records::audit(connection, now_ms(), "share.restore", &name, &format!("{done} of {}", outcomes.len()))?;
        Ok(outcomes)
    };
    let woken = std::sync::Arc::clone(&state);
    let after = move |_: &Vec<RestoreOutcome>| {
        woken.lives.begun(id);
        woken.live.share_changed(id);
    };
    let outcomes = state.database.write(work, after).await?;
    Ok(body::json(&outcomes))
}

/// Ids that follow each other: drawn once, because a retry of the transaction must not draw again.
fn ids(drawn: [u8; 16]) -> impl FnMut() -> [u8; 16] {
    let mut next = u128::from_be_bytes(drawn);
    move || {
        next = next.wrapping_add(1);
        next.to_be_bytes()
    }
}

fn outcome(restored: Restored) -> RestoreOutcome {
    match restored {
        Restored::Done(_) => RestoreOutcome::Done,
        Restored::Beside(_, place) => RestoreOutcome::Beside { name: ShownPath::new(place.name.as_bytes()) },
        Restored::Changed => RestoreOutcome::Changed,
        Restored::Gone => RestoreOutcome::Gone,
        Restored::Later => RestoreOutcome::Later,
        Restored::Refused(refusal) => RestoreOutcome::Refused { reason: refusal.to_string() },
    }
}

/// Makes a new file of an earlier version.
pub(super) async fn copy(State(state): Shared, Path(group): Path<String>, request: Body) -> Answered {
    let wanted: RestoreCopy = body::from_json(request).await?;
    let (from, to) = (bytes_of(&wanted.path)?, bytes_of(&wanted.to)?);
    let (node, operation): ([u8; 16], [u8; 16]) = (random()?, random()?);
    let id: GroupId = state.database.read(move |connection| Ok(records::group(connection, &group)?.id)).await?;
    let fresh = state.lives.to_begin(id)?;
    let work = move |connection: &Connection| {
        let mut records = SqlRecords::open_for_change(connection, id, now_ms(), fresh)?;
        let page = Page { connection, records: &records, items: Vec::new(), paths: BTreeMap::new() };
        let at = moment(wanted.moment);
        page.check(&records::group_by_id(connection, id)?, &from, at)?;
        let then = records.version_at(page.node_at(&from, at)?, at)?.filter(Node::is_live);
        let then = then.ok_or_else(|| Fault::not_found("Path at that moment", escape(&from)))?;
        if then.kind() == Kind::Directory {
            return Err(Fault::invalid(format!("Path {} is a directory; only a file can be copied", escape(&from))));
        }
        let (above, name) = match to.iter().rposition(|&byte| byte == b'/') {
            Some(at) => (&to[..at], &to[at + 1..]),
            None => (&to[..0], &to[..]),
        };
        let parent = match records::find(&records, above)? {
            records::Found::Root => NodeId::ROOT,
            records::Found::Node(node) => node.id,
        };
        let name = Name::new(name).map_err(|error| Fault::invalid(format!("Name of the copy: {error}")))?;
        let mut content = then.content;
        if let isotherm_core::node::Content::File(file) = &mut content {
            file.link = None;
        }
        let change = Change::Create {
            node: NodeId(node),
            place: Place { parent, name },
            metadata: then.metadata,
            content,
            revives: None,
            conflict_of: None,
        };
        let operations = vec![Operation { id: OperationId(operation), group: None, change }];
        let incarnation = records.share()?.incarnation;
        let batch = Batch { server: ServerId::SERVICE, epoch: Epoch(0), incarnation, operations };
        let answer = apply(&mut records, &batch)?.into_iter().next();
        records.flush()?;
        match answer {
            Some(Answer::Applied(version)) => Ok(version),
            Some(Answer::Conflict(_)) => {
                Err(Fault::new(isotherm_api::Code::Exists, format!("Path {} exists already", escape(&to))))
            }
            Some(Answer::Refused(refusal)) => Err(Fault::invalid(refusal.to_string())),
            _ => Err(Fault::not_found("Content of that version of", escape(&from))),
        }
    };
    let woken = std::sync::Arc::clone(&state);
    let after = move |_: &Version| {
        woken.lives.begun(id);
        woken.live.share_changed(id);
    };
    let version = state.database.write(work, after).await?;
    Ok(body::json(&version))
}

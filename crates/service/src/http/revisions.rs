//! Requests about what was: versions and restores. Which nodes a restore is about is planned in `plans`.
//!
//! **Invariant:** what is applied is written in one transaction and is logged, and the agents hear of it as of any change.

use std::collections::BTreeMap;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::Uri;
use isotherm_api::path::ShownPath;
use isotherm_api::revisions::{AsOf, RESTORE_ITEMS_MAX, RestoreCopy, RestoreOne, RestoreOutcome, VersionEntry};
use isotherm_core::ids::{Epoch, GroupId, NodeId, OperationId, ServerId, Version};
use isotherm_core::name::{Name, escape};
use isotherm_core::namespace::{
    Answer, Batch, Change, Operation, Records as _, Restoration, Restored, Revisions as _, apply, restore,
};
use isotherm_core::node::{Kind, Node, Place};
use rusqlite::Connection;

use super::download::parts_of;
use super::plans::Page;
use super::{Answered, Shared, body};
use crate::clock::{now_ms, random};
use crate::fault::Fault;
use crate::records::{self, Moment, Revision, SqlRecords};

pub(super) async fn versions(State(state): Shared, uri: Uri) -> Answered {
    let (group, path) = parts_of(&uri)?;
    let read = move |connection: &Connection| {
        let records = SqlRecords::open(connection, records::group(connection, &group)?.id, 0)?;
        let mut found = Vec::new();
        for node in records.ever_at(&path)? {
            for revision in records.versions(node)? {
                found.push(entry(connection, &records, revision)?);
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

fn entry(connection: &Connection, records: &SqlRecords<'_>, revision: Revision) -> Result<VersionEntry, Fault> {
    let Revision { node, at_ms, replaced_ms } = revision;
    let file = node.content.file();
    Ok(VersionEntry {
        node: node.id,
        version: node.versions.last,
        path: ShownPath::new(&records.path_then(&node)?),
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

pub(super) fn moment(wanted: AsOf) -> Moment {
    match wanted {
        AsOf::Ms(ms) => Moment::Time(ms),
        AsOf::Version(version) => Moment::Version(version),
    }
}

pub(super) fn bytes_of(path: &ShownPath) -> Result<Vec<u8>, Fault> {
    path.bytes().ok_or_else(|| Fault::invalid("Path cannot be decoded".to_owned()))
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
            let meant = path_meant(&records, node, target)?;
            let restored = restore(&mut records, Restoration { node, expected, target }, &mut draw)?;
            outcomes.push(outcome(&records, node, meant, restored)?);
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

/// The path that a restore is asked to give back; none where it deletes, or that version is not kept.
fn path_meant(records: &SqlRecords<'_>, node: NodeId, target: Option<Version>) -> Result<Option<Vec<u8>>, Fault> {
    let then = target.map(|version| records.revision(node, version)).transpose()?.flatten();
    then.filter(Node::is_live).map(|then| records.path_now(&then, &mut BTreeMap::new())).transpose()
}

/// What came of it: where something is not at the path that was meant, by its own name or by that of a directory above.
fn outcome(records: &SqlRecords<'_>, node: NodeId, meant: Option<Vec<u8>>, restored: Restored) -> Result<RestoreOutcome, Fault> {
    Ok(match restored {
        Restored::Done(_) | Restored::Beside(..) => {
            let now = records.node(node)?.filter(Node::is_live);
            let path = now.as_ref().map(|now| records.path_now(now, &mut BTreeMap::new())).transpose()?;
            match (now, path, meant) {
                (Some(now), Some(path), Some(meant)) if path != meant => {
                    RestoreOutcome::Beside { name: ShownPath::new(now.place.name.as_bytes()), at: ShownPath::new(&path) }
                }
                _ => RestoreOutcome::Done,
            }
        }
        Restored::Changed => RestoreOutcome::Changed,
        Restored::Gone => RestoreOutcome::Gone,
        Restored::Later => RestoreOutcome::Later,
        Restored::Refused(refusal) => RestoreOutcome::Refused { reason: refusal.to_string() },
    })
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
        let page = Page::new(connection, &records);
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

//! Requests of agents about a share: commit, feed, snapshot, chunks, manifests, history, wanted contents.
//!
//! Everything is judged by core and kept by `records` and `content`.
//!
//! **Invariant:** readers of the feed are woken after a commit is durable, and for each one.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, State};
use isotherm_api::Code;
use isotherm_api::limits::{FEED_MAX, IDS_MAX, OPERATIONS_MAX, PACK_BODY_MAX, WANTED_MAX};
use isotherm_api::share::{
    FeedRequest, HaveAnswer, HaveRequest, HistoryAnswer, HistoryRequest, IdsRequest, ManifestsPut, Wanted, WantedRequest,
};
use isotherm_core::content::{ChunkId, ManifestId};
use isotherm_core::ids::{GroupId, Incarnation};
use isotherm_core::namespace::{Answer, Batch, Reader, Records as _, apply, page};
use rusqlite::Connection;

use super::{Answered, Shared, body, stream};
use crate::clock::{now_ms, random};
use crate::fault::Fault;
use crate::live::Live;
use crate::records::{self, SqlRecords};

fn group_id(text: &str) -> Result<GroupId, Fault> {
    text.parse().map_err(|error| Fault::invalid(format!("Share: {error}")))
}

fn at_most(what: &str, count: usize, max: usize) -> Result<(), Fault> {
    if count <= max {
        return Ok(());
    }
    Err(Fault::new(Code::TooLarge, format!("{count} {what} in one request, at most {max} are allowed")))
}

/// The share is looked up first, so that content never comes to a service for nothing.
async fn known_share(state: &Shared, group: &str) -> Result<GroupId, Fault> {
    let group = group_id(group)?;
    state.database.read(move |connection| SqlRecords::open(connection, group, 0).map(drop)).await?;
    Ok(group)
}

pub(super) async fn commit(State(state): Shared, Path(group): Path<String>, request: Body) -> Answered {
    let group = group_id(&group)?;
    let batch: Batch = body::binary(request).await?;
    at_most("operations", batch.operations.len(), OPERATIONS_MAX)?;
    let woken = Arc::clone(&state);
    let server = batch.server;
    let fresh = state.lives.to_begin(group)?;
    let judge = move |connection: &Connection| judge(connection, group, &batch, fresh);
    let answers = state.database.write(judge, move |(_, changed)| {
        woken.lives.begun(group);
        if *changed {
            woken.live.share_changed(group);
        }
    });
    let (answers, _) = answers.await?;
    state.live.heard_of(server);
    Ok(body::bytes(&answers))
}

/// The answers, and whether the share has changed. `fresh`: the life that this run begins before its first change.
fn judge(
    connection: &Connection,
    group: GroupId,
    batch: &Batch,
    fresh: Option<Incarnation>,
) -> Result<(Vec<Answer>, bool), Fault> {
    // An unknown server has epoch 0 for the rules, and so might the batch.
    if SqlRecords::open(connection, group, 0)?.epoch(batch.server)?.0 == 0 {
        return Err(Fault::not_found("Server", batch.server));
    }
    let mut share = SqlRecords::open_for_change(connection, group, now_ms(), fresh)?;
    let head = share.share()?.head;
    records::learn_epoch(connection, batch.server, batch.epoch)?;
    let answers = apply(&mut share, batch)?;
    share.flush()?;
    let changed = share.share()?.head != head || fresh.is_some();
    Ok((answers, changed))
}

pub(super) async fn feed(State(state): Shared, Path(group): Path<String>, request: Body) -> Answered {
    let group = known_share(&State(Arc::clone(&state)), &group).await?;
    let request: FeedRequest = body::binary(request).await?;
    let limit = (request.limit as usize).clamp(1, FEED_MAX);
    let mut changes = state.live.share_changes(group);
    let deadline = Live::deadline(request.wait_ms);
    loop {
        let read = move |connection: &Connection| page(&SqlRecords::open(connection, group, 0)?, request.reader, limit);
        let page = state.database.read(read).await?;
        if page.start_over {
            begin_anew_if_set_back(&state, group, request.reader).await?;
        }
        let is_news = page.start_over || !page.nodes.is_empty() || page.cursor != request.reader.cursor;
        if is_news || !state.live.wait(&mut changes, deadline).await {
            return Ok(body::bytes(&page));
        }
    }
}

/// An agent that starts over in the same life takes what is missing for deleted. Where it is missing because the records
/// were set back, that would delete what they forgot: then another life begins before the agent is answered.
async fn begin_anew_if_set_back(state: &Arc<crate::State>, group: GroupId, reader: Reader) -> Result<(), Fault> {
    let fresh = (Incarnation(u64::from_be_bytes(random()?)), state.lives.has_begun(group));
    let begin = move |connection: &Connection| records::begin_life_if_behind(connection, group, reader, fresh, now_ms());
    let own = Arc::clone(state);
    let after = move |has_begun: &bool| {
        if *has_begun {
            own.lives.begun(group);
            own.live.share_changed(group);
            own.live.assignments_changed();
        }
    };
    if state.database.write(begin, after).await? {
        tracing::warn!(%group, "An agent knows more than the share, which was set back; all its endpoints start over");
    }
    Ok(())
}

pub(super) async fn snapshot(State(state): Shared, Path(group): Path<String>) -> Answered {
    let group = known_share(&State(Arc::clone(&state)), &group).await?;
    let connection = state.database.long_reader()?;
    Ok(stream::snapshot(connection, group, state.live.stopped()))
}

pub(super) async fn have(State(state): Shared, Path(group): Path<String>, request: Body) -> Answered {
    group_id(&group)?;
    let request: HaveRequest = body::binary(request).await?;
    at_most("ids", request.chunks.len(), IDS_MAX)?;
    let present = state.content.have(request.chunks).await?;
    Ok(body::bytes(&HaveAnswer::from_iter(present)))
}

pub(super) async fn put_pack(State(state): Shared, Path(group): Path<String>, request: Body) -> Answered {
    known_share(&State(Arc::clone(&state)), &group).await?;
    let _room = state.content.room().await?;
    let pack = body::whole(request, PACK_BODY_MAX).await?;
    Ok(body::bytes(&state.content.put_pack(pack).await?))
}

pub(super) async fn put_manifests(State(state): Shared, Path(group): Path<String>, request: Body) -> Answered {
    known_share(&State(Arc::clone(&state)), &group).await?;
    let request: ManifestsPut = body::binary(request).await?;
    Ok(body::bytes(&state.content.put_manifests(request.manifests).await?))
}

pub(super) async fn get_manifests(State(state): Shared, Path(group): Path<String>, request: Body) -> Answered {
    group_id(&group)?;
    let request: IdsRequest = body::binary(request).await?;
    at_most("ids", request.ids.len(), IDS_MAX)?;
    let source = Arc::clone(&state);
    Ok(stream::objects(request.ids, move |id| {
        let state = Arc::clone(&source);
        async move { Ok(state.content.manifest_bytes(ManifestId::from_bytes(id)).await?.map(Into::into)) }
    }))
}

pub(super) async fn get_chunks(State(state): Shared, Path(group): Path<String>, request: Body) -> Answered {
    group_id(&group)?;
    let request: IdsRequest = body::binary(request).await?;
    at_most("ids", request.ids.len(), IDS_MAX)?;
    let source = Arc::clone(&state);
    Ok(stream::objects(request.ids, move |id| {
        let state = Arc::clone(&source);
        async move { state.content.chunk(ChunkId::from_bytes(id)).await }
    }))
}

pub(super) async fn history(State(state): Shared, Path(group): Path<String>, request: Body) -> Answered {
    let group = group_id(&group)?;
    let request: HistoryRequest = body::binary(request).await?;
    at_most("nodes", request.nodes.len(), IDS_MAX)?;
    let read = move |connection: &Connection| {
        let share = records::SqlRecords::open(connection, group, 0)?;
        let limit = request.limit as usize;
        request.nodes.iter().map(|node| share.history(*node, limit)).collect::<Result<Vec<_>, _>>()
    };
    let manifests = state.database.read(read).await?;
    Ok(body::bytes(&HistoryAnswer { manifests }))
}

pub(super) async fn wanted(State(state): Shared, Path(group): Path<String>, request: Body) -> Answered {
    let group = known_share(&State(Arc::clone(&state)), &group).await?;
    let request: WantedRequest = body::binary(request).await?;
    let mut changes = state.live.wanted_changes();
    let deadline = Live::deadline(request.wait_ms);
    loop {
        let found = state.database.read(move |connection| read_wanted(connection, group, &request)).await?;
        if !found.contents.is_empty() || !state.live.wait(&mut changes, deadline).await {
            return Ok(body::bytes(&found));
        }
    }
}

fn read_wanted(connection: &Connection, group: GroupId, request: &WantedRequest) -> Result<Wanted, Fault> {
    records::check_epoch(connection, request.server, request.epoch)?;
    let endpoints = records::endpoints_of(connection, request.server)?;
    let is_asked = |row: &records::EndpointRow| row.group == group && !row.endpoint.paused && !row.endpoint.deleting;
    if !endpoints.iter().any(is_asked) {
        return Ok(Wanted::default());
    }
    let limit = (request.limit as usize).clamp(1, WANTED_MAX);
    let page = records::wanted(connection, group, request.server, request.after, limit)?;
    Ok(if page.round > request.seen { page } else { Wanted { round: page.round, ..Wanted::default() } })
}

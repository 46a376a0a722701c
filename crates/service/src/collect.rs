//! Garbage collection: lets old versions go, and then what nothing names any more.
//!
//! One run: let go what is old, mark what is named, measure what each group takes, condemn the rest, delete packs that
//! hold nothing else for long enough, and rewrite packs that are mostly dead or small. It decides nothing about single
//! chunks beyond the records' rules.
//!
//! **Invariants:** a run that is cut off anywhere has lost nothing, and the next one goes on; an object is deleted after
//! its rows, and while no pack is being stored.

mod status;
pub(crate) mod waiting;

use std::sync::Arc;
use std::time::Duration;

use isotherm_api::Code;
use isotherm_api::collect::{CollectRequest, Collected};
use isotherm_core::content::ChunkId;
use isotherm_core::content::pack::{PACK_TARGET, records_len_min};

use crate::State;
use crate::clock::now_ms;
use crate::fault::Fault;
use crate::records::{self, Ages, Mark, PackRow, PackUse};
use crate::rewrite;

pub(crate) use status::Collections;

/// Revisions that one transaction lets go, and chunks that one looks at: writers wait no longer than for this.
const PIECE: usize = 2_000;
/// Packs whose objects one step deletes.
const PACKS_PIECE: usize = 64;
/// A pack of which less than this part is named is rewritten: a half costs as much as it frees.
const LIVE_PART: f64 = 0.5;
/// Packs below this are small, in bytes.
const SMALL: u64 = PACK_TARGET as u64 / 8;
/// So many small packs are worth being made one.
const SMALL_MIN: usize = 16;

/// After the start of a service, until its agents have found it again.
const FIRST_AFTER: Duration = Duration::from_secs(10 * 60);
/// Between two runs. Content lives for days, so hours do not matter.
const EVERY: Duration = Duration::from_secs(6 * 60 * 60);

/// Collects now and then, until the service stops.
pub(crate) async fn run_regularly(state: Arc<State>) {
    let mut pause = FIRST_AFTER;
    loop {
        tokio::select! {
            () = state.live.stopped() => return,
            () = tokio::time::sleep(pause) => {}
        }
        pause = EVERY;
        match run(&state, state.ages).await {
            // Whoever is waited for may come at any moment.
            Err(fault) if fault.code == Code::InUse => {
                pause = FIRST_AFTER;
                tracing::warn!(%fault, "No garbage is collected");
            }
            Err(fault) => tracing::error!(%fault, "Garbage cannot be collected"),
            Ok(_) => {}
        }
    }
}

/// Starts a run in the background, as an administrator asks for it.
pub(crate) async fn start(state: &Arc<State>, wanted: CollectRequest) -> Result<(), Fault> {
    let alone = state.content.collecting()?;
    waiting::check(state, wanted.waive).await?;
    state.collections.begin();
    let state = Arc::clone(state);
    tokio::spawn(async move {
        if let Err(fault) = to_the_end(&state, state.ages).await {
            tracing::error!(%fault, "Garbage cannot be collected");
        }
        drop(alone);
    });
    Ok(())
}

/// One run.
pub(crate) async fn run(state: &Arc<State>, ages: Ages) -> Result<Collected, Fault> {
    let _alone = state.content.collecting()?;
    waiting::check(state, false).await?;
    state.collections.begin();
    to_the_end(state, ages).await
}

/// To the end of a run, or until the service stops.
async fn to_the_end(state: &Arc<State>, ages: Ages) -> Result<Collected, Fault> {
    let outcome = tokio::select! {
        // What is cut off goes on in the next run.
        () = state.live.stopped() => Err(Fault::stopping()),
        outcome = collect(state, ages) => outcome,
    };
    state.collections.end(&outcome);
    outcome
}

async fn collect(state: &Arc<State>, ages: Ages) -> Result<Collected, Fault> {
    let aged = crate::aging::age(state, ages).await?;
    let mut done = Collected {
        expired_versions: aged.versions,
        forgotten_nodes: aged.nodes,
        forgotten_answers: aged.answers,
        ..Collected::default()
    };
    let marked_ms = now_ms();
    let connection = state.database.long_reader()?;
    let (mark, space) = tokio::task::spawn_blocking(move || -> Result<(Mark, _), Fault> {
        let transaction = connection.unchecked_transaction()?;
        let mark = records::mark(&transaction, marked_ms, ages)?;
        Ok((mark, records::space::measure(&transaction, marked_ms)?))
    })
    .await??;
    state.database.write(move |connection| records::space::keep(connection, &space), |()| {}).await?;
    let mark = Arc::new(mark);
    done.condemned_chunks = condemn(state, &mark, marked_ms, ages).await?;
    let forget = Arc::clone(&mark);
    let forgotten = state
        .database
        .write(
            move |connection| {
                records::refuse_while_waiting(connection)?;
                records::forget_manifests(connection, &forget, marked_ms, ages)
            },
            |_| {},
        )
        .await?;
    done.forgotten_contents = forgotten as u64;
    drop(mark);
    done.rewritten_packs = rewrite_sparse(state).await?;
    (done.deleted_packs, done.deleted_bytes) = delete(state, ages).await?;
    tracing::info!(?done, "Garbage was collected");
    Ok(done)
}

async fn condemn(state: &State, mark: &Arc<Mark>, marked_ms: u64, ages: Ages) -> Result<u64, Fault> {
    let mut condemned = 0;
    let mut after: Option<ChunkId> = None;
    loop {
        let looked = Arc::clone(mark);
        let page = move |connection: &rusqlite::Connection| records::unnamed_chunks(connection, &looked, after, PIECE);
        let (unnamed, next) = state.database.read(page).await?;
        if !unnamed.is_empty() {
            let condemn = move |connection: &rusqlite::Connection| {
                records::refuse_while_waiting(connection)?;
                records::condemn(connection, &unnamed, marked_ms, now_ms(), ages)
            };
            condemned += state.database.write(condemn, |_| {}).await? as u64;
        }
        after = next;
        if after.is_none() {
            return Ok(condemned);
        }
    }
}

async fn delete(state: &Arc<State>, ages: Ages) -> Result<(u64, u64), Fault> {
    let (mut packs, mut bytes) = (0, 0);
    loop {
        // On its own, so that it ends also where the run is cut off: what it has begun to delete must not be stored meanwhile.
        let gone = tokio::spawn(delete_piece(Arc::clone(state), ages)).await??;
        packs += gone.len() as u64;
        bytes += gone.iter().map(|pack| pack.len).sum::<u64>();
        if gone.len() < PACKS_PIECE {
            return Ok((packs, bytes));
        }
    }
}

async fn delete_piece(state: Arc<State>, ages: Ages) -> Result<Vec<PackRow>, Fault> {
    // Until its objects are gone, the same pack must not be stored again.
    let _nobody_stores = state.content.no_stores().await;
    let forget = move |connection: &rusqlite::Connection| {
        records::refuse_while_waiting(connection)?;
        records::forget_packs(connection, now_ms(), ages, PACKS_PIECE)
    };
    let gone: Vec<PackRow> = state.database.write(forget, |_| {}).await?;
    let ids: Vec<_> = gone.iter().map(|pack| pack.id).collect();
    state.content.packs().delete_packs(&ids).await?;
    Ok(gone)
}

/// Puts what is left of mostly dead packs, and many small ones, into new ones.
async fn rewrite_sparse(state: &State) -> Result<u64, Fault> {
    let uses = state.database.read(records::pack_uses).await?;
    let mut rewritten = 0;
    for group in groups_to_rewrite(uses) {
        rewritten += rewrite::rewrite(state, group).await?;
    }
    Ok(rewritten)
}

/// Packs whose live chunks together make about one pack.
fn groups_to_rewrite(uses: Vec<PackUse>) -> Vec<Vec<i64>> {
    // Live bytes are records, so they are compared with records: in a tiny pack most bytes are its index.
    let is_dead = |pack: &PackUse| (pack.live as f64) < LIVE_PART * records_len_min(pack.len, pack.chunks) as f64;
    let (dead, others): (Vec<PackUse>, Vec<PackUse>) = uses.into_iter().partition(is_dead);
    let small: Vec<PackUse> = others.into_iter().filter(|pack| pack.len < SMALL).collect();
    let small = if small.len() < SMALL_MIN { Vec::new() } else { small };
    let mut groups: Vec<Vec<i64>> = Vec::new();
    let mut filled = u64::MAX;
    for pack in dead.into_iter().chain(small) {
        if filled.saturating_add(pack.live) > PACK_TARGET as u64 {
            groups.push(Vec::new());
            filled = 0;
        }
        filled += pack.live;
        groups.last_mut().expect("a group was begun").push(pack.num);
    }
    groups
}

//! Checks that everything the records name is there and, if asked, that every stored byte is what it was.
//!
//! One check at a time, beside the service's other work. A chunk that is found damaged is set aside: it counts as absent
//! from then on, so that an upload of the same bytes puts it back. Agents learn of live files that lack something, and send
//! what they have of them again.
//!
//! What can still be read of a damaged pack is put into a new one, so that nothing depends on the damaged one any longer.
//!
//! **Invariant:** a check deletes nothing but strays, and these only if it was asked to. One that is cut off has at most set
//! aside what it had found; the next one finds it again.

mod status;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures_util::StreamExt as _;
use isotherm_api::Code;
use isotherm_api::check::{CheckPhase, CheckRequest, CheckStatus, FINDINGS_MAX};
use isotherm_core::content::{ChunkId, ManifestId, PackId};
use rusqlite::Connection;

use crate::State;
use crate::clock::now_ms;
use crate::fault::Fault;
use crate::records::{self, Ages, NodeKey};
use crate::{rewrite, strays};

pub(crate) use status::Checks;

/// Nodes that one look goes through, and so the most that one transaction writes: writers wait no longer than for this.
const NODES_PIECE: usize = 2_000;
/// Chunks that were set aside and are looked at together.
const CHUNKS_PIECE: usize = 1_000;

/// Starts a check in the background.
pub(crate) fn start(state: &Arc<State>, wanted: CheckRequest) -> Result<(), Fault> {
    state.checks.begin(wanted.deep)?;
    let state = Arc::clone(state);
    tokio::spawn(async move {
        let outcome = tokio::select! {
            outcome = check(&state, wanted, Ages::default()) => outcome,
            () = state.live.stopped() => Err(Fault::stopping()),
        };
        end(&state, outcome.err().map(|fault| fault.message));
    });
    Ok(())
}

/// Checks to the end.
pub(crate) async fn run(state: &Arc<State>, wanted: CheckRequest, ages: Ages) -> Result<CheckStatus, Fault> {
    state.checks.begin(wanted.deep)?;
    let outcome = check(state, wanted, ages).await;
    end(state, outcome.as_ref().err().map(|fault| fault.message.clone()));
    outcome?;
    state.checks.status().ok_or_else(Fault::stopping)
}

fn end(state: &State, failed: Option<String>) {
    state.checks.change(|status| {
        status.phase = CheckPhase::Done;
        status.failed = failed;
    });
}

async fn long<T: Send + 'static>(
    state: &State,
    work: impl FnOnce(&Connection) -> Result<T, Fault> + Send + 'static,
) -> Result<T, Fault> {
    let connection = state.database.long_reader()?;
    tokio::task::spawn_blocking(move || {
        let transaction = connection.unchecked_transaction()?;
        work(&transaction)
    })
    .await?
}

/// What a check has found in the store.
#[derive(Debug, Default)]
struct Damage {
    /// Chunks that cannot be read.
    lost: BTreeSet<ChunkId>,
    /// Packs that are there and not whole.
    packs: Vec<PackId>,
}

fn counted(chunks: usize) -> String {
    if chunks == 1 { "1 chunk".to_owned() } else { format!("{chunks} chunks") }
}

fn verb(count: usize) -> &'static str {
    if count == 1 { "is" } else { "are" }
}

async fn check(state: &Arc<State>, wanted: CheckRequest, ages: Ages) -> Result<(), Fault> {
    let (checks, started_ms) = (&state.checks, now_ms());
    take_back(state).await?;
    let names = long(state, records::check_names).await?;
    checks.change(|status| {
        (status.nodes, status.contents, status.chunks) = (names.nodes, names.contents, names.chunks);
        status.phase = CheckPhase::Packs;
    });
    names.findings.into_iter().for_each(|finding| checks.find(finding));
    for (pack, chunks) in &names.missing {
        checks.find(format!(
            "Pack {pack}: {} of it {} missing since an earlier check",
            counted(chunks.len()),
            verb(chunks.len())
        ));
    }
    let mut damage = Damage::default();
    let packs = check_packs(state, &mut damage, started_ms).await?;
    if wanted.delete_strays {
        // They may be the last copy of what was stored since the backup that was put back.
        state.database.read(records::refuse_while_waiting).await?;
        let deleted = strays::delete(state, started_ms.saturating_sub(ages.grace_ms)).await?;
        checks.change(|status| {
            (status.deleted_strays, status.deleted_bytes) = (deleted.packs, deleted.bytes);
            status.stray_packs = status.stray_packs.saturating_sub(deleted.packs);
            status.stray_bytes = status.stray_bytes.saturating_sub(deleted.bytes);
        });
    }
    if wanted.deep {
        checks.change(|status| status.phase = CheckPhase::Bytes);
        check_bytes(state, packs, &mut damage).await?;
    }
    checks.change(|status| status.phase = CheckPhase::Files);
    let Damage { lost, packs } = damage;
    if !lost.is_empty() || !names.broken.is_empty() {
        let aside = lost.clone();
        state.database.write(move |connection| records::set_aside(connection, &aside), |()| {}).await?;
    }
    for pack in packs {
        let rewritten = rewrite_rest(state, pack).await?;
        checks.change(|status| status.rewritten_packs += rewritten);
    }
    let mut damaged = long(state, move |connection| records::contents_with(connection, &lost)).await?;
    damaged.extend(names.broken);
    let damaged = Arc::new(damaged);
    let hurt = Arc::clone(&damaged);
    let (files, count) = long(state, move |connection| records::hurt_files(connection, &hurt, FINDINGS_MAX)).await?;
    checks.change(|status| (status.hurt, status.hurt_count) = (files, count));
    let repaired = ask_for(state, damaged).await?;
    checks.change(|status| status.repaired = repaired);
    Ok(())
}

/// What was set aside and can be read again after all is taken back: the fault has passed, or somebody has put a pack back.
async fn take_back(state: &State) -> Result<(), Fault> {
    let mut after = None;
    loop {
        let page = state.database.read(move |connection| records::chunks_aside(connection, after, CHUNKS_PIECE)).await?;
        let mut readable = Vec::new();
        for chunk in &page {
            if state.content.chunk(*chunk).await.is_ok_and(|found| found.is_some()) {
                readable.push(*chunk);
            }
        }
        if !readable.is_empty() {
            tracing::info!(chunks = readable.len(), "Chunks that were set aside can be read again");
            state.database.write(move |connection| records::take_back(connection, &readable), |()| {}).await?;
        }
        after = page.last().copied();
        if page.len() < CHUNKS_PIECE {
            return Ok(());
        }
    }
}

/// Lets agents know which live files hold damaged contents; gives how many of an earlier check's are whole again.
async fn ask_for(state: &Arc<State>, damaged: Arc<BTreeSet<ManifestId>>) -> Result<u64, Fault> {
    let round = state.database.read(|connection| records::next_round(connection, now_ms())).await?;
    let mut after: Option<NodeKey> = None;
    while !damaged.is_empty() {
        let contents = Arc::clone(&damaged);
        let page = move |connection: &Connection| records::damaged_nodes(connection, &contents, after, NODES_PIECE);
        let (found, next) = state.database.read(page).await?;
        if !found.is_empty() {
            let keep = move |connection: &Connection| records::keep_damage(connection, &found, round);
            state.database.write(keep, |()| {}).await?;
        }
        after = next;
        if after.is_none() {
            break;
        }
    }
    let woken = Arc::clone(state);
    let end = move |connection: &Connection| records::end_round(connection, round);
    state.database.write(end, move |_| woken.live.damage_found()).await
}

/// Compares the stored packs with the known ones, and remembers the strays; gives those that are wanted and there.
async fn check_packs(state: &State, damage: &mut Damage, now_ms: u64) -> Result<Vec<(PackId, u64)>, Fault> {
    // Listed before the records are read: what is stored in between is then known and not listed, and is asked for alone.
    let listed = list_packs(state).await?;
    let known = long(state, records::known_packs).await?;
    let strays: Vec<(PackId, u64)> =
        listed.iter().filter(|(pack, _)| !known.contains_key(pack)).map(|(pack, len)| (*pack, *len)).collect();
    state.checks.change(|status| {
        status.packs = known.len() as u64;
        status.stray_packs = strays.len() as u64;
        status.stray_bytes = strays.iter().map(|(_, len)| len).sum();
        status.all_bytes = known.values().filter(|(_, wanted)| *wanted).map(|(len, _)| len).sum();
    });
    strays::remember(state, strays, now_ms).await?;
    let mut present = Vec::new();
    for (pack, (len, wanted)) in known {
        if !wanted {
            continue;
        }
        let found = match listed.get(&pack) {
            Some(found) => Ok(Some(*found)),
            None => state.content.packs().len(pack).await,
        };
        match found {
            Ok(Some(found)) if found == len => present.push((pack, len)),
            Err(error) if error.is_retryable() => return Err(error.into()),
            Err(error) => look_into(state, pack, &error.to_string(), damage).await?,
            Ok(None) => {
                state.checks.find(format!("Pack {pack} is lost: the records know it and the store does not have it"));
                damage.lost.extend(long(state, move |connection| records::chunks_in(connection, pack)).await?);
            }
            Ok(Some(found)) => look_into(state, pack, &format!("it has {found} bytes, and should have {len}"), damage).await?,
        }
    }
    Ok(present)
}

/// The stored packs. A folder that cannot be read is a finding, and its packs are looked for one by one.
async fn list_packs(state: &State) -> Result<BTreeMap<PackId, u64>, Fault> {
    let (mut listed, mut listing) = (BTreeMap::new(), state.content.packs().list_packs());
    while let Some(row) = listing.next().await {
        match row {
            Ok((pack, len)) => {
                listed.insert(pack, len);
            }
            Err(error) if error.is_retryable() => return Err(error.into()),
            Err(error) => state.checks.find(error.to_string()),
        }
    }
    Ok(listed)
}

async fn check_bytes(state: &State, packs: Vec<(PackId, u64)>, damage: &mut Damage) -> Result<(), Fault> {
    for (pack, len) in packs {
        if let Err(error) = state.content.packs().verify(pack).await {
            if error.is_retryable() {
                return Err(error.into());
            }
            look_into(state, pack, &error.to_string(), damage).await?;
        }
        state.checks.change(|status| status.done_bytes += len);
    }
    Ok(())
}

/// Finds out which wanted chunks of a damaged pack cannot be read.
async fn look_into(state: &State, pack: PackId, why: &str, damage: &mut Damage) -> Result<(), Fault> {
    let mut lost = Vec::new();
    for chunk in long(state, move |connection| records::chunks_in(connection, pack)).await? {
        match state.content.chunk(chunk).await {
            // A store that cannot be reached has lost nothing.
            Err(fault) if fault.code == Code::Unavailable => return Err(fault),
            Err(_) => lost.push(chunk),
            Ok(_) => {}
        }
    }
    // A pack may have been rewritten and deleted since it was listed: then nothing is wanted of it.
    if !lost.is_empty() {
        state.checks.find(format!("Pack {pack}: {why}; {} of it {} lost", counted(lost.len()), verb(lost.len())));
        damage.lost.extend(lost);
    }
    damage.packs.push(pack);
    Ok(())
}

/// Puts what is wanted of a damaged pack and was not set aside into a new one; gives how many packs that were. No backup
/// takes the damaged one, and it goes as soon as nothing in it is wanted.
async fn rewrite_rest(state: &State, pack: PackId) -> Result<u64, Fault> {
    let wanted = move |connection: &Connection| -> Result<Option<i64>, Fault> {
        let is_empty = records::chunks_in(connection, pack)?.is_empty();
        Ok(records::pack_number(connection, pack)?.filter(|_| !is_empty))
    };
    match state.database.read(wanted).await? {
        Some(num) => rewrite::rewrite(state, vec![num]).await,
        None => Ok(0),
    }
}

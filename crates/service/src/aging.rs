//! What goes because it is old: versions that a group does not keep, nodes that were deleted before the tombstone horizon,
//! and answers to operations that nobody repeats any more.
//!
//! **Invariant:** everything here grows old by the retention clock, which a wrong clock of the machine moves by a day at
//! most in each run.

use crate::State;
use crate::clock::now_ms;
use crate::fault::Fault;
use crate::records::{self, Ages};
use isotherm_api::management::Group;

/// Rows that one transaction looks at: writers wait no longer than for this.
const PIECE: usize = 2_000;

/// How much went.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Aged {
    pub(crate) versions: u64,
    pub(crate) nodes: u64,
    pub(crate) answers: u64,
}

/// One run over all groups.
pub(crate) async fn age(state: &State, ages: Ages) -> Result<Aged, Fault> {
    let time_ms = state.database.write(|connection| records::advance_clock(connection, now_ms()), |_| {}).await?;
    let mut aged = Aged::default();
    for group in state.database.read(records::groups).await? {
        aged.versions += expire(state, &group, time_ms).await?;
        let before_ms = time_ms.saturating_sub(ages.horizon_ms);
        aged.nodes += forget_nodes(state, &group, before_ms).await?;
        aged.answers += forget_answers(state, &group, before_ms).await?;
    }
    Ok(aged)
}

async fn expire(state: &State, group: &Group, time_ms: u64) -> Result<u64, Fault> {
    let (id, mut after, mut expired) = (group.id, None, 0);
    loop {
        let expire = move |connection: &rusqlite::Connection| {
            records::refuse_while_waiting(connection)?;
            records::expire(connection, id, time_ms, after, PIECE)
        };
        let (next, gone) = state.database.write(expire, |_| {}).await?;
        expired += gone as u64;
        if next.is_none() {
            return Ok(expired);
        }
        after = next;
    }
}

async fn forget_nodes(state: &State, group: &Group, before_ms: u64) -> Result<u64, Fault> {
    let (id, mut after, mut forgotten) = (group.id, None, 0);
    loop {
        // To find them all nodes are looked at, which must not keep writers waiting.
        let connection = state.database.long_reader()?;
        let find = move || records::long_deleted(&connection, id, before_ms, after, PIECE);
        let found = tokio::task::spawn_blocking(find).await??;
        let Some(last) = found.last().copied() else { return Ok(forgotten) };
        let forget = move |connection: &rusqlite::Connection| {
            records::refuse_while_waiting(connection)?;
            records::forget_deleted(connection, id, before_ms, &found)
        };
        forgotten += state.database.write(forget, |_| {}).await? as u64;
        after = Some(last);
    }
}

async fn forget_answers(state: &State, group: &Group, before_ms: u64) -> Result<u64, Fault> {
    let (id, mut after, mut forgotten) = (group.id, None, 0);
    loop {
        let forget = move |connection: &rusqlite::Connection| {
            records::refuse_while_waiting(connection)?;
            records::forget_answers(connection, id, before_ms, after, PIECE)
        };
        let (next, gone) = state.database.write(forget, |_| {}).await?;
        forgotten += gone as u64;
        if next.is_none() {
            return Ok(forgotten);
        }
        after = next;
    }
}

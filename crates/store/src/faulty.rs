//! A store that fails on purpose, around any other.
//!
//! It never changes bytes; a lying disk is played by damaging the inner store.
//!
//! Invariant: equal seeds and equal order of calls give equal faults.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures_util::future::{BoxFuture, FutureExt};
use futures_util::stream::{self, BoxStream, StreamExt};

use crate::error::{StoreError, StoreErrorKind};
use crate::key::Key;
use crate::seam::{ChunkStore, Listed};

/// When a call fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing was done.
    Before(StoreErrorKind),
    /// Everything was done, but the answer was lost.
    After(StoreErrorKind),
}

/// What is known about coming faults.
#[derive(Debug, Default)]
struct Plan {
    /// Calls so far.
    calls: u64,
    /// Faults of single calls, by their number.
    at: BTreeMap<u64, Fault>,
    /// State of the generator and how many calls there are for one fault; none without a seed.
    seeded: Option<(u64, u64)>,
}

impl Plan {
    fn next(&mut self) -> Option<Fault> {
        let call = self.calls;
        self.calls += 1;
        if let Some(fault) = self.at.remove(&call) {
            return Some(fault);
        }
        let (state, one_in) = self.seeded.as_mut()?;
        let number = split_mix(state);
        if !number.is_multiple_of(*one_in) {
            return None;
        }
        let kind = StoreErrorKind::Unavailable;
        Some(if split_mix(state) & 1 == 0 { Fault::Before(kind) } else { Fault::After(kind) })
    }
}

/// The generator SplitMix64: small, and good enough to choose faults.
fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// Fails some calls to another store.
#[derive(Debug)]
pub struct FaultyStore {
    inner: Arc<dyn ChunkStore>,
    plan: Mutex<Plan>,
}

impl FaultyStore {
    /// No faults until [`FaultyStore::fail_at`] asks for one.
    pub fn new(inner: Arc<dyn ChunkStore>) -> Self {
        Self { inner, plan: Mutex::default() }
    }

    /// Fails about one call in `one_in` with `Unavailable`, half of them after the effect.
    pub fn seeded(inner: Arc<dyn ChunkStore>, seed: u64, one_in: u64) -> Self {
        let plan = Plan { seeded: Some((seed, one_in.max(1))), ..Plan::default() };
        Self { inner, plan: Mutex::new(plan) }
    }

    /// Fails the call that comes after `calls_before` more calls.
    pub fn fail_at(&self, calls_before: u64, fault: Fault) {
        let mut plan = self.plan();
        let call = plan.calls + calls_before;
        plan.at.insert(call, fault);
    }

    /// How many calls there were.
    pub fn calls(&self) -> u64 {
        self.plan().calls
    }

    fn plan(&self) -> std::sync::MutexGuard<'_, Plan> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs a call under the next fault. A memory store acts when it is called, not when it is awaited, so the call is a
    /// closure.
    fn call<'a, T: Send + 'a>(
        &'a self,
        key: &'a str,
        call: impl FnOnce() -> BoxFuture<'a, Result<T, StoreError>> + Send + 'a,
    ) -> BoxFuture<'a, Result<T, StoreError>> {
        async move {
            let failed = |kind| Err(StoreError::new(kind, key, "failed on purpose"));
            // A guard in the match would be held while the inner store works.
            let fault = self.plan().next();
            match fault {
                None => call().await,
                Some(Fault::Before(kind)) => failed(kind),
                Some(Fault::After(kind)) => {
                    call().await?;
                    failed(kind)
                }
            }
        }
        .boxed()
    }
}

impl ChunkStore for FaultyStore {
    fn put<'a>(&'a self, key: &'a Key, bytes: Bytes) -> BoxFuture<'a, Result<(), StoreError>> {
        self.call(key.as_str(), move || self.inner.put(key, bytes))
    }

    fn replace<'a>(&'a self, key: &'a Key, bytes: Bytes) -> BoxFuture<'a, Result<(), StoreError>> {
        self.call(key.as_str(), move || self.inner.replace(key, bytes))
    }

    fn get<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Bytes, StoreError>> {
        self.call(key.as_str(), move || self.inner.get(key))
    }

    fn get_range<'a>(&'a self, key: &'a Key, range: Range<u64>) -> BoxFuture<'a, Result<Bytes, StoreError>> {
        self.call(key.as_str(), move || self.inner.get_range(key, range))
    }

    fn size<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<u64, StoreError>> {
        self.call(key.as_str(), move || self.inner.size(key))
    }

    fn delete_many<'a>(&'a self, keys: &'a [Key]) -> BoxFuture<'a, Result<(), StoreError>> {
        let key = keys.first().map_or("", Key::as_str);
        self.call(key, move || self.inner.delete_many(keys))
    }

    fn list<'a>(&'a self, folder: Option<&'a Key>) -> BoxStream<'a, Result<Listed, StoreError>> {
        let key = folder.map_or("", Key::as_str);
        match self.plan().next() {
            None => self.inner.list(folder),
            Some(Fault::Before(kind)) => stream::iter([Err(StoreError::new(kind, key, "failed on purpose"))]).boxed(),
            Some(Fault::After(kind)) => {
                let last = stream::iter([Err(StoreError::new(kind, key, "failed on purpose"))]);
                self.inner.list(folder).chain(last).boxed()
            }
        }
    }
}

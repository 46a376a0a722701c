//! What the service knows only while it runs: who was heard of, the latest reports, and whom to wake.
//!
//! Nothing here is worth a disk: agents report again within seconds. Long polls wait here.
//!
//! **Invariant:** who subscribes, then reads, then waits, misses no change.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use isotherm_api::limits::{ONLINE_MS, WAIT_MAX_MS};
use isotherm_api::sync::{EndpointReport, Report};
use isotherm_core::bandwidth::InForce;
use isotherm_core::ids::{Cursor, EndpointId, GroupId, ServerId};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::clock::now_ms;

/// A server as it was last heard of.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) last_seen_ms: Option<u64>,
    pub(crate) agent_version: Option<String>,
    /// Limits of its traffic, by its own clock.
    pub(crate) in_force: InForce,
}

impl Seen {
    pub(crate) fn is_online(&self) -> bool {
        self.last_seen_ms.is_some_and(|seen| now_ms().saturating_sub(seen) <= ONLINE_MS)
    }
}

/// An endpoint's latest report.
#[derive(Clone, Debug)]
pub(crate) struct Reported {
    pub(crate) at_ms: u64,
    pub(crate) report: EndpointReport,
}

/// What an endpoint said when it last had nothing left to do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Agreed {
    pub(crate) barrier: u64,
    pub(crate) cursor: Cursor,
}

/// The state of a running service.
#[derive(Debug)]
pub(crate) struct Live {
    heads: Mutex<BTreeMap<GroupId, watch::Sender<()>>>,
    assignments: watch::Sender<()>,
    wanted: watch::Sender<()>,
    reports: watch::Sender<()>,
    stopping: watch::Sender<bool>,
    servers: Mutex<BTreeMap<ServerId, Seen>>,
    endpoints: Mutex<BTreeMap<EndpointId, Reported>>,
    agreed: Mutex<BTreeMap<EndpointId, Agreed>>,
}

impl Live {
    pub(crate) fn new() -> Self {
        Self {
            heads: Mutex::default(),
            assignments: watch::Sender::new(()),
            wanted: watch::Sender::new(()),
            reports: watch::Sender::new(()),
            stopping: watch::Sender::new(false),
            servers: Mutex::default(),
            endpoints: Mutex::default(),
            agreed: Mutex::default(),
        }
    }

    /// Wakes who waits for a change of a share.
    pub(crate) fn share_changed(&self, group: GroupId) {
        if let Some(head) = lock(&self.heads).get(&group) {
            head.send_replace(());
        }
    }

    /// Will be woken by the next change of a share.
    pub(crate) fn share_changes(&self, group: GroupId) -> watch::Receiver<()> {
        lock(&self.heads).entry(group).or_default().subscribe()
    }

    /// Forgets a share that was deleted; who waits for it is woken.
    pub(crate) fn share_deleted(&self, group: GroupId) {
        lock(&self.heads).remove(&group);
    }

    /// Wakes who waits for assignments.
    pub(crate) fn assignments_changed(&self) {
        self.assignments.send_replace(());
    }

    /// Will be woken when assignments may have changed.
    pub(crate) fn assignment_changes(&self) -> watch::Receiver<()> {
        self.assignments.subscribe()
    }

    /// Wakes who waits for contents that are wanted: damage was found.
    pub(crate) fn damage_found(&self) {
        self.wanted.send_replace(());
    }

    /// Will be woken when more contents may be wanted.
    pub(crate) fn wanted_changes(&self) -> watch::Receiver<()> {
        self.wanted.subscribe()
    }

    /// Will be woken by the next report.
    pub(crate) fn report_changes(&self) -> watch::Receiver<()> {
        self.reports.subscribe()
    }

    /// Ends all long polls, now and from now on.
    pub(crate) fn stop(&self) {
        self.stopping.send_replace(true);
    }

    /// A server was heard of.
    pub(crate) fn heard_of(&self, server: ServerId) {
        lock(&self.servers).entry(server).or_default().last_seen_ms = Some(now_ms());
    }

    /// Keeps a report.
    pub(crate) fn reported(&self, server: ServerId, report: Report, in_force: InForce) {
        let at_ms = now_ms();
        let seen = Seen { last_seen_ms: Some(at_ms), agent_version: Some(report.agent_version), in_force };
        lock(&self.servers).insert(server, seen);
        let (mut endpoints, mut agreed) = (lock(&self.endpoints), lock(&self.agreed));
        for report in report.endpoints {
            if report.agreed {
                agreed.insert(report.endpoint, Agreed { barrier: report.barrier, cursor: report.cursor });
            }
            endpoints.insert(report.endpoint, Reported { at_ms, report });
        }
        drop((endpoints, agreed));
        self.reports.send_replace(());
    }

    /// Forgets an endpoint that was removed.
    pub(crate) fn endpoint_removed(&self, endpoint: EndpointId) {
        lock(&self.endpoints).remove(&endpoint);
        lock(&self.agreed).remove(&endpoint);
        self.reports.send_replace(());
    }

    /// A server as it was last heard of.
    pub(crate) fn server(&self, server: ServerId) -> Seen {
        lock(&self.servers).get(&server).cloned().unwrap_or_default()
    }

    /// An endpoint's latest report.
    pub(crate) fn endpoint(&self, endpoint: EndpointId) -> Option<Reported> {
        lock(&self.endpoints).get(&endpoint).cloned()
    }

    /// What an endpoint said when it last had nothing left to do; on a busy share that is a moment now and then.
    pub(crate) fn agreed(&self, endpoint: EndpointId) -> Option<Agreed> {
        lock(&self.agreed).get(&endpoint).copied()
    }

    /// When a poll that may wait this long is answered at the latest.
    pub(crate) fn deadline(wait_ms: u64) -> Instant {
        Instant::now() + Duration::from_millis(wait_ms.min(WAIT_MAX_MS))
    }

    /// Waits for a change; false when the time is up or the service stops.
    pub(crate) async fn wait(&self, changes: &mut watch::Receiver<()>, deadline: Instant) -> bool {
        let mut stopping = self.stopping.subscribe();
        tokio::select! {
            changed = changes.changed() => changed.is_ok(),
            () = tokio::time::sleep_until(deadline) => false,
            _ = stopping.wait_for(|stopping| *stopping) => false,
        }
    }

    /// Ends when the service stops.
    pub(crate) fn stopped(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut stopping = self.stopping.subscribe();
        async move {
            // An error means that the service is gone altogether.
            let _ = stopping.wait_for(|stopping| *stopping).await;
        }
    }
}

/// A panic elsewhere leaves these maps whole: every change is one insert.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

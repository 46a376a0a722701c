//! `isotherm restore`, `undelete` and `undo`: what was, again.
//!
//! It takes the service's plan page by page and hands it back in pieces. It may be broken off at any moment and begun
//! again: what is done is not in the next plan.
//!
//! **Invariant:** with `--dry-run` nothing is changed.

use std::collections::BTreeMap;
use std::time::Instant;

use isotherm_api::Client;
use isotherm_api::path::ShownPath;
use isotherm_api::revisions::{
    AsOf, RESTORE_ITEMS_MAX, RestoreAction, RestoreCopy, RestoreItem, RestoreOne, RestoreOutcome, RestoreRequest, RestoreWhat,
};
use isotherm_core::ids::Version;
use serde::Serialize;

use crate::args::{Restore, RestoreOptions, SharePath, Undelete, Undo};
use crate::failure::{Exit, Failure};
use crate::output::{self, Answer, plural, text};
use crate::progress::{Estimate, Left, ProgressLine};
use crate::size;
use crate::versions::group_of;

/// Lines of a plan that are shown; `--json` has all of them.
const SHOWN_MAX: usize = 50;
/// Rounds for directories that can only go when they are empty.
const ROUNDS_MAX: usize = 1_000;

/// What was done, or would be.
#[derive(Debug, Default, Serialize)]
struct Report {
    dry_run: bool,
    undeleted: u64,
    reverted: u64,
    deleted: u64,
    bytes: u64,
    /// Brought back under another name.
    beside: Vec<Odd>,
    /// Left alone.
    left: Vec<Odd>,
    /// There is more than was planned; it is for the next run.
    more: bool,
    items: Vec<RestoreItem>,
}

/// A node that did not become what was asked for, or not under its name.
#[derive(Debug, Serialize)]
struct Odd {
    #[serde(flatten)]
    path: ShownPath,
    why: String,
}

pub(crate) async fn run(client: &Client, wanted: Restore) -> Result<Answer, Failure> {
    let moment = match (wanted.as_of, wanted.version) {
        // A moment is written to the second, and means its end: the version that is listed with it is there.
        (Some(ms), _) => AsOf::Ms(if ms % 1000 == 0 { ms + 999 } else { ms }),
        (None, Some(version)) => AsOf::Version(Version(version)),
        (None, None) => {
            return Err(Failure::new(Exit::Usage, "No moment is named").with_remedy("Give --as-of TIME or --version NUMBER"));
        }
    };
    if let Some(to) = &wanted.to {
        let group = group_of(client, wanted.options.group.clone()).await?;
        let copy = RestoreCopy { path: ShownPath::new(&wanted.path.0), moment, to: ShownPath::new(&to.0) };
        let version = client.restore_copy(&group, &copy).await?;
        return Ok(Answer::new(wanted.options.format.json, &version, || format!("{} is made\n", output::path(&copy.to))));
    }
    carry_out(client, &wanted.path, RestoreWhat::AsOf { moment, exact: wanted.exact }, wanted.options).await
}

pub(crate) async fn undelete(client: &Client, wanted: Undelete) -> Result<Answer, Failure> {
    if wanted.path.is_everything() {
        return Err(Failure::new(Exit::Usage, "The whole share cannot have been deleted")
            .with_remedy("Name what was, or give `isotherm restore / --as-of TIME`"));
    }
    carry_out(client, &wanted.path, RestoreWhat::Deleted, wanted.options).await
}

pub(crate) async fn undo(client: &Client, wanted: Undo) -> Result<Answer, Failure> {
    let what =
        RestoreWhat::Server { server: wanted.server, from_ms: wanted.from, until_ms: wanted.until.unwrap_or(u64::MAX / 2) };
    carry_out(client, &wanted.path.unwrap_or_default(), what, wanted.options).await
}

async fn carry_out(client: &Client, path: &SharePath, what: RestoreWhat, options: RestoreOptions) -> Result<Answer, Failure> {
    let group = group_of(client, options.group).await?;
    let (items, more) = plan(client, &group, path, what).await?;
    let mut report = Report { dry_run: options.dry_run, more, ..Report::default() };
    let mut todo = Vec::with_capacity(items.len());
    for item in items {
        let why = match item.action {
            RestoreAction::Skip => "somebody else has changed it since",
            RestoreAction::Lost => "cannot be restored: what it was is not kept any more",
            RestoreAction::Undelete | RestoreAction::Revert | RestoreAction::Delete => {
                todo.push(item);
                continue;
            }
        };
        report.left.push(Odd { path: item.path, why: why.to_owned() });
    }
    if options.dry_run {
        todo.iter().for_each(|item| report.count(item));
        report.items = todo;
    } else {
        apply(client, &group, todo, &mut report).await?;
    }
    let is_whole = report.left.is_empty() && !report.more;
    Ok(Answer::new(options.format.json, &report, || show(&report)).with_problems(!is_whole))
}

async fn plan(client: &Client, group: &str, path: &SharePath, what: RestoreWhat) -> Result<(Vec<RestoreItem>, bool), Failure> {
    let line = ProgressLine::new();
    let mut request = RestoreRequest { path: ShownPath::new(&path.0), what, before: None };
    let mut items = Vec::new();
    loop {
        let page = client.restore_plan(group, &request).await?;
        items.extend(page.items);
        line.show(&format!("Looking: {} found", plural(items.len() as u64, "item")));
        match page.next {
            Some(next) => request.before = Some(next),
            None => return Ok((items, page.more)),
        }
    }
}

async fn apply(client: &Client, group: &str, items: Vec<RestoreItem>, report: &mut Report) -> Result<(), Failure> {
    let (line, started, mut estimate) = (ProgressLine::new(), Instant::now(), Estimate::default());
    let mut open = items;
    // What goes, goes first: it may have the names that others get again.
    open.sort_by_key(|item| (item.action != RestoreAction::Delete, std::cmp::Reverse(depth(&item.path))));
    for _ in 0..ROUNDS_MAX {
        let mut later = Vec::new();
        let before = open.len();
        let mut rest = open.into_iter().peekable();
        while rest.peek().is_some() {
            let piece: Vec<RestoreItem> = rest.by_ref().take(RESTORE_ITEMS_MAX).collect();
            let wanted: Vec<RestoreOne> =
                piece.iter().map(|item| RestoreOne { node: item.node, expected: item.expected, target: item.target }).collect();
            let outcomes = client.restore(group, &wanted).await?;
            for (item, outcome) in piece.into_iter().zip(outcomes) {
                match outcome {
                    RestoreOutcome::Later => later.push(item),
                    outcome => report.take(item, outcome),
                }
            }
            let left = Left { items: (rest.len() + later.len()) as u64, bytes: 0, bytes_per_s: 0 };
            estimate.measure(started.elapsed().as_millis() as u64, left);
            line.show(&format!("Restoring: {}", estimate.text()));
        }
        if later.is_empty() || later.len() == before {
            report.left.extend(
                later
                    .into_iter()
                    .map(|item| Odd { path: item.path, why: "it holds something that was put there since".to_owned() }),
            );
            return Ok(());
        }
        open = later;
    }
    Ok(())
}

fn depth(path: &ShownPath) -> usize {
    path.path.matches('/').count()
}

impl Report {
    fn count(&mut self, item: &RestoreItem) {
        match item.action {
            RestoreAction::Undelete => self.undeleted += 1,
            RestoreAction::Revert => self.reverted += 1,
            RestoreAction::Delete => self.deleted += 1,
            RestoreAction::Skip | RestoreAction::Lost => {}
        }
        self.bytes += item.size;
    }

    fn take(&mut self, item: RestoreItem, outcome: RestoreOutcome) {
        let why = match outcome {
            RestoreOutcome::Done => {
                self.count(&item);
                self.items.push(item);
                return;
            }
            RestoreOutcome::Beside { at, .. } => {
                self.count(&item);
                let why = format!("its name is in use; it is now {}", output::path(&at));
                self.beside.push(Odd { path: item.path, why });
                return;
            }
            RestoreOutcome::Changed => "somebody has changed it in the meantime".to_owned(),
            RestoreOutcome::Gone => "that version is not kept any more".to_owned(),
            RestoreOutcome::Later => "it holds something".to_owned(),
            RestoreOutcome::Refused { reason } => reason,
        };
        self.left.push(Odd { path: item.path, why });
    }
}

fn show(report: &Report) -> String {
    let mut out = String::new();
    for item in report.items.iter().take(SHOWN_MAX) {
        let verb = match item.action {
            RestoreAction::Undelete => "undelete",
            RestoreAction::Revert => "revert  ",
            RestoreAction::Delete => "delete  ",
            RestoreAction::Skip | RestoreAction::Lost => "leave   ",
        };
        let to = item.to.as_ref().map_or_else(String::new, |to| format!("  -> {}", output::path(to)));
        out.push_str(&format!("{verb}  {}{to}\n", output::path_below(&item.path)));
    }
    let more = report.items.len().saturating_sub(SHOWN_MAX);
    if more > 0 {
        out.push_str(&format!("And {} more; --json lists all.\n", size::count(more as u64)));
    }
    for (heading, rows) in [("At another path:", &report.beside), ("Left alone:", &report.left)] {
        if !rows.is_empty() {
            out.push_str(&format!("{heading}\n"));
            out.extend(
                rows.iter().take(SHOWN_MAX).map(|row| format!("  {}: {}\n", output::path_below(&row.path), text(&row.why))),
            );
            if rows.len() > SHOWN_MAX {
                out.push_str(&format!("  and {} more\n", size::count((rows.len() - SHOWN_MAX) as u64)));
            }
        }
    }
    let (would, counts) = (if report.dry_run { "Would be" } else { "Done:" }, counts(report));
    if counts.is_empty() {
        let nothing = if report.left.is_empty() { "Nothing to do: all of it is as it was." } else { "Nothing was done." };
        out.push_str(&format!("{nothing}\n"));
    } else {
        let words: Vec<String> = counts.into_iter().map(|(word, number)| format!("{} {word}", size::count(number))).collect();
        out.push_str(&format!("{would} {} ({})\n", words.join(", "), size::bytes(report.bytes)));
    }
    if report.more {
        out.push_str("That is not all: more was deleted than one run brings back. Start it again for the rest.\n");
    }
    out
}

fn counts(report: &Report) -> BTreeMap<&'static str, u64> {
    let all = [("undeleted", report.undeleted), ("reverted", report.reverted), ("deleted", report.deleted)];
    all.into_iter().filter(|(_, number)| *number > 0).collect()
}

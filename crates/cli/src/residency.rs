//! `isotherm tier` and `isotherm recall`: giving up local content that is safe in the share, and bringing it back.
//!
//! It asks the agent of this machine and shows how far it is; which files are suited is the agent's business.
//!
//! **Invariant:** what was left alone is told with its reason, and counts as a problem.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Instant;

use isotherm_agent::control::{self, Answer as AgentAnswer, Moved, Request};
use isotherm_api::path::ShownPath;

use crate::agents;
use crate::args::{Recall, RecallOrder, Residency, Tier};
use crate::failure::Failure;
use crate::file::{agent_of, real};
use crate::output::{self, Answer, plural, text};
use crate::progress::ProgressLine;
use crate::size;

/// Which way content goes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Tier,
    Plan,
    Recall,
}

pub(crate) fn tier(wanted: Tier) -> Result<Answer, Failure> {
    let Tier { what, dry_run } = wanted;
    let way = if dry_run { Way::Plan } else { Way::Tier };
    run(way, what, |path| Request::Tier { path, dry_run })
}

pub(crate) fn recall(wanted: Recall) -> Result<Answer, Failure> {
    let Recall { what, mend, pattern, threads, order } = wanted;
    let (together, by_warmth) = (threads.map(usize::from), order == RecallOrder::Policy);
    run(Way::Recall, what, |path| Request::Recall { path, mend, pattern, together, by_warmth })
}

fn run(way: Way, wanted: Residency, request: impl FnOnce(ShownPath) -> Request) -> Result<Answer, Failure> {
    let path = real(&wanted.path)?;
    let (_, state) = agent_of(&path, wanted.state.as_deref())?;
    let moved = ask(&state, way, &request(ShownPath::new(path.as_os_str().as_bytes())))?;
    let is_off = moved.left > 0;
    Ok(Answer::new(wanted.format.json, &moved, || show(way, &moved)).with_problems(is_off))
}

/// Has the agent move contents, and shows how far it is.
pub(crate) fn ask(state: &Path, way: Way, request: &Request) -> Result<Moved, Failure> {
    let (line, begun) = (ProgressLine::new(), Instant::now());
    let answer = control::ask_and_follow(state, request, |moved| line.show(&so_far(way, moved, begun)));
    drop(line);
    match agents::answered(state, answer)? {
        AgentAnswer::Moved(moved) => Ok(*moved),
        AgentAnswer::Error(why) => Err(Failure::failed(text(&why))),
        _ => Err(agents::unfitting(state)),
    }
}

fn so_far(way: Way, moved: &Moved, begun: Instant) -> String {
    let rate = (moved.bytes as f64 / begun.elapsed().as_secs_f64().max(0.001)) as u64;
    let verb = match way {
        Way::Plan => "looked at",
        Way::Tier => "tiered",
        Way::Recall => "recalled",
    };
    format!("{} {verb}, {}, {}/s", size::count(moved.files), size::bytes(moved.bytes), size::bytes(rate))
}

pub(crate) fn show(way: Way, moved: &Moved) -> String {
    let (done, already) = match way {
        Way::Plan => ("would be tiered", "tiered already"),
        Way::Tier => ("tiered", "tiered already"),
        Way::Recall => ("recalled", "here already"),
    };
    let gained = match way {
        Way::Plan => " that would be fetched again by whoever opens them all",
        Way::Tier => " freed",
        Way::Recall => " fetched",
    };
    let mut out = format!("{} {done}, {}{gained}\n", plural(moved.files, "file"), size::bytes(moved.bytes));
    if let Some(frees) = moved.frees.filter(|_| moved.files > 0) {
        out.push_str(&format!("{} would get free\n", size::bytes(frees)));
    }
    if let Some(at_ms) = moved.coldest_ms {
        out.push_str(&format!("The coldest was used last on {}\n", crate::moment::show(at_ms)));
    }
    let rest = [(moved.already, already), (moved.unsuited, "left whole: small, empty, or with several names")];
    for (count, what) in rest.into_iter().filter(|(count, _)| *count > 0) {
        out.push_str(&format!("{} {what}\n", plural(count, "file")));
    }
    if moved.left > 0 {
        out.push_str(&format!("{} left as they are:\n", plural(moved.left, "file")));
        for (path, why) in &moved.why {
            out.push_str(&format!("  {}: {}\n", output::path_below(path), text(why)));
        }
        let unnamed = moved.left.saturating_sub(moved.why.len() as u64);
        if unnamed > 0 {
            out.push_str(&format!("  and {} more\n", size::count(unnamed)));
        }
    }
    out
}

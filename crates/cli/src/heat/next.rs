//! `isotherm heat --next`: which contents go next by themselves on a volume, which come, and why each does.
//!
//! The order and the reasons are the agent's; here they become words.
//!
//! **Invariant:** a list that is cut says so.

use std::os::unix::ffi::OsStrExt;

use isotherm_agent::control::{self, Answer as AgentAnswer, ComesNext, GoesFor, GoesNext, NextView, Request, What};
use isotherm_api::path::ShownPath;

use crate::agents;
use crate::args::Heat;
use crate::failure::Failure;
use crate::file::{agent_of, real};
use crate::output::{self, Answer, Table, text};
use crate::{moment, size};

pub(super) fn run(wanted: &Heat) -> Result<Answer, Failure> {
    let path = real(&wanted.path)?;
    let (_, state) = agent_of(&path, wanted.state.as_deref())?;
    let count = usize::from(wanted.count);
    let request = Request::Next { path: ShownPath::new(path.as_os_str().as_bytes()), count };
    // All files are looked at: a million take some seconds.
    let view = match agents::answered(&state, control::ask_and_follow(&state, &request, |_| ()))? {
        AgentAnswer::Next(view) => *view,
        AgentAnswer::Error(why) => return Err(Failure::failed(text(&why))),
        _ => return Err(agents::unfitting(&state)),
    };
    Ok(Answer::new(wanted.format.json, &view, || show(&view, count)))
}

fn show(view: &NextView, count: usize) -> String {
    let volume = output::path(&view.volume);
    if !view.on {
        return format!(
            "{volume}: nothing goes or comes by itself now; tiering is off there, or what the share holds is not known (see `isotherm status`)\n"
        );
    }
    let needed = match view.needed {
        0 => "nothing needs to go now".to_owned(),
        needed => format!("{} have to go now", size::bytes(needed)),
    };
    let (free, total, goal) = (size::bytes(view.free), size::bytes(view.total), size::bytes(view.goal));
    let mut out = format!("{volume}: {free} of {total} are free, {goal} are to stay free; {needed}\n");
    out.push_str(&section("Goes next, the coldest first", &goes(&view.goes), count, "nothing may go"));
    out.push_str(&section("Comes next by itself", &comes(&view.comes), count, "nothing is to come"));
    out
}

fn section(title: &str, rows: &[Vec<String>], count: usize, none: &str) -> String {
    if rows.is_empty() {
        return format!("\n{title}: {none}\n");
    }
    let mut table = Table::new(&["size>", "last use", "why", "file"]);
    rows.iter().for_each(|row| table.row(row.clone()));
    let cut = if rows.len() == count { format!(" (no more than {count} are listed; see --count)") } else { String::new() };
    format!("\n{title}{cut}\n{}", table.render())
}

fn goes(goes: &[GoesNext]) -> Vec<Vec<String>> {
    let why = |reason: GoesFor| match reason {
        GoesFor::Age(seconds) => format!("goes soon: not used for more than {}", size::span(seconds.saturating_mul(1_000))),
        GoesFor::Space(still) => format!("colder than the rest, and {} still needed", size::bytes(still)),
        GoesFor::Later => "colder than what follows; nothing needs to go for it now".to_owned(),
    };
    let row = |one: &GoesNext| vec![size::bytes(one.bytes), moment::show(one.last_ms), why(one.reason), output::path(&one.path)];
    goes.iter().map(row).collect()
}

fn comes(comes: &[ComesNext]) -> Vec<Vec<String>> {
    let why = |one: &ComesNext| {
        let why =
            if one.reason == What::RecalledForPin { "it is pinned" } else { "its endpoint has come what is new or changed" };
        let room = if one.fits { "there is room" } else { "waits for room" };
        format!("{why}; {room}")
    };
    let row = |one: &ComesNext| vec![size::bytes(one.bytes), moment::show(one.last_ms), why(one), output::path(&one.path)];
    comes.iter().map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_its_reason() {
        let path = |name: &str| ShownPath::new(name.as_bytes());
        let goes = |name: &str, reason| GoesNext { path: path(name), bytes: 1 << 20, last_ms: 0, reason };
        let comes = |name: &str, reason, fits| ComesNext { path: path(name), bytes: 1 << 20, last_ms: 0, reason, fits };
        let view = NextView {
            volume: path("/srv/cad"),
            on: true,
            total: 100 << 20,
            free: 19 << 20,
            goal: 20 << 20,
            needed: 2 << 20,
            goes: vec![goes("/a", GoesFor::Age(86_400)), goes("/b", GoesFor::Space(1 << 20)), goes("/c\u{1b}", GoesFor::Later)],
            comes: vec![comes("/d", What::RecalledForPin, true), comes("/e", What::RecalledByItself, false)],
        };
        let shown = show(&view, 3);
        assert!(
            shown.starts_with("/srv/cad: 19.0 MiB of 100.0 MiB are free, 20.0 MiB are to stay free; 2.0 MiB have to go now\n")
        );
        for line in [
            "no more than 3 are listed",
            "colder than the rest, and 1.0 MiB still needed",
            "nothing needs to go for it now",
            "/c\\x1b",
            "it is pinned; there is room",
            "its endpoint has come what is new or changed; waits for room",
        ] {
            assert!(shown.contains(line), "{line}\n{shown}");
        }
        let none = NextView { needed: 0, goes: Vec::new(), comes: Vec::new(), ..view.clone() };
        assert!(show(&none, 3).contains("nothing needs to go now\n\nGoes next, the coldest first: nothing may go\n"));
        assert!(show(&NextView { on: false, ..view }, 3).contains("tiering is off"));
    }
}

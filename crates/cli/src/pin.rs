//! `isotherm pin` and `isotherm unpin`: what stays on this server whatever the volume needs.
//!
//! It asks the agent of this machine. **Invariant:** what is pinned is kept before its content is asked for, so that an end of the
//! command at any moment loses no pin.

use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use isotherm_agent::control::{Answer as AgentAnswer, Moved, Request};
use isotherm_api::path::ShownPath;
use serde::Serialize;

use crate::agents;
use crate::args::{Pin, Residency};
use crate::failure::{Failure, show_path};
use crate::file::{agent_of, real};
use crate::output::{Answer, text};
use crate::residency::{self, Way};

/// What pinning a path came to.
#[derive(Debug, Serialize)]
struct Pinned {
    path: ShownPath,
    /// It was not before.
    changed: bool,
    /// What had to come.
    #[serde(flatten)]
    moved: Moved,
}

/// What unpinning came to.
#[derive(Debug, Serialize)]
struct Unpinned {
    path: ShownPath,
    /// It was pinned.
    changed: bool,
}

pub(crate) fn pin(wanted: Pin) -> Result<Answer, Failure> {
    let Pin { path, state, format } = wanted;
    let Some(path) = path else { return list(state.as_deref(), format.json) };
    let path = real(&path)?;
    let (_, state) = agent_of(&path, state.as_deref())?;
    let shown = ShownPath::new(path.as_os_str().as_bytes());
    let changed = set(&state, &shown, true)?;
    let recall = Request::Recall { path: shown.clone(), mend: false, pattern: None, together: None, by_warmth: false };
    let moved = residency::ask(&state, Way::Recall, &recall)?;
    let is_off = moved.left > 0;
    let pinned = Pinned { path: shown, changed, moved };
    let show = || {
        let already = if pinned.changed { "" } else { " already" };
        format!("{} is pinned{already}\n{}", show_path(&path), residency::show(Way::Recall, &pinned.moved))
    };
    Ok(Answer::new(format.json, &pinned, show).with_problems(is_off))
}

pub(crate) fn unpin(wanted: &Residency) -> Result<Answer, Failure> {
    let path = real(&wanted.path)?;
    let (_, state) = agent_of(&path, wanted.state.as_deref())?;
    let shown = ShownPath::new(path.as_os_str().as_bytes());
    let unpinned = Unpinned { changed: set(&state, &shown, false)?, path: shown };
    let show = || match unpinned.changed {
        true => format!("{} is not pinned any more; its content stays until a policy lets it go\n", show_path(&path)),
        false => format!("{} was not pinned; `isotherm pin` lists what is\n", show_path(&path)),
    };
    Ok(Answer::new(wanted.format.json, &unpinned, show))
}

fn set(state: &Path, path: &ShownPath, pinned: bool) -> Result<bool, Failure> {
    match agents::ask(state, &Request::Pin { path: path.clone(), pinned })? {
        AgentAnswer::Pinned(changed) => Ok(changed),
        AgentAnswer::Error(why) => Err(Failure::failed(text(&why))),
        _ => Err(agents::unfitting(state)),
    }
}

/// Of all agents of this machine, or of one.
fn list(state: Option<&Path>, json: bool) -> Result<Answer, Failure> {
    let mut paths = Vec::new();
    for state in agents::find(state) {
        match agents::ask(&state, &Request::Pins)? {
            AgentAnswer::Pins(pins) => paths.extend(pins),
            AgentAnswer::Error(why) => return Err(Failure::failed(text(&why))),
            _ => return Err(agents::unfitting(&state)),
        }
    }
    Ok(Answer::new(json, &paths, || match paths.is_empty() {
        true => "Nothing is pinned\n".to_owned(),
        false => paths.iter().map(|path| format!("{}\n", crate::output::path_below(path))).collect(),
    }))
}

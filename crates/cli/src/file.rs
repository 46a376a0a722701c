//! `isotherm file show`: what the agent of this machine knows of one file.
//!
//! It asks the agent, not the service: only the agent sees the disk. It changes nothing.
//!
//! **Invariant:** the file itself is never followed if it is a symlink; it is the node that is asked for.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use isotherm_agent::control::{Answer as AgentAnswer, FileState, FileView, RecallView, Request};
use isotherm_api::path::ShownPath;
use isotherm_core::node::Kind;
use serde::Serialize;

use crate::agents;
use crate::args::FileCommand;
use crate::endpoint::short;
use crate::failure::{Failure, show_path};
use crate::output::{self, Answer, NOTHING, details, text};
use crate::size;

/// A file, and who tells of it.
#[derive(Debug, Serialize)]
struct Shown {
    server: String,
    #[serde(flatten)]
    view: FileView,
}

pub(crate) fn run(command: FileCommand) -> Result<Answer, Failure> {
    let FileCommand::Show { path, state, format } = command;
    let path = real(&path)?;
    let (server, state) = agent_of(&path, state.as_deref())?;
    let request = Request::File { path: ShownPath::new(path.as_os_str().as_bytes()) };
    let view = match agents::ask(&state, &request)? {
        AgentAnswer::File(view) => *view,
        AgentAnswer::Error(why) => return Err(Failure::failed(text(&why))),
        _ => return Err(agents::unfitting(&state)),
    };
    if view.state == FileState::Absent {
        return Err(Failure::failed(format!("{} is neither here nor in the share", show_path(&path))));
    }
    let has_problem = view.problem.is_some();
    let shown = Shown { server, view };
    Ok(Answer::new(format.json, &shown, || show(&shown)).with_problems(has_problem))
}

/// The path as the agent knows it: absolute, with no symlink above the last name.
pub(crate) fn real(path: &Path) -> Result<PathBuf, Failure> {
    let absolute = std::path::absolute(path).map_err(|error| Failure::io("find", path, &error))?;
    let (Some(parent), Some(name)) = (absolute.parent(), absolute.file_name()) else { return Ok(absolute) };
    // What was deleted with its directory can still be asked for.
    Ok(parent.canonicalize().map_or_else(|_| absolute.clone(), |parent| parent.join(name)))
}

/// The server and the state folder of the agent in whose endpoint the path lies.
pub(crate) fn agent_of(path: &Path, state: Option<&Path>) -> Result<(String, PathBuf), Failure> {
    let found = agents::find(state);
    let mut failure = None;
    for state in &found {
        match agents::overview(state) {
            Ok(overview) if overview.endpoints.iter().any(|endpoint| path.starts_with(&endpoint.path)) => {
                return Ok((overview.name, state.clone()));
            }
            Ok(_) => {}
            Err(silent) => failure = Some(silent),
        }
    }
    if let Some(failure) = failure {
        return Err(failure);
    }
    if found.is_empty() {
        let failure = Failure::new(crate::failure::Exit::Unreachable, "No agent was found on this machine");
        return Err(failure.with_remedy("Name its state folder with --state; only the user it runs as may ask it"));
    }
    let why = format!("{} is in no endpoint of this machine", show_path(path));
    Err(Failure::failed(why).with_remedy("`isotherm endpoint list` shows the endpoints and their folders"))
}

fn show(Shown { server, view }: &Shown) -> String {
    let or_nothing = |value: Option<String>| value.unwrap_or_else(|| NOTHING.to_owned());
    let mut rows = vec![
        ("path", output::path_below(&view.path)),
        ("state", state(view.state).to_owned()),
        ("group", view.group.clone()),
        ("server", server.clone()),
        ("endpoint", short(view.endpoint)),
        ("kind", or_nothing(view.kind.map(kind))),
        ("size", or_nothing(view.size.map(size::bytes))),
        ("size on disk", or_nothing(view.size_on_disk.map(size::bytes))),
        ("content", content(view)),
        ("mode", or_nothing(view.mode.map(|mode| format!("{mode:04o}")))),
        ("owner", or_nothing(view.owner.map(|(user, group)| format!("{user}:{group}")))),
        ("modified", or_nothing(view.modified_ms.map(moment))),
        ("last use", or_nothing(view.accessed_ms.map(moment))),
        ("last recall", or_nothing(view.recalled.as_ref().map(recall))),
        ("node", or_nothing(view.node.map(|node| node.to_string()))),
        ("version", or_nothing(view.version.map(|version| version.to_string()))),
    ];
    if let Some(outlook) = &view.outlook {
        rows.push(("what next", text(outlook)));
    }
    if let Some(kept) = &view.conflict_of {
        rows.push(("conflict copy of", output::path(kept)));
    }
    if let Some((what, remedy)) = &view.problem {
        rows.extend([("problem", text(what)), ("what to do", text(remedy))]);
    }
    details(&rows)
}

/// Where the content is.
fn content(view: &FileView) -> String {
    if let Some(resident) = view.resident.filter(|_| view.tiered) {
        let (here, all) = (crate::size::bytes(resident), crate::size::bytes(view.size.unwrap_or_default()));
        return format!("partially tiered: {here} of {all} are here, the rest in the share only");
    }
    let where_it_is = match (view.kind, view.size_on_disk, view.state) {
        (Some(Kind::File), Some(_), _) if view.tiered => "tiered: in the share only, comes when somebody opens it",
        (Some(Kind::File), Some(_), FileState::Synced) => "here and in the share",
        (Some(Kind::File), Some(_), _) => "here",
        (Some(Kind::File), None, _) => "in the share only",
        _ => NOTHING,
    };
    where_it_is.to_owned()
}

/// When its content came back, who asked for it, and what it cost him.
fn recall(last: &RecallView) -> String {
    let who = match (last.program.as_deref(), last.process, last.user) {
        (Some(name), Some(process), Some(user)) if !name.is_empty() => format!("{} (process {process}, user {user})", text(name)),
        (Some(_), ..) => "a program that cannot be seen".to_owned(),
        _ => "nobody who waited at the file".to_owned(),
    };
    let seconds = if last.took_ms > 0 { format!(", in {:.1} s", last.took_ms as f64 / 1000.0) } else { String::new() };
    format!("{}, for {who}{seconds}", crate::moment::show(last.at_ms))
}

fn moment(at_ms: i64) -> String {
    crate::moment::show(u64::try_from(at_ms).unwrap_or_default())
}

fn kind(kind: Kind) -> String {
    let word = match kind {
        Kind::Directory => "directory",
        Kind::File => "file",
        Kind::Symlink => "symlink",
    };
    word.to_owned()
}

fn state(state: FileState) -> &'static str {
    match state {
        FileState::Synced => "in sync",
        FileState::Unsafe => "not yet safe: something here is not in the share",
        FileState::Incoming => "incoming: the share has something newer",
        FileState::DeletedHere => "deleted here; the share will follow",
        FileState::DeletedThere => "deleted in the share; this server will follow",
        FileState::Unseen => "not yet safe: here, and not looked at yet",
        FileState::Excluded => "excluded: stays on this server",
        FileState::Absent => "neither here nor in the share",
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn symlinks_are_resolved_above_the_last_name_only() {
        let folder = tempfile::tempdir().unwrap();
        let base = folder.path().canonicalize().unwrap();
        std::fs::create_dir(base.join("real")).unwrap();
        std::os::unix::fs::symlink("real", base.join("link")).unwrap();
        assert_eq!(real(&base.join("link/file")).unwrap(), base.join("real/file"));
        assert_eq!(real(&base.join("link")).unwrap(), base.join("link"));
        assert_eq!(real(&base.join("gone/file")).unwrap(), base.join("gone/file"));
        assert_eq!(real(Path::new("/")).unwrap(), Path::new("/"));
    }

    #[test]
    fn an_unknown_agent_is_unreachable() {
        let folder = tempfile::tempdir().unwrap();
        let failure = agent_of(Path::new("/x"), Some(folder.path())).unwrap_err();
        assert_eq!(failure.exit as u8, 5);
    }
}

//! `isotherm why`: why the content of a file is here or in the share only, what becomes of it, and what happened to it.
//!
//! It asks the agent of this machine. The first sentence is the answer; everything else is for those who want to know more.
//!
//! **Invariant:** it says of nothing that it is not remembered that it did not happen.

use std::os::unix::ffi::OsStrExt;

use isotherm_agent::control::{Answer as AgentAnswer, Happened, Happening, Request, Standing, What, WhyView};
use isotherm_api::path::ShownPath;
use serde::Serialize;

use crate::agents;
use crate::args::Residency;
use crate::failure::Failure;
use crate::file::{agent_of, real};
use crate::moment;
use crate::output::{self, Answer, NOTHING, Table, plural, text};
use crate::size;

/// What is told, and by whom.
#[derive(Debug, Serialize)]
struct Shown {
    server: String,
    #[serde(flatten)]
    view: WhyView,
}

pub(crate) fn run(wanted: &Residency) -> Result<Answer, Failure> {
    let path = real(&wanted.path)?;
    let (server, state) = agent_of(&path, wanted.state.as_deref())?;
    let view = match agents::ask(&state, &Request::Why { path: ShownPath::new(path.as_os_str().as_bytes()) })? {
        AgentAnswer::Why(view) => *view,
        AgentAnswer::Error(why) => return Err(Failure::failed(text(&why))),
        _ => return Err(agents::unfitting(&state)),
    };
    let shown = Shown { server, view };
    Ok(Answer::new(wanted.format.json, &shown, || show(&shown.view)))
}

fn show(view: &WhyView) -> String {
    let mut out = format!("{}: {}\n", output::path_below(&view.path), answer(view));
    if let Some(outlook) = &view.outlook {
        out.push_str(&format!("What next: {}\n", text(outlook)));
    }
    let happened = table(view);
    if !happened.is_empty() {
        out.push_str(&format!("\n{}", happened.render()));
    }
    out
}

/// The first sentence.
fn answer(view: &WhyView) -> String {
    let pinned = if view.pinned { "pinned, and " } else { "" };
    if let Some(below) = &view.below {
        let (files, tiered) = (plural(below.files, "file"), size::count(below.tiered_files));
        let (bytes, away) = (size::bytes(below.bytes), size::bytes(below.tiered_bytes));
        return format!("{pinned}{files} with {bytes} below it; of these {tiered} with {away} are tiered");
    }
    let since = |word: &str| match &view.because {
        Some(because) => format!("{pinned}{word} since {}: {}", moment::show(because.at_ms), reason(because)),
        None => format!("{pinned}{word}"),
    };
    match view.standing {
        Some(Standing::Tiered) if view.because.is_none() => format!("{}; why is not remembered", since("tiered")),
        Some(Standing::Tiered) => since("tiered"),
        Some(Standing::Recalling) => format!("being recalled now; {}", since("tiered")),
        Some(Standing::Here) | None if view.because.is_some() => since("here"),
        Some(Standing::Here) | None if view.happened.is_empty() => {
            format!("{pinned}here, and as far as is remembered it always was")
        }
        Some(Standing::Here) | None => format!("{pinned}here, since it was written anew after what is listed"),
    }
}

/// Why it came or went, as the end of a sentence.
fn reason(because: &Happening) -> String {
    match because.what {
        What::Arrived => "it came from the share without its content".to_owned(),
        What::TieredForSpace => "the volume needed room, and it was the coldest that could go".to_owned(),
        What::TieredForLow => "the volume ran low, and it was the coldest that could go".to_owned(),
        What::TieredForAge => "nobody had used it for longer than its endpoint allows".to_owned(),
        What::TieredForRecall => "somebody waited for another content, and the volume was full".to_owned(),
        What::TieredByCommand => "somebody asked for that with `isotherm tier`".to_owned(),
        What::ReadInPart => format!("{} read a part of it", who(because)),
        What::RecalledByProgram => {
            let waited = because.waited_ms.map(waited).unwrap_or_default();
            format!("{} opened it and waited {waited} for {}", who(because), size::bytes(because.bytes))
        }
        What::RecalledOverNfs => "a client of the NFS server read or wrote it".to_owned(),
        What::RecalledByCommand => "somebody asked for that with `isotherm recall`".to_owned(),
        What::RecalledForPin => "it is pinned, or was".to_owned(),
        What::RecalledByItself => "its endpoint has come what is new or changed".to_owned(),
        What::RecalledToLeave => "it was moved out of its endpoint".to_owned(),
    }
}

/// The same as a cell.
fn what(what: What) -> &'static str {
    match what {
        What::Arrived => "came without its content",
        What::TieredForSpace => "tiered: room was needed",
        What::TieredForLow => "tiered: the volume ran low",
        What::TieredForAge => "tiered: not used for too long",
        What::TieredForRecall => "tiered: room for a recall",
        What::TieredByCommand => "tiered: `isotherm tier`",
        What::ReadInPart => "a part was read while it came",
        What::RecalledByProgram => "recalled: it was opened",
        What::RecalledOverNfs => "recalled: kernel NFS",
        What::RecalledByCommand => "recalled: `isotherm recall`",
        What::RecalledForPin => "recalled: it is pinned",
        What::RecalledByItself => "recalled by itself",
        What::RecalledToLeave => "recalled: it left its endpoint",
    }
}

fn who(happened: &Happening) -> String {
    match (happened.program.as_deref(), happened.process, happened.user) {
        (Some(name), Some(process), Some(user)) if !name.is_empty() => format!("{} (process {process}, user {user})", text(name)),
        (Some(_), ..) => "a program that cannot be seen".to_owned(),
        _ => NOTHING.to_owned(),
    }
}

fn waited(ms: u64) -> String {
    format!("{:.1} s", ms as f64 / 1000.0)
}

/// What happened, the newest first; of a directory with the path of each.
fn table(view: &WhyView) -> Table {
    let mut headings = vec!["when", "what", "who", "size>", "waited>"];
    let is_directory = view.below.is_some();
    headings.extend(is_directory.then_some("file"));
    let mut table = Table::new(&headings);
    for Happened { path, what: one } in &view.happened {
        let waited = one.waited_ms.map_or_else(|| NOTHING.to_owned(), waited);
        let mut cells = vec![moment::show(one.at_ms), what(one.what).to_owned(), who(one), size::bytes(one.bytes), waited];
        cells.extend(is_directory.then(|| output::path_below(path)));
        table.row(cells);
    }
    table
}

#[cfg(test)]
mod tests {
    use isotherm_agent::control::Below;
    use isotherm_core::ids::{EndpointId, NodeId};
    use isotherm_core::node::Kind;

    use super::*;

    fn view(standing: Standing, happened: &[Happening], because: bool) -> WhyView {
        let path = ShownPath::new(b"plans/a.dwg");
        WhyView {
            path: path.clone(),
            endpoint: EndpointId::default(),
            group: "plans".to_owned(),
            kind: Kind::File,
            standing: Some(standing),
            pinned: false,
            size: Some(7),
            because: happened.first().filter(|_| because).cloned(),
            outlook: Some("comes when somebody opens it".to_owned()),
            below: None,
            happened: happened.iter().map(|what| Happened { path: path.clone(), what: what.clone() }).collect(),
        }
    }

    #[test]
    fn the_first_sentence_answers() {
        let went = Happening::new(NodeId::default(), What::TieredForSpace, 0, 1 << 20);
        let came = Happening {
            waited_ms: Some(1_250),
            program: Some("cat".to_owned()),
            process: Some(12),
            user: Some(7),
            ..Happening::new(NodeId::default(), What::RecalledByProgram, 0, 1 << 20)
        };
        let first = |view: &WhyView| show(view).lines().next().unwrap_or_default().to_owned();
        let tiered = view(Standing::Tiered, std::slice::from_ref(&went), true);
        assert!(first(&tiered).starts_with("plans/a.dwg: tiered since "), "{}", first(&tiered));
        assert!(first(&tiered).ends_with("needed room, and it was the coldest that could go"), "{}", first(&tiered));
        let here = view(Standing::Here, &[came, went.clone()], true);
        assert!(first(&here).ends_with(": cat (process 12, user 7) opened it and waited 1.2 s for 1.0 MiB"), "{}", first(&here));
        assert_eq!(show(&here).lines().count(), 6, "{}", show(&here));
        let unknown = view(Standing::Here, &[went], false);
        assert_eq!(first(&unknown), "plans/a.dwg: here, since it was written anew after what is listed");
        assert_eq!(first(&view(Standing::Tiered, &[], false)), "plans/a.dwg: tiered; why is not remembered");
        let pinned = WhyView { pinned: true, ..view(Standing::Here, &[], false) };
        assert_eq!(first(&pinned), "plans/a.dwg: pinned, and here, and as far as is remembered it always was");
        let below = Some(Below { files: 3, bytes: 3 << 20, tiered_files: 1, tiered_bytes: 1 << 20 });
        let directory = WhyView { below, standing: None, ..here };
        assert_eq!(first(&directory), "plans/a.dwg: 3 files with 3.0 MiB below it; of these 1 with 1.0 MiB are tiered");
    }
}

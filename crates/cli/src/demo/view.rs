//! The live view: both sites side by side, and below them what happened last.
//!
//! It makes lines of text from a picture; the terminal is [`super::screen`]'s.
//!
//! **Invariant:** no line depends on names or paths for its control characters: all of them are escaped.

use std::collections::VecDeque;
use std::path::Path;

use isotherm_api::management::EndpointStatus;
use isotherm_api::sync::{Direction, EndpointState, Watch};

use super::drawings;
use super::events::{Event, Picture, SiteVolume};
use super::lines::who;
use crate::output::{self, NOTHING};
use crate::{heat, size, status};

const BOLD: &str = "1";
const DIM: &str = "2";
const GREEN: &str = "32";
const YELLOW: &str = "33";
const RED: &str = "31";
const CYAN: &str = "36";

/// Events that are remembered for the list.
const HISTORY: usize = 200;
/// Width of the names of rows.
const NAMES: usize = 12;

/// What the view remembers between two pictures.
#[derive(Debug)]
pub(super) struct View {
    history: VecDeque<(u64, Event)>,
    started_ms: u64,
    has_colours: bool,
    service: String,
    /// Why nothing is tiered, where that was wanted.
    untiered: Option<String>,
}

impl View {
    pub(super) fn new(service: &str, now_ms: u64) -> Self {
        let has_colours = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self { history: VecDeque::new(), started_ms: now_ms, has_colours, service: service.to_owned(), untiered: None }
    }

    /// Takes what happened.
    pub(super) fn remember(&mut self, now_ms: u64, events: Vec<Event>) {
        for event in events {
            if let Event::Untiered { why } = &event {
                self.untiered = Some(why.clone());
            }
            if matches!(event, Event::Change { .. } | Event::Conflict { .. } | Event::Problem { .. } | Event::Recall { .. }) {
                self.history.push_front((now_ms, event));
            }
        }
        self.history.truncate(HISTORY);
    }

    /// The lines for a screen of this size.
    pub(super) fn lines(&self, picture: &Picture, (width, height): (usize, usize)) -> Vec<String> {
        let now_ms = picture.status.now_ms;
        let ends: Vec<&EndpointStatus> = picture.endpoints().collect();
        let column = (width.saturating_sub(NAMES + 4) / ends.len().max(1)).clamp(16, 56);
        let up = size::span(now_ms.saturating_sub(self.started_ms) / 1000 * 1000);
        let mut lines = vec![
            format!("  {}   {}   up {up}", self.paint(BOLD, "Isotherm demo"), self.paint(DIM, &self.service)),
            String::new(),
        ];
        lines.extend(self.site_rows(&ends, column, now_ms));
        lines.extend(self.volume_rows(&picture.volumes, column));
        lines.push(format!("  {:NAMES$}{}", "conflicts", self.total_conflicts(picture)));
        lines.push(String::new());
        lines.push(format!("  {}", self.paint(BOLD, "latest changes")));
        let hint = self.hint(&ends, picture);
        let room = height.saturating_sub(lines.len() + hint.len() + 1);
        lines.extend(self.history.iter().take(room).map(|(at, event)| self.event_line(*at, now_ms, event)));
        if self.history.is_empty() {
            lines.push(self.paint(DIM, "  nothing yet"));
        }
        while lines.len() + hint.len() < height {
            lines.push(String::new());
        }
        lines.extend(hint);
        lines
    }

    fn site_rows(&self, ends: &[&EndpointStatus], column: usize, now_ms: u64) -> Vec<String> {
        type Cell = (&'static str, String);
        let row = |name: &str, cell: &dyn Fn(&EndpointStatus) -> Cell| {
            let cells: String = ends
                .iter()
                .map(|one| {
                    let (colour, text) = cell(one);
                    let text = fit(&text, column - 2);
                    let gap = " ".repeat(column - text.chars().count());
                    format!("{}{gap}", self.paint(colour, &text))
                })
                .collect();
            format!("  {name:NAMES$}{}", cells.trim_end())
        };
        let count = |one: &EndpointStatus| one.report.as_ref().map(|report| report.counts).unwrap_or_default();
        vec![
            row("", &|one| (BOLD, one.endpoint.server.clone())),
            row("folder", &|one| (CYAN, tail(&output::text(&one.endpoint.path), column - 2))),
            row("state", &|one| (state_colour(one), status::state(one))),
            row("files", &|one| ("", size::count(count(one).files))),
            row("size", &|one| ("", size::bytes(count(one).bytes))),
            row("in flight", &|one| ("", in_flight(one))),
            row("not safe", &|one| match one.report.as_ref().map(|report| status::unsafe_text(report, now_ms)) {
                Some(text) if text != NOTHING => (YELLOW, text),
                _ => (DIM, NOTHING.to_owned()),
            }),
            row("problems", &|one| match one.report.as_ref().map_or(0, |report| report.problems) {
                0 => (DIM, NOTHING.to_owned()),
                problems => (RED, size::count(problems)),
            }),
            row("learns by", &|one| match one.report.as_ref().map(|report| &report.watch) {
                Some(Watch::Events) => (DIM, "kernel events".to_owned()),
                Some(Watch::Scan { reason }) => (YELLOW, format!("scanning: {}", output::text(reason))),
                None => (DIM, NOTHING.to_owned()),
            }),
        ]
    }

    fn volume_rows(&self, volumes: &[SiteVolume], column: usize) -> Vec<String> {
        if volumes.is_empty() {
            return Vec::new();
        }
        let row = |name: &str, cell: &dyn Fn(&SiteVolume) -> String| {
            let cells: String = volumes
                .iter()
                .map(|volume| {
                    let text = fit(&cell(volume), column - 2);
                    format!("{text}{}", " ".repeat(column - text.chars().count()))
                })
                .collect();
            format!("  {name:NAMES$}{}", cells.trim_end())
        };
        vec![
            row("free", &|volume| format!("{} of {}", size::bytes(volume.free), size::bytes(volume.total))),
            row("here", &|volume| size::bytes(volume.here)),
            row("tiered", &|volume| format!("{} files, {}", size::count(volume.tiered_files), size::bytes(volume.tiered_bytes))),
            row("heat", &|volume| heat::cells(&volume.bands)),
        ]
    }

    fn total_conflicts(&self, picture: &Picture) -> String {
        match picture.conflicts.len() {
            0 => self.paint(DIM, NOTHING),
            some => self.paint(YELLOW, &format!("{some} (see `isotherm conflicts`)")),
        }
    }

    fn event_line(&self, at_ms: u64, now_ms: u64, event: &Event) -> String {
        let ago = self.paint(DIM, &format!("{:>9} ago", size::age(now_ms, at_ms)));
        match event {
            Event::Change { site, path, direction, delay_ms } => {
                let (colour, way) = match direction {
                    Direction::Up => (CYAN, "to the share"),
                    Direction::Down => (GREEN, "arrived     "),
                };
                let delay = self.paint(DIM, &format!("after {:>9}", size::span(*delay_ms)));
                format!("{ago}  {site:8} {}  {delay}  {}", self.paint(colour, way), output::path(path))
            }
            Event::Conflict { path, .. } => {
                format!("{ago}  {}  {}", self.paint(YELLOW, "conflict copy        "), output::path(path))
            }
            Event::Problem { site, path, text, .. } => {
                let what = self.paint(RED, "problem     ");
                format!("{ago}  {site:8} {what}  {}: {}", output::path_below(path), output::text(text))
            }
            Event::Recall { site, path, program, user, bytes, waited_ms } => {
                let waited = self.paint(DIM, &format!("after {:>9}", waited_ms.map_or_else(|| NOTHING.to_owned(), size::span)));
                let (what, who) = (self.paint(CYAN, "recalled    "), who(program.as_deref(), *user));
                format!("{ago}  {site:8} {what}  {waited}  {} for {who}: {}", size::bytes(*bytes), output::path(path))
            }
            Event::Ready { .. } | Event::Status { .. } | Event::Untiered { .. } | Event::Volumes { .. } | Event::Stopped => {
                String::new()
            }
        }
    }

    fn hint(&self, ends: &[&EndpointStatus], picture: &Picture) -> Vec<String> {
        let Some(first) = ends.first() else { return Vec::new() };
        let folder = output::text(&first.endpoint.path);
        if let Some(last) = picture.volumes.last() {
            return self.hint_of_tiering(&folder, last, picture);
        }
        let untiered =
            self.untiered.iter().map(|why| self.paint(YELLOW, &format!("  Nothing is tiered here, for {}", output::text(why))));
        let mut lines: Vec<String> = untiered.collect();
        lines.extend([
            self.paint(DIM, &format!("  Try in another terminal:  echo hello > '{folder}/hello.txt'")),
            self.paint(DIM, &format!("  Ask the demo's service:   isotherm status --service {}", self.service)),
            self.paint(DIM, "  Ctrl-C stops; start it again and it goes on where it was."),
        ]);
        lines
    }

    /// Short commands, so that they fit: all of them are for the demo's folder.
    fn hint_of_tiering(&self, folder: &str, volume: &SiteVolume, picture: &Picture) -> Vec<String> {
        let (site, base) = (&volume.name, Path::new(folder).parent().unwrap_or(Path::new("/")).display());
        let all = &volume.happened;
        let is_tiered =
            |at: &usize| !all[*at].what.what.is_recall() && all[..*at].iter().all(|newer| newer.path != all[*at].path);
        let tiered = (0..all.len()).find(is_tiered).map(|at| output::path(&all[at].path));
        let path = format!("'{site}/{}'", tiered.unwrap_or_else(|| "Projects".to_owned()));
        let mut lines = vec![
            format!("  Try in another terminal:  cd '{base}'"),
            format!("    open a tiered drawing   cat {path} | wc -c"),
            format!("    who recalled it, why    isotherm why {path} --state data/{site}"),
            format!("    what is warm, and next  isotherm heat --tree {site} --state data/{site}   (or --next)"),
        ];
        if picture.drawings.is_large {
            lines.insert(2, format!("    stream a large one      head -c 2000000 '{site}/{}' | wc -c", drawings::large()));
        }
        if picture.drawings.made < picture.drawings.all {
            let (made, all) = (size::count(picture.drawings.made), size::count(picture.drawings.all));
            lines.push(format!("  {made} of {all} drawings are made. Ctrl-C stops; start it again and it goes on where it was."));
        } else {
            lines.push("  Ctrl-C stops; start it again and it goes on where it was.".to_owned());
        }
        lines.iter().map(|line| self.paint(DIM, line)).collect()
    }

    fn paint(&self, colour: &str, text: &str) -> String {
        if self.has_colours && !colour.is_empty() { format!("\x1b[{colour}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

fn state_colour(one: &EndpointStatus) -> &'static str {
    match one.report.as_ref().map(|report| &report.state) {
        Some(EndpointState::Synced) if one.online => GREEN,
        Some(EndpointState::Stopped { .. } | EndpointState::WaitingForConfirmation { .. }) => RED,
        _ => YELLOW,
    }
}

fn in_flight(one: &EndpointStatus) -> String {
    let Some(counts) = one.report.as_ref().map(|report| report.counts) else { return NOTHING.to_owned() };
    let way = |items: u64, bytes: u64, rate: u64, word: &str| {
        let known = |number: u64, text: String| if number > 0 { text } else { String::new() };
        let bytes = known(bytes, format!(", {}", size::bytes(bytes)));
        let rate = known(rate, format!(", {}/s", size::bytes(rate)));
        (items > 0).then(|| format!("{} {word}{bytes}{rate}", size::count(items)))
    };
    let up = way(counts.up_items, counts.up_bytes, counts.up_bytes_per_s, "up");
    let down = way(counts.down_items, counts.down_bytes, counts.down_bytes_per_s, "down");
    let parts: Vec<String> = [up, down].into_iter().flatten().collect();
    if parts.is_empty() { NOTHING.to_owned() } else { parts.join("; ") }
}

/// The beginning of a text that is too long.
fn fit(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        text.to_owned()
    } else {
        text.chars().take(width.saturating_sub(1)).chain(['…']).collect()
    }
}

/// The end of a path that is too long.
fn tail(text: &str, width: usize) -> String {
    let length = text.chars().count();
    if length <= width { text.to_owned() } else { ['…'].into_iter().chain(text.chars().skip(length - width + 1)).collect() }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use isotherm_api::management::Problems;
    use isotherm_api::path::ShownPath;

    use super::super::events::Drawn;
    use super::*;

    fn picture() -> Picture {
        let end = |server: &str, state: &str, unsynced: u64| {
            serde_json::json!({
                "endpoint": {
                    "id": "852c719ac0b8f2c78163b1a849f06c67", "group": "demo", "server": server, "path": format!("/d/{server}"),
                    "initial_upload": "merge", "tiering": false, "policy": {}, "paused": false, "deleting": false, "confirmed_deletes": 0, "created_ms": 0
                },
                "online": true, "reported_ms": 9_000,
                "report": {
                    "incarnation": 1, "version": 2, "behind": 0, "agreed": unsynced == 0, "barrier": 0, "state": state,
                    "watch": "events", "unsafe_since_ms": if unsynced > 0 { Some(4_000) } else { None }, "problems": 0, "recent": [],
                    "counts": {
                        "files": 1_204, "directories": 1, "bytes": 4_404_019, "unsynced_items": unsynced, "unsynced_bytes": 0,
                        "up_items": unsynced, "up_bytes": 0, "up_bytes_per_s": 0,
                        "down_items": 0, "down_bytes": 0, "down_bytes_per_s": 0
                    }
                }
            })
        };
        let group = serde_json::json!({
            "id": "2c27ebff899f85f4d6f700347bfb6781", "name": "demo", "case": "sensitive", "fold_version": 1, "quota": null,
            "usage": 4_404_019, "exclusions": [], "max_delete_fraction": 0.5, "keep": {"days": 30, "versions": 0, "hold": false}, "head": 2, "incarnation": 1, "barrier": 0,
            "endpoints": 2, "created_ms": 0
        });
        let status = serde_json::json!({
            "service_version": "1", "now_ms": 10_000, "servers": [],
            "groups": [{ "group": group, "endpoints": [end("detroit", "synced", 0), end("munich", "syncing", 2)] }]
        });
        let problems = Problems { total: 0, problems: Vec::new() };
        Picture {
            status: serde_json::from_value(status).unwrap(),
            conflicts: Vec::new(),
            problems,
            volumes: Vec::new(),
            drawings: Drawn::default(),
        }
    }

    #[test]
    fn both_sites_stand_side_by_side_with_what_is_not_safe() {
        let mut view = View { has_colours: false, ..View::new("http://x", 0) };
        let path = ShownPath::new(b"a\x1b[2J\xff");
        let change = Event::Change { site: "munich".into(), path, direction: Direction::Down, delay_ms: 640 };
        view.remember(8_000, vec![change, Event::Stopped]);
        let lines = view.lines(&picture(), (80, 24));
        let expected = "
              detroit                         munich
  folder      /d/detroit                      /d/munich
  state       in sync                         syncing
  files       1,204                           1,204
  size        4.2 MiB                         4.2 MiB
  in flight   -                               2 up
  not safe    -                               2 items, for 6 s
  problems    -                               -
  learns by   kernel events                   kernel events
  conflicts   -

  latest changes
      2 s ago  munich   arrived       after     0.6 s  a\\x1b[2J\\xff";
        assert_eq!(lines[1..15].join("\n"), expected);
        assert_eq!(lines.len(), 24);
    }

    #[test]
    fn sites_with_volumes_show_what_is_here_and_what_to_try() {
        let view = View { has_colours: false, ..View::new("http://x", 0) };
        let volume = |name: &str| SiteVolume {
            name: name.to_owned(),
            free: 96 << 20,
            total: 448 << 20,
            here: 300 << 20,
            tiered_files: 12,
            tiered_bytes: 1 << 30,
            bands: [1, 0, 0, 0, 1],
            happened: Vec::new(),
        };
        let volumes = vec![volume("detroit"), volume("munich")];
        let lines = view.lines(&Picture { volumes, drawings: Drawn { made: 3, all: 9, is_large: true }, ..picture() }, (80, 30));
        let shown = lines.join("\n");
        for expected in [
            "  free        96.0 MiB of 448.0 MiB           96.0 MiB of 448.0 MiB",
            "  tiered      12 files, 1.0 GiB               12 files, 1.0 GiB",
            "cd '/d'",
            "head -c 2000000 'munich/Projects/2019/point cloud.las'",
            "isotherm why 'munich/Projects' --state data/munich",
            "3 of 9 drawings are made",
        ] {
            assert!(shown.contains(expected), "{expected}\n{shown}");
        }
        assert_eq!(lines.len(), 30);
    }

    #[test]
    fn the_view_fits_any_screen() {
        let mut view = View { has_colours: false, ..View::new("http://x", 0) };
        let change = |number: u64| Event::Conflict { path: ShownPath::new(number.to_string().as_bytes()), kept: None };
        view.remember(0, (0..300).map(change).collect());
        for height in [20, 24, 60] {
            assert_eq!(view.lines(&picture(), (100, height)).len(), height);
        }
        assert_eq!(view.history.len(), HISTORY);
    }

    #[test]
    fn long_texts_are_cut() {
        assert_eq!((fit("abcdef", 6), fit("abcdef", 4)), ("abcdef".into(), "abc…".into()));
        assert_eq!((tail("abcdef", 6), tail("abcdef", 4)), ("abcdef".into(), "…def".into()));
    }
}

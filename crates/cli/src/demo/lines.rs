//! Events of the demo as lines of text, where there is no terminal for a picture.
//!
//! **Invariant:** what comes from elsewhere stays on its line: control characters are escaped.

use super::events::{Event, SiteStatus, SiteVolume};
use crate::{output, size, status};

/// An event as text for people.
pub(super) fn line(event: &Event, now_ms: u64) -> String {
    match event {
        Event::Ready { service, sites } => {
            let mut line = format!("Service at {service}");
            for site in sites {
                line.push_str(&format!("\n  {:8} {}", site.name, output::text(&site.path)));
            }
            line.push_str("\nSave a file in one folder and look into the other. Ctrl-C stops; start it again and it goes on.");
            line
        }
        Event::Change { site, path, direction, delay_ms } => {
            let way = status::way(*direction);
            format!("{site:8} {way:4} {:>8}  {}", size::span(*delay_ms), output::path(path))
        }
        Event::Conflict { path, kept } => match kept {
            Some(kept) => format!("conflict {}  beside {}", output::path(path), output::path(kept)),
            None => format!("conflict {}", output::path(path)),
        },
        Event::Problem { site, path, text, remedy } => {
            format!("{site:8} problem {}: {}. {}", output::path_below(path), output::text(text), output::text(remedy))
        }
        Event::Recall { site, path, program, user, bytes, waited_ms } => {
            let who = who(program.as_deref(), *user);
            let waited = waited_ms.map_or_else(String::new, |ms| format!(" in {}", size::span(ms)));
            format!("{site:8} recalled for {who}, {}{waited}  {}", size::bytes(*bytes), output::path(path))
        }
        Event::Untiered { why } => format!("Nothing is tiered here, for {}; files are synced all the same.", output::text(why)),
        Event::Volumes { volumes, drawings } => {
            let mut lines: Vec<String> = volumes.iter().map(volume_line).collect();
            if drawings.made < drawings.all {
                lines.push(format!("drawings {} of {} are made", size::count(drawings.made), size::count(drawings.all)));
            }
            lines.join("\n")
        }
        Event::Status { sites } => sites.iter().map(|site| site_line(site, now_ms)).collect::<Vec<_>>().join("\n"),
        Event::Stopped => "Stopped. Everything is kept; start it again on the same folder to go on.".to_owned(),
    }
}

/// For whom a content came back.
pub(super) fn who(program: Option<&str>, user: Option<u32>) -> String {
    match (program, user) {
        (Some(program), Some(user)) if !program.is_empty() => format!("{} (user {user})", output::text(program)),
        (Some(_), _) => "a program that cannot be seen".to_owned(),
        _ => "whoever asked for it".to_owned(),
    }
}

fn volume_line(volume: &SiteVolume) -> String {
    let (free, total, here) = (size::bytes(volume.free), size::bytes(volume.total), size::bytes(volume.here));
    let tiered = format!("{} with {} tiered", output::plural(volume.tiered_files, "file"), size::bytes(volume.tiered_bytes));
    format!("{:8} {free} of {total} free, {here} here, {tiered}", volume.name)
}

fn site_line(site: &SiteStatus, now_ms: u64) -> String {
    let mut parts = vec![site.state.clone(), format!("{} files", size::count(site.files)), size::bytes(site.bytes)];
    let moving = site.in_flight_up + site.in_flight_down;
    if moving > 0 {
        parts.push(format!("{} in flight", size::count(moving)));
    }
    if let Some(since) = site.unsafe_since_ms {
        parts.push(format!("not yet safe in the share for {}", size::age(now_ms, since)));
    }
    if site.problems > 0 {
        parts.push(output::plural(site.problems, "problem"));
    }
    format!("{:8} {}", site.name, parts.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_safe_shows_in_the_line() {
        let site = SiteStatus {
            name: "munich".into(),
            state: "syncing".into(),
            synced: false,
            files: 1_200,
            bytes: 2048,
            in_flight_up: 2,
            in_flight_down: 0,
            unsafe_items: 2,
            unsafe_since_ms: Some(1_000),
            problems: 1,
            watching: true,
        };
        let expected = "munich   syncing, 1,200 files, 2.0 KiB, 2 in flight, not yet safe in the share for 4 s, 1 problem";
        assert_eq!(site_line(&site, 5_000), expected);
    }
}

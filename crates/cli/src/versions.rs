//! `isotherm versions`: what a path of a share has been.
//!
//! It asks the service and changes nothing.

use isotherm_api::Client;
use isotherm_api::revisions::VersionEntry;

use crate::args::Versions;
use crate::failure::{Exit, Failure};
use crate::output::{self, Answer, NOTHING, Table, text};
use crate::{moment, size};

/// The group that was named, or the only one there is.
pub(crate) async fn group_of(client: &Client, named: Option<String>) -> Result<String, Failure> {
    if let Some(name) = named {
        return Ok(name);
    }
    let mut groups = client.groups().await?;
    match (groups.pop(), groups.len()) {
        (Some(only), 0) => Ok(only.name),
        (None, _) => Err(Failure::failed("There is no group yet")),
        (Some(_), _) => Err(Failure::new(Exit::Usage, "There are several groups").with_remedy("Name one with --group")),
    }
}

pub(crate) async fn run(client: &Client, of: Versions) -> Result<Answer, Failure> {
    if of.path.is_everything() {
        return Err(Failure::new(Exit::Usage, "The whole share has no versions of its own")
            .with_remedy("Name a file or directory of it, such as `plans/house.dwg`"));
    }
    let group = group_of(client, of.group).await?;
    let found = client.versions(&group, &of.path.0).await?;
    Ok(Answer::new(of.format.json, &found, || list(&found)))
}

/// Digits of a node's id that tell apart the few that had one path.
const NODE_DIGITS: usize = 8;

fn list(found: &[VersionEntry]) -> String {
    let is_one = found.windows(2).all(|pair| pair[0].node == pair[1].node);
    let mut headings = vec!["version>", "since", "size>", "server", "state", "path"];
    if !is_one {
        headings.insert(5, "node");
    }
    let mut table = Table::new(&headings);
    for entry in found {
        let state = match (entry.deleted, entry.replaced_ms) {
            (true, _) => "deleted",
            (false, None) => "present",
            (false, Some(_)) => "",
        };
        let mut row = vec![
            entry.version.to_string(),
            moment::show(entry.at_ms),
            if entry.deleted { NOTHING.to_owned() } else { size::bytes(entry.size) },
            entry.server.as_deref().map_or_else(|| "(restored)".to_owned(), text),
            state.to_owned(),
            output::path(&entry.path),
        ];
        if !is_one {
            row.insert(5, entry.node.to_string().chars().take(NODE_DIGITS).collect());
        }
        table.row(row);
    }
    table.render()
}

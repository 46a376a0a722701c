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
    let group = group_of(client, of.group).await?;
    let found = client.versions(&group, of.path.as_bytes()).await?;
    Ok(Answer::new(of.format.json, &found, || list(&found)))
}

fn list(found: &[VersionEntry]) -> String {
    let mut table = Table::new(&["version>", "since", "size>", "server", "name", "state"]);
    for entry in found {
        let state = match (entry.deleted, entry.replaced_ms) {
            (true, _) => "deleted",
            (false, None) => "present",
            (false, Some(_)) => "",
        };
        table.row(vec![
            entry.version.to_string(),
            moment::show(entry.at_ms),
            if entry.deleted { NOTHING.to_owned() } else { size::bytes(entry.size) },
            entry.server.as_deref().map_or_else(|| "(restored)".to_owned(), text),
            output::path(&entry.name),
            state.to_owned(),
        ]);
    }
    table.render()
}

//! `isotherm group`: sync groups and their settings.
//!
//! It asks the service and shows the answer; the rules are the service's.
//!
//! **Invariant:** `set` sends only what the user named.

use isotherm_api::Client;
use isotherm_api::management::{EndpointStatus, Group, GroupChange, GroupStatus, Keep, KeepChange, NewGroup, Quota, Space};
use isotherm_core::name::Case;

use crate::args::{GroupCommand, GroupSettings};
use crate::failure::{Exit, Failure};
use crate::output::{Answer, NOTHING, Table, details, plural, text};
use crate::{moment, size, status};

pub(crate) async fn run(client: &Client, command: GroupCommand) -> Result<Answer, Failure> {
    match command {
        GroupCommand::Create { name, case, settings, format } => {
            let group = client.create_group(&new_group(name, case.into(), settings)).await?;
            Ok(Answer::new(format.json, &group, || format!("Group {} is made\n", group.name)))
        }
        GroupCommand::List(format) => {
            let groups = client.groups().await?;
            Ok(Answer::new(format.json, &groups, || list(&groups)))
        }
        GroupCommand::Show { name, format } => {
            // For its own error if there is no such group.
            let group = client.group(&name).await?;
            let status = client.status().await?;
            let found = status.groups.into_iter().find(|found| found.group.id == group.id);
            let shown = found.unwrap_or(GroupStatus { group, endpoints: Vec::new(), damaged: 0 });
            Ok(Answer::new(format.json, &shown, || show(&shown, status.now_ms)))
        }
        GroupCommand::Set { name, settings, no_exclusions, format } => {
            let change = change(settings, no_exclusions);
            if change == GroupChange::default() {
                return Err(Failure::new(Exit::Usage, "Nothing to set was named").with_remedy("See `isotherm group set --help`"));
            }
            let group = client.change_group(&name, &change).await?;
            Ok(Answer::new(format.json, &group, || settings_of(&group)))
        }
        GroupCommand::Delete { name } => {
            client.delete_group(&name).await?;
            Ok(format!("Group {} is deleted\n", text(&name)).into())
        }
    }
}

fn new_group(name: String, case: Case, settings: GroupSettings) -> NewGroup {
    let quota = match settings.quota {
        Some(Quota::Bytes(bytes)) => Some(bytes),
        Some(Quota::Unlimited) | None => None,
    };
    let keep = keep(&settings);
    NewGroup { name, case, quota, exclusions: settings.exclude, max_delete_fraction: settings.delete_limit, keep }
}

fn keep(settings: &GroupSettings) -> KeepChange {
    KeepChange { days: settings.keep_days, versions: settings.keep_versions, hold: settings.hold }
}

fn change(settings: GroupSettings, no_exclusions: bool) -> GroupChange {
    let keep = keep(&settings);
    let exclusions = (no_exclusions || !settings.exclude.is_empty()).then_some(settings.exclude);
    GroupChange { quota: settings.quota, exclusions, max_delete_fraction: settings.delete_limit, keep }
}

fn list(groups: &[Group]) -> String {
    let mut table = Table::new(&["group", "size>", "quota>", "endpoints>", "case"]);
    for group in groups {
        table.row(vec![
            group.name.clone(),
            size::bytes(group.usage),
            quota(group),
            size::count(group.endpoints),
            case(group.case).to_owned(),
        ]);
    }
    if table.is_empty() { "No groups yet; make one with `isotherm group create NAME`\n".to_owned() } else { table.render() }
}

fn quota(group: &Group) -> String {
    group.quota.map_or_else(|| NOTHING.to_owned(), size::bytes)
}

fn case(case: Case) -> &'static str {
    match case {
        Case::Sensitive => "sensitive",
        Case::Insensitive => "insensitive",
    }
}

fn settings_of(group: &Group) -> String {
    let patterns: Vec<String> = group.exclusions.iter().map(|pattern| text(pattern)).collect();
    let exclusions = if patterns.is_empty() { NOTHING.to_owned() } else { patterns.join("  ") };
    details(&[
        ("group", group.name.clone()),
        ("id", group.id.to_string()),
        ("case", case(group.case).to_owned()),
        ("size", size::bytes(group.usage)),
        ("in the store", group.space.map_or_else(|| NOTHING.to_owned(), space)),
        ("quota", quota(group)),
        ("delete limit", format!("{}% at once without a confirmation", (group.max_delete_fraction * 1000.0).round() / 10.0)),
        ("exclusions", exclusions),
        ("old versions", kept(group.keep)),
        ("version", group.head.to_string()),
    ])
}

/// What is different is less than all files where they hold the same, and more where old versions are kept.
fn space(space: Space) -> String {
    let (distinct, stored) = (size::bytes(space.distinct), size::bytes(space.stored));
    let measured = moment::show(space.measured_ms);
    format!("{stored} for {distinct} of content (what is equal counts once, old versions too); measured {measured}")
}

fn kept(keep: Keep) -> String {
    let days = plural(u64::from(keep.days), "day");
    match (keep.hold, keep.versions) {
        (true, _) => "all are kept (hold)".to_owned(),
        (false, 0) => format!("kept for {days}"),
        (false, 1) => format!("kept for {days}, and the last version of each file for ever"),
        (false, versions) => format!("kept for {days}, and the last {versions} versions of each file for ever"),
    }
}

fn show(shown: &GroupStatus, now_ms: u64) -> String {
    let endpoints: Vec<&EndpointStatus> = shown.endpoints.iter().collect();
    let mut out = settings_of(&shown.group);
    out.push_str(&format!("\n{}\n", plural(endpoints.len() as u64, "endpoint")));
    if !endpoints.is_empty() {
        out.push_str(&status::endpoint_table(&endpoints, now_ms).indented(2).render());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_named_changes() {
        assert_eq!(change(GroupSettings::default(), false), GroupChange::default());
        let quota = GroupSettings { quota: Some(Quota::Unlimited), ..GroupSettings::default() };
        assert_eq!(change(quota, false), GroupChange { quota: Some(Quota::Unlimited), ..GroupChange::default() });
        assert_eq!(change(GroupSettings::default(), true).exclusions, Some(Vec::new()));
    }

    #[test]
    fn an_empty_list_says_what_to_do() {
        assert!(list(&[]).contains("isotherm group create"));
    }
}

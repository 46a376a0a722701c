//! `isotherm problems` and `isotherm conflicts`: what waits for a person.
//!
//! It changes nothing. A problem goes away when it is solved, a conflict when its copy is renamed or removed.
//!
//! **Invariant:** exit code 3 exactly if the list is not empty.

use isotherm_api::Client;
use isotherm_api::management::{Conflict, Problems, ShownProblem};

use crate::args::OfGroup;
use crate::failure::Failure;
use crate::output::{Answer, Table, path, path_below, text};
use crate::{size, status};

pub(crate) async fn problems(client: &Client, of: OfGroup) -> Result<Answer, Failure> {
    let status = client.status().await?;
    status::check_group(&status, of.group.as_deref())?;
    let mut found = client.problems().await?;
    if let Some(group) = &of.group {
        found.problems.retain(|problem| problem.group == *group);
        let of_group = status.groups.iter().filter(|status| status.group.name == *group);
        let reports = of_group.flat_map(|group| &group.endpoints).filter_map(|one| one.report.as_ref());
        found.total = reports.map(|report| report.problems).sum();
    }
    let are_there = found.total > 0 || !found.problems.is_empty();
    Ok(Answer::new(of.format.json, &found, || list_problems(&found, status.now_ms)).with_problems(are_there))
}

fn list_problems(found: &Problems, now_ms: u64) -> String {
    let mut out = String::new();
    for problem in &found.problems {
        let ShownProblem { server, group, code, since_ms, .. } = problem;
        out.push_str(&format!(
            "{}  ({server}, group {group}, for {})\n",
            path_below(&problem.path),
            size::age(now_ms, *since_ms)
        ));
        out.push_str(&format!("  {}  [{}]\n  {}\n", text(&problem.text), text(code), text(&problem.remedy)));
    }
    let listed = found.problems.len() as u64;
    if found.total > listed {
        out.push_str(&format!("And {} more, not listed.\n", size::count(found.total - listed)));
    }
    if out.is_empty() { "No problems.\n".to_owned() } else { out }
}

pub(crate) async fn conflicts(client: &Client, of: OfGroup) -> Result<Answer, Failure> {
    let status = client.status().await?;
    status::check_group(&status, of.group.as_deref())?;
    let names = status.groups.iter().map(|group| &group.group.name);
    let mut found = Vec::new();
    for name in names.filter(|name| of.group.as_ref().is_none_or(|group| group == *name)) {
        found.extend(client.conflicts(name).await?);
    }
    let answer = Answer::new(of.format.json, &found, || list_conflicts(&found, status.now_ms));
    Ok(answer.with_problems(!found.is_empty()))
}

fn list_conflicts(found: &[Conflict], now_ms: u64) -> String {
    if found.is_empty() {
        return "No conflicts.\n".to_owned();
    }
    let mut table = Table::new(&["group", "since", "copy", "the version that kept the name"]);
    for conflict in found {
        table.row(vec![
            conflict.group.clone(),
            size::age(now_ms, conflict.since_ms),
            path(&conflict.path),
            conflict.kept.as_ref().map_or_else(|| "(deleted)".to_owned(), path),
        ]);
    }
    let advice = "Look at both files, keep what is right, then delete or rename the copy.\n";
    let total = if found.len() == 1 { "1 conflict copy".to_owned() } else { format!("{} conflict copies", found.len()) };
    format!("{}{total}. {advice}", table.render())
}

#[cfg(test)]
mod tests {
    use isotherm_api::path::ShownPath;
    use isotherm_core::ids::EndpointId;

    use super::*;

    #[test]
    fn problems_come_with_their_remedy() {
        let problem = ShownProblem {
            group: "plans".into(),
            server: "munich".into(),
            endpoint: EndpointId::default(),
            path: ShownPath::new(b"a\nb"),
            code: "no_space".into(),
            text: "Disk is full".into(),
            remedy: "Free space".into(),
            since_ms: 0,
        };
        let found = Problems { total: 3, problems: vec![problem] };
        let expected = "\
a\\x0ab  (munich, group plans, for 2 min 5 s)
  Disk is full  [no_space]
  Free space
And 2 more, not listed.
";
        assert_eq!(list_problems(&found, 125_000), expected);
        assert_eq!(list_problems(&Problems { total: 0, problems: Vec::new() }, 0), "No problems.\n");
    }
}

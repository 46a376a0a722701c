//! `isotherm endpoint`: folders of servers that belong to groups.
//!
//! It asks the service and shows the answer; the rules are the service's.
//!
//! **Invariant:** a shortened id names one endpoint or none.

use std::time::{Duration, Instant};

use isotherm_api::Client;
use isotherm_api::management::{Endpoint, EndpointChange, EndpointStatus, NewEndpoint};
use isotherm_api::sync::{EndpointState, InitialUpload, OnStubs, Watch};
use isotherm_core::ids::EndpointId;
use isotherm_core::stub::STREAM_MIN;
use isotherm_core::tiering::{Download, Initial, Policy};

use crate::args::{EndpointCommand, OfGroup, OneEndpoint};
use crate::failure::{Exit, Failure};
use crate::output::{Answer, NOTHING, details, path, plural, text};
use crate::{size, status};

/// Digits of an id in tables: enough to tell the endpoints of a service apart.
const SHORT: usize = 8;

pub(crate) async fn run(client: &Client, command: EndpointCommand) -> Result<Answer, Failure> {
    match command {
        EndpointCommand::Create { group, server, path, initial_upload, tiering, format } => {
            let (policy, tiering) = (tiering.policy(), tiering.tiering.unwrap_or(false));
            let new = NewEndpoint { group, server, path, initial_upload: initial_upload.into(), tiering, policy };
            let made = client.create_endpoint(&new).await?;
            Ok(changed(format.json, &made, "is made"))
        }
        EndpointCommand::List(of) => list(client, of).await,
        EndpointCommand::Show(OneEndpoint { id, format }) => {
            let shown = client.endpoint(resolve(client, &id).await?).await?;
            let now_ms = client.status().await?.now_ms;
            Ok(Answer::new(format.json, &shown, || show(&shown, now_ms)))
        }
        EndpointCommand::Set { endpoint, initial_upload, tiering } => {
            let initial_upload = initial_upload.map(Into::into);
            let (policy, tiering) = (tiering.policy(), tiering.tiering);
            let change = EndpointChange { initial_upload, tiering, policy, ..EndpointChange::default() };
            let made = client.change_endpoint(resolve(client, &endpoint.id).await?, &change).await?;
            Ok(changed(endpoint.format.json, &made, "is changed"))
        }
        EndpointCommand::Pause(OneEndpoint { id, format }) => {
            let made = client.pause_endpoint(resolve(client, &id).await?).await?;
            Ok(changed(format.json, &made, "is paused"))
        }
        EndpointCommand::Resume(OneEndpoint { id, format }) => {
            let made = client.resume_endpoint(resolve(client, &id).await?).await?;
            Ok(changed(format.json, &made, "goes on"))
        }
        EndpointCommand::Delete { endpoint, forget, recall, leave_stubs } => {
            let on_stubs = match (recall, leave_stubs) {
                (true, _) => OnStubs::Recall,
                (_, true) => OnStubs::Leave,
                _ => OnStubs::Wait,
            };
            delete(client, endpoint, forget, on_stubs).await
        }
        EndpointCommand::ConfirmDeletes(OneEndpoint { id, format }) => confirm_deletes(client, &id, format.json).await,
    }
}

async fn list(client: &Client, of: OfGroup) -> Result<Answer, Failure> {
    let status = client.status().await?;
    status::check_group(&status, of.group.as_deref())?;
    let is_wanted = |one: &&EndpointStatus| of.group.as_ref().is_none_or(|group| one.endpoint.group == *group);
    let endpoints: Vec<&EndpointStatus> = status.groups.iter().flat_map(|group| &group.endpoints).filter(is_wanted).collect();
    Ok(Answer::new(of.format.json, &endpoints, || {
        if endpoints.is_empty() {
            return "No endpoints yet; make one with `isotherm endpoint create`\n".to_owned();
        }
        status::endpoint_list(&endpoints, status.now_ms).render()
    }))
}

async fn delete(client: &Client, endpoint: OneEndpoint, forget: bool, on_stubs: OnStubs) -> Result<Answer, Failure> {
    let id = resolve(client, &endpoint.id).await?;
    if forget {
        client.forget_endpoint(id).await?;
    } else {
        client.delete_endpoint(id, on_stubs).await?;
        if on_stubs == OnStubs::Wait
            && let Some(files) = stubs_in_the_way(client, id).await?
        {
            return Err(holds_stubs(id, files));
        }
    }
    let deleted = serde_json::json!({ "id": id, "forgotten": forget });
    Ok(Answer::new(endpoint.format.json, &deleted, || {
        let what = if forget { "is forgotten" } else { "goes as soon as its server has let go; its files stay" };
        format!("Endpoint {} {what}\n", short(id))
    }))
}

/// How long to wait for the word of an agent on what is in the way.
const WORD_WITHIN: Duration = Duration::from_secs(8);

/// Whether the endpoint stays because of its tiered files, and how many they are.
async fn stubs_in_the_way(client: &Client, id: EndpointId) -> Result<Option<u64>, Failure> {
    let until = Instant::now() + WORD_WITHIN;
    while Instant::now() < until {
        // One that is not found has gone.
        let Ok(status) = client.endpoint(id).await else { return Ok(None) };
        match status.report.map(|report| report.state) {
            Some(EndpointState::HoldsStubs { files }) => return Ok(Some(files)),
            // Nobody will say anything soon.
            _ if !status.online => return Ok(None),
            _ => tokio::time::sleep(Duration::from_millis(200)).await,
        }
    }
    Ok(None)
}

fn holds_stubs(id: EndpointId, files: u64) -> Failure {
    let id = short(id);
    let why = format!("Endpoint {id} has {}, and stays until their content is here", plural(files, "tiered file"));
    let remedy = format!(
        "Bring them back by `isotherm endpoint delete {id} --recall`, or leave them for another endpoint by `isotherm endpoint delete {id} --leave-stubs`"
    );
    Failure::new(Exit::Refused, why).with_remedy(&remedy)
}

async fn confirm_deletes(client: &Client, id: &str, json: bool) -> Result<Answer, Failure> {
    let id = resolve(client, id).await?;
    let state = client.endpoint(id).await?.report.map(|report| report.state);
    if !matches!(state, Some(EndpointState::WaitingForConfirmation { .. })) {
        let why = format!("Endpoint {} does not wait for a confirmation", short(id));
        return Err(Failure::new(Exit::Refused, why).with_remedy("Look at it with `isotherm endpoint show`"));
    }
    let made = client.confirm_deletes(id).await?;
    Ok(changed(json, &made, "may do the deletes that were shown"))
}

fn changed(json: bool, endpoint: &Endpoint, what: &str) -> Answer {
    let Endpoint { id, server, path, .. } = endpoint;
    Answer::new(json, endpoint, || format!("Endpoint {} ({server}, {}) {what}\n", short(*id), text(path)))
}

/// The first digits of an id.
pub(crate) fn short(id: EndpointId) -> String {
    id.to_string()[..SHORT].to_owned()
}

async fn resolve(client: &Client, given: &str) -> Result<EndpointId, Failure> {
    match given.parse() {
        Ok(id) => Ok(id),
        Err(_) => matching(given, client.endpoints().await?.iter().map(|endpoint| endpoint.id)),
    }
}

/// The one id that begins with these digits.
fn matching(given: &str, ids: impl Iterator<Item = EndpointId>) -> Result<EndpointId, Failure> {
    let shown = text(given);
    let lower = given.to_ascii_lowercase();
    if lower.is_empty() || !lower.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(Failure::new(Exit::Usage, format!("`{shown}` is not the id of an endpoint"))
            .with_remedy("`isotherm endpoint list` shows the ids"));
    }
    let mut found = ids.filter(|id| id.to_string().starts_with(&lower));
    match (found.next(), found.next()) {
        (Some(id), None) => Ok(id),
        (None, _) => Err(Failure::failed(format!("No endpoint has an id that begins with {shown}"))
            .with_remedy("`isotherm endpoint list` shows the ids")),
        (Some(_), Some(_)) => {
            Err(Failure::new(Exit::Usage, format!("More than one endpoint has an id that begins with {shown}"))
                .with_remedy("Give more digits"))
        }
    }
}

fn show(shown: &EndpointStatus, now_ms: u64) -> String {
    let endpoint = &shown.endpoint;
    let reported = shown.reported_ms.map_or_else(|| "never".to_owned(), |at| format!("{} ago", size::age(now_ms, at)));
    let mut rows = vec![
        ("id", endpoint.id.to_string()),
        ("group", endpoint.group.clone()),
        ("server", format!("{} ({})", endpoint.server, if shown.online { "online" } else { "offline" })),
        ("folder", text(&endpoint.path)),
        ("initial upload", initial_upload(endpoint.initial_upload).to_owned()),
        ("tiering", if endpoint.tiering { "on" } else { "off" }.to_owned()),
        ("contents that come", if endpoint.tiering { comes(&endpoint.policy) } else { "all".to_owned() }),
        ("contents that go", if endpoint.tiering { policy(&endpoint.policy) } else { "none".to_owned() }),
        ("programs", programs(&endpoint.policy)),
        ("state", status::state_in_full(shown)),
        ("last report", reported),
    ];
    if let Some(report) = &shown.report {
        let counts = report.counts;
        let watch = match &report.watch {
            Watch::Events => "the kernel tells".to_owned(),
            Watch::Scan { reason } => format!("scanning every few seconds, because {}", text(reason)),
        };
        rows.extend([
            ("learns of changes", watch),
            ("files", size::count(counts.files)),
            ("directories", size::count(counts.directories)),
            ("size", size::bytes(counts.bytes)),
            ("not in the share", status::unsafe_text(report, now_ms)),
            ("on the way up", status::moving(counts.up_items, counts.up_bytes, counts.up_bytes_per_s)),
            ("on the way down", status::moving(counts.down_items, counts.down_bytes, counts.down_bytes_per_s)),
            ("behind the share", if report.behind == 0 { NOTHING.to_owned() } else { size::count(report.behind) }),
            ("problems", size::count(report.problems)),
        ]);
    }
    let mut out = details(&rows);
    let recent = shown.report.iter().flat_map(|report| &report.recent);
    let lines: Vec<String> = recent
        .take(10)
        .map(|change| {
            let way = status::way(change.direction);
            format!("  {way:4}  {:>9}  {}\n", size::span(change.delay_ms), path(&change.path))
        })
        .collect();
    if !lines.is_empty() {
        out.push_str("\nlatest changes (way, delay, path)\n");
        out.extend(lines);
    }
    out
}

/// What comes by itself, in one line.
fn comes(policy: &Policy) -> String {
    let first = match policy.initial {
        Initial::Namespace => "names first",
        Initial::Content => "names first, then content while there is room",
        Initial::Whole => "whole files first",
    };
    let later = match policy.download {
        Download::Current => "then changes of what is here",
        Download::OnDemand => "then nothing that nobody opens",
        Download::Proactive => "then all that is new or changed, while there is room",
    };
    format!("{first}; {later}")
}

/// How programs are treated, in one line.
fn programs(policy: &Policy) -> String {
    let rules: Vec<String> = policy.programs.iter().map(ToString::to_string).collect();
    if rules.is_empty() { NOTHING.to_owned() } else { text(&rules.join(", ")) }
}

/// What goes, in one line.
fn policy(policy: &Policy) -> String {
    let mut parts = vec![match policy.free_percent {
        0 => "when there is no room".to_owned(),
        percent => format!("until {percent}% of the volume is free"),
    }];
    if let Some(seconds) = policy.older_than_s {
        parts.push(format!("after {} without use", size::span(seconds * 1_000)));
    }
    parts.push(format!("not within {}", size::span(policy.grace_s * 1_000)));
    parts.push(format!("from {}", size::bytes(policy.min_size)));
    if policy.largest_percent < 100 {
        parts.push(format!("first what takes over {}% of the room", policy.largest_percent));
    }
    match policy.stream_from {
        Some(STREAM_MIN) => {}
        Some(size) => parts.push(format!("streamed from {}", size::bytes(size))),
        None => parts.push("never streamed".to_owned()),
    }
    if !policy.offline_attribute {
        parts.push("not shown as offline".to_owned());
    }
    if !policy.keep.is_empty() {
        parts.push(format!("never {}", text(&policy.keep.join(", "))));
    }
    parts.join("; ")
}

fn initial_upload(how: InitialUpload) -> &'static str {
    match how {
        InitialUpload::Merge => "merge",
        InitialUpload::Authoritative => "authoritative",
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn shortened_ids_name_one_endpoint() {
        let ids = [EndpointId([0xab; 16]), EndpointId([0xac; 16]), EndpointId([0x01; 16])];
        let find = |given: &str| matching(given, ids.into_iter());
        assert_eq!(find("ab").unwrap(), ids[0]);
        assert_eq!(find("AC").unwrap(), ids[1]);
        assert_eq!(find("0").unwrap(), ids[2]);
        assert_eq!(find("a").unwrap_err().exit, Exit::Usage);
        assert_eq!(find("ff").unwrap_err().exit, Exit::Failed);
        for bad in ["", "xy", "a\n"] {
            assert_eq!(find(bad).unwrap_err().exit, Exit::Usage, "{bad:?}");
        }
    }
}

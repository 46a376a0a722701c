//! `isotherm doctor`: tries out what this machine can do, and says what each finding means and what to do about it.
//!
//! It changes nothing that stays: what it tries on a folder, it tries on a file without a name.
//!
//! **Invariant:** a finding says what was really tried here, not what a version number promises.

mod folder;
mod gate;
mod machine;
mod service;

use std::path::{Path, PathBuf};

use isotherm_agent::Overview;
use isotherm_api::Client;
use isotherm_api::path::ShownPath;
use serde::Serialize;

use crate::agents;
use crate::args::Doctor;
use crate::failure::{Failure, show_path};
use crate::output::{self, Answer};

/// How good a finding is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    /// As it should be.
    Good,
    /// Worth knowing; nothing has to be done.
    Note,
    /// Something does not work, or not as well as it could.
    Bad,
}

/// One thing that was tried.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Finding {
    /// Stable word for programs.
    check: &'static str,
    /// The folder it is about, if it is about one.
    #[serde(flatten)]
    folder: Option<ShownPath>,
    verdict: Verdict,
    /// What was found and what it means.
    text: String,
    /// What to do; only where something is to be done.
    remedy: Option<String>,
}

impl Finding {
    fn good(check: &'static str, text: impl Into<String>) -> Self {
        Self { check, folder: None, verdict: Verdict::Good, text: text.into(), remedy: None }
    }

    fn note(check: &'static str, text: impl Into<String>) -> Self {
        Self { verdict: Verdict::Note, ..Self::good(check, text) }
    }

    fn bad(check: &'static str, text: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { verdict: Verdict::Bad, remedy: Some(remedy.into()), ..Self::good(check, text) }
    }
}

pub(crate) async fn run(url: &str, doctor: Doctor) -> Result<Answer, Failure> {
    let mut findings = machine::check();
    match Client::new(url) {
        Ok(client) => findings.extend(service::check(&client).await),
        Err(error) => findings.push(Finding::bad("service", error.message, "Give --service a URL such as http://127.0.0.1:7811")),
    }
    let found = agents::find(doctor.state.as_deref());
    let (agent_findings, endpoints) = check_agents(&found, doctor.state.is_some());
    findings.extend(agent_findings);
    findings.extend(gate::check(&doctor.run));
    let folders: Vec<PathBuf> = if doctor.path.is_empty() { endpoints } else { doctor.path };
    if folders.is_empty() {
        findings.push(Finding::note("folder", "No endpoint is known on this machine: no folder was looked at (see --path)"));
    }
    for path in &folders {
        findings.extend(folder::check(path));
    }
    let is_something_off = findings.iter().any(|finding| finding.verdict == Verdict::Bad);
    Ok(Answer::new(doctor.format.json, &findings, || show(&findings)).with_problems(is_something_off))
}

/// The agents of this machine, and the folders of their endpoints.
fn check_agents(found: &[PathBuf], was_named: bool) -> (Vec<Finding>, Vec<PathBuf>) {
    let mut findings = Vec::new();
    let mut folders = Vec::new();
    for state in found {
        findings.push(match agents::overview(state) {
            Ok(overview) => {
                folders.extend(overview.endpoints.iter().map(|endpoint| PathBuf::from(&endpoint.path)));
                running(state, &overview)
            }
            Err(failure) => Finding::bad("agent", failure.why, failure.remedy.unwrap_or_else(|| "Start it".to_owned())),
        });
    }
    if found.is_empty() {
        let text = "No agent was found on this machine";
        findings.push(if was_named {
            Finding::bad("agent", text, "Start it with `isotherm agent run`, or name its folder with --state")
        } else {
            Finding::note("agent", format!("{text} (its state may be elsewhere: see --state)"))
        });
    }
    (findings, folders)
}

fn running(state: &Path, overview: &Overview) -> Finding {
    let Overview { name, pid, agent_version, service, away, .. } = overview;
    let who = format!(
        "Agent of {} runs as server {} (process {pid}, version {})",
        show_path(state),
        output::text(name),
        output::text(agent_version)
    );
    match away {
        None => Finding::good("agent", format!("{who}, connected to {}", output::text(service))),
        Some(why) => Finding::bad(
            "agent",
            format!("{who}, and has no service: {}", output::text(why)),
            "Check the service and the way to it",
        ),
    }
}

fn show(findings: &[Finding]) -> String {
    let mut out = String::new();
    let mut folder = None;
    for finding in findings {
        if finding.folder != folder {
            folder.clone_from(&finding.folder);
            out.push_str(&format!("\n{}\n", folder.as_ref().map(output::path).unwrap_or_default()));
        }
        let mark = match finding.verdict {
            Verdict::Good => "ok",
            Verdict::Note => "note",
            Verdict::Bad => "OFF",
        };
        out.push_str(&format!("{mark:<5} {:<11} {}\n", finding.check, finding.text));
        if let Some(remedy) = &finding.remedy {
            out.push_str(&format!("{:18}-> {remedy}\n", ""));
        }
    }
    let off = findings.iter().filter(|finding| finding.verdict == Verdict::Bad).count();
    out.push_str(&match off {
        0 => "\nNothing needs attention.\n".to_owned(),
        1 => "\n1 thing needs attention.\n".to_owned(),
        more => format!("\n{more} things need attention.\n"),
    });
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_are_grouped_by_folder() {
        let of = |finding: Finding| Finding { folder: Some(ShownPath::new(b"/srv/a")), ..finding };
        let findings = [Finding::good("kernel", "Linux 6.1"), of(Finding::bad("watch", "It cannot", "Run it as root"))];
        let expected = "\
ok    kernel      Linux 6.1

/srv/a
OFF   watch       It cannot
                  -> Run it as root

1 thing needs attention.
";
        assert_eq!(show(&findings), expected);
        let json = serde_json::to_string(&findings[1]).unwrap_or_default();
        assert_eq!(json, r#"{"check":"watch","path":"/srv/a","verdict":"bad","text":"It cannot","remedy":"Run it as root"}"#);
    }
}

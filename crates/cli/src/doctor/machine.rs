//! What kernel and privileges offer.
//!
//! It raises the limit of open files of its own process, and changes nothing else.
//!
//! **Invariant:** numbers that stand for what the agent needs are here, each with its reason.

use super::Finding;

/// Capability numbers of `linux/capability.h`, and what the agent needs each for.
const CAPABILITIES: &[(u32, &str, &str)] = &[
    (0, "CAP_CHOWN", "to give files their owners"),
    (1, "CAP_DAC_OVERRIDE", "to write what others own"),
    (2, "CAP_DAC_READ_SEARCH", "to find files by their handle"),
    (3, "CAP_FOWNER", "to set modes and times of what others own"),
    (21, "CAP_SYS_ADMIN", "to be told of changes, and to work through a mount of its own"),
    (28, "CAP_LEASE", "to see whether somebody has a file open"),
];

/// Change events with names and handles of the target: Linux 5.17.
const WATCH: (u32, u32) = (5, 17);
/// Events before content is read, which tiering will need: Linux 6.14.
const TIERING: (u32, u32) = (6, 14);
/// Open files that the agent's unit asks for.
const FILES_WANTED: u64 = 524_288;
/// With fewer open files the agent works, but waits for itself.
const FILES_MIN: u64 = 4_096;

pub(super) fn check() -> Vec<Finding> {
    let uname = rustix::system::uname();
    let release = uname.release().to_string_lossy().into_owned();
    let own = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let files = isotherm_gate::raise_nofile(FILES_WANTED);
    vec![kernel(&release), privileges(&own), open_files(files)]
}

fn kernel(release: &str) -> Finding {
    let (watch, tiering) = (format!("{}.{}", WATCH.0, WATCH.1), format!("{}.{}", TIERING.0, TIERING.1));
    match version(release) {
        None => Finding::note("kernel", format!("Linux {release}, a version number that is not understood")),
        Some(version) if version < WATCH => Finding::bad(
            "kernel",
            format!("Linux {release} cannot tell which names changed: folders are scanned every few seconds"),
            format!("Use Linux {watch} or newer"),
        ),
        Some(version) if version < TIERING => {
            Finding::good("kernel", format!("Linux {release}; enough for sync (tiering will need {tiering})"))
        }
        Some(_) => Finding::good("kernel", format!("Linux {release}; enough for sync, and for tiering when it comes")),
    }
}

fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// Reads `CapEff` of a process's status file.
fn privileges(status: &str) -> Finding {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let Some(held) = line.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()) else {
        return Finding::note("privileges", "Capabilities of this process cannot be read from /proc/self/status");
    };
    let lacking: Vec<String> = CAPABILITIES
        .iter()
        .filter(|(number, _, _)| held & (1 << number) == 0)
        .map(|(_, name, purpose)| format!("{name} {purpose}"))
        .collect();
    if lacking.is_empty() {
        return Finding::good("privileges", "An agent that is started like this has all it needs");
    }
    Finding::bad(
        "privileges",
        format!("An agent that is started like this lacks {}", lacking.join("; ")),
        "Run agent and doctor as root, outside of a restricted container",
    )
}

fn open_files(limit: u64) -> Finding {
    if limit >= FILES_WANTED {
        return Finding::good("open files", "As many as the agent asks for");
    }
    let text = format!("At most {limit} files may be open at once");
    if limit >= FILES_MIN {
        return Finding::note("open files", format!("{text}; enough for sync"));
    }
    Finding::bad("open files", text, format!("Set LimitNOFILE={FILES_WANTED} in the agent's unit"))
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    #[test]
    fn kernels_are_judged() {
        for (release, verdict) in [
            ("6.18.5", Verdict::Good),
            ("6.1.0-42-amd64", Verdict::Good),
            ("5.17.0", Verdict::Good),
            ("5.16.20", Verdict::Bad),
            ("4.19", Verdict::Bad),
            ("unknown", Verdict::Note),
        ] {
            assert_eq!(kernel(release).verdict, verdict, "{release}");
        }
    }

    #[test]
    fn lacking_capabilities_are_named() {
        assert_eq!(privileges("Name:\tx\nCapEff:\t000001ffffffffff\n").verdict, Verdict::Good);
        let found = privileges("CapEff:\t0000000000000000\n");
        assert_eq!(found.verdict, Verdict::Bad);
        assert!(CAPABILITIES.iter().all(|(_, name, _)| found.text.contains(name)), "{}", found.text);
        assert!(privileges("CapEff:\t000001ffffdfffff").text.contains("CAP_SYS_ADMIN"));
        assert_eq!(privileges("").verdict, Verdict::Note);
    }

    #[test]
    fn this_machine_is_judged() {
        assert_eq!(check().len(), 3);
    }
}

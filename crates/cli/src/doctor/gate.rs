//! The gate and the volumes that it guards: which of their protections are there.

use std::path::Path;

use isotherm_api::path::ShownPath;
use isotherm_gate::link::{ClientError, GateClient, LinkError, VolumeState};
use isotherm_gate::safety_net::SafetyNet;
use std::os::unix::ffi::OsStrExt as _;

use super::Finding;
use crate::output;

/// Where systems list what is mounted at their start.
const MOUNTED_AT_START: &str = "/etc/fstab";

/// Asks the gate whose sockets are in the folder `run`.
pub(super) fn check(run: &Path) -> Vec<Finding> {
    let volumes = match GateClient::new(run).volumes() {
        Ok(volumes) => volumes,
        Err(ClientError::Link(LinkError::NobodyThere(_))) => {
            return vec![Finding::note("gate", "No gate runs on this machine: nothing is tiered")];
        }
        Err(error) => {
            return vec![Finding::bad(
                "gate",
                format!("The gate does not answer: {error}"),
                "Run it as root, or start the gate again",
            )];
        }
    };
    if volumes.is_empty() {
        return vec![Finding::good("gate", "The gate runs, and guards no volume (see `isotherm volume add`)")];
    }
    let net = SafetyNet::of(run);
    let table = std::fs::read_to_string(MOUNTED_AT_START).unwrap_or_default();
    let of = |volume: &VolumeState| {
        let path = ShownPath::new(volume.settings.path.as_os_str().as_bytes());
        let findings = look(volume, net.is_under(volume.id), &table);
        findings.into_iter().map(move |finding| Finding { folder: Some(path.clone()), ..finding })
    };
    volumes.iter().flat_map(of).collect()
}

fn look(volume: &VolumeState, has_net: bool, table: &str) -> Vec<Finding> {
    if let Some(why) = &volume.failure {
        let text = format!("The volume is not guarded, and so users do not see it: {}", output::text(why));
        return vec![Finding::bad("guarded", text, "See the gate's log; it tries again by itself")];
    }
    let asks = if volume.by_inode { "only its tiered files are asked about" } else { "all its files are asked about" };
    let mut findings = vec![Finding::good("guarded", format!("Programs wait for the content of its tiered files; {asks}"))];
    findings.push(if volume.attended {
        Finding::good("answered", "An agent answers for its tiered files")
    } else {
        Finding::bad("answered", "No agent answers for its tiered files: who opens one fails after a minute", "Start the agent")
    });
    findings.push(if volume.kept {
        Finding::good("keeper", "If the gate ends, programs go on waiting for the next one")
    } else {
        Finding::bad(
            "keeper",
            "Nobody keeps what the gate holds: if gate and agent end at once, tiered files read as zeros",
            "See the gate's log for why the keeper cannot be started",
        )
    });
    findings.push(if has_net {
        Finding::good("net", "While nobody guards it, the kernel refuses to open its tiered files")
    } else {
        Finding::note("net", "The kernel does not refuse to open its tiered files while nobody guards it")
    });
    if let Some(line) = mounts_itself(volume, table) {
        findings.push(Finding::bad(
            "fstab",
            format!(
                "{MOUNTED_AT_START} has it mounted at the machine's start, before anybody guards it: {}",
                output::text(&line)
            ),
            "Take the line out: the gate mounts the volume",
        ));
    }
    findings
}

/// The line that has a volume mounted without a gate.
fn mounts_itself(volume: &VolumeState, table: &str) -> Option<String> {
    let path = volume.settings.path.to_str()?;
    let lines = table.lines().map(str::trim).filter(|line| !line.starts_with('#'));
    let mut mounted = lines.filter(|line| {
        let mut fields = line.split_whitespace();
        let (device, at, options) = (fields.next(), fields.next(), fields.nth(1).unwrap_or_default());
        let is_it = at == Some(path) || device.is_some_and(|device| Path::new(device) == volume.settings.device);
        is_it && !options.split(',').any(|option| option == "noauto")
    });
    mounted.next().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use isotherm_gate::link::{Guarding, VolumeId, VolumeSettings};

    use super::super::Verdict;
    use super::*;

    fn volume() -> VolumeState {
        let settings =
            VolumeSettings { device: "/dev/sdb1".into(), path: "/srv/cad".into(), options: String::new(), guard: Guarding::Auto };
        VolumeState { id: VolumeId([1; 16]), settings, failure: None, waiting: 0, by_inode: true, attended: true, kept: true }
    }

    fn off(volume: &VolumeState, table: &str) -> Vec<&'static str> {
        let findings = look(volume, true, table);
        findings.iter().filter(|finding| finding.verdict == Verdict::Bad).map(|finding| finding.check).collect()
    }

    #[test]
    fn each_protection_that_is_missing_is_told() {
        assert_eq!(off(&volume(), ""), [""; 0]);
        assert_eq!(off(&VolumeState { attended: false, kept: false, ..volume() }, ""), ["answered", "keeper"]);
        assert_eq!(off(&VolumeState { failure: Some("no device".into()), ..volume() }, ""), ["guarded"]);
        assert_eq!(look(&volume(), false, "").last().map(|finding| finding.verdict), Some(Verdict::Note));
    }

    #[test]
    fn a_volume_that_mounts_itself_is_found() {
        for line in ["/dev/sdb1 /mnt ext4 defaults 0 2", "UUID=7 /srv/cad xfs defaults,noatime 0 0", "  LABEL=x\t/srv/cad\tauto"]
        {
            assert_eq!(off(&volume(), line), ["fstab"], "{line}");
        }
        for line in ["#/dev/sdb1 /srv/cad ext4", "/dev/sdb1 /srv/cad ext4 noauto,ro 0 0", "/dev/sdb2 /srv/cad2 xfs"] {
            assert_eq!(off(&volume(), line), [""; 0], "{line}");
        }
    }
}

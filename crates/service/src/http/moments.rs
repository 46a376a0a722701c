//! Whether a moment that somebody wants to go back to can be meant.
//!
//! It reads nothing. **Invariant:** a refusal names the moment, and the bound that it breaks.

use isotherm_api::management::Group;
use isotherm_core::ids::Version;

use crate::clock::utc;
use crate::fault::Fault;
use crate::records::Moment;

/// A moment is written to the second and means its end, so that "now" may lie this far ahead, in milliseconds.
const AHEAD_MS: u64 = 1_000;

/// Refuses what has not come yet, and what was before the share.
pub(super) fn check_time(group: &Group, ms: u64, now_ms: u64) -> Result<(), Fault> {
    if ms > now_ms + AHEAD_MS {
        return Err(Fault::invalid(format!("Moment {} lies in the future; it is {} now", utc(ms), utc(now_ms))));
    }
    if ms < group.created_ms {
        let (asked, since) = (utc(ms), utc(group.created_ms));
        return Err(Fault::invalid(format!("Moment {asked} lies before group {} was made, which was {since}", group.name)));
    }
    Ok(())
}

/// Refuses a version that the share has not reached.
pub(super) fn check_version(group: &Group, version: Version) -> Result<(), Fault> {
    if version > group.head || version == Version(0) {
        let text = format!("Version {version} does not exist: those of group {} go from 1 to {}", group.name, group.head);
        return Err(Fault::invalid(text));
    }
    Ok(())
}

/// Refuses a span of time that begins at no moment of the share, or ends before that.
pub(super) fn check_span(group: &Group, (from_ms, until_ms): (u64, u64), now_ms: u64) -> Result<(), Fault> {
    check_time(group, from_ms, now_ms)?;
    if until_ms < from_ms {
        return Err(Fault::invalid(format!("The span from {} to {} ends before it begins", utc(from_ms), utc(until_ms))));
    }
    Ok(())
}

/// Refuses a moment of which something is not kept any more: who was there then, and who was not, is not known.
pub(super) fn check_kept(group: &Group, at: Moment, (since_ms, since): (u64, Version)) -> Result<(), Fault> {
    let asked = match at {
        Moment::Time(ms) if ms < since_ms => format!("Moment {} is", utc(ms)),
        Moment::Version(version) if version < since => format!("Version {version} is"),
        _ => return Ok(()),
    };
    let name = &group.name;
    Err(Fault::invalid(format!(
        "{asked} older than what group {name} keeps: all that was is known since {} and version {since}; name a later moment, \
         or one file whose version of then `isotherm versions` lists",
        utc(since_ms)
    )))
}

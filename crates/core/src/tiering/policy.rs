//! What administrators ask for: how much of a volume stays free, how old content may become, and what never goes.

use serde::{Deserialize, Serialize};

use super::arrival::{Download, Initial};
use super::heat::{Heat, Position};
use super::programs::ProgramRule;
use crate::exclude;
use crate::stub::{STREAM_MIN, UNIT};

/// Smaller files are worth no stub: two blocks are the least that is gained (DESIGN 7.5).
pub const STUB_MIN: u64 = 8 << 10;
/// For how long a content stays after it came or was changed, unless the volume runs low.
pub const GRACE_S: u64 = 600;
/// Part of a volume that stays free, in percent.
const FREE_PERCENT: u8 = 20;
/// Below this a volume runs low, whatever its size.
const LOW_MAX: u64 = 20 << 30;
/// Beyond what is needed this part of a volume is freed, and this much at most, so that not every new file has to wait for room.
const SPARE_PART: u64 = 64;
const SPARE_MAX: u64 = 4 << 30;
/// A content that takes more than this part of the room for contents, in percent, does not push out the others.
const LARGEST_PERCENT: u8 = 50;

/// What is asked for at one endpoint.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
// What a newer release says beside is not for this one.
#[serde(default)]
pub struct Policy {
    /// Part of the volume that is to stay free, in percent, below 100. The largest of a volume's endpoints counts.
    pub free_percent: u8,
    /// Contents that nobody has used for so many seconds go, whether there is room or not.
    pub older_than_s: Option<u64>,
    /// Contents that came, or were changed, less than so many seconds ago stay, unless the volume runs low.
    pub grace_s: u64,
    /// Smaller files stay; at least [`STUB_MIN`].
    pub min_size: u64,
    /// A content that takes more than this part of the room for contents goes before all others, so that whoever opens it once does
    /// not push out what everybody else uses. In percent; with 100 there is no such content.
    pub largest_percent: u8,
    /// Which contents come by themselves.
    pub download: Download,
    /// What comes of the files that the share has when the endpoint begins.
    pub initial: Initial,
    /// Files of so many bytes and more are shown to programs that stream while they come; none where there is no such file.
    pub stream_from: Option<u64>,
    /// Clients of Samba see tiered files as offline.
    pub offline_attribute: bool,
    /// Patterns of what stays. One without `/` fits names of files and directories, one with `/` a path below the endpoint, and with
    /// a directory stays what lies below it.
    pub keep: Vec<String>,
    /// How programs are treated; the first that fits counts.
    pub programs: Vec<ProgramRule>,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            free_percent: FREE_PERCENT,
            older_than_s: None,
            grace_s: GRACE_S,
            min_size: STUB_MIN,
            largest_percent: LARGEST_PERCENT,
            download: Download::default(),
            initial: Initial::default(),
            stream_from: Some(STREAM_MIN),
            offline_attribute: true,
            keep: Vec::new(),
            programs: Vec::new(),
        }
    }
}

/// Why a policy makes no sense.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PolicyError {
    /// More than all.
    #[error("{0} % of a volume cannot stay free: at most 99 %")]
    Percent(u8),
    /// No part of the room.
    #[error("One file can take 1 to 100 % of the room for contents, not {0} %")]
    Largest(u8),
    /// What is fetched at least would be all of it.
    #[error("Files of less than 1 MiB cannot be streamed")]
    Stream,
    /// A pattern that fits nothing, or that means something else elsewhere.
    #[error("Pattern '{0}' is empty, begins or ends with `/`, or has an empty part")]
    Pattern(String),
}

impl Policy {
    /// Whether it makes sense.
    ///
    /// # Errors
    /// [`PolicyError`], with the reason.
    pub fn check(&self) -> Result<(), PolicyError> {
        if self.free_percent > 99 {
            return Err(PolicyError::Percent(self.free_percent));
        }
        if !(1..=100).contains(&self.largest_percent) {
            return Err(PolicyError::Largest(self.largest_percent));
        }
        if self.stream_from.is_some_and(|size| size < UNIT) {
            return Err(PolicyError::Stream);
        }
        match self.keep.iter().find(|pattern| pattern.split('/').any(str::is_empty)) {
            Some(pattern) => Err(PolicyError::Pattern(pattern.clone())),
            None => Ok(()),
        }
    }

    /// Whether the directory or file of this name stays because of its name alone.
    #[must_use]
    pub fn keeps_name(&self, name: &[u8]) -> bool {
        self.keep.iter().any(|pattern| !pattern.contains('/') && exclude::matches(pattern.as_bytes(), name))
    }

    /// Whether the directory or file with this path stays because of its path. What lies below one that stays is the caller's
    /// business.
    #[must_use]
    pub fn keeps_path(&self, path: &[u8]) -> bool {
        let fits = |pattern: &String| {
            let (mut parts, mut names) = (pattern.split('/'), path.split(|byte| *byte == b'/'));
            loop {
                match (parts.next(), names.next()) {
                    (Some(part), Some(name)) if exclude::matches(part.as_bytes(), name) => {}
                    (None, None) => return true,
                    _ => return false,
                }
            }
        };
        self.keep.iter().any(|pattern| pattern.contains('/') && fits(pattern))
    }

    /// Whether any pattern asks for paths.
    #[must_use]
    pub fn knows_paths(&self) -> bool {
        self.keep.iter().any(|pattern| pattern.contains('/'))
    }

    /// Whether the content of a file may go at all now.
    ///
    /// # Errors
    /// Why it stays.
    pub fn may_go(&self, file: &File, now_ms: u64, volume: &Volume) -> Result<(), Stays> {
        if file.size < self.min_size.max(STUB_MIN) {
            return Err(Stays::Small);
        }
        // A time in the future is a wrong clock, and no reason to stay for ever.
        let is_young = |at_ms: u64| at_ms <= now_ms && now_ms - at_ms < self.grace_s.saturating_mul(1_000);
        if is_young(file.came_ms) && !volume.is_low() { Err(Stays::Young) } else { Ok(()) }
    }

    /// Whether nobody has used a file for longer than is asked for.
    #[must_use]
    pub fn is_old(&self, heat: Heat, now_ms: u64) -> bool {
        self.older_than_s.is_some_and(|seconds| now_ms.saturating_sub(heat.last_ms) > seconds.saturating_mul(1_000))
    }
}

/// What is known of a file whose content may go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct File {
    /// Bytes that its content takes.
    pub size: u64,
    /// Its uses.
    pub heat: Heat,
    /// When its content came or was changed last, in milliseconds since 1970.
    pub came_ms: u64,
}

/// Why a content stays.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Stays {
    /// Too small.
    #[error("it is smaller than what is tiered")]
    Small,
    /// It came, or was changed, a moment ago.
    #[error("it came or was changed a short while ago")]
    Young,
    /// A pattern says so.
    #[error("a pattern of the endpoint keeps it here")]
    Kept,
    /// Somebody said so.
    #[error("it is pinned")]
    Pinned,
}

/// A volume as it is now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Volume {
    /// Its size in bytes.
    pub total: u64,
    /// Of it free for users.
    pub free: u64,
    /// Bytes here that the share lacks: they cannot go, and more may come.
    pub unsent: u64,
    /// What is to stay free, in percent: the largest of its endpoints.
    pub free_percent: u8,
}

/// Bytes that are to stay free.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Levels {
    /// Below this contents go.
    pub goal: u64,
    /// They go until so much is free.
    pub enough: u64,
    /// Below this the volume runs low.
    pub low: u64,
}

impl Volume {
    /// What is to stay free. What the share lacks counts as if it were to be written once more: it leaves room as soon as it is
    /// sent, and until then others go for it, but never more than is asked for anyway.
    #[must_use]
    pub fn levels(&self) -> Levels {
        let asked = percent(self.total, self.free_percent);
        let goal = asked.saturating_add(self.unsent.min(asked)).min(self.total);
        let spare = (self.total / SPARE_PART).min(SPARE_MAX);
        Levels { goal, enough: goal.saturating_add(spare).min(self.total), low: asked.min(self.total / 10).min(LOW_MAX) }
    }

    /// Whether so little is free that contents go that would stay otherwise.
    #[must_use]
    pub fn is_low(&self) -> bool {
        self.free < self.levels().low
    }

    /// Bytes that have to go now.
    #[must_use]
    pub fn needed(&self) -> u64 {
        let levels = self.levels();
        if self.free < levels.goal { levels.enough - self.free } else { 0 }
    }

    /// Bytes that may come by themselves: nothing goes to make room for them.
    #[must_use]
    pub fn spare_room(&self) -> u64 {
        self.free.saturating_sub(self.levels().enough)
    }

    /// Bytes of what is pinned that may come by themselves: others go for them, and the volume must not run low.
    #[must_use]
    pub fn room_for_pinned(&self) -> u64 {
        self.free.saturating_sub(self.levels().low)
    }

    /// Where a file of an endpoint with this policy stands in the order in which contents go.
    #[must_use]
    pub fn position(&self, policy: &Policy, file: &File) -> Position {
        let room = self.total - percent(self.total, self.free_percent);
        if file.size > percent(room, policy.largest_percent) { Position::FIRST } else { file.heat.position() }
    }
}

fn percent(of: u64, percent: u8) -> u64 {
    u64::try_from(u128::from(of) * u128::from(percent.min(100)) / 100).unwrap_or(of)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn volume(total: u64, free: u64, unsent: u64) -> Volume {
        Volume { total: total * GIB, free: free * GIB, unsent: unsent * GIB, free_percent: 20 }
    }

    #[test]
    fn as_much_goes_as_is_asked_for_and_a_little_more() {
        assert_eq!(volume(1_000, 200, 0).needed(), 0);
        // A spare of 4 GiB at most.
        assert_eq!(volume(1_000, 199, 0).needed(), 5 * GIB);
        assert_eq!(volume(64, 12, 0).needed(), 64 * GIB / 5 + GIB - 12 * GIB);
        // Room for as much again as is not sent, but not for more than is asked for.
        assert_eq!(volume(1_000, 200, 30).needed(), 34 * GIB);
        assert_eq!(volume(1_000, 200, 900).needed(), 204 * GIB);
        assert_eq!(Volume { free_percent: 0, ..volume(1_000, 0, 9) }.needed(), 0);
        let whole = Volume { total: u64::MAX, free: 1, unsent: u64::MAX, free_percent: 99 };
        assert_eq!(whole.levels().enough, u64::MAX);
    }

    #[test]
    fn low_is_the_least_of_a_tenth_what_is_asked_for_and_20_gib() {
        let low = |total, free_percent| Volume { free_percent, ..volume(total, 0, 0) }.levels().low / GIB;
        assert_eq!((low(1_000, 20), low(100, 20), low(100, 5), low(100, 0)), (20, 10, 5, 0));
        assert!(volume(100, 9, 0).is_low() && !volume(100, 10, 0).is_low());
    }

    #[test]
    fn what_comes_by_itself_leaves_the_room_that_is_asked_for() {
        let spare = 4;
        assert_eq!(volume(1_000, 300, 0).spare_room(), (100 - spare) * GIB);
        assert_eq!(volume(1_000, 300, 50).spare_room(), (50 - spare) * GIB, "what is not sent yet may be written again");
        assert_eq!((volume(1_000, 203, 0).spare_room(), volume(1_000, 203, 0).room_for_pinned()), (0, 183 * GIB));
        assert_eq!(volume(1_000, 10, 0).room_for_pinned(), 0);
    }

    #[test]
    fn what_is_small_or_young_stays_but_the_young_not_where_the_volume_runs_low() {
        let now = 1_000_000_000;
        let file = |size, came_ms| File { size, heat: Heat::once(0), came_ms };
        let policy = Policy { min_size: 100 << 10, ..Policy::default() };
        let (enough, low) = (volume(100, 50, 0), volume(100, 5, 0));
        assert_eq!(policy.may_go(&file(100 << 10, 0), now, &enough), Ok(()));
        assert_eq!(policy.may_go(&file((100 << 10) - 1, 0), now, &low), Err(Stays::Small));
        assert_eq!(policy.may_go(&file(GIB, now - 599_000), now, &enough), Err(Stays::Young));
        assert_eq!(policy.may_go(&file(GIB, now - 599_000), now, &low), Ok(()));
        assert_eq!(policy.may_go(&file(GIB, now - 600_000), now, &enough), Ok(()));
        assert_eq!(policy.may_go(&file(GIB, now + 1), now, &enough), Ok(()), "a wrong clock");
        assert_eq!(Policy { min_size: 0, ..policy }.may_go(&file(STUB_MIN - 1, 0), now, &low), Err(Stays::Small));
    }

    #[test]
    fn patterns_keep_names_and_paths() {
        let policy = Policy { keep: vec!["*.lnk".into(), "Current".into(), "plans/*/index.db".into()], ..Policy::default() };
        assert_eq!(policy.check(), Ok(()));
        assert!(policy.keeps_name(b"a.LNK") && policy.keeps_name(b"current") && !policy.keeps_name(b"index.db"));
        assert!(policy.keeps_path(b"plans/x/index.db") && !policy.keeps_path(b"plans/index.db"));
        assert!(!policy.keeps_path(b"plans/x/y/index.db") && !policy.keeps_path(b"a.lnk"));
        for wrong in ["", "/a", "a/", "a//b"] {
            let policy = Policy { keep: vec![wrong.to_owned()], ..Policy::default() };
            assert_eq!(policy.check(), Err(PolicyError::Pattern(wrong.to_owned())));
        }
        assert_eq!(Policy { free_percent: 100, ..Policy::default() }.check(), Err(PolicyError::Percent(100)));
        assert_eq!(Policy { largest_percent: 0, ..Policy::default() }.check(), Err(PolicyError::Largest(0)));
    }
}

//! Where this server stands in the lives of its share.
//!
//! The service may have been put back to an earlier state without knowing it. So a reader tells the newest version that it
//! knows of anything, and of which life: by that the service sees what was taken back.

use isotherm_core::ids::{Cursor, Version};
use isotherm_core::namespace::{History, Life, Page, Reader};
use serde::{Deserialize, Serialize};

use super::{Catalog, Engine};

/// The newest version that is known of anything.
const NEWEST: &str = "newest";
/// The lives that had ended when the present one was first heard of.
const LIVES: &str = "lives";
/// What was known when this server began to start over.
const BEFORE: &str = "known-before";

/// What is known while a snapshot replaces it.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Before {
    history: History,
    newest: Version,
}

impl<C: Catalog> Engine<C> {
    pub(super) fn reader(&self, cursor: Cursor) -> Reader {
        Reader { cursor, newest: self.newest().max(cursor.version) }
    }

    fn newest(&self) -> Version {
        let bytes = self.catalog.value(NEWEST).and_then(|bytes| bytes.try_into().ok());
        bytes.map(u64::from_be_bytes).map(Version).unwrap_or_default()
    }

    /// Something is known as of a version.
    pub(super) fn note_version(&mut self, version: Version) {
        if version > self.newest() {
            self.catalog.set_value(NEWEST, Some(&version.0.to_be_bytes()));
        }
    }

    /// A page is of another life, and an answer came since it was asked for: more is known than the lives have in common.
    pub(super) fn is_beyond(&self, page: &Page) -> bool {
        let Some(cursor) = self.catalog.cursor().filter(|cursor| cursor.incarnation != page.cursor.incarnation) else {
            return false;
        };
        let history = History { lives: page.lives.clone(), present: page.cursor.incarnation };
        history.common_with(cursor.incarnation).is_none_or(|common| self.reader(cursor).newest > common)
    }

    /// A page is of the life that was followed before, or of one that goes on from all that is known.
    pub(super) fn note_life(&mut self, page: &Page) {
        if self.catalog.cursor().is_some_and(|cursor| cursor.incarnation != page.cursor.incarnation) {
            self.set_lives(&page.lives);
        }
        // Also in the middle of the feed: what changed behind the position is not known from before it.
        self.note_version(page.head);
    }

    fn set_lives(&mut self, lives: &[Life]) {
        let bytes = postcard::to_stdvec(lives).unwrap_or_default();
        self.catalog.set_value(LIVES, Some(&bytes));
    }

    /// Keeps what is known until all of a snapshot is there, if it is not being kept already.
    pub(super) fn keep_standing(&mut self) {
        let Some(cursor) = self.catalog.cursor() else { return };
        let lives = self.catalog.value(LIVES).and_then(|bytes| postcard::from_bytes(&bytes).ok()).unwrap_or_default();
        let history = History { lives, present: cursor.incarnation };
        let before = Before { history, newest: self.reader(cursor).newest };
        let bytes = postcard::to_stdvec(&before).unwrap_or_default();
        self.catalog.set_value(BEFORE, Some(&bytes));
    }

    /// Up to where versions mean the same in a share with this history and head as they did before; none if that is everything
    /// that was known, or nothing was.
    pub(super) fn past_in(&self, history: &History, head: Version) -> Option<Version> {
        let bytes = self.catalog.value(BEFORE)?;
        // What cannot be read has nothing in common with anything.
        let before = postcard::from_bytes(&bytes).unwrap_or(Before { newest: Version(u64::MAX), ..Before::default() });
        Some(before.history.common(history).min(head)).filter(|common| before.newest > *common)
    }

    /// A snapshot is complete.
    pub(super) fn take_standing(&mut self, cursor: Cursor, lives: &[Life]) {
        self.set_lives(lives);
        self.catalog.set_value(NEWEST, Some(&cursor.version.0.to_be_bytes()));
        self.catalog.set_value(BEFORE, None);
        self.catalog.set_cursor(Some(cursor));
    }
}

//! For whom contents come.

use std::fmt;

/// One fetch of contents, as those see it who bring them.
#[derive(Clone, Copy)]
pub struct Errand<'a> {
    /// Whether it is still wanted.
    pub go_on: &'a dyn Fn() -> bool,
    /// Whether somebody waits for it now; that may begin while it is under way.
    pub is_awaited: &'a dyn Fn() -> bool,
    /// Is told whenever it gets on.
    pub heard: &'a (dyn Fn() + Sync),
}

impl Errand<'static> {
    /// Of nobody who waits or listens; it is wanted as long as the endpoint runs.
    pub const OWN: Self = Errand { go_on: &|| true, is_awaited: &|| false, heard: &|| {} };
}

impl fmt::Debug for Errand<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Errand").finish_non_exhaustive()
    }
}

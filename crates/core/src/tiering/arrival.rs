//! What others bring: which of it comes with its content, and which content follows by itself.

use serde::{Deserialize, Serialize};

use super::policy::Policy;

/// Which contents come by themselves, once an endpoint has the namespace of its share.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Download {
    /// Contents that are here are kept current; new files come without theirs.
    #[default]
    Current,
    /// None: a file that is changed elsewhere gives up what it held here.
    OnDemand,
    /// All that is new or changed, while there is room.
    Proactive,
}

/// What an endpoint gets of the files that its share already has.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Initial {
    /// Their names, sizes and metadata.
    #[default]
    Namespace,
    /// These first, and then their contents, the warmest first, while there is room.
    Content,
    /// Whole files; none is tiered before it was here.
    Whole,
}

/// A content that others bring, as an endpoint finds it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Arrival {
    /// Of a file that is not here yet; `first` until the endpoint has had everything of its share once.
    New {
        /// See above.
        first: bool,
    },
    /// Of a file that is here, as a stub or whole.
    Changed {
        /// Which.
        is_stub: bool,
    },
}

/// How it comes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Comes {
    /// With its content.
    Whole,
    /// As a stub; its content waits for somebody who opens it.
    Stub,
    /// As a stub; its content follows by itself.
    StubFirst,
}

impl Policy {
    /// How a content comes to an endpoint with this policy that tiers. Small files are the caller's business, and so are stubs of one
    /// that does not.
    #[must_use]
    pub fn comes(&self, arrival: Arrival) -> Comes {
        match arrival {
            Arrival::New { first: true } => match self.initial {
                Initial::Namespace => Comes::Stub,
                Initial::Content => Comes::StubFirst,
                Initial::Whole => Comes::Whole,
            },
            Arrival::New { first: false } | Arrival::Changed { is_stub: true } => match self.download {
                Download::Current | Download::OnDemand => Comes::Stub,
                Download::Proactive => Comes::StubFirst,
            },
            Arrival::Changed { is_stub: false } => match self.download {
                Download::Current | Download::Proactive => Comes::Whole,
                Download::OnDemand => Comes::Stub,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_contents_come() {
        let first = Arrival::New { first: true };
        for (initial, comes) in
            [(Initial::Namespace, Comes::Stub), (Initial::Content, Comes::StubFirst), (Initial::Whole, Comes::Whole)]
        {
            for download in [Download::Current, Download::OnDemand, Download::Proactive] {
                assert_eq!(Policy { initial, download, ..Policy::default() }.comes(first), comes, "{initial:?} {download:?}");
            }
        }
        let later = [Arrival::New { first: false }, Arrival::Changed { is_stub: true }, Arrival::Changed { is_stub: false }];
        for (download, comes) in [
            (Download::Current, [Comes::Stub, Comes::Stub, Comes::Whole]),
            (Download::OnDemand, [Comes::Stub, Comes::Stub, Comes::Stub]),
            (Download::Proactive, [Comes::StubFirst, Comes::StubFirst, Comes::Whole]),
        ] {
            let policy = Policy { download, initial: Initial::Whole, ..Policy::default() };
            assert_eq!(later.map(|arrival| policy.comes(arrival)), comes, "{download:?}");
        }
    }
}

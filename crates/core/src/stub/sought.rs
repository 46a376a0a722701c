//! Which content a stub stands for, found by what catalog and share know of its nodes.

use crate::content::ManifestId;
use crate::ids::NodeId;
use crate::node::Content;
use crate::trees::Record;

use super::record::{ContentPrefix, StubRecord};

/// The content of a stub, before its manifest is known.
///
/// **Invariant:** only a content that one of the nodes has or had is taken for it. The beginning of an id is no claim on content
/// of other nodes: a record that was written by hand would open any file of the share.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sought {
    content: ContentPrefix,
    nodes: Vec<NodeId>,
}

impl Sought {
    /// What a record stands for. The file may belong to other nodes by now than the record names: after a conflict, or in another
    /// life of the share.
    #[must_use]
    pub fn new(record: &StubRecord, others: impl IntoIterator<Item = NodeId>) -> Self {
        Self::at(record.content, std::iter::once(record.node).chain(others))
    }

    /// A content of these nodes.
    #[must_use]
    pub fn at(content: ContentPrefix, nodes: impl IntoIterator<Item = NodeId>) -> Self {
        let mut distinct = Vec::new();
        for node in nodes {
            if !distinct.contains(&node) {
                distinct.push(node);
            }
        }
        Self { content, nodes: distinct }
    }

    /// What is known here comes first, among what is safe in the share; then what the share tells of the contents that the nodes
    /// have and had. `None` where neither knows it: the record belongs to another share, or its version has expired.
    ///
    /// # Errors
    ///
    /// The one of `history`, which is asked at most once.
    pub fn find<E>(
        &self,
        mut known: impl FnMut(NodeId) -> Option<Record>,
        history: impl FnOnce(&[NodeId]) -> Result<Vec<ManifestId>, E>,
    ) -> Result<Option<ManifestId>, E> {
        let here = self.nodes.iter().filter_map(|node| known(*node)).find_map(|record| self.among(safe(&record)));
        match here {
            Some(manifest) => Ok(Some(manifest)),
            None => Ok(self.among(history(&self.nodes)?)),
        }
    }

    fn among(&self, manifests: impl IntoIterator<Item = ManifestId>) -> Option<ManifestId> {
        manifests.into_iter().find(|manifest| ContentPrefix::of(manifest) == self.content)
    }
}

fn safe(record: &Record) -> Vec<ManifestId> {
    record.safe_contents().filter_map(Content::file).map(|file| file.manifest).collect()
}

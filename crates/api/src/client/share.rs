//! A share: commit, feed, snapshot, chunks and manifests.
//!
//! Bytes are verified by the service and again here where they arrive: a chunk that does not have its id is an error.
//!
//! **Invariant:** one request is never larger than the limits; callers with more split it.

use bytes::Bytes;
use isotherm_core::content::{ChunkId, ManifestId};
use isotherm_core::ids::{GroupId, NodeId};
use isotherm_core::namespace::{Answer, Batch, Page, Reader};
use reqwest::Method;

use super::Client;
use super::management::part;
use super::streams::{Download, ObjectStream, SnapshotStream};
use crate::error::ApiError;
use crate::path::percent_encode;
use crate::share::{
    FeedRequest, HaveAnswer, HaveRequest, HistoryAnswer, HistoryRequest, IdsRequest, ManifestAnswer, ManifestsPut, PackStored,
    Wanted, WantedRequest,
};
use crate::wire;

impl Client {
    /// Asks for changes; one answer for each operation. What is answered `Applied` is durable.
    ///
    /// # Errors
    /// Nothing of the batch was done, or it is unknown (`unreachable`); sending the same again is harmless.
    pub async fn commit(&self, group: GroupId, batch: &Batch) -> Result<Vec<Answer>, ApiError> {
        self.binary(&format!("/v1/shares/{group}/commit"), wire::encode(batch), 0).await
    }

    /// A page of the change feed; waits up to `wait_ms` where nothing has changed.
    ///
    /// # Errors
    /// `not_found`: no such share.
    pub async fn feed(&self, group: GroupId, reader: impl Into<Reader>, limit: u32, wait_ms: u64) -> Result<Page, ApiError> {
        let request = FeedRequest { reader: reader.into(), limit, wait_ms };
        self.binary(&format!("/v1/shares/{group}/feed"), wire::encode(&request), wait_ms).await
    }

    /// The whole namespace as of one version.
    ///
    /// # Errors
    /// `not_found`: no such share.
    pub async fn snapshot(&self, group: GroupId) -> Result<SnapshotStream, ApiError> {
        let response = self.send(self.request(Method::GET, &format!("/v1/shares/{group}/snapshot"))).await?;
        Ok(SnapshotStream::new(response))
    }

    /// Which of these chunks the service holds, in order; what it holds stays for a day at least.
    ///
    /// # Errors
    /// `too_large`: more than [`crate::limits::IDS_MAX`].
    pub async fn have(&self, group: GroupId, chunks: &[ChunkId]) -> Result<Vec<bool>, ApiError> {
        let request = HaveRequest { chunks: chunks.to_vec() };
        let answer: HaveAnswer = self.binary(&format!("/v1/shares/{group}/have"), wire::encode(&request), 0).await?;
        Ok((0..chunks.len()).map(|at| answer.has(at)).collect())
    }

    /// Uploads a pack as `PackBuilder` made it. Durable and readable when this returns; sending it again is harmless.
    ///
    /// # Errors
    /// `invalid`: the pack is damaged; nothing of it was kept. `full`: no space.
    pub async fn put_pack(&self, group: GroupId, pack: impl Into<Bytes>) -> Result<PackStored, ApiError> {
        let request = self.request_of(&self.patient, Method::POST, &format!("/v1/shares/{group}/packs"));
        let response = self.send_large(request, pack.into()).await?;
        Ok(wire::decode(&self.read(response).await?)?)
    }

    /// Uploads encoded manifests; one answer for each.
    ///
    /// # Errors
    /// `invalid`: one of them is no manifest; nothing was kept.
    pub async fn put_manifests(&self, group: GroupId, manifests: Vec<Vec<u8>>) -> Result<Vec<ManifestAnswer>, ApiError> {
        self.binary(&format!("/v1/shares/{group}/manifests"), wire::encode(&ManifestsPut { manifests }), 0).await
    }

    /// Encoded manifests, in the order asked for; none where the service has none. Ids are checked.
    ///
    /// # Errors
    /// `corrupt`: the service's copy is damaged.
    pub async fn get_manifests(&self, group: GroupId, ids: &[ManifestId]) -> Result<Vec<Option<Bytes>>, ApiError> {
        let ids: Vec<[u8; 32]> = ids.iter().map(|id| *id.as_bytes()).collect();
        let mut stream = self.objects(&format!("/v1/shares/{group}/manifests/get"), ids).await?;
        let mut found = Vec::new();
        while let Some((id, bytes)) = stream.next_object().await? {
            if let Some(bytes) = &bytes {
                super::streams::check_manifest(ManifestId::from_bytes(id), bytes)?;
            }
            found.push(bytes);
        }
        Ok(found)
    }

    /// Chunks as a stream, in the order asked for, each verified on arrival.
    ///
    /// # Errors
    /// `too_large`: more than [`crate::limits::IDS_MAX`].
    pub async fn get_chunks(&self, group: GroupId, ids: &[ChunkId]) -> Result<ObjectStream, ApiError> {
        let ids = ids.iter().map(|id| *id.as_bytes()).collect();
        self.objects(&format!("/v1/shares/{group}/chunks/get"), ids).await
    }

    /// For each node the manifests that it ever had, newest first.
    ///
    /// # Errors
    /// `not_found`: no such share.
    pub async fn history(&self, group: GroupId, nodes: &[NodeId], limit: u32) -> Result<Vec<Vec<ManifestId>>, ApiError> {
        let request = HistoryRequest { nodes: nodes.to_vec(), limit };
        let answer: HistoryAnswer = self.binary(&format!("/v1/shares/{group}/history"), wire::encode(&request), 0).await?;
        Ok(answer.manifests)
    }

    /// Which contents the share has lost; waits as the request says where that is no news. Sending one again as an ordinary
    /// upload, its manifest last, puts it back.
    ///
    /// # Errors
    /// `fenced`: a newer run has taken over. `not_found`: no such share or server.
    pub async fn wanted(&self, group: GroupId, request: &WantedRequest) -> Result<Wanted, ApiError> {
        self.binary(&format!("/v1/shares/{group}/wanted"), wire::encode(request), request.wait_ms).await
    }

    /// A file's bytes: all, or from `range.0` up to and without `range.1`.
    ///
    /// # Errors
    /// `not_found`, `is_directory`, `not_a_file`, `range`.
    pub async fn download(&self, group: &str, path: &[u8], range: Option<(u64, u64)>) -> Result<Download, ApiError> {
        let path = percent_encode(path);
        let mut request =
            self.request(Method::GET, &format!("/v1/groups/{}/files/{}", part(group)?, path.trim_start_matches('/')));
        if let Some((start, end)) = range {
            request = request.header("range", format!("bytes={start}-{}", end.saturating_sub(1)));
        }
        Ok(Download::new(self.send(request).await?))
    }

    async fn objects(&self, path: &str, ids: Vec<[u8; 32]>) -> Result<ObjectStream, ApiError> {
        let body = wire::encode(&IdsRequest { ids: ids.clone() });
        let response = self.send(self.request(Method::POST, path).body(body)).await?;
        Ok(ObjectStream::new(response, ids))
    }
}

//! A file of a share by its path, as any HTTP client reads it; and the listing of directories.
//!
//! Only reading. One range of a request is served; several at once are answered with the whole file, as HTTP allows.
//!
//! **Invariant:** every byte belongs to the one version that the answer's tag names, or the connection breaks off.

use std::ops::Range;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use isotherm_api::Code;
use isotherm_api::management::Tree;
use isotherm_api::path::percent_decode;
use isotherm_core::content::{Manifest, Part, PlacedPart};
use isotherm_core::node::{Content, FileContent};
use rusqlite::Connection;

use super::{Answered, Shared, body};
use crate::State as Service;
use crate::fault::Fault;
use crate::records::{self, Found, SqlRecords};

/// Chunks that are read ahead of the one that is sent.
const AHEAD: usize = 2;

/// Zeros for holes; sent again and again without a copy.
const ZEROS: &[u8] = &[0; 256 * 1024];

/// Group and path of `/v1/groups/{name}/{kind}/{path}`. The router's own parameters are text; a path is bytes.
pub(super) fn parts_of(uri: &Uri) -> Result<(String, Vec<u8>), Fault> {
    let mut parts = uri.path().splitn(6, '/').skip(3);
    let group = parts.next().unwrap_or_default().to_owned();
    let raw = parts.nth(1).unwrap_or_default();
    let path = percent_decode(raw).ok_or_else(|| Fault::invalid(format!("Path {raw} is not percent-encoded as it should be")))?;
    Ok((group, path))
}

pub(super) async fn tree(State(state): Shared, uri: Uri) -> Answered {
    let (group, path) = parts_of(&uri)?;
    let read = move |connection: &Connection| {
        let group = records::group(connection, &group)?;
        let share = SqlRecords::open(connection, group.id, 0)?;
        let entries = records::list(connection, &share, &records::find(&share, &path)?)?;
        Ok(Tree { version: group.head, entries })
    };
    Ok(body::json(&state.database.read(read).await?))
}

pub(super) async fn file(State(state): Shared, uri: Uri, headers: HeaderMap) -> Answered {
    let (group, path) = parts_of(&uri)?;
    let content = state.database.read(move |connection| find_file(connection, &group, &path)).await?;
    let tag = format!("\"{}\"", content.manifest);
    let given = |name: header::HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    if given(header::IF_NONE_MATCH).is_some_and(|tags| tags.split(',').any(|one| matches!(one.trim(), "*") || one.trim() == tag))
    {
        return Ok((StatusCode::NOT_MODIFIED, [(header::ETAG, tag)]).into_response());
    }
    let manifest = state.content.manifest(content.manifest).await?;
    // A range of another version is no use to the client; then it gets the whole of this one.
    let is_same = given(header::IF_RANGE).is_none_or(|wanted| wanted == tag);
    let wanted = given(header::RANGE).filter(|_| is_same).and_then(|text| parse_range(text, manifest.len()));
    let (status, range) = match wanted {
        None => (StatusCode::OK, 0..manifest.len()),
        Some(Some(range)) => (StatusCode::PARTIAL_CONTENT, range),
        Some(None) => return Ok(unsatisfiable(&headers, manifest.len())),
    };
    send(&state, manifest, status, range, tag).await
}

fn find_file(connection: &Connection, group: &str, path: &[u8]) -> Result<FileContent, Fault> {
    let share = SqlRecords::open(connection, records::group(connection, group)?.id, 0)?;
    let shown = isotherm_core::name::escape(path);
    let directory = || Fault::new(Code::IsDirectory, format!("Path {shown} is a directory"));
    match records::find(&share, path)? {
        Found::Root => Err(directory()),
        Found::Node(node) => match node.content {
            Content::File(file) => Ok(file),
            Content::Directory => Err(directory()),
            Content::Symlink { .. } => Err(Fault::new(Code::NotAFile, format!("Path {shown} is a symlink"))),
        },
    }
}

fn unsatisfiable(headers: &HeaderMap, len: u64) -> Response {
    let asked = headers.get(header::RANGE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let asked = isotherm_core::name::escape(asked.as_bytes());
    let mut answer =
        Fault::new(Code::Range, format!("Range {asked} lies outside the file, which has {len} bytes")).into_response();
    if let Ok(value) = header::HeaderValue::from_str(&format!("bytes */{len}")) {
        answer.headers_mut().insert(header::CONTENT_RANGE, value);
    }
    answer
}

/// One range: none where the header means nothing here, and nothing inside where the file has no such bytes.
fn parse_range(text: &str, len: u64) -> Option<Option<Range<u64>>> {
    let (first, last) = text.strip_prefix("bytes=")?.split_once('-')?;
    let number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse::<u64>().unwrap_or(u64::MAX));
    let range = match (first, last) {
        ("", "") => return None,
        ("", suffix) => len.saturating_sub(number(suffix)?)..len,
        (first, "") => number(first)?..len,
        (first, last) if number(last)? < number(first)? => return None,
        (first, last) => number(first)?..number(last)?.saturating_add(1).min(len),
    };
    Some((range.start < range.end).then_some(range))
}

async fn send(state: &Arc<Service>, manifest: Manifest, status: StatusCode, range: Range<u64>, tag: String) -> Answered {
    let len = manifest.len();
    let (start, end) = (range.start, range.end);
    let parts: Vec<PlacedPart> = manifest.parts_in(range).collect();
    let source = Arc::clone(state);
    let mut pieces = stream::iter(parts)
        .map(move |placed| {
            let state = Arc::clone(&source);
            async move { read_part(&state, placed, start..end).await }
        })
        .buffered(AHEAD)
        .boxed();
    // Read before the answer begins, so that damage in the first chunk is still an answer with a code.
    let first = pieces.try_next().await?;
    let all = stream::iter(first.map(Ok)).chain(pieces).map_ok(split_zeros).try_flatten();
    let mut answer = (status, Body::from_stream(all.inspect_err(log_broken))).into_response();
    let headers = answer.headers_mut();
    let mut set = |name, text: String| {
        let value = header::HeaderValue::from_str(&text).expect("digits and plain letters make a header");
        headers.insert(name, value);
    };
    set(header::CONTENT_LENGTH, (end - start).to_string());
    set(header::CONTENT_TYPE, "application/octet-stream".to_owned());
    set(header::ACCEPT_RANGES, "bytes".to_owned());
    set(header::ETAG, tag);
    if status == StatusCode::PARTIAL_CONTENT {
        set(header::CONTENT_RANGE, format!("bytes {start}-{}/{len}", end - 1));
    }
    Ok(answer)
}

fn log_broken(fault: &Fault) {
    tracing::error!(code = %fault.code, %fault, "Download broke off");
}

/// What a part gives to a range.
enum Piece {
    Bytes(Bytes),
    Zeros(u64),
}

async fn read_part(state: &Service, placed: PlacedPart, range: Range<u64>) -> Result<Piece, Fault> {
    let own = placed.range();
    let (start, end) = (own.start.max(range.start), own.end.min(range.end));
    match placed.part {
        Part::Hole { .. } => Ok(Piece::Zeros(end - start)),
        Part::Data { chunk, len } => {
            let bytes = state.content.named_chunk(chunk).await?;
            if bytes.len() != len as usize {
                let message = format!("Chunk {chunk} has {} bytes, and a manifest says {len}", bytes.len());
                return Err(Fault::corrupt(message));
            }
            Ok(Piece::Bytes(bytes.slice((start - own.start) as usize..(end - own.start) as usize)))
        }
    }
}

fn split_zeros(piece: Piece) -> impl stream::Stream<Item = Result<Bytes, Fault>> + Send {
    let (bytes, mut left) = match piece {
        Piece::Bytes(bytes) => (Some(bytes), 0),
        Piece::Zeros(count) => (None, count),
    };
    let zeros = std::iter::from_fn(move || {
        let count = left.min(ZEROS.len() as u64);
        left -= count;
        (count > 0).then(|| Bytes::from_static(&ZEROS[..count as usize]))
    });
    stream::iter(bytes.into_iter().chain(zeros).map(Ok))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_ten_bytes() {
        for (text, wanted) in [
            ("bytes=0-3", Some(Some(0..4))),
            ("bytes=5-", Some(Some(5..10))),
            ("bytes=-3", Some(Some(7..10))),
            ("bytes=-30", Some(Some(0..10))),
            ("bytes=8-99999999999999999999", Some(Some(8..10))),
            ("bytes=10-", Some(None)),
            ("bytes=-0", Some(None)),
            ("bytes=3-2", None),
            ("bytes=0-1,3-4", None),
            ("bytes=-", None),
            ("lines=0-3", None),
        ] {
            assert_eq!(parse_range(text, 10), wanted, "{text}");
        }
    }
}

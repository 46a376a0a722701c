//! Answers that are made while they are sent.
//!
//! Each holds a bounded number of frames; a slow reader slows the work down, and one that goes away ends it.
//!
//! **Invariant:** a stream that failed has no end frame.

use std::future::Future;
use std::time::Duration;

use axum::body::Body;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use isotherm_api::error::ErrorBody;
use isotherm_api::share::{ObjectFrame, SnapshotFrame};
use isotherm_api::wire;
use isotherm_core::ids::{Cursor, GroupId};
use isotherm_core::node::Node;
use rusqlite::Connection;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use crate::fault::Fault;
use crate::records;

/// Objects that are read ahead of the one that is sent: enough to keep a disk busy, at most this many chunks of memory.
const AHEAD: usize = 4;
/// Nodes of one frame of a snapshot.
const NODES_PER_FRAME: usize = 256;
/// Frames of a snapshot that wait to be sent.
const FRAMES_AHEAD: usize = 8;
/// A reader that takes nothing for this long is given up: its transaction keeps the database's log from being reused.
const STALL: Duration = Duration::from_secs(60);

fn binary(body: Body) -> Response {
    ([(CONTENT_TYPE, "application/octet-stream")], body).into_response()
}

/// Objects in the order of their ids, each from `read`; the first failure ends the stream and is its last frame.
pub(super) fn objects<F, R>(ids: Vec<[u8; 32]>, read: F) -> Response
where
    F: Fn([u8; 32]) -> R + Send + 'static,
    R: Future<Output = Result<Option<Bytes>, Fault>> + Send + 'static,
{
    let reads = stream::iter(ids).map(move |id| {
        let reading = read(id);
        async move {
            match reading.await {
                Ok(Some(bytes)) => ObjectFrame::Object { id, bytes },
                Ok(None) => ObjectFrame::Absent { id },
                Err(fault) => {
                    tracing::error!(code = %fault.code, %fault, "Stream of objects failed");
                    ObjectFrame::Failed(ErrorBody { code: fault.code, message: fault.message })
                }
            }
        }
    });
    let frames = reads.buffered(AHEAD).chain(stream::iter([ObjectFrame::End]));
    let mut failed = false;
    let frames = frames.take_while(move |frame| {
        let goes_on = !failed;
        failed = matches!(frame, ObjectFrame::Failed(_));
        std::future::ready(goes_on)
    });
    binary(Body::from_stream(frames.map(|frame| Ok::<_, Fault>(frame.encode()))))
}

/// The whole tree of a share, from one read transaction of a connection of its own.
pub(super) fn snapshot(connection: Connection, group: GroupId, stopped: impl Future<Output = ()> + Send + 'static) -> Response {
    let (frames, mut queue) = mpsc::channel::<Result<Bytes, Fault>>(FRAMES_AHEAD);
    let runtime = Handle::current();
    tokio::task::spawn_blocking(move || {
        let send = |frame| runtime.block_on(frames.send_timeout(frame, STALL)).is_ok();
        if let Err(fault) = walk(&connection, group, |frame| send(Ok(wire::frame(&wire::encode(frame))))) {
            tracing::error!(code = %fault.code, %fault, "Snapshot broke off");
            send(Err(fault));
        }
    });
    let body = stream::poll_fn(move |context| queue.poll_recv(context)).take_until(stopped);
    binary(Body::from_stream(body))
}

/// `send` answers false when the reader has gone away, which ends the walk.
fn walk(connection: &Connection, group: GroupId, send: impl Fn(&SnapshotFrame) -> bool) -> Result<(), Fault> {
    let transaction = connection.unchecked_transaction()?;
    let mut nodes: Vec<Node> = Vec::with_capacity(NODES_PER_FRAME);
    let count = records::snapshot(
        &transaction,
        group,
        |share, lives| {
            let cursor = Cursor { incarnation: share.incarnation, version: share.head };
            send(&SnapshotFrame::Header { cursor, lives })
        },
        |node| {
            nodes.push(node);
            nodes.len() < NODES_PER_FRAME || send(&SnapshotFrame::Nodes(std::mem::take(&mut nodes)))
        },
    )?;
    if !nodes.is_empty() {
        send(&SnapshotFrame::Nodes(nodes));
    }
    send(&SnapshotFrame::End { count });
    Ok(())
}

//! The change feed and the snapshot: woken readers, and one truth by both ways.

use std::collections::BTreeMap;

use isotherm_api::share::SnapshotFrame;
use isotherm_api::{ApiError, Client};
use isotherm_core::ids::{Cursor, GroupId, Incarnation, NodeId, Version};
use isotherm_core::namespace::{Answer, Based, Change};
use isotherm_core::node::{Content, Node, Place};

use crate::world::{PATIENCE, World, create};

/// A snapshot, with each node checked to come after its parent.
async fn snapshot(client: &Client, group: GroupId) -> Result<(Cursor, BTreeMap<NodeId, Node>), ApiError> {
    let mut stream = client.snapshot(group).await?;
    let mut nodes = BTreeMap::new();
    let mut start = None;
    while let Some(frame) = stream.next_frame().await? {
        match frame {
            SnapshotFrame::Header { cursor, .. } => start = Some(cursor),
            SnapshotFrame::Nodes(some) => {
                for node in some {
                    assert!(node.is_live());
                    let parent = node.place.parent;
                    assert!(parent == NodeId::ROOT || nodes.contains_key(&parent), "parent of {}", node.id);
                    assert!(nodes.insert(node.id, node).is_none());
                }
            }
            SnapshotFrame::End { .. } => {}
        }
    }
    Ok((start.unwrap(), nodes))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_reader_is_woken_by_a_commit() {
    let mut world = World::new().await;
    let (client, group, cursor) = (world.client().clone(), world.writer.group, world.writer.start());
    let waiting = tokio::spawn(async move { client.feed(group, cursor, 10, 60_000).await });
    let node = world.writer.node();
    world.writer.commit(create(node, NodeId::ROOT, b"a", Content::Directory)).await;
    let page = tokio::time::timeout(PATIENCE / 2, waiting).await.expect("woken, not timed out").unwrap().unwrap();
    assert_eq!(page.nodes.len(), 1);
    assert!(page.at_head);
    let quiet = world.client().feed(group, page.cursor, 10, 0).await.unwrap();
    assert!(quiet.nodes.is_empty() && quiet.at_head && quiet.cursor == page.cursor);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn case_10_a_cursor_of_another_life_starts_over() {
    let world = World::new().await;
    let cursor = Cursor { incarnation: Incarnation(1), version: Version(0) };
    assert!(world.client().feed(world.writer.group, cursor, 10, 60_000).await.unwrap().start_over);
    let ahead = Cursor { version: Version(9), ..world.writer.start() };
    assert!(world.client().feed(world.writer.group, ahead, 10, 60_000).await.unwrap().start_over);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_answers_who_waits() {
    let world = World::new().await;
    let (client, group, cursor) = (world.client().clone(), world.writer.group, world.writer.start());
    let first = client.feed(group, cursor, 10, 0).await.unwrap();
    assert!(first.at_head);
    let waiting = tokio::spawn(async move { client.feed(group, cursor, 10, 60_000).await });
    world.stop().await;
    // The request may also have come too late for this service.
    if let Ok(page) = tokio::time::timeout(PATIENCE / 2, waiting).await.expect("answered").unwrap() {
        assert!(page.nodes.is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn snapshots_and_feed_agree_while_others_commit() {
    let world = World::new().await;
    let (client, group) = (world.client().clone(), world.writer.group);
    let mut writer = world.writer;
    let writing = tokio::spawn(async move {
        let mut directories = vec![(NodeId::ROOT, Version(0))];
        for number in 0..300_usize {
            let (parent, _) = directories[number * 7 % directories.len()];
            let node = writer.node();
            let made = writer.commit(create(node, parent, format!("n{number}").as_bytes(), Content::Directory)).await;
            let Answer::Applied(version) = made else { panic!("{made:?}") };
            directories.push((node, version));
            // Now and then a directory goes elsewhere with all that it holds; those that would be cycles are refused.
            if number % 3 == 0 {
                let at = 1 + number * 5 % (directories.len() - 1);
                let (parent, _) = directories[number * 11 % directories.len()];
                let (node, base) = directories[at];
                let name = isotherm_core::name::Name::new(format!("m{number}").as_bytes()).unwrap();
                let change = Change::Move { node, place: Based { base, value: Place { parent, name } } };
                if let Answer::Applied(version) = writer.commit(change).await {
                    directories[at].1 = version;
                }
            }
        }
        writer
    });
    let (mut cursor, mut known) = snapshot(&client, group).await.unwrap();
    let mut is_done = false;
    loop {
        let page = client.feed(group, cursor, 5, 0).await.unwrap();
        for node in page.nodes {
            known.insert(node.id, node);
        }
        cursor = page.cursor;
        if page.at_head && is_done {
            break;
        }
        is_done = writing.is_finished();
    }
    writing.await.unwrap();
    let (end, nodes) = snapshot(&client, group).await.unwrap();
    assert_eq!(end, cursor);
    assert_eq!(nodes.len(), 300);
    assert_eq!(known, nodes);
    world.running.stop().await;
}

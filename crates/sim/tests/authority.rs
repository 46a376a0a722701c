#![allow(missing_docs, clippy::unwrap_used)]
//! Server authoritative initial upload, driven event by event: it rules only over a tree that was read to its end, never
//! from an empty folder, and only until both sides have agreed once.

use std::collections::BTreeMap;

use isotherm_agent::engine::{Effect, Engine, Event, Limits, Look, MemoryCatalog, Settings};
use isotherm_core::ids::{Cursor, Incarnation, NodeId, OperationId, ServerId, Version};
use isotherm_core::name::{Case, Name};
use isotherm_core::namespace::Page;
use isotherm_core::node::{Content, Metadata, Node, Place, Versions};
use isotherm_core::observe::{Listing, Scope};
use isotherm_core::plan::{Authority, Rules};
use isotherm_sim::volume::{ROOT, STAGING, handle};

fn engine() -> Engine<MemoryCatalog> {
    let rules = Rules {
        case: Case::Sensitive,
        server: ServerId([1; 16]),
        servers: BTreeMap::new(),
        authority: Authority::Server,
        authority_until: None,
        hold_local_deletes: false,
        hold_remote_deletes: false,
    };
    let settings = Settings {
        rules,
        limits: Limits::default(),
        root: handle(ROOT),
        staging: handle(STAGING),
        watched: true,
        rolled_back: false,
    };
    let mut next = 0;
    let ids = Box::new(move || {
        next += 1;
        [next; 16]
    });
    Engine::new(MemoryCatalog::new(Case::Sensitive), settings, ids).unwrap()
}

fn page() -> Event {
    let version = Version(1);
    let node = Node {
        id: NodeId([9; 16]),
        place: Place { parent: NodeId::ROOT, name: Name::new(b"there").unwrap() },
        metadata: Metadata::default(),
        content: Content::Directory,
        versions: Versions { created: version, place: version, metadata: version, content: version, last: version },
        deleted: false,
        conflict_of: None,
        author: ServerId([2; 16]),
        operation: OperationId([3; 16]),
    };
    let cursor = Cursor { incarnation: Incarnation(1), version };
    Event::Page(Ok(Page { nodes: vec![node], cursor, at_head: true, head: version, start_over: false, lives: Vec::new() }))
}

#[test]
fn nothing_is_deleted_from_the_share_before_the_folder_was_read_nor_from_an_empty_one() {
    let mut engine = engine();
    let first = engine.handle(Event::Tick, 0).unwrap();
    assert!(first.iter().any(|effect| matches!(effect, Effect::Look(_))));
    let before = engine.handle(page(), 1).unwrap();
    assert!(!before.iter().any(|effect| matches!(effect, Effect::Commit(_))), "{before:?}");
    let empty = |directory, ino| Look {
        directory,
        listing: Some(Listing { directory, handle: handle(ino), scope: Scope::All, seen: Vec::new() }),
        unfit: Vec::new(),
        moved: Vec::new(),
    };
    let looks = vec![empty(NodeId::ROOT, ROOT), empty(NodeId::PARKED, STAGING)];
    let after = engine.handle(Event::Looked(looks), 2).unwrap();
    assert!(!after.iter().any(|effect| matches!(effect, Effect::Commit(_))), "{after:?}");
    let later = engine.handle(Event::Tick, 5_000).unwrap();
    assert!(!later.iter().any(|effect| matches!(effect, Effect::Commit(_))), "{later:?}");
}

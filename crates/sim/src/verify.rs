//! What must hold when the world has come to rest.

use std::collections::BTreeSet;

use isotherm_agent::engine::{Catalog, Engine, MemoryCatalog};
use isotherm_core::ids::{Cursor, NodeId};
use isotherm_core::name::{Case, Name};
use isotherm_core::namespace::Records;
use isotherm_core::node::{Kind, Place};
use isotherm_core::trees::{Local, Record, Trees, path};

use crate::volume::{PART, STAGING, handle, manifest};
use crate::world::{Site, World};

/// Whether every engine runs, agrees, and has read the share to its head.
pub(crate) fn at_rest(world: &mut World) -> bool {
    let Ok(share) = world.records.share();
    let head = Cursor { incarnation: share.incarnation, version: share.head };
    let now = world.now();
    world.sites.iter_mut().all(|site| {
        // What a user did in the last moments is reported to the engine first.
        now > site.reported_until
            // Nor is anybody at rest whom the service has not heard since it was put back.
            && site.cursor.is_some()
            && site.engine.as_mut().is_some_and(|engine| {
                let status = engine.status(now);
                status.agreed && status.cursor == Some(head)
            })
    })
}

/// Equal volumes, nothing lost, nothing left behind.
pub(crate) fn verify(world: &mut World) {
    if !at_rest(world) {
        world.outcome.wrong.push("the calendar is empty, but not everybody agrees".to_owned());
        describe(world);
        return;
    }
    let first = world.sites[0].volume.image();
    let linked = world.sites[0].volume.linked();
    let mut wrong = Vec::new();
    for (number, site) in world.sites.iter().enumerate() {
        let image = site.volume.image();
        if image != first {
            let here: Vec<_> = image.iter().filter(|(path, shown)| first.get(*path) != Some(shown)).collect();
            let there: Vec<_> = first.iter().filter(|(path, shown)| image.get(*path) != Some(shown)).collect();
            wrong.push(format!("volume {number} differs from volume 0:\n  there {here:?}\n  at 0  {there:?}"));
        }
        if site.volume.linked() != linked {
            wrong.push(format!("hard links of {number} differ from those of 0: {:?}, {linked:?}", site.volume.linked()));
            for paths in site.volume.linked().symmetric_difference(&linked) {
                wrong.extend(world.sites.iter().enumerate().flat_map(|(number, site)| {
                    paths.iter().map(move |path| format!("  {path} at {number}: {:?}", known_at(site, path)))
                }));
            }
        }
        let mut staged = site.volume.entries(STAGING);
        staged.retain(|(name, _)| !name.as_bytes().starts_with(b"part-"));
        if !staged.is_empty() {
            wrong.push(format!("something stayed in the staging folder of {number}: {staged:?}"));
        }
    }
    if !wrong.is_empty() {
        world.sites.iter().enumerate().for_each(|(number, site)| wrong.extend(unknown(number, site)));
    }
    let live: BTreeSet<u32> = first.values().filter(|shown| shown.kind == Kind::File).map(|shown| shown.bytes).collect();
    if live.contains(&PART) {
        wrong.push("a part of a content became a file".to_owned());
    }
    let lost: Vec<_> = world.ledger.owed.difference(&live).collect();
    if !lost.is_empty() {
        wrong.push(format!("contents are lost: {lost:?}"));
    }
    let over = world.ledger.over().into_iter().filter(|bytes| !world.copied.contains(&manifest(*bytes)));
    let back: Vec<_> = over.filter(|bytes| live.contains(bytes)).collect();
    // Deletes that were not sent yet are forgotten with a volume that went back, as they must be.
    if !back.is_empty() && !world.went_back {
        wrong.push(format!("contents that were deleted or replaced came back: {back:?}"));
    }
    let nodes = world.records.nodes().filter(|node| node.is_live());
    let (all, conflicts) =
        nodes.fold((0, 0), |(all, conflicts), node| (all + 1, conflicts + usize::from(node.conflict_of.is_some())));
    let of_files = copies_of_files(world);
    if world.options.apart && !of_files.is_empty() {
        wrong.push(format!("conflict copies, and nobody touched what others made: {of_files:?}"));
    }
    let nodes = world.records.nodes().filter(|node| node.is_live());
    let named = nodes.filter_map(|node| node.content.file()).map(|file| file.manifest);
    let collected: Vec<_> = named.filter(|manifest| !world.records.has_content(*manifest)).collect();
    if !collected.is_empty() {
        wrong.push(format!("contents of live nodes were collected: {collected:?}"));
    }
    let dead = world.dead_stubs();
    if !dead.is_empty() {
        wrong.push(format!("stubs whose content is gone, as site, inode, content: {dead:?}"));
    }
    if all != first.len() {
        wrong.push(format!("the share has {all} live nodes, volume 0 has {}", first.len()));
    }
    (world.outcome.nodes, world.outcome.conflicts) = (all, conflicts);
    world.outcome.wrong.extend(wrong);
}

/// Names of conflict copies of files. Where a directory was on its way, people may have given its name to something else.
fn copies_of_files(world: &World) -> Vec<Name> {
    let of_files = world.records.nodes().filter(|node| {
        let other = node.conflict_of.and_then(|other| world.records.nodes().find(|node| node.id == other));
        node.is_live() && other.is_some_and(|other| other.content.file().is_some())
    });
    of_files.map(|node| node.place.name.clone()).collect()
}

/// Adds what every engine still wants.
pub(crate) fn describe(world: &mut World) {
    let now = world.now();
    let mut texts = Vec::new();
    let dead = world.dead_stubs();
    if !dead.is_empty() {
        texts.push(format!("stubs whose content is gone, as site, inode, content: {dead:?}"));
    }
    for (number, site) in world.sites.iter_mut().enumerate() {
        let Some(engine) = site.engine.as_mut() else {
            texts.push(format!("engine {number} does not run"));
            continue;
        };
        let status = engine.status(now);
        texts.push(format!("engine {number}: {status:?}\n{engine:?}"));
        texts.extend(engine.catalog().unsettled(None, 10).into_iter().flat_map(|node| story(engine.catalog(), node)));
    }
    world.outcome.wrong.extend(texts);
}

/// What is known of a node, and of the nodes that it may be waiting for.
fn story(catalog: &MemoryCatalog, node: NodeId) -> Vec<String> {
    let record = catalog.record(node);
    let shown = String::from_utf8_lossy(&path(catalog, node)).into_owned();
    let mut texts = vec![format!("  {shown}: {record:?}")];
    let Some(record) = record else { return texts };
    let mut tell = |what: &str, other: Option<NodeId>| {
        if let Some(other) = other.filter(|other| *other != node && !other.is_anchor()) {
            texts.push(format!("    {what}: {other:?} {:?}", catalog.record(other)));
        }
    };
    if let Some(local) = &record.local {
        catalog.by_handle(&local.handle).into_iter().for_each(|other| tell("another name", Some(other)));
        tell("parent here", Some(local.place.parent));
        let keys = [Case::Sensitive, Case::Insensitive].map(|case| local.place.name.key(case));
        keys.iter().for_each(|key| tell("has its local name in the share", catalog.remote_at(local.place.parent, key)));
    }
    if let Some(remote) = &record.remote {
        tell("parent there", Some(remote.place.parent));
        tell("has its remote name here", catalog.local_at(&remote.place));
    }
    texts
}

/// What a catalog says of a path of its volume.
fn known_at(site: &Site, path: &str) -> Option<Record> {
    let catalog = site.engine.as_ref()?.catalog();
    let mut node = NodeId::ROOT;
    for name in path.split('/').skip(1) {
        node = catalog.local_at(&Place { parent: node, name: Name::new(name.as_bytes()).ok()? })?;
    }
    catalog.record(node)
}

/// Names on a volume of which the catalog says something else, or nothing.
fn unknown(number: usize, site: &Site) -> Vec<String> {
    let Some(catalog) = site.engine.as_ref().map(Engine::catalog) else { return Vec::new() };
    let mut texts = Vec::new();
    for ((directory, name), ino) in site.volume.all() {
        let nodes = catalog.by_handle(&handle(ino));
        let records: Vec<_> = nodes.into_iter().filter_map(|node| catalog.record(node)).collect();
        let parents = catalog.by_handle(&handle(directory));
        let fits = |local: &Local| parents.contains(&local.place.parent) && local.place.name == name;
        if !records.iter().any(|record| record.here().is_some_and(fits)) {
            texts.push(format!("  site {number}: {name} in {directory} is {ino}, known {records:?}"));
        }
    }
    texts
}

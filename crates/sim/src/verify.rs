//! What must hold when the world has come to rest.

use std::collections::BTreeSet;

use isotherm_agent::engine::Catalog;
use isotherm_core::namespace::Records;
use isotherm_core::node::Kind;
use isotherm_core::trees::{Trees, path};

use crate::volume::STAGING;
use crate::world::World;

/// Whether every engine runs, agrees, and has read the share to its head.
pub(crate) fn at_rest(world: &mut World) -> bool {
    let Ok(share) = world.records.share();
    let now = world.now();
    world.sites.iter_mut().all(|site| {
        site.engine.as_mut().is_some_and(|engine| {
            let status = engine.status(now);
            status.agreed && status.cursor.is_some_and(|cursor| cursor.version == share.head)
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
    let mut wrong = Vec::new();
    for (number, site) in world.sites.iter().enumerate() {
        let image = site.volume.image();
        if image != first {
            let here: Vec<_> = image.iter().filter(|(path, shown)| first.get(*path) != Some(shown)).collect();
            let there: Vec<_> = first.iter().filter(|(path, shown)| image.get(*path) != Some(shown)).collect();
            wrong.push(format!("volume {number} differs from volume 0:\n  there {here:?}\n  at 0  {there:?}"));
        }
        if !site.volume.entries(STAGING).is_empty() {
            wrong.push(format!("something stayed in the staging folder of {number}: {:?}", site.volume.entries(STAGING)));
        }
    }
    let live: BTreeSet<u32> = first.values().filter(|shown| shown.kind == Kind::File).map(|shown| shown.bytes).collect();
    let lost: Vec<_> = world.ledger.owed.difference(&live).collect();
    if !lost.is_empty() {
        wrong.push(format!("contents are lost: {lost:?}"));
    }
    let nodes = world.records.nodes().filter(|node| node.is_live());
    let (all, conflicts) =
        nodes.fold((0, 0), |(all, conflicts), node| (all + 1, conflicts + usize::from(node.conflict_of.is_some())));
    if all != first.len() {
        wrong.push(format!("the share has {all} live nodes, volume 0 has {}", first.len()));
    }
    (world.outcome.nodes, world.outcome.conflicts) = (all, conflicts);
    world.outcome.wrong.extend(wrong);
}

/// Adds what every engine still wants.
pub(crate) fn describe(world: &mut World) {
    let now = world.now();
    let mut texts = Vec::new();
    for (number, site) in world.sites.iter_mut().enumerate() {
        let Some(engine) = site.engine.as_mut() else {
            texts.push(format!("engine {number} does not run"));
            continue;
        };
        let status = engine.status(now);
        texts.push(format!("engine {number}: {status:#?}\n{engine:#?}"));
        for node in engine.catalog().unsettled(None, 10) {
            let record = engine.catalog().record(node);
            let shown = String::from_utf8_lossy(&path(engine.catalog(), node)).into_owned();
            texts.push(format!("  {shown}: {record:#?}"));
        }
    }
    world.outcome.wrong.extend(texts);
}

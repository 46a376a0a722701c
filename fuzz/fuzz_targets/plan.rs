//! The planner over trees that no honest history makes: it never panics, decides the same twice, names what it is about to
//! destroy as it was seen, and destroys nothing that the share never had.
#![no_main]

use std::collections::BTreeMap;

use isotherm_core::content::ManifestId;
use isotherm_core::ids::{LinkId, NodeId, OperationId, ServerId, Timestamp, Version};
use isotherm_core::name::{Case, Name};
use isotherm_core::node::{Content, FileContent, Metadata, Node, Place, Versions};
use isotherm_core::plan::{Action, Authority, Expected, Plan, Rules, plan};
use isotherm_core::trees::{Handle, Local, LocalContent, MemoryTrees, Print, Record, Synced, Trees, TreesMut};
use libfuzzer_sys::fuzz_target;

const NODES: u8 = 8;
const NAMES: &[&[u8]] = &[b"a", b"A", b"b", b"c.txt", b"c-s1.txt"];

/// Takes choices out of the input; zeros when it is used up.
struct Choices<'a>(&'a [u8]);

impl Choices<'_> {
    fn next(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    fn id(&mut self) -> NodeId {
        match self.next() % (NODES + 2) {
            0 => NodeId::ROOT,
            1 => NodeId::PARKED,
            number => NodeId([number; 16]),
        }
    }

    fn place(&mut self) -> Place {
        let name = NAMES[usize::from(self.next()) % NAMES.len()];
        Place { parent: self.id(), name: Name::new(name).expect("it is a name") }
    }

    fn metadata(&mut self) -> Metadata {
        Metadata { mode: u32::from(self.next() % 3), ..Metadata::default() }
    }

    /// Of the kind that the node has for ever.
    fn content(&mut self, kind: u8) -> Content {
        let choice = self.next();
        match kind % 4 {
            0 => Content::Directory,
            1 => Content::Symlink { target: vec![choice % 3] },
            _ => Content::File(FileContent {
                manifest: ManifestId::from_bytes([choice % 4; 32]),
                size: u64::from(choice % 4),
                modified: Timestamp(i64::from(choice >> 2 & 3)),
                link: (choice >> 4 & 3 == 1).then_some(LinkId([choice >> 6; 16])),
            }),
        }
    }

    fn remote(&mut self, id: NodeId, kind: u8) -> Node {
        let mut place = self.place();
        if place.parent == NodeId::PARKED {
            place.parent = NodeId::ROOT;
        }
        let version = Version(u64::from(self.next() % 8) + 1);
        Node {
            id,
            place,
            metadata: self.metadata(),
            content: self.content(kind),
            versions: Versions { created: version, place: version, metadata: version, content: version, last: version },
            deleted: self.next() % 4 == 0,
            conflict_of: (self.next() % 8 == 0).then(|| self.id()),
            author: ServerId([self.next() % 3; 16]),
            operation: OperationId::default(),
        }
    }

    fn local(&mut self, kind: u8) -> Local {
        let content = self.content(kind);
        let content = match (self.next() % 8, &content) {
            (0, Content::File(_)) => LocalContent::Unread,
            (1, Content::File(_)) => LocalContent::Passing(content),
            _ => LocalContent::Known(content),
        };
        let print = Print { links: u32::from(self.next() % 3) + 1, ..Print::default() };
        Local {
            place: self.place(),
            handle: Handle([self.next() % 16].into()),
            print,
            metadata: self.metadata(),
            raw: None,
            content,
            lost: self.next() % 8 == 0,
        }
    }

    fn record(&mut self, node: NodeId) -> Record {
        let (has, kind) = (self.next(), self.next());
        let mut record = Record::new(node);
        record.remote = (has & 1 != 0).then(|| self.remote(node, kind));
        record.synced = (has & 2 != 0).then(|| match &record.remote {
            Some(remote) if has & 8 != 0 => Synced::of(remote),
            _ => Synced { place: self.place(), metadata: self.metadata(), content: self.content(kind) },
        });
        record.local = (has & 4 != 0).then(|| self.local(kind));
        if let (Some(local), Some(synced), true) = (&mut record.local, &record.synced, has & 16 != 0) {
            local.place = synced.place.clone();
            local.content = LocalContent::Known(synced.content.clone());
        }
        record.conflict_of = (has & 0xc0 == 0x40).then(|| self.id());
        record
    }
}

fuzz_target!(|data: &[u8]| {
    let mut choices = Choices(data);
    let how = choices.next();
    let case = if how & 1 == 0 { Case::Sensitive } else { Case::Insensitive };
    let mut trees = MemoryTrees::new(case);
    for (node, number) in [(NodeId::ROOT, 100), (NodeId::PARKED, 101)] {
        let mut record = Record::new(node);
        let place = Place { parent: node, name: Name::new(b"root").expect("it is a name") };
        let (handle, content) = (Handle([number].into()), LocalContent::Known(Content::Directory));
        let (print, metadata) = (Print::default(), Metadata::default());
        record.local = Some(Local { place, handle, print, metadata, raw: None, content, lost: false });
        trees.put(record);
    }
    let mut nodes = Vec::new();
    for number in 2..NODES + 2 {
        let mut record = choices.record(NodeId([number; 16]));
        // A local name belongs to one node at most.
        if record.here().is_some_and(|local| trees.local_at(&local.place).is_some()) {
            record.local = None;
        }
        nodes.push(record.node);
        trees.put(record);
    }
    let rules = Rules {
        case,
        server: ServerId([1; 16]),
        servers: BTreeMap::from([(ServerId([1; 16]), "s1".to_owned()), (ServerId([2; 16]), "s2".to_owned())]),
        authority: if how & 2 == 0 { Authority::Merge } else { Authority::Server },
        authority_until: (how & 4 != 0).then_some(Version(u64::from(how >> 6) * 2)),
        hold_local_deletes: how & 8 != 0,
        hold_remote_deletes: how & 16 != 0,
    };
    if how & 32 != 0 {
        nodes.reverse();
    }
    let planned = decide(&trees, &rules, &nodes);
    assert_eq!(planned, decide(&trees, &rules, &nodes));
    check(&trees, &rules, &planned);
});

fn decide(trees: &MemoryTrees, rules: &Rules, nodes: &[NodeId]) -> Plan {
    let mut drawn = 100;
    let mut fresh = || {
        drawn += 1;
        NodeId([drawn; 16])
    };
    plan(trees, rules, nodes.iter().copied(), &|_| false, &mut fresh)
}

fn check(trees: &MemoryTrees, rules: &Rules, plan: &Plan) {
    for step in &plan.steps {
        let (expected, destroys): (&Expected, bool) = match &step.action {
            Action::Create { .. } => continue,
            Action::Replace { expected, .. } | Action::Remove { expected, .. } => (expected, true),
            Action::SetMetadata { expected, .. } | Action::Move { expected, .. } => (expected, false),
        };
        let local = trees.record(step.node).and_then(|record| record.local).expect("what is not here cannot change");
        assert!(!local.lost, "{step:?}");
        assert_eq!((&expected.handle, expected.print), (&local.handle, local.print));
        if destroys {
            let here = local.known().unwrap_or_else(|| panic!("unread content is destroyed: {step:?}"));
            let record = trees.record(step.node).expect("it was just there");
            let is_safe = record.safe_contents().any(|content| content.same_bytes(here));
            assert!(is_safe, "the share never had it: {step:?} {record:?} {rules:?}");
        }
        assert!(!rules.hold_remote_deletes || !matches!(step.action, Action::Remove { .. }), "{step:?}");
    }
}

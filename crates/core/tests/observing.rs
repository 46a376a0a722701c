#![allow(clippy::unwrap_used, missing_docs)]
//! What may be concluded from a look at a directory, and what may not.

use std::collections::BTreeSet;

use isotherm_core::content::ManifestId;
use isotherm_core::ids::{NodeId, Timestamp};
use isotherm_core::name::{Case, Name};
use isotherm_core::node::{Content, FileContent, Kind, Metadata, Place};
use isotherm_core::observe::{Evidence, Listing, Observed, PARKED_PREFIX, Scope, Seen, observe};
use isotherm_core::trees::{Handle, Local, LocalContent, MemoryTrees, Print, Record, Trees, TreesMut};

const ROOT: u8 = 100;
const STAGING: u8 = 101;

fn name(text: &str) -> Name {
    Name::new(text.as_bytes()).unwrap()
}

fn place(text: &str) -> Place {
    Place { parent: NodeId::ROOT, name: name(text) }
}

fn content(number: u8) -> LocalContent {
    let manifest = ManifestId::from_bytes([number; 32]);
    LocalContent::Known(Content::File(FileContent { manifest, size: 1, modified: Timestamp(1), link: None }))
}

/// A name of an inode, as nobody watched it.
fn seen(text: &str, inode: u8, kind: Kind) -> Seen {
    let print = Print { size: 1, modified: Timestamp(1), changed: Timestamp(1), links: 1 };
    let target = (kind == Kind::Symlink).then(|| b"target".to_vec());
    let handle = Handle(Box::new([inode]));
    Seen { name: name(text), handle, kind, print, metadata: Some(Metadata::default()), target, evidence: Evidence::Unwatched }
}

fn file(text: &str, inode: u8) -> Seen {
    seen(text, inode, Kind::File)
}

struct Looker {
    trees: MemoryTrees,
    except: BTreeSet<Place>,
    drawn: u8,
}

impl Looker {
    /// Looks for the first time, reads the files, and looks again so that nothing is new.
    fn with(first: &[Seen]) -> Self {
        let mut looker = Self { trees: MemoryTrees::new(Case::Sensitive), except: BTreeSet::new(), drawn: 0 };
        for (node, inode) in [(NodeId::ROOT, ROOT), (NodeId::PARKED, STAGING)] {
            let local = Local {
                place: Place { parent: node, name: name("root") },
                handle: Handle(Box::new([inode])),
                print: Print::default(),
                metadata: Metadata::default(),
                raw: None,
                content: LocalContent::Known(Content::Directory),
                lost: false,
            };
            looker.trees.put(Record { local: Some(local), ..Record::new(node) });
        }
        looker.look(first);
        for seen in first.iter().filter(|seen| seen.kind == Kind::File) {
            looker.change(&seen.name.to_string(), |local| local.content = content(1));
        }
        assert_eq!(looker.look(first), Observed::default());
        looker
    }

    fn look(&mut self, found: &[Seen]) -> Observed {
        self.look_at(Scope::All, found)
    }

    fn look_at(&mut self, scope: Scope, found: &[Seen]) -> Observed {
        let handle = Handle(Box::new([ROOT]));
        self.take(&[Listing { directory: NodeId::ROOT, handle, scope, seen: found.to_vec() }])
    }

    fn take(&mut self, listings: &[Listing]) -> Observed {
        let drawn = &mut self.drawn;
        observe(&mut self.trees, listings, &self.except, &mut || {
            *drawn += 1;
            NodeId([*drawn; 16])
        })
    }

    fn node(&self, text: &str) -> NodeId {
        self.trees.local_at(&place(text)).unwrap_or_else(|| panic!("nothing is at {text}"))
    }

    fn local(&self, text: &str) -> Local {
        self.trees.record(self.node(text)).unwrap().local.unwrap()
    }

    fn change(&mut self, text: &str, how: impl Fn(&mut Local)) {
        let mut record = self.trees.record(self.node(text)).unwrap();
        how(record.local.as_mut().unwrap());
        self.trees.put(record);
    }
}

#[test]
fn bytes_count_as_changed_unless_it_is_known_that_nobody_wrote() {
    type Moved = fn(&mut Print);
    let (same, changed): (Moved, Moved) = (|_| {}, |print| print.changed = Timestamp(2));
    let (modified, longer): (Moved, Moved) = (|print| print.modified = Timestamp(2), |print| print.size = 2);
    for (evidence, moved, read_again) in [
        (Evidence::Unwatched, same, false),
        (Evidence::Unwatched, changed, true),
        (Evidence::Watched, same, false),
        (Evidence::Watched, changed, false),
        (Evidence::Watched, modified, true),
        (Evidence::Watched, longer, true),
        (Evidence::Written, same, true),
        (Evidence::Written, changed, true),
    ] {
        let mut looker = Looker::with(&[file("a", 1)]);
        let mut now = Seen { evidence, ..file("a", 1) };
        moved(&mut now.print);
        let expected = if read_again { LocalContent::Unread } else { content(1) };
        for scope in [Scope::All, Scope::Names([name("a")].into())] {
            looker.look_at(scope, &[now.clone()]);
            assert_eq!((looker.local("a").content, looker.local("a").print), (expected.clone(), now.print), "{now:?}");
        }
    }
}

#[test]
fn a_file_that_never_rested_is_read_again_when_it_is_looked_at() {
    let mut looker = Looker::with(&[file("a", 1)]);
    let LocalContent::Known(passing) = content(1) else { panic!() };
    looker.change("a", |local| local.content = LocalContent::Passing(passing.clone()));
    looker.look(&[Seen { evidence: Evidence::Watched, ..file("a", 1) }]);
    assert_eq!(looker.local("a").content, LocalContent::Unread);
}

#[test]
fn a_directory_is_as_it_was_while_its_change_time_is() {
    let mut looker = Looker::with(&[seen("d", 1, Kind::Directory)]);
    let mut now = seen("d", 1, Kind::Directory);
    now.print.links = 7;
    assert_eq!(looker.look(&[now.clone()]), Observed::default());
    assert_eq!(looker.look_at(Scope::Names([name("d")].into()), &[now.clone()]), Observed::default());
    now.print.changed = Timestamp(2);
    assert_eq!(looker.look(&[now]).changed, BTreeSet::from([looker.node("d")]));
}

#[test]
fn a_symlink_is_read_by_looking_at_it() {
    let mut looker = Looker::with(&[seen("l", 1, Kind::Symlink)]);
    let mut now = Seen { target: Some(b"elsewhere".to_vec()), ..seen("l", 1, Kind::Symlink) };
    now.print.changed = Timestamp(2);
    looker.look(&[now]);
    assert_eq!(looker.local("l").content, LocalContent::Known(Content::Symlink { target: b"elsewhere".to_vec() }));
}

#[test]
fn what_has_changed_is_looked_at_again_where_its_metadata_was_not_read() {
    let mut looker = Looker::with(&[file("a", 1)]);
    let again = |text: &str| Observed { again: [(NodeId::ROOT, name(text))].into(), ..Observed::default() };
    let quick = |seen: Seen| Seen { metadata: None, ..seen };
    assert_eq!(looker.look(&[quick(file("a", 1))]), Observed::default());
    let mut now = quick(file("a", 1));
    now.print.changed = Timestamp(2);
    assert_eq!(looker.look(&[now]), again("a"));
    assert_eq!(looker.look(&[file("a", 1), quick(file("b", 2))]), again("b"), "a new name");
    assert_eq!(looker.look(&[quick(file("a", 2))]), again("a"), "another inode");
    assert_eq!(looker.local("a").content, content(1));
}

// semantics.md#absence-is-no-delete
#[test]
fn absence_counts_only_where_it_was_looked_for() {
    let both = [file("a", 1), file("b", 2)];
    let lost = |looker: &mut Looker, scope, found: &[Seen]| looker.look_at(scope, found).lost.len();
    let mut looker = Looker::with(&both);
    assert_eq!(lost(&mut looker, Scope::Names([name("b")].into()), &[file("b", 2)]), 0, "nothing was said of the other");
    let a = looker.node("a");
    assert_eq!(looker.look_at(Scope::Names([name("a"), name("b")].into()), &[file("b", 2)]).lost, [a].into());
    let mut looker = Looker::with(&both);
    let observed = looker.look(&[file("b", 2)]);
    assert_eq!((observed.lost, observed.changed), ([a].into(), [a].into()));
    assert!(looker.trees.record(a).unwrap().is_lost());
    let mut looker = Looker::with(&both);
    let listing = Listing { directory: NodeId::ROOT, handle: Handle(Box::new([9])), scope: Scope::All, seen: Vec::new() };
    assert_eq!(looker.take(&[listing]), Observed::default(), "another directory had the name when it was read");
}

#[test]
fn a_listing_speaks_of_the_names_in_its_scope_in_its_directory() {
    let listing = |scope| Listing { directory: NodeId::ROOT, handle: Handle(Box::new([ROOT])), scope, seen: Vec::new() };
    let elsewhere = Place { parent: NodeId([9; 16]), name: name("a") };
    assert!(listing(Scope::All).covers(&place("a")) && !listing(Scope::All).covers(&elsewhere));
    let names = listing(Scope::Names([name("a")].into()));
    assert!(names.covers(&place("a")) && !names.covers(&place("b")) && !names.covers(&elsewhere));
}

#[test]
fn nothing_is_concluded_about_a_place_where_work_is_under_way() {
    let mut looker = Looker::with(&[file("a", 1)]);
    looker.except = [place("a"), place("b")].into();
    assert_eq!(looker.look(&[file("b", 2)]), Observed::default(), "neither what is there nor what is not");
    assert_eq!(looker.look_at(Scope::Names([name("a")].into()), &[]), Observed::default());
    // The inode may be on its way to the new name, or have got another one.
    let later = Observed { later: [(NodeId::ROOT, name("c"))].into(), ..Observed::default() };
    assert_eq!(looker.look(&[file("c", 1)]), later);
    looker.except.clear();
    let a = looker.node("a");
    looker.look(&[file("c", 1)]);
    assert_eq!(looker.node("c"), a);
}

#[test]
fn contents_in_the_making_are_no_nodes() {
    let mut looker = Looker::with(&[file("a", 1)]);
    let a = looker.node("a");
    let staged = ["part", "full", "make"].map(|kind| file(&format!("{kind}-{a}-0"), 7));
    let handle = Handle(Box::new([STAGING]));
    let listing = Listing { directory: NodeId::PARKED, handle, scope: Scope::All, seen: staged.to_vec() };
    assert_eq!(looker.take(&[listing]), Observed::default());
}

#[test]
fn a_parked_name_says_whose_it_is_if_the_inode_agrees() {
    for (inode, is_known) in [(1, true), (2, false)] {
        let mut looker = Looker::with(&[file("a", 1)]);
        let a = looker.node("a");
        looker.except = [place("a")].into();
        let parked = file(&format!("{PARKED_PREFIX}{a}"), inode);
        let at = Place { parent: NodeId::PARKED, name: parked.name.clone() };
        let handle = Handle(Box::new([STAGING]));
        looker.take(&[Listing { directory: NodeId::PARKED, handle, scope: Scope::All, seen: vec![parked] }]);
        assert_eq!(looker.trees.local_at(&at) == Some(a), is_known);
    }
}

#[test]
fn a_new_directory_is_listed_and_a_known_one_is_not() {
    let mut looker = Looker::with(&[]);
    let found = [seen("d", 1, Kind::Directory), file("a", 2)];
    let observed = looker.look(&found);
    assert_eq!(observed.list, [looker.node("d")].into());
    assert_eq!(observed.changed, [looker.node("a"), looker.node("d")].into());
    assert_eq!(looker.look(&[seen("e", 1, Kind::Directory), file("a", 2)]).list, BTreeSet::new());
}

#[test]
fn another_name_of_an_inode_is_another_node_and_a_move_is_none() {
    let linked = |text: &str, links| Seen { print: Print { links, ..file(text, 1).print }, ..file(text, 1) };
    let mut looker = Looker::with(&[linked("a", 1)]);
    let a = looker.node("a");
    looker.look(&[linked("a", 2), linked("b", 2)]);
    assert_eq!((looker.node("a"), looker.node("b") == a), (a, false));
    assert_eq!([looker.local("a").print.links, looker.local("b").print.links], [2, 2]);
    let mut looker = Looker::with(&[linked("a", 1)]);
    assert_eq!(looker.look(&[linked("b", 1)]).lost, BTreeSet::new());
    assert_eq!(looker.node("b"), a);
}

#[test]
fn what_a_file_system_cannot_show_stands_while_it_shows_the_same() {
    let mode = |mode| Metadata { mode, ..Metadata::default() };
    let wanted = Metadata { xattrs: [(b"user.a".to_vec(), b"1".to_vec())].into(), born: Some(Timestamp(3)), ..mode(0o600) };
    let mut looker = Looker::with(&[file("a", 1)]);
    looker.change("a", |local| (local.metadata, local.raw) = (wanted.clone(), Some(mode(0o600))));
    let mut now = Seen { metadata: Some(mode(0o600)), ..file("a", 1) };
    now.print.changed = Timestamp(2);
    looker.look(&[now.clone()]);
    assert_eq!(looker.local("a").metadata, wanted);
    (now.metadata, now.print.changed) = (Some(mode(0o640)), Timestamp(3));
    looker.look(&[now.clone()]);
    assert_eq!(looker.local("a").metadata.xattrs, wanted.xattrs);
    assert_eq!((looker.local("a").metadata.mode, looker.local("a").raw), (0o640, Some(mode(0o640))));
}

#[test]
fn the_time_of_birth_that_came_with_a_file_stays_when_its_mode_changes() {
    let mut looker = Looker::with(&[file("a", 1)]);
    looker.change("a", |local| local.metadata.born = Some(Timestamp(3)));
    let mut now = Seen { metadata: Some(Metadata { mode: 0o640, ..Metadata::default() }), ..file("a", 1) };
    now.print.changed = Timestamp(2);
    looker.look(&[now]);
    assert_eq!((looker.local("a").metadata.mode, looker.local("a").metadata.born), (0o640, Some(Timestamp(3))));
}

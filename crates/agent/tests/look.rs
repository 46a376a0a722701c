//! Looking, the marker, and what an earlier run left, on real file systems.
#![allow(clippy::unwrap_used)]

#[path = "support/volumes.rs"]
mod volumes;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::process::Command;

use isotherm_agent::catalog::{Recorded, RecordedState};
use isotherm_agent::engine::{LookRequest, Unfit};
use isotherm_agent::volume::{KnownContent, MarkerProblem, Volume, look, recover, renew_nonce};
use isotherm_core::content::ManifestId;
use isotherm_core::exclude::Exclusions;
use isotherm_core::ids::{EndpointId, GroupId, NodeId};
use isotherm_core::name::Name;
use isotherm_core::node::{Content, Kind};
use isotherm_core::observe::{Evidence, Liveness, Scope};
use isotherm_core::trees::Handle;
use isotherm_gate::testing::on_each_fs;
use volumes::{Bench, files, node};

struct Known(BTreeMap<Name, RecordedState>);

impl Recorded for Known {
    fn names(&self, _: NodeId) -> BTreeMap<Name, RecordedState> {
        self.0.clone()
    }
    fn name(&self, _: NodeId, name: &Name) -> Option<RecordedState> {
        self.0.get(name).cloned()
    }
}

fn name(bytes: &[u8]) -> Name {
    Name::new(bytes).unwrap()
}

#[test]
fn a_folder_is_listed_whole() {
    on_each_fs(64, |volume| {
        let bench = Bench::new(volume.path());
        let at = |name: &[u8]| volume.path().join(OsStr::from_bytes(name));
        fs::write(at(b"a\nb\xff"), "x").unwrap();
        fs::write(at(b"gone.tmp"), "excluded").unwrap();
        fs::create_dir(at(b"folder")).unwrap();
        symlink("to\nwhere", at(b"link")).unwrap();
        let _socket = UnixListener::bind(at(b"socket")).unwrap();
        let setfattr = ["-n", "user.DOSATTRIB", "-v", "0x1020"];
        assert!(Command::new("setfattr").args(setfattr).arg(at(b"a\nb\xff")).status().unwrap().success());

        let found = bench.look(&bench.volume.root_handle());
        assert_eq!(found.unfit, [(Some(name(b"socket")), Unfit::Special)]);
        let listing = found.listing.unwrap();
        assert_eq!(listing.scope, Scope::All);
        let kinds: BTreeMap<&[u8], Kind> = listing.seen.iter().map(|seen| (seen.name.as_bytes(), seen.kind)).collect();
        let mut wanted = BTreeMap::from([(&b"a\nb\xff"[..], Kind::File), (b"folder", Kind::Directory), (b"link", Kind::Symlink)]);
        // ext4 has one of its own, which is excluded.
        wanted.remove(&b"lost+found"[..]);
        assert_eq!(kinds, wanted);
        assert_eq!(bench.seen(b"link").target.unwrap(), b"to\nwhere");
        let metadata = bench.seen(b"a\nb\xff").metadata.unwrap();
        // The value that was set is three bytes; what is not a known form travels as it is.
        assert!(metadata.xattrs.contains_key(&b"user.DOSATTRIB"[..]));
        assert_eq!(metadata.user.name.as_deref(), Some("root"));
    });
}

#[test]
fn metadata_is_read_where_something_moved() {
    on_each_fs(64, |volume| {
        let bench = Bench::new(volume.path());
        for file in ["same", "changed", "written", "new"] {
            fs::write(volume.path().join(file), file).unwrap();
        }
        let seen = |name: &[u8]| bench.seen(name);
        let mut known = BTreeMap::new();
        for file in [&b"same"[..], b"changed", b"written", b"absent"] {
            let of = if file == b"absent" { seen(b"same") } else { seen(file) };
            known.insert(name(file), RecordedState { handle: of.handle, print: of.print, is_tiered: false });
        }
        known.get_mut(&name(b"changed")).unwrap().print.size = 99;
        let names: Vec<(Name, Evidence)> = [&b"same"[..], b"changed", b"absent", b"new"]
            .iter()
            .map(|file| (name(file), Evidence::Watched))
            .chain([(name(b"written"), Evidence::Written), (name(b"x.tmp"), Evidence::Written)])
            .collect();
        let request = |names, full| LookRequest {
            directory: NodeId::ROOT,
            handle: bench.volume.root_handle(),
            names,
            evidence: Evidence::Watched,
            full,
        };
        let known = Known(known);
        let looked = |names, full| look(&bench.volume, &known, &Exclusions::default(), &request(names, full)).listing.unwrap();
        let listing = looked(Some(names), false);
        let read: BTreeMap<&[u8], bool> =
            listing.seen.iter().map(|seen| (seen.name.as_bytes(), seen.metadata.is_some())).collect();
        assert_eq!(read, BTreeMap::from([(&b"same"[..], false), (b"changed", true), (b"written", true), (b"new", true)]));
        let spoken: BTreeSet<Name> =
            [&b"same"[..], b"changed", b"absent", b"new", b"written"].iter().map(|file| name(file)).collect();
        assert_eq!(listing.scope, Scope::Names(spoken));
        assert!(looked(None, true).seen.iter().all(|seen| seen.metadata.is_some()));
        let unread: Vec<Name> =
            looked(None, false).seen.into_iter().filter(|seen| seen.metadata.is_none()).map(|seen| seen.name).collect();
        assert_eq!(unread.into_iter().collect::<BTreeSet<_>>(), BTreeSet::from([name(b"same"), name(b"written")]));
    });
}

#[test]
fn case_27_a_folder_that_cannot_be_read_says_nothing() {
    on_each_fs(64, |volume| {
        let root = volume.path().join("root");
        fs::create_dir_all(root.join("folder")).unwrap();
        let bench = Bench::new(&root);
        let folder = bench.seen(b"folder");
        let probe = || bench.volume.probe(&[(node(1), folder.handle.clone())]);
        fs::rename(root.join("folder"), volume.path().join("outside")).unwrap();
        assert_eq!(bench.look(&folder.handle).listing, None);
        assert!(matches!(probe()[..], [(_, Liveness::Linked(_))]));
        fs::remove_dir(volume.path().join("outside")).unwrap();
        assert_eq!(bench.look(&folder.handle).listing, None);
        assert_eq!(probe(), [(node(1), Liveness::Gone)]);
    });
}

#[test]
fn case_15_the_nonce_tells_a_rolled_back_volume() {
    on_each_fs(64, |volume| {
        let root = volume.path().join("root");
        fs::create_dir(&root).unwrap();
        let open = Volume::open(&root).unwrap();
        let (id, group) = (EndpointId([1; 16]), GroupId([2; 16]));
        let renew = |known: &[&str], fresh: &str| {
            let known: Vec<String> = known.iter().map(|nonce| (*nonce).to_owned()).collect();
            renew_nonce(&open, (id, group), &known, fresh.to_owned()).map(|renewed| renewed.rolled_back)
        };
        assert_eq!(renew(&[], "one"), Ok(false));
        assert_eq!(renew(&["one"], "two"), Ok(false));
        // A crash between catalog and marker: either nonce is right.
        assert_eq!(renew(&["two", "three"], "three"), Ok(false));
        assert_eq!(renew(&["two", "three"], "four"), Ok(false));
        // The volume of an hour ago.
        assert_eq!(renew(&["five"], "six"), Ok(true));
        assert_eq!(open.check_marker(id), Ok(()));
        let other = EndpointId([9; 16]);
        assert!(matches!(renew_nonce(&open, (other, group), &[], String::new()), Err(MarkerProblem::Foreign { .. })));
        assert!(matches!(open.check_marker(other), Err(MarkerProblem::Foreign { .. })));
        // A folder that merely has the name, as where a disk is not mounted.
        fs::rename(&root, volume.path().join("away")).unwrap();
        fs::create_dir(&root).unwrap();
        assert!(matches!(open.check_marker(id), Err(MarkerProblem::Moved(_))));
        assert!(Volume::open_known(&root).is_err());
        assert_eq!(fs::read_dir(&root).unwrap().count(), 0);
        fs::remove_dir(&root).unwrap();
        fs::rename(volume.path().join("away"), &root).unwrap();
        open.remove_marker().unwrap();
        assert_eq!(fs::read_dir(&root).unwrap().count(), 0);
    });
}

struct Safe(Vec<Content>, Handle);

impl KnownContent for Safe {
    fn safe_contents(&self, _: NodeId) -> Vec<Content> {
        self.0.clone()
    }
    fn wanted(&self, node: NodeId) -> Option<ManifestId> {
        self.0.iter().filter_map(Content::file).map(|file| file.manifest).next().filter(|_| node == NodeId([9; 16]))
    }
    fn place(&self, node: NodeId) -> Option<(Handle, Name)> {
        (node != NodeId([7; 16])).then(|| (self.1.clone(), name(b"plan.dwg")))
    }
}

#[test]
fn what_may_be_a_users_comes_back_after_a_crash() {
    on_each_fs(64, |volume| {
        let bench = Bench::new(volume.path());
        fs::create_dir(volume.path().join("folder")).unwrap();
        fs::write(volume.path().join("folder/plan.dwg"), "in place").unwrap();
        let staging = volume.path().join(".isotherm/staging");
        let put =
            |name: &str, number: u8, bytes: &str| fs::write(staging.join(format!("{name}-{}-0", node(number))), bytes).unwrap();
        put("part", 1, "half");
        put("full", 2, "safe in the share");
        put("full", 3, "saved at the last moment");
        put("full", 7, "whose place nobody knows");
        put("parked", 4, "waiting");
        let linked = format!("full-{}-1", node(5));
        fs::write(volume.path().join("linked"), "two names").unwrap();
        fs::hard_link(volume.path().join("linked"), staging.join(&linked)).unwrap();
        symlink("old target", staging.join(format!("full-{}-2", node(6)))).unwrap();
        fs::create_dir(staging.join(format!("make-{}-3", node(8)))).unwrap();

        let safe = Content::File(bench.share.put(&[Ok(b"safe in the share")]));
        let known = Safe(vec![safe, Content::Symlink { target: b"old target".to_vec() }], bench.seen(b"folder").handle);
        // The fetch of a large content goes on, but only of the one that is still wanted.
        let part = |of: &[u8]| format!("part-{}-{}", NodeId([9; 16]), bench.share.put(&[Ok(of)]).manifest);
        let (wanted, other) = (part(b"safe in the share"), part(b"of yesterday"));
        [&wanted, &other].iter().for_each(|part| fs::write(staging.join(part), "begun").unwrap());
        let recovered = recover(&bench.volume, &known).unwrap();
        assert_eq!((recovered.removed, recovered.rescued.len()), (6, 2));
        assert!(staging.join(&wanted).exists() && !staging.join(&other).exists());
        fs::remove_file(staging.join(&wanted)).unwrap();
        assert_eq!(bench.staged(), [format!("parked-{}-0", node(4))]);
        let folder = files(&volume.path().join("folder"), "plan");
        assert_eq!(folder["plan-rescued.dwg"], b"saved at the last moment");
        assert_eq!(folder["plan.dwg"], b"in place");
        assert_eq!(fs::read(volume.path().join("file-rescued")).unwrap(), b"whose place nobody knows");
        assert_eq!(fs::read(volume.path().join("linked")).unwrap(), b"two names");
        assert_eq!(recover(&bench.volume, &known).unwrap().removed, 0);
    });
}

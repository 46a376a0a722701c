//! Two agents and a service: folders become equal, whatever happens to either of them.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use isotherm_agent::control::{self, Answer, FileState, FileView, Request};
use isotherm_api::path::ShownPath;
use isotherm_api::sync::{EndpointState, InitialUpload, Watch};
use isotherm_gate::testing::{Fs, LoopVolume, on_each_fs};
use support::{Running, Service, eventually, noise, tree};

/// A service, two agents, two folders of one volume.
struct World {
    detroit: PathBuf,
    munich: PathBuf,
    agents: Vec<Running>,
    outside: PathBuf,
    service: Service,
}

fn world(volume: &Path, outside: &Path, fill: impl FnOnce(&Path, &Path)) -> World {
    let service = Service::start(&outside.join("service"));
    service.group("plans");
    let (detroit, munich) = (volume.join("detroit"), volume.join("munich"));
    fs::create_dir(&detroit).unwrap();
    fs::create_dir(&munich).unwrap();
    fill(&detroit, &munich);
    let agents = [("detroit", &detroit), ("munich", &munich)].map(|(name, path)| {
        let agent = Running::start(&service.url, name, &outside.join(format!("state-{name}")));
        service.endpoint("plans", name, path);
        agent
    });
    World { detroit, munich, agents: agents.into(), outside: outside.to_owned(), service }
}

impl World {
    fn settle_equal(&self) {
        self.service.settle("plans");
        assert_eq!(tree(&self.detroit), tree(&self.munich));
    }
}

#[test]
fn agent() {
    support::be_an_agent();
}

#[test]
fn two_folders_become_equal() {
    on_each_fs(200, |volume| {
        let world = world(volume.path(), volume.outside(), |detroit, munich| {
            fs::write(detroit.join("plan.dwg"), noise(1, 300_000)).unwrap();
            fs::write(munich.join("notes.txt"), "notes").unwrap();
            fs::create_dir_all(detroit.join("deep/er/still")).unwrap();
            fs::write(detroit.join("deep/er/still/empty"), "").unwrap();
        });
        world.settle_equal();
        assert_eq!(fs::read(world.munich.join("plan.dwg")).unwrap(), noise(1, 300_000));
        assert_eq!(fs::read(world.detroit.join("notes.txt")).unwrap(), b"notes");

        // Edits, renames, deletes and everything that is no plain file.
        fs::write(world.munich.join("plan.dwg"), noise(2, 100_000)).unwrap();
        fs::rename(world.detroit.join("deep/er"), world.detroit.join("moved")).unwrap();
        fs::remove_file(world.munich.join("notes.txt")).unwrap();
        symlink("../anywhere", world.detroit.join("link")).unwrap();
        fs::write(world.detroit.join(OsStr::from_bytes(b"a\nb \xff")), "odd").unwrap();
        fs::write(world.munich.join("tool"), "#!/bin/sh").unwrap();
        fs::set_permissions(world.munich.join("tool"), fs::Permissions::from_mode(0o4755)).unwrap();
        fs::write(world.munich.join("old.bak"), "excluded").unwrap();
        world.settle_equal_but(&[b"old.bak"]);
        assert!(!world.detroit.join("old.bak").exists());
        assert!(world.munich.join("moved/still/empty").exists());
        assert!(!world.detroit.join("notes.txt").exists());
    });
}

impl World {
    fn settle_equal_but(&self, but: &[&[u8]]) {
        self.service.settle("plans");
        let tree = |root: &Path| {
            let mut tree = tree(root);
            tree.retain(|name, _| !but.contains(&&name[..]));
            tree
        };
        assert_eq!(tree(&self.detroit), tree(&self.munich));
    }

    fn state(&self, server: &str) -> PathBuf {
        self.outside.join(format!("state-{server}"))
    }

    fn start(&self, server: &str) -> Running {
        Running::start(&self.service.url, server, &self.state(server))
    }

    fn file(&self, server: &str, path: &Path) -> FileView {
        let request = Request::File { path: ShownPath::new(path.as_os_str().as_bytes()) };
        match control::ask(&self.state(server), &request).unwrap() {
            Answer::File(view) => *view,
            other => panic!("{other:?}"),
        }
    }
}

/// One volume; the file systems differ in nothing that these tests are about.
fn on_one(check: impl FnOnce(World)) {
    let Some(volume) = LoopVolume::new(Fs::Ext4, 200) else { return };
    check(world(volume.path(), volume.outside(), |_, _| {}));
}

#[test]
fn changes_made_while_an_agent_is_down_are_found() {
    on_one(|mut world| {
        for number in 0..50 {
            fs::write(world.detroit.join(format!("file-{number}")), noise(number, 2_000)).unwrap();
        }
        world.settle_equal();
        // Once in order, once without the time for anything.
        for round in 0..2_u64 {
            let detroit = world.agents.remove(0);
            if round == 0 {
                drop(detroit)
            } else {
                detroit.kill()
            }
            fs::rename(world.detroit.join("file-1"), world.detroit.join("renamed")).unwrap();
            fs::remove_file(world.detroit.join("file-2")).unwrap();
            fs::write(world.detroit.join("file-3"), noise(100 + round, 3_000)).unwrap();
            fs::write(world.munich.join("file-4"), noise(200 + round, 3_000)).unwrap();
            fs::create_dir(world.munich.join(format!("folder-{round}"))).unwrap();
            fs::rename(world.munich.join("file-5"), world.munich.join(format!("folder-{round}/file-5"))).unwrap();
            let detroit = world.start("detroit");
            world.agents.insert(0, detroit);
            world.settle_equal();
            assert_eq!(fs::read(world.detroit.join("file-4")).unwrap(), noise(200 + round, 3_000));
            assert_eq!(fs::read(world.munich.join("file-3")).unwrap(), noise(100 + round, 3_000));
            fs::rename(world.detroit.join("renamed"), world.detroit.join("file-1")).unwrap();
            fs::write(world.detroit.join("file-2"), "again").unwrap();
            fs::rename(world.munich.join(format!("folder-{round}/file-5")), world.munich.join("file-5")).unwrap();
            world.settle_equal();
        }
    });
}

#[test]
fn agents_killed_in_the_middle_of_work_lose_nothing() {
    on_one(|mut world| {
        for round in 0..4_u64 {
            for number in 0..300 {
                let name = format!("file-{}", number % 150);
                let folder = if number % 2 == 0 { &world.detroit } else { &world.munich };
                fs::write(folder.join(name), noise(round * 1_000 + number, 20_000)).unwrap();
            }
            fs::write(world.munich.join("large"), noise(round, 12 << 20)).unwrap();
            std::thread::sleep(std::time::Duration::from_millis(400 + 350 * round)); // tidy: wait until some of the work is done, differently in each round
            for (at, name) in ["detroit", "munich"].into_iter().enumerate() {
                world.agents.remove(at).kill();
                let again = world.start(name);
                world.agents.insert(at, again);
            }
            world.settle_equal();
            // Whoever wrote last is somewhere: under the name, or in a conflict copy beside it.
            let found: BTreeSet<Vec<u8>> = files(&world.detroit).into_values().collect();
            for number in 150..300 {
                assert!(found.contains(&noise(round * 1_000 + number, 20_000)), "round {round}, file {number}");
            }
            for path in files(&world.detroit).into_keys().filter(|name| name.contains("munich") || name.contains("detroit")) {
                fs::remove_file(world.detroit.join(path)).unwrap();
            }
            world.settle_equal();
        }
    });
}

fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    let files = entries.filter(|entry| entry.file_type().unwrap().is_file());
    files.map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap())).collect()
}

#[test]
fn agents_go_on_while_the_service_is_away() {
    on_one(|mut world| {
        fs::write(world.detroit.join("plan"), "one").unwrap();
        world.settle_equal();
        let (detroit, munich) = (world.detroit.clone(), world.munich.clone());
        let state = world.state("detroit");
        world.service = world.service.restart(|| {
            fs::write(detroit.join("plan"), "two").unwrap();
            fs::write(munich.join("other"), "other").unwrap();
            eventually("the agent says that the service is away", || match control::ask(&state, &Request::Status).unwrap() {
                Answer::Status(overview) => overview.away.is_some(),
                other => panic!("{other:?}"),
            });
            eventually("the change is known to be unsafe", || {
                let request = Request::File { path: ShownPath::new(detroit.join("plan").as_os_str().as_bytes()) };
                match control::ask(&state, &request).unwrap() {
                    Answer::File(view) => view.state == FileState::Unsafe,
                    other => panic!("{other:?}"),
                }
            });
        });
        world.settle_equal();
        assert_eq!(fs::read(world.munich.join("plan")).unwrap(), b"two");
        assert_eq!(world.file("detroit", &world.detroit.join("plan")).state, FileState::Synced);
        assert_eq!(world.file("detroit", &world.detroit.join("none")).state, FileState::Absent);
        assert_eq!(world.file("detroit", &world.detroit.join("a.tmp")).state, FileState::Excluded);
    });
}

#[test]
fn an_agent_that_starts_while_the_service_is_away_watches_all_the_same() {
    on_one(|mut world| {
        fs::write(world.detroit.join("plan"), "one").unwrap();
        world.settle_equal();
        let (detroit, state) = (world.detroit.clone(), world.state("detroit"));
        world.agents.clear();
        let url = world.service.url.clone();
        let mut agents = Vec::new();
        world.service = world.service.restart(|| {
            fs::write(detroit.join("plan"), "two").unwrap();
            agents.extend(
                ["detroit", "munich"].map(|server| Running::start(&url, server, &world.outside.join(format!("state-{server}")))),
            );
            eventually("the change is known to be unsafe", || {
                let request = Request::File { path: ShownPath::new(detroit.join("plan").as_os_str().as_bytes()) };
                match control::ask(&state, &request) {
                    Ok(Answer::File(view)) => view.state == FileState::Unsafe,
                    _ => false,
                }
            });
        });
        world.agents.extend(agents);
        world.settle_equal();
        assert_eq!(fs::read(world.munich.join("plan")).unwrap(), b"two");
    });
}

#[test]
fn two_edits_of_one_file_are_both_kept() {
    on_one(|world| {
        fs::write(world.detroit.join("plan.dwg"), "base").unwrap();
        world.settle_equal();
        fs::write(world.detroit.join("plan.dwg"), "from detroit").unwrap();
        fs::write(world.munich.join("plan.dwg"), "from munich").unwrap();
        world.settle_equal();
        let found: BTreeSet<Vec<u8>> = files(&world.munich).into_values().collect();
        assert_eq!(found, BTreeSet::from([b"from detroit".to_vec(), b"from munich".to_vec()]));
        let names: Vec<String> = files(&world.munich).into_keys().collect();
        assert!(names[0] == "plan-detroit.dwg" || names[0] == "plan-munich.dwg", "{names:?}");
        let copy = world.file("munich", &world.munich.join(&names[0]));
        assert_eq!(copy.conflict_of.map(|kept| kept.path).as_deref(), Some("plan.dwg"));
    });
}

#[test]
fn a_server_authoritative_upload_makes_the_share_equal_to_the_folder_once() {
    let Some(volume) = LoopVolume::new(Fs::Ext4, 200) else { return };
    let service = Service::start(&volume.outside().join("service"));
    service.group("plans");
    let (munich, detroit) = (volume.path().join("munich"), volume.path().join("detroit"));
    for (folder, files) in [(&munich, &["both", "only here/old"][..]), (&detroit, &["both", "new/plan"])] {
        for file in files {
            fs::create_dir_all(folder.join(file).parent().unwrap()).unwrap();
            fs::write(folder.join(file), format!("{file} of {}", folder.display())).unwrap();
        }
    }
    let state = |server: &str| volume.outside().join(format!("state-{server}"));
    let _munich = Running::start(&service.url, "munich", &state("munich"));
    service.endpoint("plans", "munich", &munich);
    service.settle("plans");
    let agent = Running::start(&service.url, "detroit", &state("detroit"));
    let endpoint = service.endpoint_with("plans", "detroit", &detroit, InitialUpload::Authoritative);
    service.settle("plans");
    assert_eq!(tree(&munich), tree(&detroit));
    assert_eq!(fs::read_to_string(munich.join("both")).unwrap(), format!("both of {}", detroit.display()));
    assert!(!munich.join("only here").exists() && munich.join("new/plan").exists());

    // From then on all servers are equal, also after the catalog was removed as a remedy for damage.
    fs::write(munich.join("later"), "later").unwrap();
    service.settle("plans");
    eventually("the folder says that both have agreed", || {
        fs::read_to_string(detroit.join(".isotherm/endpoint")).unwrap().contains("\"agreed\": true")
    });
    drop(agent);
    fs::remove_dir_all(state("detroit").join("endpoints").join(endpoint.id.to_string())).unwrap();
    fs::write(munich.join("later still"), "later still").unwrap();
    let _agent = Running::start(&service.url, "detroit", &state("detroit"));
    service.settle("plans");
    assert_eq!(tree(&munich), tree(&detroit));
    assert!(detroit.join("later").exists() && detroit.join("later still").exists());
}

#[test]
fn one_agent_serves_several_endpoints_apart() {
    on_one(|world| {
        world.service.group("letters");
        let folders = ["detroit", "munich"].map(|server| {
            let folder = world.outside.join(format!("letters-{server}"));
            fs::create_dir(&folder).unwrap();
            world.service.endpoint("letters", server, &folder);
            folder
        });
        fs::write(world.detroit.join("same name"), "a plan").unwrap();
        fs::write(folders[0].join("same name"), "a letter").unwrap();
        world.settle_equal();
        world.service.settle("letters");
        assert_eq!(fs::read_to_string(world.munich.join("same name")).unwrap(), "a plan");
        assert_eq!(fs::read_to_string(folders[1].join("same name")).unwrap(), "a letter");
    });
}

#[test]
fn a_removed_endpoint_leaves_its_files_and_nothing_else() {
    on_one(|world| {
        fs::write(world.detroit.join("plan"), "stays").unwrap();
        world.settle_equal();
        let endpoints = world.service.wait(world.service.client.endpoints()).unwrap();
        let munich = endpoints.iter().find(|endpoint| endpoint.server == "munich").unwrap();
        world.service.wait(world.service.client.delete_endpoint(munich.id, isotherm_api::sync::OnStubs::Wait)).unwrap();
        eventually("the endpoint is gone", || world.service.wait(world.service.client.endpoints()).unwrap().len() == 1);
        assert_eq!(fs::read(world.munich.join("plan")).unwrap(), b"stays");
        assert!(!world.munich.join(".isotherm").exists());
        assert!(!world.state("munich").join("endpoints").join(munich.id.to_string()).exists());
        fs::write(world.munich.join("plan"), "not synced any more").unwrap();
        fs::write(world.detroit.join("plan"), "still synced").unwrap();
        world.service.settle("plans");
        assert_eq!(fs::read(world.munich.join("plan")).unwrap(), b"not synced any more");
        // The folder can become an endpoint again.
        world.service.endpoint("plans", "munich", &world.munich);
        world.settle_equal();
    });
}

#[test]
fn an_endpoint_without_its_marker_stops_and_goes_on_when_it_is_back() {
    on_one(|world| {
        fs::write(world.detroit.join("plan"), "stays").unwrap();
        world.settle_equal();
        let away = world.outside_of_endpoints("away");
        fs::rename(&world.munich, &away).unwrap();
        fs::create_dir(&world.munich).unwrap();
        eventually("the endpoint has stopped", || {
            let status = world.service.wait(world.service.client.status()).unwrap();
            let reports = status.groups[0].endpoints.iter().filter_map(|endpoint| endpoint.report.as_ref());
            reports
                .into_iter()
                .any(|report| matches!(&report.state, EndpointState::Stopped { remedy, .. } if remedy.contains("Mount")))
        });
        fs::remove_dir(&world.munich).unwrap();
        fs::rename(&away, &world.munich).unwrap();
        world.settle_equal();
        assert_eq!(fs::read(world.munich.join("plan")).unwrap(), b"stays");
        assert_eq!(fs::read(world.detroit.join("plan")).unwrap(), b"stays");
    });
}

impl World {
    /// A place on the same volume that no endpoint holds.
    fn outside_of_endpoints(&self, name: &str) -> PathBuf {
        self.detroit.parent().unwrap().join(name)
    }
}

#[test]
fn a_second_agent_is_refused() {
    on_one(|mut world| {
        // The same state folder.
        assert!(!world.start("detroit").ended());
        // The same server from a copy of the state folder: the first one is fenced.
        let copy = world.outside.join("state-copy");
        fs::create_dir(&copy).unwrap();
        fs::copy(world.state("detroit").join("server.json"), copy.join("server.json")).unwrap();
        let second = Running::start(&world.service.url, "detroit", &copy);
        assert!(!world.agents.remove(0).ended());
        drop(second);
    });
}

#[test]
fn without_the_right_to_watch_the_folder_is_scanned() {
    on_one(|mut world| {
        drop(world.agents.remove(0));
        let unwatched = Running::start_unwatched(&world.service.url, "detroit", &world.state("detroit"));
        world.agents.insert(0, unwatched);
        fs::write(world.detroit.join("plan"), "one").unwrap();
        world.settle_equal();
        fs::write(world.detroit.join("plan"), "two").unwrap();
        fs::write(world.munich.join("other"), "three").unwrap();
        world.settle_equal();
        assert_eq!(fs::read(world.munich.join("plan")).unwrap(), b"two");
        let Answer::Status(overview) = control::ask(&world.state("detroit"), &Request::Status).unwrap() else { panic!() };
        let watch = &overview.endpoints[0].report.watch;
        assert!(matches!(watch, Watch::Scan { reason } if reason.contains("CAP_SYS_ADMIN")), "{watch:?}");
    });
}

#[test]
fn a_full_disk_under_the_catalog_stops_an_endpoint_until_there_is_room() {
    let Some(state) = LoopVolume::new(Fs::Ext4, 16) else { return };
    on_one(|mut world| {
        drop(world.agents.remove(0));
        let small = state.path().join("state");
        world.agents.insert(0, Running::start(&world.service.url, "berlin", &small));
        let berlin = world.outside_of_endpoints("berlin");
        fs::create_dir(&berlin).unwrap();
        let id = world.service.endpoint("plans", "berlin", &berlin).id;
        world.service.wait(world.service.client.pause_endpoint(world.id_of("detroit"))).unwrap();
        world.service.settle("plans");
        let filler = state.path().join("filler");
        let mut file = fs::File::create(&filler).unwrap();
        while file.write_all(&[1; 4096]).is_ok() {}
        drop(file);
        for number in 0..3_000 {
            fs::write(berlin.join(format!("file-{number}")), "x").unwrap();
        }
        eventually("the endpoint says that its catalog has no room", || {
            let report = world.service.wait(world.service.client.endpoint(id)).unwrap().report;
            let is_full = |reason: &str, remedy: &str| reason.contains("no space left") && remedy.contains("Make room");
            report.is_some_and(
                |report| matches!(&report.state, EndpointState::Stopped { reason, remedy } if is_full(reason, remedy)),
            )
        });
        fs::remove_file(&filler).unwrap();
        world.service.settle("plans");
        assert_eq!(tree(&berlin), tree(&world.munich));
        assert_eq!(tree(&berlin).len(), 3_000);
    });
}

#[test]
fn a_full_volume_holds_up_only_what_does_not_fit() {
    let Some(small) = LoopVolume::new(Fs::Ext4, 16) else { return };
    on_one(|mut world| {
        world.agents.push(Running::start(&world.service.url, "berlin", &world.outside.join("state-berlin")));
        let berlin = small.path().join("berlin");
        fs::create_dir(&berlin).unwrap();
        world.service.endpoint("plans", "berlin", &berlin);
        fs::write(world.detroit.join("large"), noise(1, 30 << 20)).unwrap();
        fs::write(world.detroit.join("small"), "fits").unwrap();
        eventually("the small file arrives", || fs::read(berlin.join("small")).is_ok_and(|bytes| bytes == b"fits"));
        eventually("the large file is a problem with a remedy", || {
            let problems = world.service.wait(world.service.client.problems()).unwrap().problems;
            problems.iter().any(|problem| problem.path.path == "large" && problem.remedy.contains("Make room"))
        });
        fs::write(world.detroit.join("large"), "fits too").unwrap();
        world.settle_equal();
        assert_eq!(tree(&berlin), tree(&world.detroit));
        assert_eq!(world.service.wait(world.service.client.problems()).unwrap().total, 0);
    });
}

impl World {
    fn id_of(&self, server: &str) -> isotherm_core::ids::EndpointId {
        let endpoints = self.service.wait(self.service.client.endpoints()).unwrap();
        endpoints.iter().find(|endpoint| endpoint.server == server).unwrap().id
    }
}

//! Damaged data: whoever meets it says what is damaged, and nothing is lost or spread.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use isotherm_gate::testing::Fs;

use crate::fleet::{Fleet, SITES};
use crate::program::until;
use crate::tree::{assert_equal, walk};

const KINDS: [Fs; 2] = [Fs::Ext4, Fs::Xfs];

/// Regular files below a folder that are more than nothing.
fn files(folder: &Path) -> Vec<PathBuf> {
    let all = walk(folder).into_iter().map(|path| folder.join(path));
    all.filter(|path| path.is_file() && fs::metadata(path).unwrap().len() > 0).collect()
}

/// Turns one bit in the middle of a file.
fn flip(path: &Path) {
    let file = File::options().read(true).write(true).open(path).unwrap();
    let middle = file.metadata().unwrap().len() / 2;
    let mut byte = [0];
    file.read_exact_at(&mut byte, middle).unwrap();
    file.write_all_at(&[byte[0] ^ 0x10], middle).unwrap();
}

fn cut(path: &Path) {
    let file = File::options().write(true).open(path).unwrap();
    file.set_len(file.metadata().unwrap().len() / 2).unwrap();
}

fn damaged_packs(damage: impl Fn(&Path)) {
    let Some(mut fleet) = Fleet::on(KINDS, 512) else { return };
    let [detroit, munich] = fleet.folders();
    fs::create_dir(&detroit).unwrap();
    for number in 0..20 {
        fs::write(detroit.join(format!("{number}.txt")), format!("text {number} ").repeat(2_000)).unwrap();
    }
    let large: Vec<u8> = (0..9_000_000_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 11) as u8).collect();
    fs::write(detroit.join("large"), large).unwrap();
    fleet.create_group(&[]);
    fleet.start_agent(SITES[0]);
    fleet.join(SITES[0]);
    fleet.settle_clean();
    fleet.stop_service();
    let kept: Vec<(PathBuf, Vec<u8>)> =
        files(&fleet.data().join("objects")).into_iter().map(|path| (path.clone(), fs::read(path).unwrap())).collect();
    kept.iter().for_each(|(path, _)| damage(path));
    fleet.start_service();
    fleet.start_agent(SITES[1]);
    fleet.join(SITES[1]);
    until("the damage is told", || fleet.run(&["problems"]).out.contains("munich"));
    let told = format!("{}{}", fleet.run(&["problems"]).out, fleet.log("service"));
    assert!(told.contains("pack"), "{told}");
    assert_eq!(files(&detroit).len(), 21, "the healthy site keeps all");
    for path in files(&munich) {
        assert_eq!(fs::read(&path).unwrap(), fs::read(detroit.join(path.file_name().unwrap())).unwrap(), "{path:?}");
    }
    // The packs come back from a backup.
    fleet.stop_service();
    kept.iter().for_each(|(path, bytes)| fs::write(path, bytes).unwrap());
    fleet.start_service();
    fleet.settle_clean();
    assert_eq!(assert_equal(&detroit, &munich), 21);
}

#[test]
fn a_turned_bit_in_each_pack_is_named_and_not_spread() {
    damaged_packs(flip);
}

#[test]
fn packs_cut_short_are_named_and_not_spread() {
    damaged_packs(cut);
}

#[test]
fn a_damaged_catalog_stops_its_endpoint_by_name_and_can_be_made_anew() {
    let Some(mut fleet) = Fleet::sharing(KINDS, &[]) else { return };
    let [detroit, munich] = fleet.folders();
    for number in 0..300 {
        fs::write(detroit.join(format!("{number}.txt")), format!("text {number}")).unwrap();
    }
    fleet.settle_clean();
    fleet.stop_agent(SITES[1]);
    let catalog =
        files(&fleet.state(SITES[1]).join("endpoints")).into_iter().max_by_key(|path| fs::metadata(path).unwrap().len());
    let catalog = catalog.unwrap();
    for damage in ["begins with something else", "cut"] {
        match damage {
            "cut" => cut(&catalog),
            _ => File::options().write(true).open(&catalog).unwrap().write_all_at(&[0x55; 200], 0).unwrap(),
        }
        fleet.start_agent(SITES[1]);
        until("the endpoint stops", || fleet.endpoint(SITES[1])["report"]["state"].to_string().contains("catalog"));
        let state = fleet.endpoint(SITES[1])["report"]["state"].to_string();
        assert!(state.contains(catalog.to_str().unwrap()), "{damage}: {state}");
        fs::write(detroit.join(format!("later {damage}")), "later").unwrap();
        fleet.stop_agent(SITES[1]);
    }
    assert_eq!((walk(&detroit).len(), walk(&munich).len()), (302, 300), "nothing was done on its word");
    // As its remedy says: moved away, it is made anew, and equal files are no conflict.
    let before = fleet.stored();
    fs::write(munich.join("7.txt"), "written meanwhile").unwrap();
    for path in files(catalog.parent().unwrap()) {
        fs::remove_file(path).unwrap();
    }
    fleet.start_agent(SITES[1]);
    fleet.settle();
    assert_equal(&detroit, &munich);
    assert!(walk(&detroit).iter().any(|path| fs::read(detroit.join(path)).unwrap() == b"written meanwhile"));
    assert!(fleet.stored() - before < 10_000, "equal files are not sent again");
    for number in (0..300).filter(|number| *number != 7) {
        assert_eq!(fs::read_to_string(munich.join(format!("{number}.txt"))).unwrap(), format!("text {number}"));
    }
}

#[test]
fn damaged_records_keep_the_service_from_starting_and_are_named() {
    let Some(mut fleet) = Fleet::sharing(KINDS, &[]) else { return };
    let [detroit, munich] = fleet.folders();
    fs::write(detroit.join("a"), "a").unwrap();
    fleet.settle_clean();
    fleet.stop_service();
    let records = fleet.data().join("records.sqlite");
    let whole = fs::read(&records).unwrap();
    fs::write(&records, [&[0x55; 300][..], &whole[300..]].concat()).unwrap();
    let refused = fleet.refused_service().expect(1);
    assert!(refused.err.contains("records.sqlite"), "{refused:?}");
    fs::write(&records, &whole).unwrap();
    fleet.start_service();
    fs::write(munich.join("b"), "b").unwrap();
    fleet.settle_clean();
    assert_equal(&detroit, &munich);
}

/// Sends a request that no client of ours would send; gives the status line and the rest.
fn send(fleet: &Fleet, path: &str, body: &[u8]) -> (String, String) {
    let address = fleet.url.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    let head = format!("POST {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
    stream.write_all(head.as_bytes()).unwrap();
    // A refusal may come before all was read.
    let _ = stream.write_all(body);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let answer = String::from_utf8_lossy(&answer).into_owned();
    (answer.lines().next().unwrap_or_default().to_owned(), answer)
}

#[test]
fn messages_that_are_none_are_refused_and_change_nothing() {
    let Some(fleet) = Fleet::sharing(KINDS, &[]) else { return };
    let [detroit, munich] = fleet.folders();
    fs::write(detroit.join("a"), "a").unwrap();
    fleet.settle_clean();
    let group = fleet.run(&["group", "list", "--json"]).json()[0]["id"].as_str().unwrap().to_owned();
    for route in ["commit", "feed", "have", "packs", "manifests", "manifests/get", "chunks/get", "history", "wanted"] {
        for body in [&b""[..], b"\x00", &[0xff; 300], &[0x55; 70_000]] {
            let path = format!("/v1/shares/{group}/{route}");
            let (status, answer) = send(&fleet, &path, body);
            assert!(status.starts_with("HTTP/1.1 4") && answer.contains("message"), "{path}: {answer}");
        }
    }
    fs::write(munich.join("b"), "b").unwrap();
    fleet.settle_clean();
    assert_eq!(assert_equal(&detroit, &munich), 2);
}

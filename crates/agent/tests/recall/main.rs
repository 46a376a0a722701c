//! Recall on the real kernel: whoever opens a stub gets its content or an errno, on ext4, XFS and btrfs.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod adversary;
mod bench;
mod programs;
mod samba;
mod share;
#[path = "../support/volumes.rs"]
mod volumes;

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::process::{Command, Stdio};
use std::sync::atomic::Ordering;

use isotherm_agent::recall::{Lengths, NotTiered, What};
use isotherm_gate::testing::on_each_fs;

use bench::{Bench, noise, wait_until};

#[test]
fn what_is_executed_is_recalled() {
    on_each_fs(96, |volume| {
        let bench = Bench::new(volume);
        bench.stub("script", b"#!/bin/sh\necho it runs\n", 0o755);
        bench.stub("echo", &fs::read("/bin/echo").unwrap(), 0o755);
        for (name, arguments) in [("script", &[][..]), ("echo", &["it", "runs"][..])] {
            let done = Command::new(bench.path(name)).args(arguments).output().unwrap();
            assert_eq!(String::from_utf8_lossy(&done.stdout), "it runs\n", "{name} on {:?}", volume.fs());
        }
    });
}

#[test]
fn case_19_writers_get_the_content_first_and_who_empties_a_file_fetches_nothing() {
    on_each_fs(96, |volume| {
        let bench = Bench::new(volume);
        let content = noise(250_000, 2);
        let file = bench.stub("log", &content, 0o644);
        File::options().append(true).open(bench.path("log")).unwrap().write_all(b"one more line").unwrap();
        assert!(fs::read(bench.path("log")).unwrap() == [&content[..], b"one more line"].concat());
        assert_eq!((file.record().unwrap(), bench.fetched()), (None, 1));
        let file = bench.stub("cut", &content, 0o644);
        assert!(Command::new("truncate").arg("-s7").arg(bench.path("cut")).status().unwrap().success());
        assert!(fs::read(bench.path("cut")).unwrap() == content[..7]);
        assert_eq!((file.record().unwrap(), bench.fetched()), (None, 2));
        let file = bench.stub("anew", &content, 0o644);
        fs::write(bench.path("anew"), "anew").unwrap();
        assert_eq!(fs::read(bench.path("anew")).unwrap(), b"anew");
        assert_eq!((file.record().unwrap(), bench.fetched()), (None, 2), "{:?}", volume.fs());
    });
}

#[test]
fn many_readers_wait_for_one_fetch_and_time_and_blocks_are_as_before() {
    on_each_fs(96, |volume| {
        let bench = Bench::new(volume);
        let content = noise(2_000_000, 3);
        fs::write(bench.path("before"), &content).unwrap();
        bench.stub("large", &content, 0o644);
        let stub = fs::metadata(bench.path("large")).unwrap();
        assert!(stub.blocks() <= 8 && stub.len() == content.len() as u64);
        std::thread::scope(|scope| {
            for _ in 0..24 {
                scope.spawn(|| assert!(fs::read(bench.path("large")).unwrap() == content));
            }
        });
        let whole = fs::metadata(bench.path("large")).unwrap();
        assert_eq!((whole.mtime(), whole.mtime_nsec()), (stub.mtime(), stub.mtime_nsec()));
        assert_eq!(bench.fetched(), 1);
    });
}

#[test]
fn content_that_cannot_be_had_is_an_errno_and_the_stub_stays() {
    on_each_fs(96, |volume| {
        let bench = Bench::new(volume);
        let content = noise(500_000, 4);
        let file = bench.stub("gone", &content, 0o644);
        bench.contents.known.lock().unwrap().clear();
        let error = fs::read(bench.path("gone")).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(5));
        assert!(!file.has_data().unwrap() && file.record().unwrap().is_some());
        assert_eq!(bench.recall.as_ref().unwrap().problems()[0].text, "The share has no such content");
        let damaged = bench.stub("damaged", &content, 0o644);
        damaged.set_record(b"\x01nonsense").unwrap();
        assert_eq!(fs::read(bench.path("damaged")).unwrap_err().raw_os_error(), Some(5));
        let later = bench.stub("later", &content, 0o644);
        later.set_record(b"\x02of a release to come").unwrap();
        assert_eq!(fs::read(bench.path("later")).unwrap_err().raw_os_error(), Some(5));
        assert_eq!(later.record().unwrap().unwrap(), b"\x02of a release to come");
        // The rest goes on.
        bench.stub("fine", &content, 0o644);
        assert!(fs::read(bench.path("fine")).unwrap() == content);
    });
}

#[test]
fn a_full_volume_is_enospc_and_nothing_of_the_content_stays() {
    on_each_fs(16, |volume| {
        let bench = Bench::new(volume);
        let content = noise(6_000_000, 5);
        let file = bench.stub("large", &content, 0o644);
        let mut filler = File::create(bench.path("filler")).unwrap();
        let block = vec![1_u8; 1 << 16];
        while filler.write_all(&block).is_ok() {}
        let _ = filler.sync_all();
        let error = fs::read(bench.path("large")).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(28), "{:?}", volume.fs());
        assert!(!file.has_data().unwrap() && file.record().unwrap().is_some());
        drop(filler);
        fs::remove_file(bench.path("filler")).unwrap();
        bench.root.sync().unwrap();
        assert!(fs::read(bench.path("large")).unwrap() == content, "{:?}", volume.fs());
    });
}

#[test]
fn a_file_that_is_deleted_while_it_comes_is_no_problem() {
    on_each_fs(96, |volume| {
        let bench = Bench::new(volume);
        let content = noise(400_000, 9);
        bench.stub("doomed", &content, 0o644);
        bench.contents.away.store(true, Ordering::Relaxed);
        let path = bench.path("doomed");
        let reader = std::thread::spawn(move || fs::read(path));
        wait_until(|| bench.fetched() == 1);
        fs::remove_file(bench.path("doomed")).unwrap();
        bench.contents.away.store(false, Ordering::Relaxed);
        // Whole or an error, and nothing between.
        assert!(reader.join().unwrap().is_ok_and(|seen| seen == content), "{:?}", volume.fs());
        assert_eq!(bench.recall.as_ref().unwrap().problems(), []);
    });
}

#[test]
fn who_empties_a_file_twice_in_the_same_way_does_not_wait_for_himself() {
    on_each_fs(96, |volume| {
        let bench = Bench::new(volume);
        for round in 0..20 {
            let name = format!("emptied-{round}");
            let file = bench.stub(&name, &noise(100_000, 10), 0o644);
            // Two calls that look the same from outside, and nothing between.
            for _ in 0..2 {
                File::create(bench.path(&name)).unwrap();
            }
            fs::write(bench.path(&name), "new").unwrap();
            assert_eq!(fs::read(bench.path(&name)).unwrap(), b"new", "round {round} on {:?}", volume.fs());
            assert_eq!(file.record().unwrap(), None);
        }
        assert_eq!(bench.fetched(), 0);
    });
}

#[test]
fn a_program_that_runs_is_not_tiered_and_goes_on_to_be_opened() {
    on_each_fs(96, |volume| {
        let bench = Bench::new(volume);
        let program = fs::read("/bin/sleep").unwrap();
        fs::copy("/bin/sleep", bench.path("sleep")).unwrap();
        let mut running = Command::new(bench.path("sleep")).arg("60").spawn().unwrap();
        let candidate = bench.candidate("sleep", &program).unwrap();
        for _ in 0..3 {
            let tiered = bench.recall.as_ref().unwrap().tier(std::slice::from_ref(&candidate));
            assert!(matches!(tiered[0], Err(NotTiered::InUse | NotTiered::Held)), "{tiered:?} on {:?}", volume.fs());
            assert!(fs::read(bench.path("sleep")).unwrap() == program);
            assert!(Command::new(bench.path("sleep")).arg("0").status().unwrap().success());
        }
        running.kill().unwrap();
        running.wait().unwrap();
        assert_eq!(bench.recall.as_ref().unwrap().problems(), []);
    });
}

#[test]
fn contents_that_do_not_come_hold_up_nobody_who_needs_none() {
    on_each_fs(96, |volume| {
        let bench = Bench::new(volume);
        let content = noise(100_000, 11);
        bench.contents.away.store(true, Ordering::Relaxed);
        let names: Vec<String> = (0..12).map(|number| format!("waits-{number}")).collect();
        names.iter().for_each(|name| drop(bench.stub(name, &content, 0o644)));
        bench.stub("emptied", &content, 0o644);
        std::thread::scope(|scope| {
            for name in &names {
                scope.spawn(|| assert!(fs::read(bench.path(name)).unwrap() == content));
            }
            wait_until(|| bench.fetched() == 8);
            fs::write(bench.path("emptied"), "new").unwrap();
            assert_eq!(fs::read(bench.path("emptied")).unwrap(), b"new");
            bench.contents.away.store(false, Ordering::Relaxed);
        });
    });
}

#[test]
fn whoever_opens_a_small_file_does_not_wait_for_large_ones() {
    on_each_fs(192, |volume| {
        let bench = Bench::new(volume);
        let (large, small) = (vec![7; 64 << 20], noise(100_000, 12));
        bench.contents.stuck.store(true, Ordering::Relaxed);
        bench.stub("drawing", &small, 0o644);
        let names: Vec<String> = (0..9).map(|number| format!("film-{number}")).collect();
        names.iter().for_each(|name| drop(bench.stub(name, &large, 0o644)));
        let read = |name: &String| Command::new("head").args(["-c", "1"]).arg(bench.path(name)).stdout(Stdio::null()).spawn();
        let mut readers: Vec<_> = names.iter().map(|name| read(name).unwrap()).collect();
        wait_until(|| bench.fetched() > 0);
        assert!(fs::read(bench.path("drawing")).unwrap() == small);
        for reader in &mut readers {
            assert!(reader.try_wait().unwrap().is_none(), "it waits for its film");
            reader.kill().unwrap();
            reader.wait().unwrap();
        }
        bench.contents.stuck.store(false, Ordering::Relaxed);
    });
}

#[test]
fn a_killed_reader_ends_the_fetch_and_who_comes_later_begins_anew() {
    on_each_fs(96, |volume| {
        let bench = Bench::new(volume);
        let content = noise(500_000, 6);
        let file = bench.stub("slow", &content, 0o644);
        bench.contents.away.store(true, Ordering::Relaxed);
        let mut reader = Command::new("cat").arg(bench.path("slow")).stdout(Stdio::null()).spawn().unwrap();
        wait_until(|| bench.fetched() == 1);
        reader.kill().unwrap();
        reader.wait().unwrap();
        wait_until(|| bench.contents.given_up.load(Ordering::Relaxed) == 1);
        bench.contents.away.store(false, Ordering::Relaxed);
        assert!(fs::read(bench.path("slow")).unwrap() == content);
        assert_eq!((bench.fetched(), file.record().unwrap()), (2, None));
    });
}

#[test]
fn a_new_run_of_the_agent_answers_who_waited_for_the_old_one() {
    on_each_fs(96, |volume| {
        let mut bench = Bench::new(volume);
        let content = noise(500_000, 7);
        bench.stub("slow", &content, 0o644);
        bench.contents.away.store(true, Ordering::Relaxed);
        let path = bench.path("slow");
        let reader = std::thread::spawn(move || fs::read(path).unwrap());
        wait_until(|| bench.fetched() == 1);
        bench.recall = None;
        bench.contents.away.store(false, Ordering::Relaxed);
        assert!(!reader.is_finished());
        bench.start();
        assert!(reader.join().unwrap() == content, "{:?}", volume.fs());
    });
}

// Row 18: a client of kernel NFS cuts a file without an open, and nobody is asked.
#[test]
fn case_18_a_file_that_is_cut_while_its_content_comes_is_never_half_of_each() {
    on_each_fs(96, |volume| {
        let bench = Bench::new(volume);
        let content = noise(350_000, 13);
        // In the first piece, and at the first byte of a block and of a piece; by then two pieces are there.
        for cut in [5_000, 4_096, 98_304, 99_999, 100_000, 199_999] {
            let name = format!("cut-at-{cut}");
            let file = bench.stub(&name, &content, 0o644);
            bench.contents.hold_at.store(200_000, Ordering::Relaxed);
            let path = bench.path(&name);
            let reader = std::thread::spawn(move || fs::read(path));
            wait_until(|| bench.contents.held.load(Ordering::Relaxed));
            file.set_len(cut).unwrap();
            bench.contents.hold_at.store(0, Ordering::Relaxed);
            let error = reader.join().unwrap().err();
            assert_eq!(error.and_then(|error| error.raw_os_error()), Some(5), "{name} on {:?}", volume.fs());
            assert!(!file.has_data().unwrap() && file.record().unwrap().is_some(), "{name} on {:?}", volume.fs());
            // What came behind made it long again: it is a stub as it was.
            assert!(fs::read(bench.path(&name)).unwrap() == content, "{name} on {:?}", volume.fs());
        }
        assert_eq!(bench.recall.as_ref().unwrap().problems().len(), 6);
    });
}

// Row 4.
#[test]
fn case_04_a_stub_whose_length_was_changed_stays_until_somebody_asks_for_its_content() {
    on_each_fs(96, |volume| {
        let bench = Bench::new(volume);
        let content = noise(300_000, 14);
        let recall = bench.recall.as_ref().unwrap();
        for len in [1, 5_000, 299_999, 300_001, 9_000_000] {
            let name = format!("made-{len}");
            let file = bench.stub(&name, &content, 0o644);
            let handle = bench.candidate(&name, &content).unwrap().file;
            file.set_len(len).unwrap();
            let wants = |lengths| recall.bring_back(vec![handle.clone()], lengths, What::RecalledByCommand, &|| true);
            assert_eq!(fs::read(bench.path(&name)).unwrap_err().raw_os_error(), Some(5));
            assert_eq!(wants(Lengths::Kept), [false], "{name}");
            // No word of blocks: btrfs keeps zeros in the last one.
            assert!(file.stat().unwrap().size == len && file.record().unwrap().is_some(), "{name} on {:?}", volume.fs());
            assert!(recall.problems().last().unwrap().text.contains(&format!("has {len} bytes")), "{:?}", recall.problems());
            assert_eq!(wants(Lengths::Mended), [true], "{name} on {:?}", volume.fs());
            assert!(fs::read(bench.path(&name)).unwrap() == content && file.record().unwrap().is_none());
        }
        // To the same length is no change, and what was cut to nothing has no content to wait for.
        let (same, empty) = (bench.stub("same", &content, 0o644), bench.stub("empty", &content, 0o644));
        same.set_len(300_000).unwrap();
        assert!(fs::read(bench.path("same")).unwrap() == content);
        empty.set_len(0).unwrap();
        assert_eq!((fs::read(bench.path("empty")).unwrap(), empty.record().unwrap()), (Vec::new(), None));
    });
}

// semantics.md#all-holders-die
#[test]
fn what_was_written_to_a_stub_behind_the_guard_stays_until_somebody_asks_for_its_content() {
    on_each_fs(96, |volume| {
        let bench = Bench::new(volume);
        let content = noise(300_000, 15);
        let recall = bench.recall.as_ref().unwrap();
        for offset in [0, 150_000, 299_996] {
            let name = format!("written-{offset}");
            let file = bench.stub(&name, &content, 0o644);
            let handle = bench.candidate(&name, &content).unwrap().file;
            file.fill(offset, b"mine").unwrap();
            let wants = |lengths| recall.bring_back(vec![handle.clone()], lengths, What::RecalledByCommand, &|| true);
            assert_eq!(fs::read(bench.path(&name)).unwrap_err().raw_os_error(), Some(5));
            assert_eq!(wants(Lengths::Kept), [false], "{name}");
            let mut found = [0; 4];
            file.read_at(offset, &mut found).unwrap();
            assert_eq!(&found, b"mine", "{name} on {:?}", volume.fs());
            assert!(recall.problems().last().unwrap().text.contains("written to"), "{:?}", recall.problems());
            assert_eq!(wants(Lengths::Mended), [true], "{name} on {:?}", volume.fs());
            assert!(fs::read(bench.path(&name)).unwrap() == content && file.record().unwrap().is_none());
        }
        // Also where the recall that does not reach it fails: what came stays beside it, and the next one finds it.
        let file = bench.stub("late", &content, 0o644);
        let handle = bench.candidate("late", &content).unwrap().file;
        file.fill(299_990, b"mine").unwrap();
        bench.contents.hold_at.store(150_000, Ordering::Relaxed);
        std::thread::scope(|scope| {
            let begun = scope.spawn(|| recall.bring_back(vec![handle.clone()], Lengths::Kept, What::RecalledByCommand, &|| true));
            wait_until(|| bench.contents.held.load(Ordering::Relaxed));
            bench.contents.breaks.store(true, Ordering::Relaxed);
            bench.contents.hold_at.store(0, Ordering::Relaxed);
            assert_eq!(begun.join().unwrap(), [false]);
        });
        bench.contents.breaks.store(false, Ordering::Relaxed);
        let mut found = [0; 4];
        file.read_at(299_990, &mut found).unwrap();
        assert_eq!(&found, b"mine", "after a recall that failed, on {:?}", volume.fs());
        // What a recall has left that was broken off is the content's own; its time is not.
        let file = bench.stub("half", &content, 0o644);
        file.fill(100_000, &content[100_000..200_000]).unwrap();
        *bench.contents.modified.lock().unwrap() = Some(1_000_000_007);
        assert!(fs::read(bench.path("half")).unwrap() == content);
        assert_eq!(file.stat().unwrap().mtime_ns, 1_000_000_007, "{:?}", volume.fs());
    });
}

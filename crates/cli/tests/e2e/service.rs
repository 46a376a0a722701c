//! The service as a process, and the commands that need nothing else: exit codes, refusals, signals, JSON.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;

use isotherm_agent::control;
use rustix::process::Signal;

use crate::program::{Running, isotherm, until};
use crate::world::World;

#[test]
fn nobody_there_is_exit_code_5_and_says_what_to_do() {
    // Port 9 is "discard"; nothing listens there on machines that run tests.
    for command in [&["status"][..], &["group", "list"], &["wait", "--synced"], &["problems"], &["endpoint", "list"]] {
        let mut all = command.to_vec();
        all.extend(["--service", "http://127.0.0.1:9"]);
        let ended = isotherm(&all).expect(5);
        assert!(ended.out.is_empty(), "{ended:?}");
        let first =
            format!("isotherm: {}: Service http://127.0.0.1:9 cannot be reached", command[..command.len().min(2)].join(" "));
        assert!(
            ended.err.starts_with(first.trim_end_matches(" --synced")) || ended.err.starts_with("isotherm: wait: "),
            "{ended:?}"
        );
        assert!(ended.err.lines().nth(1).unwrap().starts_with("  Check that the service runs"), "{ended:?}");
    }
}

#[test]
fn wrong_usage_is_exit_code_2() {
    for command in [
        &["no-such-command"][..],
        &["wait"],
        &["group", "create"],
        &["service", "run", "--data", "/x", "--listen", "10.0.0.1:1"],
        &["status", "--service", "https://example.org"],
        &["endpoint", "show", "no-id", "--service", "http://127.0.0.1:9"],
    ] {
        let code = isotherm(command).code;
        // An id is looked up only where its form is wrong, which needs the service.
        assert!(code == Some(2) || (command[0] == "endpoint" && code == Some(5)), "{command:?}: {code:?}");
    }
}

#[test]
fn help_manual_and_completions_are_answers() {
    for (command, word) in [
        (&["--help"][..], "Exit codes:"),
        (&["group", "set", "--help"], "--delete-limit"),
        (&["man"], ".TH isotherm"),
        (&["completions", "bash"], "complete"),
    ] {
        let ended = isotherm(command).expect(0);
        assert!(ended.out.contains(word) && ended.err.is_empty(), "{command:?}: {ended:?}");
    }
}

#[test]
fn groups_are_made_shown_and_changed() {
    let world = World::new();
    assert!(world.run(&["group", "list"]).expect(0).out.contains("No groups yet"));
    assert!(world.run(&["status"]).expect(0).out.contains("No groups yet"));
    world.run(&["group", "create", "plans", "--quota", "5GiB", "--exclude", "*.bak", "--delete-limit", "25%"]).expect(0);
    let made = world.run(&["group", "list", "--json"]).expect(0).json();
    assert_eq!((made[0]["name"].as_str(), made[0]["quota"].as_u64()), (Some("plans"), Some(5 << 30)), "{made}");
    assert_eq!((made[0]["max_delete_fraction"].as_f64(), &made[0]["exclusions"][0]), (Some(0.25), &"*.bak".into()), "{made}");
    let set = world.run(&["group", "set", "plans", "--quota", "none", "--no-exclusions", "--json"]).expect(0).json();
    assert_eq!((set["quota"].is_null(), set["exclusions"].as_array().unwrap().len()), (true, 0), "{set}");
    assert_eq!(set["max_delete_fraction"].as_f64(), Some(0.25), "what is not named stays");
    assert!(world.run(&["group", "show", "plans"]).expect(0).out.contains("0 endpoints"));

    for pattern in ["*", "**", "?*"] {
        let refused = world.run(&["group", "create", "nothing", "--exclude", pattern]).expect(2);
        assert!(refused.err.contains("would exclude everything"), "{refused:?}");
        world.run(&["group", "set", "plans", "--exclude", pattern]).expect(2);
    }
    world.run(&["group", "create", "old"]).expect(0);
    assert!(world.run(&["group", "delete", "old"]).expect(0).out.contains("Group old is deleted"));
    world.run(&["group", "delete", "old"]).expect(1);
    world.run(&["group", "create", "plans"]).expect(4);
    world.run(&["group", "create", "bad name"]).expect(2);
    world.run(&["group", "set", "plans"]).expect(2);
    world.run(&["group", "show", "other"]).expect(1);
    world.run(&["problems", "--group", "other"]).expect(1);
    world.run(&["endpoint", "create", "--group", "plans", "--server", "nobody", "--path", "/srv"]).expect(1);
    world.run(&["endpoint", "show", "abc"]).expect(1);
    world.run(&["endpoint", "show", "xyz"]).expect(2);
    let alone = world.run(&["wait", "--synced", "--group", "plans"]).expect(4);
    assert!(alone.err.contains("Group plans has no endpoint"), "{alone:?}");
}

#[test]
fn waiting_at_a_service_without_endpoints_fails() {
    let world = World::new();
    for made in [false, true] {
        if made {
            world.run(&["group", "create", "plans"]).expect(0);
        }
        let ended = world.run(&["wait", "--synced"]).expect(4);
        assert!(ended.err.contains("no endpoint to wait for") && ended.err.contains("data folder"), "{ended:?}");
        assert!(ended.out.is_empty(), "{ended:?}");
    }
    world.run(&["wait", "--synced", "--group", "other"]).expect(1);
}

/// The soft and the hard limit of open descriptors.
fn descriptors(process: u32) -> (String, String) {
    let limits = std::fs::read_to_string(format!("/proc/{process}/limits")).unwrap();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
    let mut words = line.split_whitespace().map(str::to_owned);
    (words.next().unwrap(), words.next().unwrap())
}

#[test]
fn the_service_raises_its_limit_of_descriptors() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = std::process::Command::new("prlimit");
    command.args(["--nofile=128:4096", env!("CARGO_BIN_EXE_isotherm"), "service", "run", "--listen", "127.0.0.1:0", "--data"]);
    command.arg(folder.path().join("data"));
    let service = Running::spawn(command);
    assert!(service.line().starts_with("listening on "));
    // As root it may go beyond the hard limit.
    let (soft, hard) = descriptors(service.id());
    assert!(soft == hard && soft != "128", "{soft} of {hard}");
}

#[test]
fn the_services_own_folder_is_no_endpoint() {
    let mut world = World::new();
    world.start_agent("detroit");
    world.run(&["group", "create", "plans"]).expect(0);
    let data = world.data();
    for path in [data.clone(), data.join("objects"), data.parent().unwrap().to_owned()] {
        let path = path.to_str().unwrap();
        let refused = world.run(&["endpoint", "create", "--group", "plans", "--server", "detroit", "--path", path]).expect(4);
        assert!(refused.err.contains("service's own data folder"), "{refused:?}");
    }
    // One of another service is known by what lies in it.
    let other = world.path("other");
    std::fs::create_dir_all(other.join("inside")).unwrap();
    std::fs::write(other.join("format"), "isotherm service data, format 1\n").unwrap();
    let inside = other.join("inside");
    let path = inside.to_str().unwrap();
    world.run(&["endpoint", "create", "--group", "plans", "--server", "detroit", "--path", path]).expect(0);
    let said = || world.run(&["endpoint", "list", "--json"]).expect(0).out;
    until("the agent refuses it", || said().contains("where a service keeps its data"));
}

#[test]
fn a_service_on_an_empty_folder_is_told_of_by_the_agent() {
    let mut world = World::new();
    world.start_agent("detroit");
    world.run(&["group", "create", "plans"]).expect(0);
    let (folder, state) = (world.path("plans"), world.state("detroit"));
    std::fs::create_dir(&folder).unwrap();
    let path = folder.to_str().unwrap();
    world.run(&["endpoint", "create", "--group", "plans", "--server", "detroit", "--path", path]).expect(0);
    until("the agent works on it", || folder.join(".isotherm/endpoint").exists());
    let real = world.data();
    world.serve_again(&world.path("empty"), &[]);
    let problems = || match control::ask(&state, &control::Request::Problems) {
        Ok(control::Answer::Problems(problems)) => problems,
        _ => Vec::new(),
    };
    until("the agent says so", || !problems().is_empty());
    let problem = problems().remove(0);
    assert!(problem.code == "not_named" && problem.text.contains(path), "{problem:?}");
    assert!(problem.remedy.contains("disk is mounted"), "{problem:?}");
    // Also after a start, and until the service is right again.
    world.stop_agent("detroit", Signal::TERM);
    world.start_agent("detroit");
    until("the agent says so again", || !problems().is_empty());
    world.serve_again(&real, &[]);
    until("the agent has nothing to say", || problems().is_empty());
    assert!(folder.exists());
}

#[test]
fn a_damaged_identity_says_that_it_cannot_be_read() {
    let mut world = World::new();
    world.start_agent("detroit");
    world.stop_agent("detroit", Signal::TERM);
    let state = world.state("detroit");
    std::fs::write(state.join("server.json"), "garbage").unwrap();
    let ended = isotherm(&crate::world::agent_arguments(&state, &world.url, "detroit")).expect(1);
    assert!(ended.err.contains("server.json tells which server this is, and cannot be read"), "{ended:?}");
    assert!(ended.err.contains("Put the file back") && !ended.err.contains("may write"), "{ended:?}");
}

#[test]
fn a_second_service_on_the_same_folder_is_refused() {
    let world = World::new();
    let data = world.data();
    let second = isotherm(&["service", "run", "--data", data.to_str().unwrap(), "--listen", "127.0.0.1:0"]).expect(4);
    assert!(second.err.starts_with("isotherm: service run: Data folder"), "{second:?}");
    let port = world.url.strip_prefix("http://").unwrap();
    let other = world.path("other");
    let taken = isotherm(&["service", "run", "--data", other.to_str().unwrap(), "--listen", port]).expect(1);
    assert!(taken.err.contains("Cannot listen on"), "{taken:?}");
}

#[test]
fn a_stray_pack_is_told_and_is_not_deleted_on_sight() {
    let world = World::new();
    let id = "ab".repeat(32);
    let stray = world.data().join("objects/packs/ab").join(&id);
    std::fs::create_dir_all(stray.parent().unwrap()).unwrap();
    std::fs::write(&stray, "half of an upload").unwrap();
    for _ in 0..2 {
        let told = world.run(&["service", "check", "--delete-strays"]).expect(0).out;
        assert!(told.contains("Strays: 1 pack of 17 B") && stray.exists(), "{told}");
    }
    let json = world.run(&["service", "check", "--delete-strays", "--json"]).expect(0).json();
    assert_eq!((json["stray_packs"].as_u64(), json["deleted_strays"].as_u64()), (Some(1), Some(0)), "{json}");
}

#[test]
fn both_signals_stop_the_service_cleanly() {
    for signal in [Signal::INT, Signal::TERM] {
        assert_eq!(World::new().stop_service(signal), Some(0), "{signal:?}");
    }
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let program = Running::start(&["man"]);
    drop(program.line());
    assert_eq!(program.ended().0, Some(0));
}

#[test]
fn another_protocol_is_told_with_both_versions() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    // Ends with the test process: it waits for connections that never come.
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut reader = BufReader::new(stream);
            let mut first = String::new();
            reader.read_line(&mut first).unwrap();
            let mut line = String::from("x");
            while !line.trim().is_empty() {
                line.clear();
                reader.read_line(&mut line).unwrap();
            }
            let refusal = r#"{"code":"protocol","message":"Client speaks version 1, this service speaks version 2"}"#;
            let (status, body) =
                if first.contains("/v1/version") { ("200 OK", "\"9.9\"") } else { ("426 Upgrade Required", refusal) };
            let answer = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len());
            reader.get_mut().write_all(answer.as_bytes()).unwrap();
        }
    });
    let status = isotherm(&["status", "--service", &url]).expect(1);
    assert!(status.err.contains("version 2") && status.err.contains("same release"), "{status:?}");
    let doctor = isotherm(&["doctor", "--json", "--service", &url]).expect(3).json();
    let found = doctor.as_array().unwrap().iter().find(|finding| finding["check"] == "protocol").unwrap();
    assert_eq!(found["verdict"], "bad", "{found}");
}

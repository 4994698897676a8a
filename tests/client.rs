//! `ringvisor qmp` against a machine that runs.

use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Output, Stdio};
use testkit::Vmm;

const RINGVISOR: &str = env!("CARGO_BIN_EXE_ringvisor");

fn command(args: &[&str]) -> Command {
    let mut command = Command::new(RINGVISOR);
    command.arg("qmp").args(args);
    command
}

fn text(output: &Output) -> (i32, String, String) {
    let utf8 = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (output.status.code().unwrap(), utf8(&output.stdout), utf8(&output.stderr))
}

fn client(args: &[&str]) -> (i32, String, String) {
    text(&command(args).stdin(Stdio::null()).output().unwrap())
}

/// A stopped machine and the path of its socket.
fn machine(name: &str) -> Option<(Vmm, String)> {
    if !testkit::kvm(name) {
        return None;
    }
    let mut vmm = Vmm::start(RINGVISOR, &["-S", "-name", "asked"]);
    drop(vmm.qmp());
    let socket = vmm.dir().join("qmp").display().to_string();
    Some((vmm, socket))
}

#[test]
fn one_command_prints_its_reply_or_fails() {
    let Some((vmm, socket)) = machine("one_command_prints_its_reply_or_fails") else { return };
    let (code, out, err) = client(&[&socket, "query-name"]);
    assert_eq!((code, out.as_str(), err.as_str()), (0, "{\"name\":\"asked\"}\n", ""));
    let (_, out, _) = client(&["--table", &socket, "query-status"]);
    assert!(out.contains("status   prelaunch\n"), "{out}");
    // Typed by the schema, JSON, an object, and out of band.
    for args in [
        &["set-action", "panic=pause", "reboot=shutdown"][..],
        &["set-action", "panic:=\"pause\""],
        &["set-action", "{\"panic\": \"pause\"}"],
        &["--oob", "query-monitors"],
        &["query-command-line-options", "option=smp"],
        &["query-command-line-options"],
    ] {
        let all: Vec<&str> = [&[socket.as_str()], args].concat();
        let (code, _, err) = client(&all);
        assert_eq!((code, err.as_str()), (0, ""), "{args:?}");
    }
    let unix = format!("unix:{socket}");
    let (_, out, _) =
        client(&["--table", &unix, "human-monitor-command", "command-line=info name"]);
    assert_eq!(out, "asked\n");
    for (args, error) in [
        (&["stop", "now=1"][..], "ringvisor: Parameter 'now' is unexpected\n"),
        (
            &["set-action", "panic=hang"],
            "ringvisor: panic: 'hang' is none of pause, shutdown, exit-failure, none\n",
        ),
        (
            &["nonsense"],
            "ringvisor: The command nonsense has not been found; query-commands lists those there are\n",
        ),
    ] {
        let all: Vec<&str> = [&[socket.as_str()], args].concat();
        assert_eq!(client(&all), (1, String::new(), error.to_owned()));
    }
    assert_eq!(client(&[&socket, "quit"]), (0, "{}\n".to_owned(), String::new()));
    assert_eq!(vmm.finish().code(), 0);
}

#[test]
fn events_are_followed_to_the_end_of_the_machine() {
    let Some((vmm, socket)) = machine("events_are_followed_to_the_end_of_the_machine") else {
        return;
    };
    let mut follower =
        command(&["--events", &socket, "query-name"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(follower.stdout.take().unwrap()).lines().map(Result::unwrap);
    let mut next = || serde_json::from_str::<Value>(&lines.next().unwrap()).unwrap();
    // It listens from the moment of its first reply.
    assert_eq!(next(), json!({"name": "asked"}));
    for args in [["cont"], ["stop"], ["quit"]] {
        assert_eq!(client(&[&socket, args[0]]).0, 0);
    }
    let events = [next(), next(), next()];
    let names = events.each_ref().map(|event| event["event"].as_str().unwrap());
    assert_eq!(names, ["RESUME", "STOP", "SHUTDOWN"]);
    assert!(follower.wait().unwrap().success());
    assert_eq!(vmm.finish().code(), 0);
}

#[test]
fn lines_on_stdin_are_commands_up_to_the_first_that_fails() {
    let name = "lines_on_stdin_are_commands_up_to_the_first_that_fails";
    let Some((_vmm, socket)) = machine(name) else { return };
    let run = |input: &str| {
        let mut child = command(&[&socket])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        text(&child.wait_with_output().unwrap())
    };
    let (code, out, err) = run("# who\nquery-name\n\n{\"execute\": \"query-kvm\"}\n");
    assert_eq!((code, err.as_str()), (0, ""));
    assert_eq!(out, "{\"name\":\"asked\"}\n{\"enabled\":true,\"present\":true}\n");
    let (code, out, err) = run("nonsense\nquery-name\n");
    assert_eq!((code, out.as_str()), (1, ""));
    assert!(err.contains("nonsense has not been found"), "{err}");
}

#[test]
fn what_cannot_be_reached_says_what_to_type() {
    let missing = client(&["/nonexistent/qmp", "stop"]);
    assert_eq!(missing.0, 1);
    assert!(missing.2.contains("-qmp unix:/nonexistent/qmp,server=on,wait=off"), "{}", missing.2);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("other");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let serving = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(b"220 mail.example.org ESMTP\r\n").unwrap();
    });
    let other = client(&[path.to_str().unwrap(), "stop"]);
    assert!(other.2.contains("does not speak QMP: it says \"220 mail"), "{}", other.2);
    serving.join().unwrap();
    assert!(client(&["-help"]).1.starts_with("usage: ringvisor qmp"));
    assert!(client(&["tcp:nowhere", "stop"]).2.contains("cannot connect to tcp:nowhere"));
}

//! Character devices.

use super::client::Client;
use super::descriptors::{ask_with, getfd};
use super::human::hmp;
use super::qemu::Qemu;
use super::stage::stage;
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};

fn ask(client: &mut Client, command: &str, arguments: &Value) -> Value {
    client.ask(&json!({"execute": command, "arguments": arguments}))
}

fn add(id: &str, kind: &str, data: &Value) -> Value {
    json!({"id": id, "backend": {"type": kind, "data": data}})
}

fn unix(path: &std::path::Path, server: bool) -> Value {
    json!({"addr": {"type": "unix", "data": {"path": path}}, "server": server, "wait": false})
}

/// Requests whose replies are QEMU's, texts included.
fn requests() -> Vec<(&'static str, Value)> {
    let nowhere = json!({"type": "unix", "data": {"path": "/nonexistent/x"}});
    let named = json!({"type": "fd", "data": {"str": "named"}});
    let client = |more: &Value| {
        let mut data = json!({"addr": nowhere, "server": false});
        data.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        data
    };
    vec![
        ("chardev-add", add("n", "null", &json!({}))),
        ("chardev-add", add("n", "null", &json!({}))),
        ("chardev-add", add("x", "nullx", &json!({}))),
        ("chardev-add", json!({"id": "x", "backend": {"type": "null"}})),
        ("chardev-add", json!({"id": "x", "backend": {"data": {}}})),
        ("chardev-add", add("r", "ringbuf", &json!({}))),
        ("chardev-add", add("x", "ringbuf", &json!({"size": 1000}))),
        ("ringbuf-write", json!({"device": "r", "data": "hello"})),
        ("ringbuf-write", json!({"device": "r", "data": "hello", "format": "base64"})),
        ("ringbuf-write", json!({"device": "r", "data": "aGk=", "format": "base64"})),
        ("ringbuf-read", json!({"device": "r", "size": 3})),
        ("ringbuf-read", json!({"device": "r", "size": 0})),
        ("ringbuf-read", json!({"device": "r", "size": -1})),
        ("ringbuf-read", json!({"device": "r", "size": 100, "format": "base64"})),
        ("ringbuf-write", json!({"device": "r", "data": "/w==", "format": "base64"})),
        ("ringbuf-read", json!({"device": "r", "size": 100})),
        ("ringbuf-read", json!({"device": "none", "size": 0})),
        ("ringbuf-read", json!({"device": "n", "size": 100})),
        ("ringbuf-write", json!({"device": "n", "data": "x"})),
        ("ringbuf-write", json!({"device": "none", "data": "x"})),
        ("chardev-send-break", json!({"id": "none"})),
        ("chardev-send-break", json!({"id": "n"})),
        ("chardev-remove", json!({"id": "none"})),
        ("chardev-change", add("none", "null", &json!({}))),
        ("chardev-change", add("n", "ringbuf", &json!({}))),
        ("ringbuf-read", json!({"device": "n", "size": 1})),
        ("chardev-remove", json!({"id": "n"})),
        ("chardev-add", add("x", "file", &json!({"out": "/nonexistent/x"}))),
        ("chardev-add", add("x", "socket", &client(&json!({})))),
        ("chardev-add", add("x", "socket", &client(&json!({"wait": true})))),
        ("chardev-add", add("x", "socket", &client(&json!({"reconnect": 1, "reconnect-ms": 1})))),
        ("chardev-add", add("x", "socket", &client(&json!({"tls-creds": "t"})))),
        ("chardev-add", add("x", "socket", &json!({"addr": named}))),
        ("add_client", json!({"protocol": "r", "fdname": "named"})),
    ]
}

#[test]
fn replies_are_those_of_qemu() {
    let mut qemu = Qemu::start();
    if qemu.is_none() {
        println!("not compared: there is no qemu-system-x86_64");
    }
    stage(move |stage| {
        let mut client = stage.client();
        for (command, arguments) in requests() {
            let ours = ask(&mut client, command, &arguments);
            assert!(ours.get("return").is_some() || ours["error"]["class"] == "GenericError");
            if let Some(qemu) = &mut qemu {
                let request = json!({"execute": command, "arguments": arguments});
                assert_eq!(ours, qemu.ask(&request), "{request}");
            }
        }
    });
}

#[test]
fn sockets_in_both_directions_have_one_user() {
    stage(|stage| {
        let mut client = stage.client();
        let path = stage.path.with_file_name("chardev");
        let made = ask(&mut client, "chardev-add", &add("s", "socket", &unix(&path, true)));
        assert_eq!(made, json!({"return": {}}));
        let name = |client: &mut Client| client.run("query-chardev")[0].clone();
        let filename = format!("disconnected:unix:{},server=on", path.display());
        let expected = json!({"label": "s", "filename": filename, "frontend-open": false});
        assert_eq!(name(&mut client), expected);
        // A monitor on it keeps it in use.
        let frontend = stage.machine.chardevs.attach("s", devices::chardev::FrontEndKind::Control);
        stage.monitor.serve_qmp(frontend.unwrap(), crate::wire::Style::Line);
        let mut other = Client::negotiated(&path);
        assert_eq!(other.run("query-name"), json!({"name": "fake"}));
        assert_eq!(name(&mut client)["frontend-open"], json!(true));
        assert_eq!(
            name(&mut client)["filename"],
            json!(filename.trim_start_matches("disconnected:"))
        );
        let busy = client.error(&json!({"execute": "chardev-remove", "arguments": {"id": "s"}}));
        assert_eq!(busy.1, "Chardev 's' is busy");
        let change =
            json!({"execute": "chardev-change", "arguments": add("s", "null", &json!({}))});
        assert_eq!(client.error(&change).1, "Chardev user does not support chardev hotswap");
        let mux = json!({"execute": "chardev-add", "arguments": add("m", "mux", &json!({"chardev": "s"}))});
        let text = "Failed to add chardev 'm': chardev 's' is already in use";
        assert_eq!(client.error(&mux).1, text);
        // The other direction.
        let path = stage.path.with_file_name("listening");
        let listener = UnixListener::bind(&path).unwrap();
        ask(&mut client, "chardev-add", &add("c", "socket", &unix(&path, false)));
        let (stream, _) = listener.accept().unwrap();
        drop(stream);
        assert_eq!(ask(&mut client, "chardev-remove", &json!({"id": "c"})), json!({"return": {}}));
    });
}

/// Names a descriptor "fd".
fn pass(client: &mut Client, file: &impl AsRawFd) {
    assert_eq!(ask_with(client, &getfd("fd"), &[file]), json!({"return": {}}));
}

#[test]
fn passed_descriptors_become_sockets_and_clients() {
    stage(|stage| {
        let mut client = stage.client();
        let by_fd = json!({"addr": {"type": "fd", "data": {"str": "fd"}}, "server": false});
        // A pipe is refused.
        let (pipe, _end) = std::io::pipe().unwrap();
        pass(&mut client, &pipe);
        let refused = ask(&mut client, "chardev-add", &add("s", "socket", &by_fd));
        let text = "Failed to add chardev 's': File descriptor 'fd' is not a socket";
        assert_eq!(refused["error"]["desc"], json!(text));
        // A connected socket becomes a monitor.
        let (ours, theirs) = UnixStream::pair().unwrap();
        pass(&mut client, &theirs);
        drop(theirs);
        let made = ask(&mut client, "chardev-add", &add("s", "socket", &by_fd));
        assert_eq!(made, json!({"return": {}}));
        assert_eq!(client.run("query-chardev")[0]["filename"], json!("unix:"));
        let frontend = stage.machine.chardevs.attach("s", devices::chardev::FrontEndKind::Control);
        stage.monitor.serve_qmp(frontend.unwrap(), crate::wire::Style::Line);
        greeted(&ours);
        // It has its one client.
        let (next, theirs) = UnixStream::pair().unwrap();
        pass(&mut client, &theirs);
        let arguments = json!({"protocol": "s", "fdname": "fd"});
        let refused = ask(&mut client, "add_client", &arguments);
        assert_eq!(refused["error"]["desc"], json!("failed to add client"));
        drop(ours);
        while client.run("query-chardev")[0]["filename"] == json!("unix:") {}
        pass(&mut client, &theirs);
        drop(theirs);
        assert_eq!(ask(&mut client, "add_client", &arguments), json!({"return": {}}));
        greeted(&next);
        pass(&mut client, &next);
        let spice = ask(&mut client, "add_client", &json!({"protocol": "spice", "fdname": "fd"}));
        assert_eq!(spice["error"]["class"], json!("DeviceNotActive"));
    });
}

fn greeted(mut stream: &UnixStream) {
    let mut greeting = [0; 6];
    stream.read_exact(&mut greeting).unwrap();
    assert_eq!(&greeting, b"{\"QMP\"");
}

#[test]
fn a_pseudo_terminal_has_a_name_and_a_link() {
    stage(|stage| {
        let mut client = stage.client();
        let link = stage.path.with_file_name("tty");
        let made = ask(&mut client, "chardev-add", &add("p", "pty", &json!({"path": link})));
        let path = made["return"]["pty"].as_str().unwrap().to_owned();
        assert_eq!(std::fs::read_link(&link).unwrap().to_str(), Some(path.as_str()));
        let frontend = stage.machine.chardevs.attach("p", devices::chardev::FrontEndKind::Readline);
        stage.monitor.serve_hmp(frontend.unwrap());
        let mut tty = std::fs::OpenOptions::new().read(true).write(true).open(&link).unwrap();
        tty.write_all(b"info name\r").unwrap();
        let mut seen = String::new();
        while !seen.contains("fake") {
            let mut chunk = [0; 256];
            let n = tty.read(&mut chunk).unwrap();
            seen.push_str(&String::from_utf8_lossy(&chunk[..n]));
        }
        let info = client.run("query-chardev")[0].clone();
        assert_eq!(info["filename"], json!(format!("pty:{path}")));
    });
}

/// What qemu-system-x86_64 10.0.2 answers to the same lines.
#[test]
fn ring_buffers_are_read_and_written_in_hmp() {
    stage(|stage| {
        let mut client = stage.client();
        let ring = json!({"type": "ringbuf", "data": {"size": 64}});
        let add = json!({"execute": "chardev-add", "arguments": {"id": "a", "backend": ring}});
        assert_eq!(client.ask(&add), json!({"return": {}}));
        for (line, output) in [
            ("info chardev", "a: filename=ringbuf\r\n"),
            ("ringbuf_write a hel\\x", ""),
            ("ringbuf_write a \"a\\nb\\r\"", ""),
            ("ringbuf_read a 100", "hel\\\\xa\r\nb\\u000D\r\n"),
            ("ringbuf_read a 0", "Error: size must be greater than zero\r\n"),
            ("chardev-send-break a", ""),
            ("chardev-remove a", ""),
            ("chardev-remove a", "Error: Chardev 'a' not found\r\n"),
        ] {
            assert_eq!(hmp(&mut client, line), output, "{line}");
        }
    });
}

//! Descriptors passed along with commands.

use super::client::Client;
use super::stage::{Stage, stage};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use serde_json::{Value, json};
use std::fs::{File, OpenOptions};
use std::io::{IoSlice, Read};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;

/// Sends a request, and descriptors along with its first byte.
fn send_with<F: AsRawFd>(client: &Client, request: &Value, files: &[&F]) {
    let fds: Vec<_> = files.iter().map(|file| file.as_raw_fd()).collect();
    let text = request.to_string();
    let bytes = [IoSlice::new(text.as_bytes())];
    let control = [ControlMessage::ScmRights(&fds)];
    let fd = client.stream.as_raw_fd();
    let sent = sendmsg::<()>(fd, &bytes, &control, MsgFlags::empty(), None).unwrap();
    assert_eq!(sent, text.len());
}

pub(super) fn ask_with<F: AsRawFd>(client: &mut Client, request: &Value, files: &[&F]) -> Value {
    send_with(client, request, files);
    client.message()
}

pub(super) fn getfd(name: &str) -> Value {
    json!({"execute": "getfd", "arguments": {"fdname": name}})
}

fn closefd(name: &str) -> Value {
    json!({"execute": "closefd", "arguments": {"fdname": name}})
}

/// Waits until every descriptor of the other end has been closed.
fn hears_the_end(mut end: UnixStream) {
    end.set_read_timeout(Some(std::time::Duration::from_secs(20))).unwrap();
    assert_eq!(end.read(&mut [0; 1]).unwrap(), 0);
}

#[test]
fn a_descriptor_is_named_and_closed() {
    stage(|stage| {
        let mut client = stage.client();
        let none = "No file descriptor supplied via SCM_RIGHTS";
        assert_eq!(client.error(&getfd("a")).1, none);
        let (near, far) = UnixStream::pair().unwrap();
        assert_eq!(ask_with(&mut client, &getfd("a"), &[&far]), json!({"return": {}}));
        drop(far);
        assert_eq!(client.error(&getfd("b")).1, none);
        assert_eq!(client.ask(&closefd("a")), json!({"return": {}}));
        hears_the_end(near);
        assert_eq!(client.error(&closefd("a")).1, "File descriptor named 'a' not found");
        let (near, far) = UnixStream::pair().unwrap();
        let reply = ask_with(&mut client, &getfd("1a"), &[&far]);
        drop(far);
        let text = "Parameter 'fdname' expects a name not starting with a digit";
        assert_eq!(reply["error"]["desc"], json!(text));
        hears_the_end(near);
    });
}

#[test]
fn each_message_keeps_its_descriptor_while_it_waits() {
    stage(|stage| {
        let mut client = stage.client();
        let blocked = Stage::block(stage.reactors.iohandler());
        let mut near = Vec::new();
        for name in ["a", "b", "c"] {
            let (here, far) = UnixStream::pair().unwrap();
            send_with(&client, &getfd(name), &[&far]);
            near.push(here);
        }
        drop(blocked);
        for _ in 0..3 {
            assert_eq!(client.message(), json!({"return": {}}));
        }
        for (name, near) in ["a", "b", "c"].into_iter().zip(near) {
            assert_eq!(client.ask(&closefd(name)), json!({"return": {}}));
            hears_the_end(near);
        }
    });
}

#[test]
fn descriptors_end_with_their_session() {
    stage(|stage| {
        let mut client = stage.client();
        let (near, far) = UnixStream::pair().unwrap();
        assert_eq!(ask_with(&mut client, &getfd("a"), &[&far]), json!({"return": {}}));
        // One that nobody asked for, and more than one: all are closed.
        let (second, other) = UnixStream::pair().unwrap();
        ask_with(&mut client, &json!({"execute": "query-name"}), &[&other, &other]);
        drop((far, other, client));
        hears_the_end(near);
        hears_the_end(second);
    });
}

#[test]
fn sets_outlive_their_session_but_not_the_last_one() {
    stage(|stage| {
        let mut client = stage.client();
        let mut other = stage.client();
        let add = |id: Value| json!({"execute": "add-fd", "arguments": id});
        let (near, far) = UnixStream::pair().unwrap();
        let first = ask_with(&mut client, &add(json!({"opaque": "disk"})), &[&far]);
        assert_eq!(first["return"]["fdset-id"], json!(0));
        let number = &first["return"]["fd"];
        let again = ask_with(&mut client, &add(json!({"fdset-id": 7})), &[&far]);
        assert_eq!(again["return"]["fdset-id"], json!(7));
        let negative = ask_with(&mut client, &add(json!({"fdset-id": -1})), &[&far]);
        let text = "Parameter 'fdset-id' expects a non-negative value";
        assert_eq!(negative["error"]["desc"], json!(text));
        drop((client, far));
        let sets = other.run("query-fdsets");
        assert_eq!(sets[1], json!({"fdset-id": 0, "fds": [{"fd": number, "opaque": "disk"}]}));
        let remove = |arguments: Value| json!({"execute": "remove-fd", "arguments": arguments});
        let error = other.error(&remove(json!({"fdset-id": 0, "fd": 100_000})));
        assert_eq!(error.1, "File descriptor named 'fdset-id:0, fd:100000' not found");
        let error = other.error(&remove(json!({"fdset-id": 3})));
        assert_eq!(error.1, "File descriptor named 'fdset-id:3' not found");
        let gone = other.ask(&remove(json!({"fdset-id": 0, "fd": number})));
        assert_eq!(gone, json!({"return": {}}));
        assert_eq!(other.run("query-fdsets").as_array().unwrap().len(), 1);
        drop(other);
        hears_the_end(near);
    });
}

/// What this process may open only by the descriptor that a client has opened for it.
#[test]
fn a_path_may_mean_a_descriptor_that_came_over_the_socket() {
    stage(|stage| {
        let mut client = stage.client();
        let directory = tempfile::tempdir().unwrap();
        let (image, out) = (directory.path().join("image"), directory.path().join("out"));
        std::fs::write(&image, vec![0x5a; 1 << 20]).unwrap();
        let read_only = File::open(&image).unwrap();
        let written = OpenOptions::new().read(true).write(true).open(&image).unwrap();
        let output = File::create(&out).unwrap();
        for (set, file) in [(1, &read_only), (1, &written), (2, &output)] {
            let request = json!({"execute": "add-fd", "arguments": {"fdset-id": set}});
            let reply = ask_with(&mut client, &request, &[file]);
            assert_eq!(reply["return"]["fdset-id"], json!(set));
        }
        std::fs::remove_file(&image).unwrap();
        let node = |name: &str, set: u32, read_only: bool| {
            json!({"execute": "blockdev-add", "arguments": {"driver": "file", "node-name": name,
                "filename": format!("/dev/fdset/{set}"), "read-only": read_only}})
        };
        let chardev = |id: &str, set: u32| {
            let backend = json!({"type": "file", "data": {"out": format!("/dev/fdset/{set}")}});
            json!({"execute": "chardev-add", "arguments": {"id": id, "backend": backend}})
        };
        assert_eq!(client.ask(&node("rw", 1, false)), json!({"return": {}}));
        assert_eq!(client.ask(&node("ro", 1, true)), json!({"return": {}}));
        assert_eq!(client.ask(&chardev("c", 2)), json!({"return": {}}));
        let nodes = client.run("query-named-block-nodes");
        assert_eq!(nodes[0]["image"]["virtual-size"], json!(1 << 20), "{nodes}");
        for (request, text) in [
            (node("x", 2, false), "Failed to find file descriptor with matching flags=0x2"),
            (node("x", 9, false), "Failed to find fdset /dev/fdset/9"),
            (
                chardev("x", 9),
                "Failed to add chardev 'x': Could not open '/dev/fdset/9': No such file or directory",
            ),
        ] {
            assert_eq!(client.error(&request).1, text);
        }
        // A set lasts as long as a file that was opened from it.
        for set in [1, 2] {
            let remove = json!({"execute": "remove-fd", "arguments": {"fdset-id": set}});
            assert_eq!(client.ask(&remove), json!({"return": {}}));
        }
        let empty = |set: u32| json!({"fdset-id": set, "fds": []});
        assert_eq!(client.run("query-fdsets"), json!([empty(2), empty(1)]));
        let ends = [
            ("chardev-remove", "id", "c", json!([empty(1)])),
            ("blockdev-del", "node-name", "ro", json!([empty(1)])),
            ("blockdev-del", "node-name", "rw", json!([])),
        ];
        for (command, member, name, left) in ends {
            let end = json!({"execute": command, "arguments": {member: name}});
            assert_eq!(client.ask(&end), json!({"return": {}}));
            assert_eq!(client.run("query-fdsets"), left);
        }
    });
}

#[test]
fn a_flood_of_descriptors_is_bounded() {
    stage(|stage| {
        let mut client = stage.client();
        let (_near, far) = UnixStream::pair().unwrap();
        for n in 0..256 {
            let reply = ask_with(&mut client, &getfd(&format!("fd{n}")), &[&far]);
            assert_eq!(reply, json!({"return": {}}));
        }
        let reply = ask_with(&mut client, &getfd("more"), &[&far]);
        assert!(reply["error"]["desc"].as_str().unwrap().contains("close some first"));
        // A name that is there is taken over.
        assert_eq!(ask_with(&mut client, &getfd("fd3"), &[&far]), json!({"return": {}}));
    });
}

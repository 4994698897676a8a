//! Character devices and monitors as the command line asks for them.

use serde_json::{Value, json};
use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use testkit::{Qmp, Vmm};

const RINGVISOR: &str = env!("CARGO_BIN_EXE_ringvisor");

fn place(name: &str) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    (dir, path)
}

fn accept(listener: &UnixListener) -> Qmp {
    Qmp::on(listener.accept().unwrap().0).unwrap()
}

/// Connects as soon as somebody listens.
fn connect(vmm: &mut Vmm, path: &Path) -> UnixStream {
    loop {
        match UnixStream::connect(path) {
            Ok(stream) => {
                stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
                return stream;
            }
            // Nothing tells when it does.
            Err(_) if Path::new(&format!("/proc/{}/exe", vmm.pid())).exists() => {
                std::thread::yield_now();
            }
            Err(error) => vmm.fail(&format!("{}: {error}", path.display())),
        }
    }
}

/// Reads until `text` has come.
fn read_until(stream: &mut impl Read, text: &str) -> String {
    let mut seen = String::new();
    let mut chunk = [0; 1024];
    while !seen.contains(text) {
        let n = stream.read(&mut chunk).unwrap_or_else(|error| panic!("{error} after {seen:?}"));
        assert!(n > 0, "the end after {seen:?}");
        seen.push_str(&String::from_utf8_lossy(&chunk[..n]));
    }
    seen
}

fn chardev(qmp: &mut Qmp, label: &str) -> Value {
    let list = qmp.execute("query-chardev");
    let found = list.as_array().unwrap().iter().find(|chardev| chardev["label"] == label);
    found.unwrap_or_else(|| panic!("{label}: {list}")).clone()
}

#[test]
fn sockets_for_many_clients_are_listed() {
    let mut vmm = Vmm::start(RINGVISOR, &["-machine", "none"]);
    let path = vmm.dir().join("qmp");
    let listed = chardev(&mut vmm.qmp(), "compat_monitor0");
    assert_eq!(listed["filename"], format!("unix:{},server=on", path.display()));
    assert_eq!(listed["frontend-open"], true);
}

#[test]
fn a_monitor_connects_to_the_program_that_drives_it() {
    if !testkit::kvm("a_monitor_connects_to_the_program_that_drives_it") {
        return;
    }
    let (_dir, path) = place("m");
    let listener = UnixListener::bind(&path).unwrap();
    let socket = format!("socket,path={},id=char0", path.display());
    let args = ["-chardev", &socket, "-mon", "chardev=char0,mode=control", "-display", "none"];
    let vmm = Vmm::start_plain(RINGVISOR, &[&args[..], &["-nodefaults"]].concat());
    let mut qmp = accept(&listener);
    let expected = json!({
        "label": "char0",
        "filename": format!("unix:{}", path.display()),
        "frontend-open": true,
    });
    assert_eq!(chardev(&mut qmp, "char0"), expected);
    qmp.execute("quit");
    qmp.wait_event("SHUTDOWN");
    let finished = vmm.finish();
    assert_eq!((finished.code(), finished.console.as_str()), (0, ""));
}

#[test]
fn a_server_holds_the_start_and_serves_one_client_at_a_time() {
    if !testkit::kvm("a_server_holds_the_start_and_serves_one_client_at_a_time") {
        return;
    }
    let (_dir, path) = place("s");
    let socket = format!("socket,path={},server=on,id=s", path.display());
    let mut vmm = Vmm::start(RINGVISOR, &["-chardev", &socket, "-mon", "s,mode=control"]);
    let mut qmp = vmm.qmp();
    assert_eq!(qmp.execute("query-status")["status"], "prelaunch");
    let waits = format!("disconnected:unix:{},server=on", path.display());
    assert_eq!(chardev(&mut qmp, "s")["filename"], waits.as_str());
    let mut first = Qmp::connect(&path).unwrap();
    vmm.wait_for("guest> ");
    assert_eq!(first.execute("query-status")["status"], "running");
    assert_eq!(chardev(&mut qmp, "s")["filename"], waits.trim_start_matches("disconnected:"));
    // Waits in the kernel's queue until the first has gone.
    let second = UnixStream::connect(&path).unwrap();
    assert_eq!(qmp.execute("query-monitors").as_array().unwrap().len(), 2);
    drop(first);
    let mut second = Qmp::on(second).unwrap();
    second.execute("quit");
    assert_eq!(vmm.finish().code(), 0);
}

#[test]
fn a_client_with_reconnect_comes_back() {
    if !testkit::kvm("a_client_with_reconnect_comes_back") {
        return;
    }
    let (_dir, path) = place("m");
    let qmp = format!("unix:{},reconnect-ms=10", path.display());
    let vmm = Vmm::start_plain(RINGVISOR, &["-qmp", &qmp, "-nodefaults"]);
    vmm.wait_for_error("Unable to connect character device compat_monitor0: Failed to connect to");
    let listener = UnixListener::bind(&path).unwrap();
    for _ in 0..3 {
        let mut qmp = accept(&listener);
        assert_eq!(chardev(&mut qmp, "compat_monitor0")["frontend-open"], true);
    }
    accept(&listener).execute("quit");
    assert_eq!(vmm.finish().code(), 0);
}

#[test]
fn a_client_without_a_server_ends_the_program() {
    if !testkit::kvm("a_client_without_a_server_ends_the_program") {
        return;
    }
    let (_dir, path) = place("m");
    let socket = format!("socket,path={},id=char0", path.display());
    let output = Command::new(RINGVISOR).args(["-chardev", &socket]).output().unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    let why = format!("Failed to connect to '{}': No such file or directory", path.display());
    assert_eq!(errors, format!("ringvisor: -chardev {socket}: {why}\n"));
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn the_serial_port_is_a_socket() {
    if !testkit::kvm("the_serial_port_is_a_socket") {
        return;
    }
    let (_dir, path) = place("serial");
    let serial = format!("unix:{},server=on", path.display());
    let mut vmm = Vmm::start_plain(RINGVISOR, &["-serial", &serial, "-nodefaults"]);
    let mut stream = connect(&mut vmm, &path);
    read_until(&mut stream, "guest> ");
    drop(stream);
    // The guest goes on, unheard, and the next client can talk to it.
    let mut stream = connect(&mut vmm, &path);
    stream.write_all(b"help\r").unwrap();
    read_until(&mut stream, "lspci");
    stream.write_all(b"poweroff\r").unwrap();
    assert_eq!(vmm.finish().code(), 0);
}

#[test]
fn the_serial_port_is_a_pseudo_terminal() {
    if !testkit::kvm("the_serial_port_is_a_pseudo_terminal") {
        return;
    }
    let mut vmm = Vmm::start(RINGVISOR, &["-serial", "pty"]);
    let mut qmp = vmm.qmp();
    let name = chardev(&mut qmp, "serial0")["filename"].as_str().unwrap().to_owned();
    let path = name.strip_prefix("pty:").unwrap();
    vmm.wait_for_error(&format!("char device redirected to {path} (label serial0)"));
    for _ in 0..2 {
        let mut pty = OpenOptions::new().read(true).write(true).open(path).unwrap();
        pty.write_all(b"help\r").unwrap();
        read_until(&mut pty, "lspci");
    }
    qmp.execute("quit");
    assert_eq!(vmm.finish().code(), 0);
}

#[test]
fn the_serial_port_is_a_ring_buffer_and_becomes_a_file() {
    if !testkit::kvm("the_serial_port_is_a_ring_buffer_and_becomes_a_file") {
        return;
    }
    let args = ["-chardev", "ringbuf,id=r,size=64k", "-serial", "chardev:r"];
    let mut vmm = Vmm::start(RINGVISOR, &args);
    let mut qmp = vmm.qmp();
    let mut seen = String::new();
    while !seen.contains("guest> ") {
        let read = json!({"device": "r", "size": 65536});
        seen.push_str(qmp.execute_with("ringbuf-read", read).as_str().unwrap());
    }
    // A device follows its character device.
    let (_dir, path) = place("output");
    let data = json!({"out": path});
    let change = json!({"id": "r", "backend": {"type": "file", "data": data}});
    qmp.execute_with("chardev-change", change);
    assert_eq!(chardev(&mut qmp, "r")["filename"], "file");
    qmp.execute("system_reset");
    qmp.wait_event("RESET");
    while !std::fs::read_to_string(&path).unwrap().contains("guest> ") {
        std::thread::yield_now();
    }
    qmp.execute("quit");
    assert_eq!(vmm.finish().code(), 0);
}

#[test]
fn a_shared_socket_switches_between_guest_and_monitor() {
    if !testkit::kvm("a_shared_socket_switches_between_guest_and_monitor") {
        return;
    }
    let (_dir, path) = place("shared");
    let socket = format!("socket,path={},server=on,mux=on,id=c", path.display());
    let args = ["-chardev", &socket, "-mon", "c", "-serial", "chardev:c", "-nodefaults"];
    let mut vmm = Vmm::start_plain(RINGVISOR, &args);
    let mut stream = connect(&mut vmm, &path);
    read_until(&mut stream, "guest> ");
    stream.write_all(b"\x01cinfo status\n").unwrap();
    read_until(&mut stream, "VM status: running");
    stream.write_all(b"\x01chelp\r").unwrap();
    read_until(&mut stream, "lspci");
    stream.write_all(b"\x01x").unwrap();
    assert_eq!(vmm.finish().code(), 0);
}

#[test]
fn preconfig_waits_for_its_end() {
    if !testkit::kvm("preconfig_waits_for_its_end") {
        return;
    }
    let mut vmm = Vmm::start(RINGVISOR, &["-preconfig"]);
    let mut qmp = vmm.qmp();
    assert_eq!(chardev(&mut qmp, "serial0")["filename"], "mux");
    let refused = qmp.execute_raw("query-chardev-backends", Value::Null);
    assert_eq!(refused["error"]["class"], "GenericError");
    assert_eq!(vmm.console(), "");
    qmp.execute("x-exit-preconfig");
    vmm.wait_for("guest> ");
    assert_eq!(qmp.execute("query-status")["status"], "running");
    qmp.execute("quit");
    assert_eq!(vmm.finish().code(), 0);
}

#[test]
fn several_monitors_serve_at_once() {
    if !testkit::kvm("several_monitors_serve_at_once") {
        return;
    }
    let (dir, path) = place("pretty");
    let human = dir.path().join("human");
    let pretty = format!("unix:{},server=on,wait=off", path.display());
    let hmp = format!("unix:{},server=on,wait=off", human.display());
    let uuid = "550e8400-e29b-41d4-a716-446655440000";
    let args = ["-qmp-pretty", &pretty, "-monitor", &hmp, "-monitor", "null", "-uuid", uuid];
    let mut vmm = Vmm::start(RINGVISOR, &args);
    let mut qmp = vmm.qmp();
    assert_eq!(qmp.execute("query-uuid"), json!({"UUID": uuid}));
    let mut stream = connect(&mut vmm, &path);
    read_until(&mut stream, "    \"QMP\": {");
    let mut stream = connect(&mut vmm, &human);
    read_until(&mut stream, "(ringvisor) ");
    stream.write_all(b"info uuid\n").unwrap();
    read_until(&mut stream, uuid);
    qmp.execute("quit");
    assert_eq!(vmm.finish().code(), 0);
}

#[test]
fn qmp_on_standard_input_and_output() {
    if !testkit::kvm("qmp_on_standard_input_and_output") {
        return;
    }
    let mut vmm = Vmm::start_plain(RINGVISOR, &["-qmp", "stdio", "-nodefaults"]);
    vmm.wait_for("{\"QMP\": ");
    vmm.type_in("{'execute': 'qmp_capabilities'}{'execute': 'quit', 'id': 7}");
    let finished = vmm.finish();
    assert_eq!(finished.code(), 0);
    assert!(finished.console.contains("\"SHUTDOWN\""), "{finished:?}");
    assert!(finished.console.contains("{\"return\": {}, \"id\": 7}"), "{finished:?}");
}

#[test]
fn inherited_descriptors_are_put_into_sets() {
    if !testkit::kvm("inherited_descriptors_are_put_into_sets") {
        return;
    }
    let script = "exec 9</dev/null; exec \"$0\" \"$@\"";
    let args = ["-c", script, RINGVISOR, "-nodefaults", "-add-fd", "fd=9,set=3,opaque=rdonly:x"];
    let mut vmm = Vmm::start("sh", &args);
    let mut qmp = vmm.qmp();
    let sets = json!([{"fdset-id": 3, "fds": [{"fd": 9, "opaque": "rdonly:x"}]}]);
    assert_eq!(qmp.execute("query-fdsets"), sets);
    qmp.execute("quit");
    assert_eq!(vmm.finish().code(), 0);
}

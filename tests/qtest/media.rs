//! Media that come and go in a CD drive: what the guest is told, and what clients are, in QEMU's words.

use crate::machine::Machine;
use crate::scsi::{Adapter, CHECK_CONDITION, Outcome, TEST_UNIT_READY, adapter, read10};
use serde_json::{Value, json};
use testkit::Qmp;

const AT: (u8, u8) = (0, 0);
/// START STOP UNIT with LOEJ: out and in.
const OPEN: [u8; 6] = [0x1b, 0, 0, 0, 2, 0];
const CLOSE: [u8; 6] = [0x1b, 0, 0, 0, 3, 0];
const PREVENT: [u8; 6] = [0x1e, 0, 0, 0, 1, 0];
/// GET EVENT STATUS NOTIFICATION, polled, of media.
const EVENT_STATUS: [u8; 10] = [0x4a, 1, 0, 0, 0x10, 0, 0, 0, 8, 0];
const EJECT_REQUEST: u8 = 1;

const NO_MEDIUM: [u8; 3] = [2, 0x3a, 0];
const TRAY_OPEN: [u8; 3] = [2, 0x3a, 2];
const MEDIUM_CHANGED: [u8; 3] = [6, 0x28, 0];
const REMOVAL_PREVENTED: [u8; 3] = [5, 0x53, 2];

fn error(qmp: &mut Qmp, command: &str, arguments: Value) -> String {
    qmp.execute_raw(command, arguments)["error"]["desc"].as_str().unwrap_or("none").to_owned()
}

fn hmp(qmp: &mut Qmp, line: &str) -> String {
    let text = qmp.execute_with("human-monitor-command", json!({"command-line": line}));
    text.as_str().unwrap().replace('\r', "")
}

/// A CD drive `cd` with the disc `d0`, and a client.
fn drive() -> (Machine, Adapter, Qmp) {
    let (mut m, mut adapter) = adapter(&["scsi-cd,id=cd", "scsi-hd,id=hd"]);
    adapter.ready(&mut m, AT);
    let qmp = m.qmp();
    (m, adapter, qmp)
}

fn moved(qmp: &mut Qmp) -> Value {
    qmp.wait_event("DEVICE_TRAY_MOVED")["data"].clone()
}

fn told(open: bool) -> Value {
    json!({"device": "d0", "id": "cd", "tray-open": open})
}

fn info(qmp: &mut Qmp) -> Value {
    qmp.execute("query-block")[0].clone()
}

/// A new disc whose blocks are full of `byte`.
fn disc(adapter: &Adapter, byte: u8) -> String {
    let path = adapter.dir.path().join(format!("disc{byte}"));
    std::fs::write(&path, vec![byte; 1 << 20]).unwrap();
    path.display().to_string()
}

#[test]
fn a_disc_is_taken_out_and_another_put_in() {
    let (mut m, mut adapter, mut qmp) = drive();
    let before = info(&mut qmp);
    assert_eq!((&before["tray_open"], &before["locked"]), (&json!(false), &json!(false)));
    qmp.execute_with("eject", json!({"id": "cd"}));
    assert_eq!(moved(&mut qmp), told(true));
    let empty = info(&mut qmp);
    assert_eq!((&empty["tray_open"], &empty["inserted"]), (&json!(true), &Value::Null));
    assert!(adapter.simple(&mut m, AT, &TEST_UNIT_READY).is(TRAY_OPEN));
    qmp.execute_with("eject", json!({"device": "d0"}));
    qmp.execute_with("blockdev-close-tray", json!({"id": "cd"}));
    assert_eq!(moved(&mut qmp), told(false));
    assert!(adapter.simple(&mut m, AT, &TEST_UNIT_READY).is(NO_MEDIUM));
    let path = disc(&adapter, 7);
    qmp.execute_with("blockdev-change-medium", json!({"id": "cd", "filename": path}));
    assert_eq!((moved(&mut qmp), moved(&mut qmp)), (told(true), told(false)));
    let inserted = info(&mut qmp)["inserted"].clone();
    assert_eq!((&inserted["file"], &inserted["ro"]), (&json!(path), &json!(true)));
    assert!(adapter.simple(&mut m, AT, &TEST_UNIT_READY).is(MEDIUM_CHANGED));
    assert_eq!(adapter.inquire(&mut m, AT, &read10(3, 1), 2048), [7; 2048]);
    // With a disc that is in use already.
    let path = disc(&adapter, 9);
    assert_eq!(hmp(&mut qmp, &format!("change d0 {path} raw read-only")), "");
    assert!(adapter.simple(&mut m, AT, &TEST_UNIT_READY).is(MEDIUM_CHANGED));
    assert_eq!(adapter.inquire(&mut m, AT, &read10(3, 1), 2048), [9; 2048]);
    assert_eq!(hmp(&mut qmp, "eject d0"), "");
    assert!(adapter.run(&mut m, AT, &read10(0, 1), 2048, true).is(TRAY_OPEN));
    assert!(hmp(&mut qmp, "info block d0").contains("not locked, tray open"));
}

#[test]
fn a_node_is_a_medium_and_stays_afterwards() {
    let (mut m, mut adapter, mut qmp) = drive();
    let path = disc(&adapter, 5);
    let node = json!({"driver": "raw", "node-name": "n", "read-only": true,
        "file": {"driver": "file", "filename": path}});
    qmp.execute_with("blockdev-add", node);
    let insert = json!({"id": "cd", "node-name": "n"});
    for (command, arguments, expected) in [
        ("blockdev-remove-medium", json!({"id": "cd"}), "Tray of device 'cd' is not open"),
        ("blockdev-insert-medium", insert.clone(), "Tray of device 'cd' is not open"),
        ("blockdev-open-tray", json!({"id": "cd"}), "none"),
        ("blockdev-insert-medium", insert.clone(), "There already is a medium in device 'cd'"),
        ("blockdev-remove-medium", json!({"id": "cd"}), "none"),
        ("blockdev-remove-medium", json!({"id": "cd"}), "none"),
        ("blockdev-insert-medium", json!({"id": "cd", "node-name": "x"}), "Node 'x' not found"),
        ("blockdev-insert-medium", insert.clone(), "none"),
        ("blockdev-insert-medium", insert.clone(), "Node 'n' is already in use"),
        ("blockdev-close-tray", json!({"device": "d0"}), "none"),
        ("blockdev-del", json!({"node-name": "n"}), "Node n is in use"),
    ] {
        assert_eq!(error(&mut qmp, command, arguments), expected, "{command}");
    }
    assert!(adapter.simple(&mut m, AT, &TEST_UNIT_READY).is(MEDIUM_CHANGED));
    assert_eq!(adapter.inquire(&mut m, AT, &read10(0, 1), 2048), [5; 2048]);
    qmp.execute_with("eject", json!({"id": "cd"}));
    qmp.execute_with("blockdev-del", json!({"node-name": "n"}));
}

#[test]
fn a_locked_tray_opens_by_force_or_by_the_guest() {
    let (mut m, mut adapter, mut qmp) = drive();
    assert_eq!(adapter.simple(&mut m, AT, &PREVENT), Outcome::good(0));
    assert_eq!(info(&mut qmp)["locked"], true);
    assert!(adapter.simple(&mut m, AT, &OPEN).is(REMOVAL_PREVENTED));
    let text =
        "Device 'cd' is locked and force was not specified, wait for tray to open and try again";
    assert_eq!(error(&mut qmp, "eject", json!({"id": "cd"})), text);
    let status = adapter.inquire(&mut m, AT, &EVENT_STATUS, 8);
    assert_eq!(status[4] & 0xf, EJECT_REQUEST);
    assert_eq!(info(&mut qmp)["tray_open"], false);
    qmp.execute_with("blockdev-open-tray", json!({"id": "cd", "force": true}));
    assert_eq!(moved(&mut qmp), told(true));
    assert_eq!(info(&mut qmp)["locked"], false);
    // The guest moves it too, and clients are told.
    assert_eq!(adapter.simple(&mut m, AT, &CLOSE), Outcome::good(0));
    assert_eq!(moved(&mut qmp), told(false));
    assert!(adapter.simple(&mut m, AT, &OPEN).is(MEDIUM_CHANGED));
    assert_eq!(adapter.simple(&mut m, AT, &OPEN), Outcome::good(0));
    assert_eq!(moved(&mut qmp), told(true));
}

/// An idle unit lets go of its image.
#[test]
fn a_drive_behind_an_idle_disk_is_deleted() {
    let (mut m, mut adapter, mut qmp) = drive();
    adapter.ready(&mut m, (1, 0));
    assert_eq!(adapter.run(&mut m, (1, 0), &read10(0, 1), 512, true), Outcome::good(0));
    assert_eq!(hmp(&mut qmp, "drive_del d1"), "");
    assert_eq!(adapter.run(&mut m, (1, 0), &read10(0, 1), 512, true).status, CHECK_CONDITION);
}

/// What QEMU 10.0 says.
#[test]
fn refusals_are_those_of_qemu() {
    let (_m, _adapter, mut qmp) = drive();
    let qmp = &mut qmp;
    let one = "Need exactly one of 'device' and 'id'";
    for (command, arguments, expected) in [
        ("eject", json!({}), one),
        ("eject", json!({"id": "cd", "device": "d0"}), one),
        ("eject", json!({"id": "nope"}), "Device 'nope' not found"),
        ("eject", json!({"device": "nope"}), "Device 'nope' not found"),
        ("eject", json!({"id": "hd"}), "Device 'hd' is not removable"),
        ("eject", json!({"device": "d1"}), "Device 'd1' is not removable"),
        ("blockdev-open-tray", json!({"id": "hd"}), "Device 'hd' is not removable"),
        ("blockdev-close-tray", json!({"id": "hd"}), "Device 'hd' is not removable"),
        ("blockdev-remove-medium", json!({"id": "hd"}), "Device 'hd' is not removable"),
        (
            "blockdev-change-medium",
            json!({"id": "cd", "filename": "/nope"}),
            "Could not open '/nope': No such file or directory",
        ),
        (
            "blockdev-change-medium",
            json!({"id": "cd", "filename": "/dev/null", "format": "foo"}),
            "Unknown driver 'foo'",
        ),
    ] {
        assert_eq!(error(qmp, command, arguments.clone()), expected, "{command} {arguments}");
    }
    for (line, expected) in [
        ("eject nope", "Error: Device 'nope' not found\n"),
        ("eject d1", "Error: Device 'd1' is not removable\n"),
        ("change d0 x raw foo", "Error: invalid parameter value: foo\n"),
        ("change d0", "change: filename expected\nTry \"help change\" for more information\n"),
        ("eject", "eject: block device name expected\nTry \"help eject\" for more information\n"),
    ] {
        assert_eq!(hmp(qmp, line), expected, "{line}");
    }
    assert_eq!(info(qmp)["inserted"]["ro"], true);
}

#[test]
fn a_drive_that_came_empty_takes_a_disc() {
    let (m, adapter, mut qmp) = drive();
    let qmp = &mut qmp;
    let path = disc(&adapter, 3);
    assert_eq!(hmp(qmp, "drive_add 0 if=none,id=e"), "OK\n");
    qmp.execute_with("blockdev-change-medium", json!({"device": "e", "filename": path}));
    qmp.execute_with("eject", json!({"device": "e"}));
    qmp.execute_with("device_add", json!({"driver": "scsi-cd", "id": "cd2", "bus": "s.0"}));
    let change = json!({"id": "cd2", "filename": path});
    qmp.execute_with("blockdev-change-medium", change);
    let drives = qmp.execute("query-block");
    let last = drives.as_array().unwrap().last().unwrap().clone();
    assert_eq!((&last["device"], &last["qdev"]), (&json!(""), &json!("cd2")));
    assert_eq!((&last["inserted"]["file"], &last["tray_open"]), (&json!(path), &json!(false)));
    qmp.execute_with("device_del", json!({"id": "cd2"}));
    assert_eq!(qmp.wait_event("DEVICE_DELETED")["data"]["device"], "cd2");
    assert_eq!(qmp.execute("query-block").as_array().unwrap().len(), 3);
    drop(m);
}

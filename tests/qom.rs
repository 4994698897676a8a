//! The object tree of a real machine: objects and properties through QMP and HMP.

use serde_json::{Value, json};
use testkit::{Qmp, Vmm};

const RINGVISOR: &str = env!("CARGO_BIN_EXE_ringvisor");

/// A machine with a disk on an I/O thread.
fn machine(name: &str) -> Option<(Vmm, tempfile::TempDir)> {
    if !testkit::kvm(name) {
        return None;
    }
    let directory = tempfile::tempdir().unwrap();
    let image = directory.path().join("image");
    std::fs::File::create(&image).unwrap().set_len(4 << 20).unwrap();
    let drive = format!("file={},format=raw,if=none,id=d0", image.display());
    let device = "virtio-blk-pci,drive=d0,id=v0,iothread=io0,serial=abc";
    let vmm = Vmm::start(
        RINGVISOR,
        &["-S", "-object", "iothread,id=io0", "-drive", &drive, "-device", device],
    );
    Some((vmm, directory))
}

/// The class and text of the error.
fn refusal(qmp: &mut Qmp, command: &str, arguments: Value) -> (String, String) {
    let reply = qmp.execute_raw(command, arguments);
    let text = |member: &str| reply["error"][member].as_str().unwrap_or_default().to_owned();
    (text("class"), text("desc"))
}

fn names(list: &Value) -> Vec<&str> {
    list.as_array().unwrap().iter().map(|entry| entry["name"].as_str().unwrap()).collect()
}

#[test]
fn objects_come_and_go_and_are_found_in_the_tree() {
    let name = "objects_come_and_go_and_are_found_in_the_tree";
    let Some((mut vmm, _directory)) = machine(name) else { return };
    let mut qmp = vmm.qmp();
    qmp.execute_with("object-add", json!({"qom-type": "iothread", "id": "io1", "poll-max-ns": 7}));
    let (class, text) =
        refusal(&mut qmp, "object-add", json!({"qom-type": "iothread", "id": "io1"}));
    assert_eq!(class, "GenericError");
    assert_eq!(text, "attempt to add duplicate property 'io1' to object (type 'container')");
    let missing = refusal(&mut qmp, "object-add", json!({"id": "io1"}));
    assert_eq!(missing.1, "Parameter 'qom-type' is missing");

    let threads = qmp.execute("query-iothreads");
    assert_eq!(threads[0]["id"], "io0");
    assert_eq!(threads[0]["poll-max-ns"], 32_768);
    let thread = threads[1].as_object().unwrap();
    assert_eq!((&thread["id"], &thread["poll-max-ns"]), (&json!("io1"), &json!(7)));
    let task = format!("/proc/{}/task/{}", vmm.pid(), thread["thread-id"]);
    assert!(std::path::Path::new(&task).exists(), "{task} is a thread of the program");

    let listed = qmp.execute_with("qom-list", json!({"path": "/objects"}));
    assert_eq!(
        listed,
        json!([{"name": "type", "type": "string"}, {"name": "io0", "type": "child<iothread>"},
               {"name": "io1", "type": "child<iothread>"}])
    );
    let (_, text) = refusal(&mut qmp, "object-del", json!({"id": "io0"}));
    assert_eq!(text, "object 'io0' is in use, can not be deleted");
    qmp.execute_with("object-del", json!({"id": "io1"}));
    assert_eq!(refusal(&mut qmp, "object-del", json!({"id": "io1"})).1, "object 'io1' not found");
    let listed = qmp.execute_with("qom-list", json!({"path": "objects"}));
    assert_eq!(names(&listed), ["type", "io0"]);
    qmp.execute("quit");
    assert_eq!(vmm.finish().code(), 0);
}

#[test]
fn properties_are_read_set_and_described() {
    let Some((mut vmm, _directory)) = machine("properties_are_read_set_and_described") else {
        return;
    };
    let mut qmp = vmm.qmp();
    let of = |name: &str| json!({"path": "/machine/peripheral/v0", "property": name});
    for (name, value) in [
        ("serial", json!("abc")),
        ("drive", json!("d0")),
        ("hotplugged", json!(false)),
        ("parent_bus", json!("/machine/i440fx/pci.0")),
        ("iothread", json!("/objects/io0")),
    ] {
        assert_eq!(qmp.execute_with("qom-get", of(name)), value, "{name}");
    }
    let mut set = of("serial");
    set["value"] = json!("x");
    assert_eq!(
        refusal(&mut qmp, "qom-set", set).1,
        "Attempt to set property 'serial' on device 'v0' (type 'virtio-blk-pci') after it was realized"
    );
    let poll = json!({"path": "io0", "property": "poll-max-ns", "value": 9});
    qmp.execute_with("qom-set", poll);
    assert_eq!(qmp.execute("query-iothreads")[0]["poll-max-ns"], 9);
    for (command, arguments, text) in [
        ("qom-list", json!({"path": "/nope"}), "Device '/nope' not found"),
        ("qom-list-properties", json!({"typename": "nope"}), "Class 'nope' not found"),
        ("device-list-properties", json!({"typename": "nope"}), "Device 'nope' not found"),
    ] {
        let expected = ("DeviceNotFound".to_owned(), text.to_owned());
        assert_eq!(refusal(&mut qmp, command, arguments), expected);
    }
    let base = json!({"implements": "virtio-blk-pci-base", "abstract": true});
    assert_eq!(
        qmp.execute_with("qom-list-types", base),
        json!([{"name": "virtio-blk-pci-base", "abstract": true, "parent": "virtio-pci"},
               {"name": "virtio-blk-pci", "parent": "virtio-blk-pci-base"}])
    );
    let blk = json!({"typename": "virtio-blk-pci"});
    let device = qmp.execute_with("device-list-properties", blk.clone());
    let described = device.as_array().unwrap().iter().find(|own| own["name"] == "addr");
    assert_eq!(
        described,
        Some(&json!({"name": "addr", "type": "str", "default-value": -1,
                     "description": "Slot and optional function number, example: 06.0 or 06"}))
    );
    let all = qmp.execute_with("qom-list-properties", blk);
    assert_eq!(names(&all)[..2], ["type", "parent_bus"]);
    // The paths that other queries give lead somewhere.
    for cpu in qmp.execute("query-cpus-fast").as_array().unwrap() {
        let path = json!({"path": cpu["qom-path"], "property": "core-id"});
        assert_eq!(qmp.execute_with("qom-get", path), cpu["props"]["core-id"]);
    }
    qmp.execute("quit");
    assert_eq!(vmm.finish().code(), 0);
}

#[test]
fn the_human_monitor_shows_the_tree_as_text() {
    let Some((mut vmm, _directory)) = machine("the_human_monitor_shows_the_tree_as_text") else {
        return;
    };
    let mut qmp = vmm.qmp();
    let mut hmp = |line: &str| {
        let output = qmp.execute_with("human-monitor-command", json!({"command-line": line}));
        output.as_str().unwrap().replace("\r\n", "\n")
    };
    for (line, output) in [
        ("object_add iothread,id=io1,poll-max-ns=5", ""),
        ("object_add iothread", "Error: Parameter 'id' is missing\n"),
        ("object_add foo,id=x", "Error: Parameter 'qom-type' does not accept value 'foo'\n"),
        ("qom-list", "/\n"),
        ("qom-list /objects", "type (string)\nio0 (child<iothread>)\nio1 (child<iothread>)\n"),
        ("qom-get io1 poll-max-ns", "5\n"),
        ("qom-get /machine peripheral", "\"/machine/peripheral\"\n"),
        ("qom-set io1 poll-max-ns 6", ""),
        ("qom-get io1 poll-max-ns", "6\n"),
        ("qom-set -j io1 poll-max-ns 7", ""),
        ("qom-get io1 poll-max-ns", "7\n"),
        ("qom-get /nope x", "Error: Device '/nope' not found\n"),
        ("info qom-tree /objects", "/objects (container)\n  /io0 (iothread)\n  /io1 (iothread)\n"),
        ("info qom-tree /nope", "Path '/nope' could not be resolved.\n"),
        ("object_del io1", ""),
        ("object_del io1", "Error: object 'io1' not found\n"),
        ("object_del io0", "Error: object 'io0' is in use, can not be deleted\n"),
    ] {
        assert_eq!(hmp(line), output, "{line}");
    }
    let tree = hmp("info qom-tree");
    assert!(
        tree.starts_with("/machine (pc-machine)\n  /i440fx (i440FX-pcihost)\n    /pci.0 (PCI)\n")
    );
    assert!(tree.contains("\n  /peripheral (container)\n    /v0 (virtio-blk-pci)\n"), "{tree}");
    assert!(hmp("qom-set -j io0 poll-max-ns {").starts_with("Error: JSON parse error, "));
    assert!(hmp("qom-set io0 poll-max-ns").starts_with("qom-set: string expected\n"));
    let threads = hmp("info iothreads");
    assert!(threads.starts_with("io0:\n  thread_id="), "{threads}");
    qmp.execute("quit");
    assert_eq!(vmm.finish().code(), 0);
}

#[test]
fn a_machine_of_nothing_answers_questions_without_kvm() {
    let mut vmm = Vmm::start(RINGVISOR, &["-machine", "none", "-nodefaults"]);
    let mut qmp = vmm.qmp();
    assert_eq!(qmp.execute("query-status"), json!({"status": "running", "running": true}));
    let none = json!({
        "name": "none", "cpu-max": 1, "hotpluggable-cpus": false,
        "numa-mem-supported": false, "deprecated": false, "acpi": false,
    });
    let machines = qmp.execute("query-machines");
    assert!(machines.as_array().unwrap().contains(&none), "{machines}");
    for command in ["query-cpus-fast", "query-pci", "query-block"] {
        assert_eq!(qmp.execute(command), json!([]), "{command}");
    }
    let memory = qmp.execute("query-memory-size-summary");
    assert_eq!(memory, json!({"base-memory": 0, "plugged-memory": 0}));
    let ty = qmp.execute_with("qom-get", json!({"path": "/machine", "property": "type"}));
    assert_eq!(ty, "none-machine");
    let types = qmp.execute_with("qom-list-types", json!({"implements": "virtio-pci"}));
    assert!(names(&types).contains(&"virtio-blk-pci"), "{types}");
    let error = refusal(&mut qmp, "device_add", json!({"driver": "virtio-rng-pci"}));
    assert_eq!(error.1, "No 'PCI' bus found for device 'virtio-rng-pci'");
    qmp.execute("stop");
    qmp.execute("cont");
    qmp.execute("system_reset");
    qmp.wait_event("RESET");
    let kvm = std::fs::read_dir(format!("/proc/{}/fd", vmm.pid())).unwrap();
    let open = |fd: std::io::Result<std::fs::DirEntry>| std::fs::read_link(fd.ok()?.path()).ok();
    assert!(kvm.filter_map(open).all(|path| path != std::path::Path::new("/dev/kvm")));
    qmp.execute("quit");
    assert_eq!(vmm.finish().code(), 0);
}

//! Memory back ends: the machine's own, and others.

use crate::machine::Machine;
use serde_json::{Value, json};
use std::os::unix::fs::FileExt;

const SIZE: u64 = 64 << 20;

#[test]
fn the_machines_memory_is_the_object_that_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ram");
    let object =
        format!("memory-backend-file,id=mem0,size=64M,share=on,mem-path={}", path.display());
    let mut m = Machine::start(&["-object", &object, "-machine", "memory-backend=mem0"]);
    let mut qmp = m.qmp();
    m.write(0x20_0000, b"in the file");
    let mut bytes = [0; 11];
    let file = std::fs::File::open(&path).unwrap();
    file.read_exact_at(&mut bytes, 0x20_0000).unwrap();
    assert_eq!(&bytes, b"in the file");
    let size = qmp.execute("query-memory-size-summary");
    assert_eq!(size["base-memory"], SIZE);
    let expected = json!([{
        "id": "mem0", "size": SIZE, "share": true, "reserve": true, "prealloc": false, "merge": true,
        "dump": false, "policy": "default", "host-nodes": []
    }]);
    assert_eq!(qmp.execute("query-memdev"), expected);
    let reply = qmp.execute_raw("object-del", json!({"id": "mem0"}));
    assert_eq!(reply["error"]["desc"], "object 'mem0' is in use, can not be deleted");
}

#[test]
fn others_come_and_go() {
    let m = Machine::start(&[]);
    let mut qmp = m.qmp();
    let dir = tempfile::tempdir().unwrap();
    for backend in [
        json!({"qom-type": "memory-backend-ram", "id": "b", "size": SIZE, "prealloc": true}),
        json!({"qom-type": "memory-backend-memfd", "id": "b", "size": SIZE, "prealloc-threads": 4}),
        json!({"qom-type": "memory-backend-file", "id": "b", "size": SIZE, "mem-path": dir.path()}),
    ] {
        qmp.execute_with("object-add", backend);
        let told = qmp.execute("query-memdev");
        assert_eq!((&told[0]["id"], &told[0]["size"]), (&json!("b"), &json!(SIZE)));
        let line = json!({"command-line": "info memdev"});
        let text = qmp.execute_with("human-monitor-command", line);
        assert!(text.as_str().unwrap().starts_with("memory backend: b\r\n  size:  67108864\r\n"));
        qmp.execute_with("object-del", json!({"id": "b"}));
    }
    assert_eq!(qmp.execute("query-memdev"), json!([]));
}

#[test]
fn refusals_are_those_of_qemu() {
    let m = Machine::start(&[]);
    let qmp = &mut m.qmp();
    let file = |more: Value| {
        let mut file = json!({"qom-type": "memory-backend-file", "id": "b", "size": 4096});
        file.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        file
    };
    let ram = |more: Value| {
        let mut ram = json!({"qom-type": "memory-backend-ram", "id": "b"});
        ram.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        ram
    };
    for (arguments, text) in [
        (ram(json!({})), "Parameter 'size' is missing"),
        (ram(json!({"size": 0})), "property 'size' of memory-backend-ram doesn't take value '0'"),
        (
            ram(json!({"size": 4096, "prealloc-threads": 0})),
            "property 'prealloc-threads' of memory-backend-ram doesn't take value '0'",
        ),
        (file(json!({})), "Parameter 'mem-path' is missing"),
        (
            file(json!({"mem-path": "/nonexistent/x"})),
            "can't open backing store /nonexistent/x for guest RAM: No such file or directory",
        ),
        (
            file(json!({"mem-path": "/tmp", "size": 4097})),
            "backend 'memory-backend-file' memory size must be multiple of 4 KiB",
        ),
    ] {
        let reply = qmp.execute_raw("object-add", arguments);
        assert_eq!(reply["error"]["desc"], text);
    }
}

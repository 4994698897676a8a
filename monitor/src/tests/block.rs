//! The block graph's commands, beside those of a real QEMU where there is one.

use super::qemu::Qemu;
use super::stage::stage;
use serde_json::{Value, json};

fn run(name: &str, arguments: &Value) -> Value {
    json!({"execute": name, "arguments": arguments})
}

/// Requests that both must answer alike; `image` has 1 MiB.
fn requests(image: &str) -> Vec<Value> {
    let add = |options: Value| run("blockdev-add", &options);
    let del = |name: &str| run("blockdev-del", &json!({"node-name": name}));
    let resize = |arguments: Value| run("block_resize", &arguments);
    vec![
        add(json!({"driver": "file", "node-name": "f", "filename": image})),
        add(json!({"driver": "raw", "node-name": "r", "file": "f"})),
        add(json!({"driver": "raw", "node-name": "r", "file": "f"})),
        add(json!({"driver": "raw", "node-name": "r2", "file": "nope"})),
        add(json!({"driver": "raw", "node-name": "1x", "file": "f"})),
        add(json!({"driver": "raw", "file": "f"})),
        add(json!({"driver": "nonsense", "node-name": "x"})),
        add(json!({"node-name": "x"})),
        add(json!({"driver": "file", "node-name": "x"})),
        add(json!({"driver": "file", "node-name": "x", "filename": "/nope"})),
        add(json!({"driver": "file", "node-name": "x", "filename": "/tmp"})),
        add(json!({"driver": "host_device", "node-name": "x", "filename": image})),
        add(json!({"driver": "file", "node-name": "x", "filename": image, "bla": 1})),
        add(json!({"driver": "raw", "node-name": "x", "file": 7})),
        add(json!({"driver": "raw", "node-name": "x", "file": {"driver": "null-co", "size": "x"}})),
        add(json!({"driver": "null-co", "node-name": "n", "size": 1_048_576, "latency-ns": 5})),
        add(json!({"driver": "raw", "node-name": "nested", "read-only": true,
                   "file": {"driver": "file", "node-name": "inner", "filename": image}})),
        run("query-named-block-nodes", &json!({"flat": true})),
        run("query-block", &json!({})),
        run("query-blockstats", &json!({})),
        resize(json!({"node-name": "r", "size": 2_097_152})),
        resize(json!({"node-name": "zz", "size": 2_097_152})),
        resize(json!({"device": "zz", "size": 2_097_152})),
        resize(json!({"size": 2_097_152})),
        resize(json!({"node-name": "r", "size": -1})),
        resize(json!({"node-name": "nested", "size": 512})),
        del("f"),
        del("inner"),
        del("nobody"),
        del("nested"),
        del("r"),
        run("query-named-block-nodes", &json!({"flat": true})),
        del("f"),
        del("n"),
        run("query-named-block-nodes", &json!({})),
    ]
}

/// What we do not tell: whether an image was closed cleanly, where it has no flag for that.
fn without_details(reply: &mut Value) {
    let list = reply.get_mut("return").and_then(Value::as_array_mut);
    for node in list.into_iter().flatten() {
        if let Some(image) = node.get_mut("image").and_then(Value::as_object_mut) {
            image.remove("dirty-flag");
        }
    }
}

#[test]
fn commands_answer_as_qemu_does() {
    let image = tempfile::NamedTempFile::new().unwrap();
    image.as_file().set_len(1 << 20).unwrap();
    let path = image.path().to_str().unwrap().to_owned();
    let ours = stage(move |stage| {
        let mut client = stage.client();
        let requests = requests(&path);
        requests.iter().map(|request| client.ask(request)).collect::<Vec<_>>()
    });
    assert!(ours.iter().filter(|reply| reply.get("return").is_some()).count() > 10);
    let Some(mut qemu) = Qemu::start() else {
        println!("there is no qemu-system-x86_64 to compare with");
        return;
    };
    image.as_file().set_len(1 << 20).unwrap();
    for (request, ours) in requests(image.path().to_str().unwrap()).iter().zip(ours) {
        let mut theirs = qemu.ask(request);
        without_details(&mut theirs);
        assert_eq!(ours, theirs, "{request}");
    }
}

/// Management tools elsewhere retry this in a loop.
#[test]
fn the_first_blockdev_del_succeeds_and_closes_the_image() {
    let image = tempfile::NamedTempFile::new().unwrap();
    image.as_file().set_len(1 << 20).unwrap();
    let path = image.into_temp_path();
    stage(move |stage| {
        let mut client = stage.client();
        for _ in 0..100 {
            let add = json!({"driver": "raw", "node-name": "disk",
                "file": {"driver": "file", "filename": path.to_str().unwrap(), "locking": "on"}});
            assert_eq!(client.ask(&run("blockdev-add", &add)), json!({"return": {}}));
            let del = run("blockdev-del", &json!({"node-name": "disk"}));
            assert_eq!(client.ask(&del), json!({"return": {}}));
            let open = std::fs::read_dir("/proc/self/fd").unwrap().any(|entry| {
                std::fs::read_link(entry.unwrap().path()).is_ok_and(|target| target == *path)
            });
            assert!(!open);
        }
    });
}

//! Images in a format: what a device writes to them is what qemu-img reads, and the monitor tells about
//! them in QEMU's words.

use crate::blk::{DISCARD, Disk, FLUSH, IN, IO_ERROR, OK, OUT, WRITE_ZEROES};
use crate::machine::Machine;
use crate::virtio::{Device, VERSION_1};
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;
use tempfile::TempDir;

const SIZE: u64 = 4 << 20;
const DISCARDS: u64 = VERSION_1 | 1 << 13 | 1 << 14;

/// What qemu-img prints, run in `dir`.
fn qemu_img(dir: &TempDir, args: &[&str]) -> Vec<u8> {
    let output = Command::new("qemu-img").args(args).current_dir(dir.path()).output();
    let output = output.expect("qemu-img of Debian's package qemu-utils; install it");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "qemu-img {args:?}: {text}");
    output.stdout
}

fn path(dir: &TempDir, name: &str) -> String {
    dir.path().join(name).display().to_string()
}

/// A machine with the drive `d` on an image, and its disk.
fn with_drive(drive: &str, features: u64) -> (Machine, Disk) {
    let mut m = Machine::start(&["-drive", drive, "-device", "virtio-blk-pci,drive=d,addr=4"]);
    let device = Device::new(&mut m, 4);
    let mut disk = Disk::of(&mut m, device, Path::new(""));
    disk.start(&mut m, features);
    (m, disk)
}

fn fill(m: &mut Machine, disk: &Disk, len: u32, byte: u8) {
    m.ok(&format!("memset {:#x} {len} {byte:#x}", disk.data));
}

#[test]
fn what_a_guest_writes_is_what_qemu_img_reads() {
    for shape in ["compat=1.1", "compat=0.10", "cluster_size=512", "cluster_size=2M"] {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("base"), vec![0x11; SIZE as usize]).unwrap();
        let create = ["create", "-f", "qcow2", "-o", shape, "-b", "base", "-F", "raw", "top"];
        qemu_img(&dir, &create);
        let drive = format!("file={},format=qcow2,if=none,id=d,discard=unmap", path(&dir, "top"));
        let (mut m, mut disk) = with_drive(&drive, DISCARDS);
        let mut expected = vec![0x11; SIZE as usize];
        // Writes that are no whole clusters, twice at the same place, and at the end.
        for (sector, sectors, byte) in
            [(1, 3, 0x22), (1, 1, 0x33), (130, 300, 0x44), (SIZE / 512 - 8, 8, 0x55)]
        {
            let len = sectors as u32 * 512;
            fill(&mut m, &disk, len, byte);
            assert_eq!(disk.request(&mut m, OUT, sector, len).0, OK);
            expected[sector as usize * 512..][..len as usize].fill(byte);
            fill(&mut m, &disk, len, 0);
            assert_eq!(disk.request(&mut m, IN, sector, len).0, OK);
            assert_eq!(m.read(disk.data, len as usize), vec![byte; len as usize]);
        }
        assert_eq!(disk.any(&mut m, WRITE_ZEROES), OK);
        expected[..8 * 512].fill(0);
        assert_eq!(disk.request(&mut m, IN, 0, 8192).0, OK);
        assert_eq!(m.read(disk.data, 8192), expected[..8192]);
        assert_eq!(disk.any(&mut m, FLUSH), OK);
        m.signal(libc::SIGTERM);
        assert_eq!(m.finish(), 0);
        qemu_img(&dir, &["check", "-f", "qcow2", "top"]);
        qemu_img(&dir, &["convert", "-f", "qcow2", "-O", "raw", "top", "out"]);
        assert!(std::fs::read(dir.path().join("out")).unwrap() == expected, "{shape}");
        assert!(std::fs::read(dir.path().join("base")).unwrap() == vec![0x11; SIZE as usize]);
    }
}

/// A discard frees clusters of the image, and the guest reads zeroes there, not what is behind.
#[test]
fn discards_free_clusters() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("base"), vec![0x11; SIZE as usize]).unwrap();
    let create =
        ["create", "-f", "qcow2", "-o", "cluster_size=4k", "-b", "base", "-F", "raw", "top"];
    qemu_img(&dir, &create);
    let drive = format!("file={},format=qcow2,if=none,id=d,discard=unmap", path(&dir, "top"));
    let (mut m, mut disk) = with_drive(&drive, DISCARDS);
    fill(&mut m, &disk, 4096, 0x77);
    assert_eq!(disk.request(&mut m, OUT, 0, 4096).0, OK);
    assert_eq!(disk.any(&mut m, DISCARD), OK);
    assert_eq!(disk.request(&mut m, IN, 0, 4096).0, OK);
    assert_eq!(m.read(disk.data, 4096), [0; 4096]);
    m.signal(libc::SIGTERM);
    assert_eq!(m.finish(), 0);
    qemu_img(&dir, &["check", "top"]);
    let map = qemu_img(&dir, &["map", "--output=json", "top"]);
    let map: Value = serde_json::from_slice(&map).unwrap();
    assert_eq!(
        (&map[0]["depth"], &map[0]["zero"], &map[0]["data"]),
        (&json!(0), &json!(true), &json!(false))
    );
}

#[test]
fn the_monitor_tells_of_chains_and_snapshots() {
    let dir = tempfile::tempdir().unwrap();
    qemu_img(&dir, &["create", "-f", "qcow2", "base", "4M"]);
    qemu_img(&dir, &["snapshot", "-c", "before", "base"]);
    qemu_img(&dir, &["create", "-f", "qcow2", "-b", "base", "-F", "qcow2", "top"]);
    let m = Machine::start(&[]);
    let qmp = &mut m.qmp();
    let add = |name: &str, more: Value| {
        let mut options = json!({"driver": "qcow2", "node-name": name,
            "file": {"driver": "file", "filename": path(&dir, name)}});
        for (key, value) in more.as_object().unwrap() {
            options[key] = value.clone();
        }
        options
    };
    let _ = qmp.execute_with("blockdev-add", add("top", json!({})));
    let nodes = qmp.execute("query-named-block-nodes");
    let top = nodes.as_array().unwrap().iter().find(|node| node["node-name"] == "top").unwrap();
    assert_eq!((&top["drv"], &top["backing_file_depth"]), (&json!("qcow2"), &json!(1)));
    assert_eq!(top["backing_file"], json!(path(&dir, "base")));
    let image = &top["image"];
    assert_eq!(
        (&image["cluster-size"], &image["backing-filename"]),
        (&json!(65536), &json!("base"))
    );
    assert_eq!(image["full-backing-filename"], json!(path(&dir, "base")));
    let base = &image["backing-image"];
    assert_eq!((&base["format"], &base["virtual-size"]), (&json!("qcow2"), &json!(SIZE)));
    assert_eq!(
        (&base["snapshots"][0]["name"], &base["snapshots"][0]["id"]),
        (&json!("before"), &json!("1"))
    );
    let specific = json!({"compat": "1.1", "compression-type": "zlib", "lazy-refcounts": false,
        "refcount-bits": 16, "corrupt": false, "extended-l2": false});
    for image in [image, base] {
        assert_eq!(image["format-specific"], json!({"type": "qcow2", "data": specific}));
    }
    let flat = qmp.execute_with("query-named-block-nodes", json!({"flat": true}));
    for node in flat.as_array().unwrap() {
        assert_eq!(
            (&node["backing_file_depth"], &node["image"]["backing-image"]),
            (&json!(0), &Value::Null)
        );
    }
    let _ = qmp.execute_with("block_resize", json!({"node-name": "top", "size": 2 * SIZE}));
    let _ = qmp.execute_with("blockdev-del", json!({"node-name": "top"}));
    assert_eq!(qmp.execute("query-named-block-nodes"), json!([]));
    // With nothing behind it, and with a node that exists.
    let _ = qmp.execute_with("blockdev-add", add("top", json!({"backing": null})));
    assert_eq!(qmp.execute("query-named-block-nodes").as_array().unwrap().len(), 2);
    let _ = qmp.execute_with("blockdev-del", json!({"node-name": "top"}));
    let _ = qmp.execute_with("blockdev-add", add("base", json!({"read-only": true})));
    let _ = qmp.execute_with("blockdev-add", add("top", json!({"backing": "base"})));
    let used = qmp.execute_raw("blockdev-del", json!({"node-name": "base"}));
    assert_eq!(used["error"]["desc"], "Node 'base' is busy: node is used as backing hd of 'top'");
    let _ = qmp.execute_with("blockdev-del", json!({"node-name": "top"}));
    let _ = qmp.execute_with("blockdev-del", json!({"node-name": "base"}));
    qemu_img(&dir, &["check", "top"]);
}

/// Nobody has said what the image is: its guest may not make it something else.
#[test]
fn an_image_that_was_taken_for_raw_stays_raw() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("disk"), vec![0; SIZE as usize]).unwrap();
    let (mut m, mut disk) =
        with_drive(&format!("file={},if=none,id=d", path(&dir, "disk")), VERSION_1);
    fill(&mut m, &disk, 4096, 0);
    m.write(disk.data, b"QFI\xfb\0\0\0\x03");
    assert_eq!(disk.request(&mut m, OUT, 0, 4096).0, IO_ERROR);
    m.write(disk.data, b"harmless");
    assert_eq!(disk.request(&mut m, OUT, 0, 4096).0, OK);
    m.write(disk.data, b"QFI\xfb\0\0\0\x03");
    assert_eq!(disk.request(&mut m, OUT, 8, 4096).0, OK);
    assert_eq!(disk.any(&mut m, FLUSH), OK);
    let bytes = std::fs::read(dir.path().join("disk")).unwrap();
    assert_eq!((&bytes[..8], &bytes[4096..4100]), (&b"harmless"[..], &b"QFI\xfb"[..]));
}

/// A guest writes, an image is put over its disk, the guest writes on, and so on: each image keeps what
/// was there when the next one came, and the monitor tells of the chain.
#[test]
fn snapshots_are_taken_of_a_running_guest() {
    let dir = tempfile::tempdir().unwrap();
    qemu_img(&dir, &["create", "-f", "qcow2", "0", "4M"]);
    let drive = format!("file={},format=qcow2,if=none,id=d", path(&dir, "0"));
    let (mut m, mut disk) = with_drive(&drive, VERSION_1);
    let qmp = &mut m.qmp();
    let mut expected = vec![vec![0; SIZE as usize]];
    for n in 1..=4u8 {
        fill(&mut m, &disk, 4096, n);
        assert_eq!(disk.request(&mut m, OUT, u64::from(n), 4096).0, OK);
        let mut data = expected.last().unwrap().clone();
        data[usize::from(n) * 512..][..4096].fill(n);
        expected.push(data);
        let file = path(&dir, &n.to_string());
        let reply = match n {
            1 => qmp.execute_with(
                "blockdev-snapshot-sync",
                json!({"device": "d", "snapshot-file": file}),
            ),
            2 => {
                let line = format!("snapshot_blkdev d {file}");
                qmp.execute_with("human-monitor-command", json!({"command-line": line}))
            }
            3 => {
                // One that is there: what it says to be behind it is not looked at.
                qemu_img(&dir, &["create", "-f", "qcow2", "-b", "2", "-F", "qcow2", "3"]);
                let asked = json!({"device": "d", "snapshot-file": file, "mode": "existing",
                    "snapshot-node-name": "three"});
                qmp.execute_with("blockdev-snapshot-sync", asked)
            }
            _ => {
                qemu_img(&dir, &["create", "-f", "qcow2", "-b", "3", "-F", "qcow2", "4"]);
                let below = json!({"driver": "file", "filename": file});
                let over =
                    json!({"driver": "qcow2", "node-name": "four", "file": below, "backing": null});
                let _ = qmp.execute_with("blockdev-add", over);
                let asked = json!({"node": "three", "overlay": "four"});
                qmp.execute_with("blockdev-snapshot", asked)
            }
        };
        assert!(reply == json!({}) || reply == json!(""), "{reply}");
        // What was there is read through the chain.
        assert_eq!(disk.request(&mut m, IN, u64::from(n), 4096).0, OK);
        assert_eq!(m.read(disk.data, 4096), [n; 4096]);
    }
    fill(&mut m, &disk, 4096, 5);
    assert_eq!(disk.request(&mut m, OUT, 5, 4096).0, OK);
    assert_eq!(disk.any(&mut m, FLUSH), OK);
    let mut last = expected.pop().unwrap();
    expected.push(last.clone());
    last[5 * 512..][..4096].fill(5);
    expected.push(last);
    let inserted = &qmp.execute("query-block")[0]["inserted"];
    assert_eq!(
        (&inserted["node-name"], &inserted["backing_file_depth"], &inserted["ro"]),
        (&json!("four"), &json!(4), &json!(false))
    );
    let mut image = &inserted["image"];
    for n in (0..=4).rev() {
        assert_eq!(image["filename"], json!(path(&dir, &n.to_string())));
        image = &image["backing-image"];
    }
    m.signal(libc::SIGTERM);
    assert_eq!(m.finish(), 0);
    for (n, expected) in expected.iter().skip(1).enumerate() {
        holds(&dir, &n.to_string(), expected);
    }
}

/// Whether an image is in order and holds these bytes.
fn holds(dir: &TempDir, name: &str, bytes: &[u8]) {
    std::fs::write(dir.path().join("expected"), bytes).unwrap();
    qemu_img(dir, &["check", "-f", "qcow2", name]);
    qemu_img(dir, &["compare", "-f", "raw", "-F", "qcow2", "expected", name]);
}

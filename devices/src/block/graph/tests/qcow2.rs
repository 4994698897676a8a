//! qcow2 with qemu-img as the judge: what we write checks clean and reads back identical there, and what
//! it has made in many shapes reads identical here.

use super::super::{Backend, BlockGraph, DriveOptions};
use super::{add, device};
use crate::block::{Disk, DiskQueue, Request};
use crate::virtio::testing::on_reactors;
use reactor::Reactors;
use serde_json::{Value, json};
use std::future::poll_fn;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

const SIZE: usize = 4 << 20;
const SLOTS: usize = 16;

pub(super) fn run(arguments: &[&str]) {
    let output = Command::new("qemu-img").args(arguments).output();
    let output = output.expect("qemu-img of Debian's package qemu-utils; install it");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "qemu-img {arguments:?}: {text}");
}

pub(super) fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Half of it data, in pieces of all sizes; the rest zeroes.
fn pattern(seed: u64) -> Vec<u8> {
    let mut data = vec![0; SIZE];
    let mut random = seed | 1;
    for _ in 0..60 {
        random = random.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        let start = (random >> 20) as usize % SIZE;
        let len = (1 << ((random >> 50) % 17)).min(SIZE - start);
        for (n, byte) in data[start..start + len].iter_mut().enumerate() {
            *byte = (n as u64 ^ random >> 33) as u8;
        }
    }
    data
}

/// The queue of a claimed node, on core 0, and its memory.
struct Rig {
    ram: Arc<GuestMemoryMmap<()>>,
    queue: Box<dyn DiskQueue>,
}

impl Rig {
    fn new(backend: &Backend) -> Self {
        let ram = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), SIZE)]).unwrap();
        let ram = Arc::new(ram);
        let queue = backend.queue(&ram, SLOTS, 4).unwrap();
        Self { ram, queue }
    }

    /// Runs requests of up to 16 slots at once; data goes from or to the same address in memory.
    async fn run(&mut self, requests: &[(Request, u64, usize)]) {
        for batch in requests.chunks(SLOTS) {
            for (slot, (request, at, len)) in batch.iter().enumerate() {
                let mut segments = self.queue.segments(slot);
                segments.clear();
                if *len > 0 {
                    segments.push(GuestAddress(*at), *len as u32).unwrap();
                }
                self.queue.submit(slot, *request);
            }
            for _ in batch {
                let done = poll_fn(|cx| self.queue.poll_done(cx)).await;
                assert_eq!(done.result, Ok(()), "{:?}", batch[done.slot]);
            }
        }
    }

    async fn read_all(&mut self) -> Vec<u8> {
        const PIECE: usize = 100 << 10;
        let pieces = (0..SIZE)
            .step_by(PIECE)
            .map(|at| (Request::Read { offset: at as u64 }, at as u64, PIECE.min(SIZE - at)));
        self.run(&pieces.collect::<Vec<_>>()).await;
        let mut data = vec![0; SIZE];
        self.ram.read_slice(&mut data, GuestAddress(0)).unwrap();
        data
    }
}

fn options(path: &Path, read_only: bool) -> Value {
    json!({"driver": "qcow2", "node-name": "image", "read-only": read_only, "discard": "unmap",
        "file": {"driver": "file", "filename": text(path)}})
}

/// The whole content of an image.
async fn content(reactors: &Reactors, path: &Path) -> Vec<u8> {
    let graph = BlockGraph::new(reactors);
    add(&graph, options(path, true)).await.unwrap();
    let backend = graph.claim("image", &device("d0")).unwrap().unwrap();
    let storage = Arc::clone(&backend);
    let core = reactors.core(0).clone();
    let read =
        core.spawn_local_with("read", move || async move { Rig::new(&storage).read_all().await });
    let data = read.await.unwrap();
    graph.release(&backend).await;
    graph.close_all().await.unwrap();
    data
}

#[test]
fn images_of_many_shapes_read_as_qemu_img_made_them() {
    on_reactors(1, |reactors| async move {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let (raw, image) = (at("raw"), at("image"));
        let data = pattern(7);
        std::fs::write(&raw, &data).unwrap();
        for shape in [
            "compat=1.1",
            "compat=0.10",
            "cluster_size=512",
            "cluster_size=4k",
            "cluster_size=2M",
            "refcount_bits=1",
            "refcount_bits=64",
            "preallocation=metadata",
            "preallocation=falloc",
            "preallocation=full",
            "lazy_refcounts=on",
        ] {
            let arguments =
                ["convert", "-f", "raw", "-O", "qcow2", "-o", shape, text(&raw), text(&image)];
            run(&arguments);
            assert!(content(&reactors, &image).await == data, "{shape}");
        }
        run(&["convert", "-c", "-f", "raw", "-O", "qcow2", text(&raw), text(&image)]);
        assert!(content(&reactors, &image).await == data, "compressed");
    });
}

#[test]
fn backing_chains_are_found_and_read_through() {
    on_reactors(1, |reactors| async move {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let data = pattern(3);
        std::fs::write(at("base"), &data).unwrap();
        let base = ["create", "-f", "qcow2", "-b", "base", "-F", "raw", text(&at("middle"))]
            .map(str::to_owned);
        run(&base.iter().map(String::as_str).collect::<Vec<_>>());
        run(&["create", "-f", "qcow2", "-b", "middle", "-F", "qcow2", text(&at("top"))]);
        assert!(content(&reactors, &at("top")).await == data);
        let graph = BlockGraph::new(&reactors);
        add(&graph, options(&at("top"), false)).await.unwrap();
        assert_eq!(graph.contents().nodes.iter().count(), 6);
        // Without what is behind it there is nothing.
        let mut alone = options(&at("top"), false);
        alone["backing"] = Value::Null;
        alone["node-name"] = json!("alone");
        let refused = add(&graph, alone).await.unwrap_err();
        assert_eq!(refused, "Failed to get \"write\" lock");
        graph.delete("image").await.unwrap();
        assert_eq!(graph.contents().nodes.iter().count(), 0);
        // A circle ends.
        run(&["rebase", "-u", "-f", "qcow2", "-b", "top", "-F", "qcow2", text(&at("middle"))]);
        add(&graph, options(&at("top"), true)).await.unwrap_err();
        assert_eq!(graph.contents().nodes.iter().count(), 0);
    });
}

#[test]
fn what_is_written_here_is_clean_and_identical_there() {
    on_reactors(2, |reactors| async move {
        for shape in ["compat=1.1", "compat=0.10", "cluster_size=4k"] {
            let directory = tempfile::tempdir().unwrap();
            let (image, out) = (directory.path().join("image"), directory.path().join("out"));
            let size = SIZE.to_string();
            run(&["create", "-f", "qcow2", "-o", shape, text(&image), &size]);
            let graph = BlockGraph::new(&reactors);
            add(&graph, options(&image, false)).await.unwrap();
            let backend = graph.claim("image", &device("d0")).unwrap().unwrap();
            // Two cores write to halves of their own at once.
            let mut expected = pattern(11);
            let mut tasks = Vec::new();
            for half in 0..2usize {
                let (storage, data) = (Arc::clone(&backend), expected.clone());
                let core = reactors.core(half).clone();
                tasks.push(core.spawn_local_with("write", move || async move {
                    let mut rig = Rig::new(&storage);
                    rig.ram.write_slice(&data, GuestAddress(0)).unwrap();
                    let start = half * SIZE / 2;
                    let requests: Vec<_> = (start..start + SIZE / 2)
                        .step_by(20 << 10)
                        .map(|at| {
                            let len = (20 << 10).min(start + SIZE / 2 - at);
                            let offset = at as u64;
                            (Request::Write { offset, stable: false }, offset, len)
                        })
                        .collect();
                    rig.run(&requests).await;
                    let (offset, len) = (start as u64 + (64 << 10), 200 << 10);
                    let zeroes =
                        Request::WriteZeroes { offset, len, unmap: half == 0, stable: true };
                    let offset = start as u64 + (1 << 20);
                    let discard = Request::Discard { offset, len: 128 << 10 };
                    rig.run(&[(zeroes, 0, 0)]).await;
                    rig.run(&[(discard, 0, 0), (Request::Flush, 0, 0)]).await;
                }));
            }
            for task in tasks {
                task.await.unwrap();
            }
            for half in 0..2 {
                let start = half * SIZE / 2;
                expected[start + (64 << 10)..][..200 << 10].fill(0);
                expected[start + (1 << 20)..][..128 << 10].fill(0);
            }
            graph.release(&backend).await;
            graph.resize(None, Some("image"), 2 * SIZE as i64).await.unwrap();
            graph.close_all().await.unwrap();
            expected.resize(2 * SIZE, 0);
            run(&["check", "-f", "qcow2", text(&image)]);
            run(&["convert", "-f", "qcow2", "-O", "raw", text(&image), text(&out)]);
            assert!(std::fs::read(&out).unwrap() == expected, "{shape}");
        }
    });
}

/// What an image cannot do here is said, with what to do.
#[test]
fn shapes_that_are_not_supported_are_refused_in_words() {
    on_reactors(1, |reactors| async move {
        let directory = tempfile::tempdir().unwrap();
        let image = directory.path().join("image");
        let path = text(&image);
        let graph = BlockGraph::new(&reactors);
        for (arguments, reason) in [
            (&["-f", "qcow2", "-o", "extended_l2=on"][..], "extended L2 entries are not supported"),
            (&["-f", "qcow2", "-o", "compression_type=zstd"], "zstd compression is not supported"),
            (&["-f", "qcow2", "-o", "data_file=data"], "external data files are not supported"),
            (&["-f", "vmdk"], "sparse and compressed extents are not supported"),
            (&["-f", "vdi"], "it looks like vdi"),
        ] {
            let _ = std::fs::remove_file(&image);
            run(&[&["create"], arguments, &[path, "1M"]].concat());
            let format = arguments[1];
            let refused = if format == "vdi" {
                let drive = DriveOptions::parse(&format!("file={path},if=none")).unwrap();
                drive.open(&graph, "d").await.unwrap_err().text
            } else {
                let mut wanted = options(&image, true);
                wanted["driver"] = json!(format);
                add(&graph, wanted).await.unwrap_err()
            };
            let begin = format!("Could not open '{path}': {reason}");
            assert!(refused.starts_with(&begin), "{refused}");
            assert_eq!(graph.contents().nodes.iter().count(), 0);
        }
        // Bits that say that something is wrong.
        for (bit, reason) in [(1, "refcounts may be wrong"), (2, "Image is corrupt")] {
            run(&["create", "-f", "qcow2", path, "1M"]);
            let mut bytes = std::fs::read(&image).unwrap();
            bytes[79] |= bit;
            std::fs::write(&image, bytes).unwrap();
            let refused = add(&graph, options(&image, false)).await.unwrap_err();
            assert!(refused.contains(reason) && refused.contains("check -r all"), "{refused}");
        }
    });
}

/// Requests that need a broken table fail, and nothing else does.
#[test]
fn broken_tables_are_errors_of_requests() {
    on_reactors(1, |reactors| async move {
        let directory = tempfile::tempdir().unwrap();
        let (raw, image) = (directory.path().join("raw"), directory.path().join("image"));
        std::fs::write(&raw, pattern(5)).unwrap();
        run(&["convert", "-f", "raw", "-O", "qcow2", text(&raw), text(&image)]);
        let mut bytes = std::fs::read(&image).unwrap();
        let at = |bytes: &[u8], at: usize| {
            u64::from_be_bytes(bytes[at..at + 8].try_into().unwrap()) as usize
        };
        let l1 = at(&bytes, 40);
        let l2 = at(&bytes, l1) & 0x00ff_ffff_ffff_fe00;
        // No cluster begins there.
        bytes[l2..l2 + 8].copy_from_slice(&0x8000_0000_0000_0200u64.to_be_bytes());
        std::fs::write(&image, &bytes).unwrap();
        let graph = BlockGraph::new(&reactors);
        add(&graph, options(&image, false)).await.unwrap();
        let backend = graph.claim("image", &device("d0")).unwrap().unwrap();
        let storage = Arc::clone(&backend);
        let core = reactors.core(0).clone();
        let read = core.spawn_local_with("read", move || async move {
            let mut rig = Rig::new(&storage);
            for offset in [0, 1 << 20] {
                let mut segments = rig.queue.segments(0);
                segments.clear();
                segments.push(GuestAddress(0), 512).unwrap();
                rig.queue.submit(0, Request::Read { offset });
                let done = poll_fn(|cx| rig.queue.poll_done(cx)).await;
                assert_eq!(done.result, Err(libc::EIO));
            }
        });
        read.await.unwrap();
        graph.release(&backend).await;
        graph.close_all().await.unwrap();
    });
}

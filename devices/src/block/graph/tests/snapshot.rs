//! Overlays that take the place of images in use, with qemu-img as the judge of what they hold.

use super::super::{
    Backend, BlockGraph, Content, NewImage, NewOverlay, NewQcow2, Node, Preallocation,
};
use super::qcow2::{run, text};
use super::requests::{done, in_main, on_core, ram, submit};
use super::{add, device, file, is_free};
use crate::block::{Disk, DiskQueue, Request};
use crate::virtio::testing::on_reactors;
use serde_json::{Value, json};
use std::future::{Future, poll_fn};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use vm_memory::{Bytes, GuestAddress};

const SIZE: u64 = 1 << 20;

/// Makes an empty image.
pub(super) async fn make(graph: &BlockGraph, path: &Path) {
    let new = NewQcow2 {
        size: SIZE,
        cluster_size: NewQcow2::CLUSTER_SIZE,
        refcount_bits: NewQcow2::REFCOUNT_BITS,
        backing: None,
        preallocation: Preallocation::Off,
    };
    graph.create(path, NewImage::Qcow2(new)).await.unwrap();
}

fn qcow2(name: &str, path: &Path) -> Value {
    json!({"driver": "qcow2", "node-name": name, "backing": null,
        "file": {"driver": "file", "filename": text(path)}})
}

fn new(path: &Path) -> NewOverlay {
    NewOverlay {
        file: path.to_owned(),
        node_name: None,
        format: "qcow2".to_owned(),
        existing: false,
    }
}

pub(super) fn named(path: &Path, name: &str) -> NewOverlay {
    NewOverlay { node_name: Some(name.to_owned()), ..new(path) }
}

fn reason<T>(result: Result<T, crate::error::CommandError>) -> String {
    super::text(result)
}

/// Four images, of which one has another over it and one a device; a raw one, a filter and an empty drive.
async fn scene(graph: &BlockGraph, at: impl Fn(&str) -> PathBuf) -> Arc<Backend> {
    std::fs::write(at("raw"), vec![0; SIZE as usize]).unwrap();
    for name in ["base", "over", "top", "used"] {
        make(graph, &at(name)).await;
        add(graph, qcow2(name, &at(name))).await.unwrap();
    }
    add(graph, super::raw("raw", &at("raw"))).await.unwrap();
    graph.add_drive("empty", None, true).await.unwrap();
    let limits = super::super::Limits::parse(serde_json::Map::new()).unwrap();
    let group = graph.throttle_groups().get("tg", limits);
    let throttle =
        json!({"driver": "throttle", "node-name": "thr", "throttle-group": "tg", "file": "raw"});
    add(graph, throttle).await.unwrap();
    drop(group);
    graph.snapshot("over", "top").await.unwrap();
    graph.claim("used", &device("d0")).unwrap().unwrap()
}

/// What QEMU 10.0 says.
#[test]
fn refusals_are_those_of_qemu() {
    on_reactors(1, |reactors| async move {
        let graph = BlockGraph::new(&reactors);
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let backend = scene(&graph, at).await;
        for (node, overlay, expected) in [
            ("zz", "top", "Cannot find device='zz' nor node-name='zz'"),
            ("empty", "zz", "Device 'empty' has no medium"),
            ("over", "zz", "Node 'over' is busy: node is used as backing hd of 'top'"),
            ("base", "zz", "Cannot find device='zz' nor node-name='zz'"),
            ("base", "empty", "Device 'empty' has no medium"),
            ("base", "used", "The overlay is already in use"),
            ("base", "raw", "The overlay does not support backing images"),
            ("base", "thr", "Filters cannot be used as overlays"),
            ("base", "top", "The overlay already has a backing image"),
            ("base", "base", "Making 'base' a backing child of 'base' would create a cycle"),
            ("top", "over", "Making 'top' a backing child of 'over' would create a cycle"),
        ] {
            let found = reason(graph.snapshot(node, overlay).await);
            assert_eq!(found, expected, "{overlay} over {node}");
        }
        let busy = "Node 'over' is busy: node is used as backing hd of 'top'";
        assert_eq!(reason(graph.delete("over").await), busy);
        // Nothing is left over of what failed.
        assert_eq!(graph.contents().nodes.iter().count(), 2 * 4 + 2 + 1);
        graph.release(&backend).await;
        graph.close_all().await.unwrap();
    });
}

/// Overlays that cannot be made, each with the device and the node that it shall go over, and the reason.
fn refused(
    at: impl Fn(&str) -> PathBuf,
) -> Vec<(Option<&'static str>, Option<&'static str>, NewOverlay, String)> {
    let free = at("free");
    let format =
        |overlay: NewOverlay, format: &str| NewOverlay { format: format.to_owned(), ..overlay };
    let existing = |overlay: NewOverlay| NewOverlay { existing: true, ..overlay };
    let n = |path: &Path| named(path, "n");
    let missing = format!("Could not open '{}': No such file or directory", text(&at("missing")));
    let by_name = [
        (new(&free), "New overlay node-name missing"),
        (named(&free, "top"), "New overlay node-name already in use"),
        (named(&free, "1x"), "Invalid node-name: '1x'"),
        (named(&free, "empty"), "node-name=empty is conflicting with a device id"),
        (n(Path::new("/nope/x")), "Could not create '/nope/x': No such file or directory"),
        (n(Path::new("/tmp")), "Could not create '/tmp': Is a directory"),
        (
            n(&at("base")),
            "Error: Trying to create an image with the same filename as the backing file",
        ),
        (format(n(&free), "raw"), "Backing file not supported for file format 'raw'"),
        (format(n(&free), "foo"), "Unknown file format 'foo'"),
        (existing(format(n(&free), "foo")), "Unknown driver 'foo'"),
        (existing(n(&at("missing"))), &missing),
        (existing(format(n(&at("raw")), "raw")), "The overlay does not support backing images"),
        (existing(n(&at("used"))), "Failed to get \"write\" lock"),
    ];
    let by_name = by_name.map(|(overlay, text)| (None, Some("base"), overlay, text.to_owned()));
    let others = [
        (None, None, "Cannot find device='' nor node-name=''"),
        (Some("zz"), None, "Cannot find device='zz' nor node-name=''"),
        (Some("zz"), Some("yy"), "Cannot find device='zz' nor node-name='yy'"),
        (Some("base"), None, "Cannot find device='base' nor node-name=''"),
        (Some("empty"), None, "Device 'empty' has no medium"),
    ];
    let others = others.map(|(device, node, text)| (device, node, new(&free), text.to_owned()));
    by_name.into_iter().chain(others).collect()
}

/// Likewise.
#[test]
fn refusals_of_new_overlays_are_those_of_qemu() {
    on_reactors(1, |reactors| async move {
        let graph = BlockGraph::new(&reactors);
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let backend = scene(&graph, at).await;
        for (dev, node, overlay, expected) in refused(at) {
            let found = reason(graph.snapshot_to(dev, node, overlay.clone()).await);
            assert_eq!(found, expected, "{overlay:?} over {dev:?}, {node:?}");
        }
        assert!(is_free(&at("free")));
        // Nothing is left over of what failed.
        assert_eq!(graph.contents().nodes.iter().count(), 2 * 4 + 2 + 1);
        graph.release(&backend).await;
        graph.close_all().await.unwrap();
    });
}

/// Writes a sector of `byte` and reads what is there of an older one.
async fn write(queue: &mut dyn DiskQueue, ram: &vm_memory::GuestMemoryMmap<()>, n: u64, byte: u8) {
    ram.write_slice(&[byte; 512], GuestAddress(0)).unwrap();
    submit(queue, 0, Request::Write { offset: n * 512, stable: false }, 0, 512);
    assert_eq!(done(queue).await.result, Ok(()));
}

async fn read(queue: &mut dyn DiskQueue, ram: &vm_memory::GuestMemoryMmap<()>, n: u64) -> u8 {
    submit(queue, 0, Request::Read { offset: n * 512 }, 4096, 512);
    assert_eq!(done(queue).await.result, Ok(()));
    let mut found = [0; 512];
    ram.read_slice(&mut found, GuestAddress(4096)).unwrap();
    assert!(found.iter().all(|byte| *byte == found[0]));
    found[0]
}

/// Waits for a command, while the device looks after its queue.
async fn meanwhile<T>(queue: &mut dyn DiskQueue, command: impl Future<Output = T>) -> T {
    let mut command = pin!(command);
    poll_fn(|cx| {
        assert!(queue.poll_done(cx).is_pending());
        command.as_mut().poll(cx)
    })
    .await
}

/// The images of a chain from the top on.
fn chain(top: &Arc<Node>) -> Vec<(String, bool)> {
    let mut all = Vec::new();
    let mut next = Some(Arc::clone(top));
    while let Some(node) = next {
        all.push((node.filename(), node.info().read_only));
        let mut below = node.uses_of_others().into_iter();
        next = below.find(|(role, _)| *role == "backing").map(|(_, node)| node);
    }
    all
}

/// Overlays that are put over an image.
const IMAGES: usize = 6;

/// Whether the n-th image has what was written before the next one was put over it.
fn check(at: impl Fn(usize) -> PathBuf, n: usize) {
    let mut data = vec![0; SIZE as usize];
    let written = n.min(IMAGES - 1) + 1;
    data[..written * 512].fill(written as u8);
    if n == 0 {
        assert!(std::fs::read(at(0)).unwrap() == data);
        return;
    }
    if n.is_multiple_of(2) {
        // The command does not change what an image says of itself.
        run(&["rebase", "-u", "-b", text(&at(n - 1)), "-F", "qcow2", text(&at(n))]);
    }
    let out = at(IMAGES + 1);
    run(&["check", "-f", "qcow2", text(&at(n))]);
    run(&["convert", "-f", "qcow2", "-O", "raw", text(&at(n)), text(&out)]);
    assert!(std::fs::read(&out).unwrap() == data, "image {n}");
}

/// A raw image and a filter are below the device; after each write an overlay takes the place of the
/// image, and each image keeps what it had then.
#[test]
fn each_image_keeps_what_was_written_before() {
    on_core(|graph, reactors| async move {
        let directory = tempfile::tempdir().unwrap();
        let at = |n: usize| directory.path().join(format!("{n}"));
        std::fs::write(at(0), vec![0; SIZE as usize]).unwrap();
        let (shared, first) = (Arc::clone(&graph), at(0));
        let backend: Arc<Backend> = in_main(&reactors, async move {
            add(
                &shared,
                json!({"driver": "raw", "node-name": "disk",
                "file": {"driver": "file", "filename": text(&first)}}),
            )
            .await
            .unwrap();
            // What is above a node goes on with its overlay, whatever it is.
            add(&shared, json!({"driver": "blkdebug", "node-name": "filter", "image": "disk"}))
                .await
                .unwrap();
            shared.claim("filter", &device("d0")).unwrap().unwrap()
        })
        .await;
        let ram = ram();
        let mut queue = backend.queue(&ram, 1, 1).unwrap();
        let mut below = "disk".to_owned();
        for n in 0..IMAGES {
            for sector in 0..=n as u64 {
                write(&mut *queue, &ram, sector, n as u8 + 1).await;
            }
            let (shared, path) = (Arc::clone(&graph), at(n + 1));
            let (node, name) = (below.clone(), format!("overlay{n}"));
            below.clone_from(&name);
            let command = in_main(&reactors, async move {
                if n % 2 == 0 {
                    let made = shared.snapshot_to(None, Some(&node), named(&path, &name)).await;
                    made.unwrap();
                } else {
                    make(&shared, &path).await;
                    add(&shared, qcow2(&name, &path)).await.unwrap();
                    shared.snapshot(&node, &name).await.unwrap();
                }
            });
            meanwhile(&mut *queue, command).await;
            assert_eq!(read(&mut *queue, &ram, 0).await, n as u8 + 1);
        }
        let contents = graph.contents();
        let top = contents.node(&below).unwrap();
        let expected: Vec<_> =
            (0..=IMAGES).rev().map(|n| (text(&at(n)).to_owned(), n < IMAGES)).collect();
        assert_eq!(chain(top), expected);
        let filter = contents.node("filter").unwrap();
        assert!(Arc::ptr_eq(&filter.uses_of_others()[0].1, top));
        for n in 0..IMAGES {
            // Anybody may read what is behind now, and nobody may write to it.
            assert!(!is_free(&at(n)));
        }
        drop(contents);
        drop(queue);
        let (shared, ended) = (Arc::clone(&graph), Arc::clone(&backend));
        in_main(&reactors, async move {
            shared.release(&ended).await;
            shared.close_all().await.unwrap();
        })
        .await;
        (0..=IMAGES).for_each(|n| check(at, n));
    });
}

/// The users, locks and options are those of before, and the guest goes on.
#[test]
fn what_fails_changes_nothing() {
    on_core(|graph, reactors| async move {
        let directory = tempfile::tempdir().unwrap();
        let paths: [PathBuf; 2] = ["base", "over"].map(|name| directory.path().join(name));
        let (shared, [base, over]) = (Arc::clone(&graph), paths.clone());
        let backend = in_main(&reactors, async move {
            for path in [&base, &over] {
                make(&shared, path).await;
            }
            add(&shared, qcow2("base", &base)).await.unwrap();
            let mut options = qcow2("over", &over);
            options["read-only"] = true.into();
            add(&shared, options).await.unwrap();
            shared.claim("base", &device("d0")).unwrap().unwrap()
        })
        .await;
        let ram = ram();
        let mut queue = backend.queue(&ram, 1, 1).unwrap();
        write(&mut *queue, &ram, 0, 7).await;
        let shared = Arc::clone(&graph);
        let refused =
            in_main(&reactors, async move { shared.snapshot("base", "over").await }).await;
        assert_eq!(reason(refused), "Block node is read-only");
        let contents = graph.contents();
        assert_eq!(chain(contents.node("base").unwrap()).len(), 1);
        assert_eq!(chain(contents.node("over").unwrap()).len(), 1);
        assert!(Arc::ptr_eq(&backend.root().unwrap(), contents.node("base").unwrap()));
        assert!(!is_free(&paths[0]));
        write(&mut *queue, &ram, 1, 8).await;
        assert_eq!((read(&mut *queue, &ram, 0).await, read(&mut *queue, &ram, 1).await), (7, 8));
    });
}

/// A node whose file is opened anew goes on with the new one.
#[test]
fn an_image_goes_on_when_its_file_is_reopened() {
    on_reactors(1, |reactors| async move {
        let graph = BlockGraph::new(&reactors);
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("image");
        make(&graph, &path).await;
        add(&graph, file("f", &path)).await.unwrap();
        let over = json!({"driver": "qcow2", "node-name": "q", "file": "f"});
        add(&graph, over).await.unwrap();
        let backend = graph.claim("q", &device("d0")).unwrap().unwrap();
        let node = Arc::clone(graph.contents().node("q").unwrap());
        for round in 0..4u8 {
            let mut wanted = file("f", &path);
            wanted["discard"] = if round % 2 == 0 { "unmap".into() } else { "ignore".into() };
            wanted["cache"] = json!({"no-flush": round == 2});
            graph.reopen(vec![super::options(wanted)]).await.unwrap();
            let content = Content::of(&node).unwrap();
            let written = reactors.main().spawn_local_with("write", move || async move {
                let at = u64::from(round) << 16;
                content.write(at, vec![round + 1; 512]).await?;
                content.flush().await?;
                content.read(at, 512).await
            });
            assert_eq!(written.await.unwrap().unwrap(), [round + 1; 512]);
        }
        graph.release(&backend).await;
        drop(node);
        graph.close_all().await.unwrap();
        run(&["check", "-f", "qcow2", text(&path)]);
    });
}

//! Nodes come and go: names, uses, permissions, locks.

use super::super::{BlockGraph, Contents};
use super::{add, device, file, image, is_free, raw, text};
use crate::virtio::testing::on_reactors;
use reactor::{hop, yield_now};
use serde_json::json;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether this process has `path` open.
fn is_open(path: &Path) -> bool {
    std::fs::read_dir("/proc/self/fd")
        .unwrap()
        .any(|entry| std::fs::read_link(entry.unwrap().path()).is_ok_and(|target| target == path))
}

fn names(contents: &Contents) -> Vec<&str> {
    contents.nodes.iter().map(|node| node.name()).collect()
}

#[test]
fn refusals_are_those_of_qemu() {
    on_reactors(1, |reactors| async move {
        let graph = BlockGraph::new(&reactors);
        let image = image(1 << 20);
        add(&graph, file("f", &image)).await.unwrap();
        add(&graph, json!({"driver": "raw", "node-name": "r", "file": "f"})).await.unwrap();
        for (options, expected) in [
            (
                json!({"driver": "raw", "node-name": "r", "file": "f"}),
                "Duplicate nodes with node-name='r'",
            ),
            (
                json!({"driver": "raw", "node-name": "r2", "file": "nope"}),
                "Cannot find device='nope' nor node-name='nope'",
            ),
            (json!({"driver": "raw", "node-name": "1x", "file": "f"}), "Invalid node-name: '1x'"),
            (
                json!({"driver": "raw", "file": "f"}),
                "'node-name' must be specified for the root node",
            ),
            (
                json!({"driver": "file", "node-name": "x", "filename": "/nope"}),
                "Could not open '/nope': No such file or directory",
            ),
            (
                json!({"driver": "file", "node-name": "x", "filename": "/tmp"}),
                "Could not open '/tmp': Is a directory",
            ),
            (
                json!({"driver": "raw", "node-name": "x", "size": 1000,
                       "file": {"driver": "null-co", "size": 1000}}),
                "Specified size is not multiple of 512",
            ),
            (
                json!({"driver": "raw", "node-name": "x", "size": 1024, "offset": 512,
                       "file": {"driver": "null-co", "size": 1024}}),
                "The sum of offset (512) and size (1024) has to be smaller or equal to the  actual \
                 size of the containing file (1024)",
            ),
        ] {
            assert_eq!(add(&graph, options).await, Err(expected.to_owned()));
        }
        assert_eq!(names(&graph.contents()), ["f", "r"]);
        assert_eq!(text(graph.delete("f").await), "Block device f is in use");
        assert_eq!(text(graph.delete("z").await), "Failed to find node with node-name='z'");
        let claimed = graph.claim("r", &device("d0")).unwrap().unwrap();
        assert_eq!(text(graph.delete("r").await), "Node r is in use");
        assert!(graph.claim("nobody", &device("d1")).is_none());
        graph.release(&claimed).await;
        graph.delete("r").await.unwrap();
        graph.delete("f").await.unwrap();
        assert!(graph.contents().nodes.iter().next().is_none());
    });
}

#[test]
fn conflicts_name_both_sides() {
    on_reactors(1, |reactors| async move {
        let graph = BlockGraph::new(&reactors);
        let image = image(1 << 20);
        add(&graph, file("f", &image)).await.unwrap();
        add(&graph, json!({"driver": "raw", "node-name": "r", "file": "f"})).await.unwrap();
        add(&graph, json!({"driver": "raw", "node-name": "ro", "read-only": true, "file": "f"}))
            .await
            .unwrap();
        let first = graph.claim("r", &device("d0")).unwrap().unwrap();
        assert_eq!(
            text(graph.claim("r", &device("d1")).unwrap()),
            "Permission conflict on node 'r': permissions 'write' are both required by block device \
             '/machine/peripheral/d0/virtio-backend' (uses node 'r' as 'root' child) and unshared by \
             block device '/machine/peripheral/d1/virtio-backend' (uses node 'r' as 'root' child)."
        );
        assert_eq!(
            text(graph.claim("f", &device("d1")).unwrap()),
            "Permission conflict on node 'f': permissions 'write' are both required by node 'r' \
             (uses node 'f' as 'file' child) and unshared by block device \
             '/machine/peripheral/d1/virtio-backend' (uses node 'f' as 'root' child)."
        );
        assert_eq!(
            text(graph.claim("ro", &device("d1")).unwrap()),
            "Permission conflict on node 'f': permissions 'write' are both required by node 'r' \
             (uses node 'f' as 'file' child) and unshared by node 'ro' (uses node 'f' as 'file' \
             child)."
        );
        // What was refused has left nothing behind.
        graph.release(&first).await;
        let reader = graph.claim("ro", &device("d1")).unwrap().unwrap();
        graph.release(&reader).await;
        let second = graph.claim("r", &device("d2")).unwrap().unwrap();
        // Another node on the same image is another user of it.
        add(&graph, file("again", &image)).await.unwrap();
        let again = graph.claim("again", &device("d3")).unwrap();
        assert_eq!(text(again), "Failed to get \"write\" lock");
        graph.release(&second).await;
        let third = graph.claim("again", &device("d3")).unwrap().unwrap();
        graph.release(&third).await;
        graph.close_all().await.unwrap();
        assert!(!is_open(&image));
    });
}

/// What management tools do in a loop elsewhere, until it succeeds.
#[test]
fn a_deleted_image_is_closed_and_unlocked_at_once() {
    on_reactors(2, |reactors| async move {
        let graph = BlockGraph::new(&reactors);
        let image = image(1 << 20);
        let path: &Path = &image;
        for _ in 0..50 {
            add(&graph, raw("disk", path)).await.unwrap();
            assert!(graph.contents().nodes.iter().any(|node| node.name().starts_with("#block")));
            let claimed = graph.claim("disk", &device("d0")).unwrap().unwrap();
            assert!(!is_free(path));
            graph.release(&claimed).await;
            graph.delete("disk").await.unwrap();
            assert!(is_free(path) && !is_open(path));
        }
        assert!(graph.contents().nodes.iter().next().is_none());
    });
}

#[test]
fn a_drive_goes_with_its_device_and_a_node_stays() {
    on_reactors(1, |reactors| async move {
        let graph = BlockGraph::new(&reactors);
        let (first, second) = (image(1 << 20), image(1 << 20));
        let drive = super::options(raw("unused", &first));
        let drive = super::Options { node_name: None, ..drive };
        graph.add_drive("drive0", Some(drive), true).await.unwrap();
        add(&graph, raw("node0", &second)).await.unwrap();
        let mut claimed = Vec::new();
        for name in ["drive0", "node0"] {
            claimed.push(graph.claim(name, &device(name)).unwrap().unwrap());
        }
        let again = graph.claim("drive0", &device("d9")).unwrap();
        assert_eq!(text(again), "Drive 'drive0' is already in use by another device");
        assert_eq!(
            text(graph.delete("drive0").await),
            "Failed to find node with node-name='drive0'"
        );
        for backend in &claimed {
            graph.release(backend).await;
            graph.release(backend).await;
        }
        assert!(!is_open(&first) && is_open(&second));
        let contents = graph.contents();
        assert_eq!(names(&contents).last(), Some(&"node0"));
        assert!(contents.backends.is_empty());
        drop(contents);
        graph.close_all().await.unwrap();
        assert!(!is_open(&second));
    });
}

/// Readers in every context, while main adds, resizes and deletes.
#[test]
fn readers_see_whole_graphs_while_main_changes_them() {
    on_reactors(3, |reactors| async move {
        let graph = BlockGraph::new(&reactors);
        let stop = Arc::new(AtomicBool::new(false));
        let mut readers = Vec::new();
        for core in reactors.cores() {
            let (graph, stop) = (Arc::clone(&graph), Arc::clone(&stop));
            let home = core.clone();
            readers.push(core.spawn("reader", async move {
                let mut seen = 0u64;
                while !stop.load(Ordering::Relaxed) {
                    let contents = graph.lock().read().await;
                    // A node is never there without what it uses.
                    for node in contents.iter() {
                        for child in node.children() {
                            assert!(contents.node(child.node.name()).is_some());
                        }
                    }
                    seen += 1;
                    yield_now().await;
                    drop(contents);
                    hop(&home).await;
                }
                seen
            }));
        }
        let image = image(1 << 20);
        for round in 0..100i64 {
            add(&graph, raw("disk", &image)).await.unwrap();
            let size = 1 << 20 | (round & 1) << 12;
            graph.resize(None, Some("disk"), size).await.unwrap();
            assert_eq!(graph.contents().node("disk").unwrap().size(), size as u64);
            graph.delete("disk").await.unwrap();
        }
        stop.store(true, Ordering::Relaxed);
        for reader in readers {
            assert!(reader.await.unwrap() > 0);
        }
    });
}

#[test]
fn a_writer_that_is_cancelled_still_closes_what_it_dropped() {
    on_reactors(1, |reactors| async move {
        let graph = BlockGraph::new(&reactors);
        let image = image(1 << 20);
        add(&graph, raw("disk", &image)).await.unwrap();
        let node = Arc::clone(graph.contents().node("disk").unwrap());
        let file = Arc::clone(&node.children()[0].node);
        let mut writer = graph.lock().write().await;
        writer.0.clear();
        node.set_monitor_owned(false);
        writer.schedule_unref(node);
        writer.schedule_unref(file);
        // Readers are in before anything is closed.
        let reading = Arc::clone(&graph);
        let reader = reactors.core(0).spawn("reader", async move {
            let contents = reading.lock().read().await;
            assert!(contents.iter().next().is_none());
        });
        drop(writer);
        reader.await.unwrap();
        while is_open(&image) {
            yield_now().await;
        }
    });
}

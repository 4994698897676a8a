//! Other options for nodes in use.

use super::super::backend::Backend;
use super::super::drivers::Driver;
use super::super::node::Node;
use super::super::{BlockGraph, Options};
use super::requests::{done, in_main, on_core, ram, submit};
use super::{add, device, file, image, is_free, options, raw, text};
use crate::block::{Disk, DiskError, DiskInfo, DiskQueue, Request};
use crate::error::CommandError;
use crate::virtio::testing::on_reactors;
use futures_util::future::BoxFuture;
use serde_json::{Value, json};
use std::fs::File;
use std::future::ready;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Waker};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

async fn reopen(graph: &BlockGraph, list: Value) -> String {
    let Value::Array(list) = list else { panic!("an array") };
    let parse = |(n, value)| {
        let Value::Object(map) = value else { panic!("an object") };
        Options::parse_at(map, &format!("options[{n}]"))
    };
    let list: Result<Vec<_>, _> = list.into_iter().enumerate().map(parse).collect();
    match list {
        Ok(list) => text(graph.reopen(list).await),
        Err(error) => error.text,
    }
}

fn ro(graph: &BlockGraph, name: &str) -> bool {
    graph.contents().node(name).unwrap().info().read_only
}

/// What QEMU 10.0 says.
#[test]
fn refusals_are_those_of_qemu() {
    on_reactors(1, |reactors| async move {
        let graph = BlockGraph::new(&reactors);
        let (a, b) = (image(1 << 20), image(1 << 20));
        add(&graph, file("f", &a)).await.unwrap();
        add(&graph, file("g", &b)).await.unwrap();
        let null = json!({"driver": "null-co", "node-name": "n", "size": 1 << 20});
        add(&graph, null).await.unwrap();
        add(&graph, json!({"driver": "raw", "node-name": "r", "file": "f"})).await.unwrap();
        let debug = json!({"driver": "blkdebug", "node-name": "b", "image": "n"});
        add(&graph, debug).await.unwrap();
        let name = a.to_str().unwrap();
        for (list, expected) in [
            (json!([]), ""),
            (json!([{"driver": "raw", "file": "f"}]), "node-name not specified"),
            (
                json!([{"driver": "raw", "node-name": "zz", "file": "f"}]),
                "Failed to find node with node-name='zz'",
            ),
            (
                json!([{"driver": "file", "node-name": "r", "filename": "x"}]),
                "Cannot change the option 'driver'",
            ),
            (
                json!([{"driver": "raw", "node-name": "r"}]),
                "Parameter 'options[0].file' is missing",
            ),
            (
                json!([{"driver": "raw", "node-name": "r", "file": "nope"}]),
                "Cannot find device='' nor node-name='nope'",
            ),
            (
                json!([{"driver": "raw", "node-name": "r", "file": "r"}]),
                "Making 'r' a file child of 'r' would create a cycle",
            ),
            (
                json!([{"driver": "raw", "node-name": "r", "file": {"driver": "null-co"}}]),
                "Cannot change the option 'file.driver'",
            ),
            (
                json!([{"driver": "raw", "node-name": "r", "file": "f", "size": 1000}]),
                "Specified size is not multiple of 512",
            ),
            (
                json!([{"driver": "file", "node-name": "f", "filename": "/x"}]),
                "Cannot change the option 'filename'",
            ),
            (
                json!([{"driver": "file", "node-name": "f", "filename": name, "locking": "off"}]),
                "Cannot change the option 'locking'",
            ),
            (
                json!([{"driver": "null-co", "node-name": "n"}]),
                "Option 'size' cannot be reset to its default value",
            ),
            (
                json!([{"driver": "null-co", "node-name": "n", "size": 512}]),
                "Cannot change the option 'size'",
            ),
            (
                json!([{"driver": "blkdebug", "node-name": "b", "image": "f"}]),
                "Cannot change the option 'image'",
            ),
        ] {
            assert_eq!(reopen(&graph, list.clone()).await, expected, "{list}");
        }
    });
}

/// Likewise, though one engine serves all kinds.
#[test]
fn the_kind_of_asynchronous_io_cannot_change() {
    on_reactors(1, |reactors| async move {
        let graph = BlockGraph::new(&reactors);
        let image = image(1 << 20);
        let of_kind = |name: &str, kind: &str| {
            let mut options = file(name, &image);
            options["aio"] = kind.into();
            options
        };
        add(&graph, file("f", &image)).await.unwrap();
        add(&graph, of_kind("g", "io_uring")).await.unwrap();
        for (options, expected) in [
            (of_kind("f", "threads"), "Cannot change the option 'aio'"),
            (of_kind("g", "threads"), "Cannot change the option 'aio'"),
            (file("g", &image), "Option 'aio' cannot be reset to its default value"),
            (of_kind("g", "io_uring"), ""),
        ] {
            assert_eq!(reopen(&graph, json!([options])).await, expected, "{options}");
        }
    });
}

/// A format, which writes to its file as long as it may write at all.
#[test]
fn an_image_becomes_read_only_with_its_file() {
    on_reactors(1, |reactors| async move {
        let graph = BlockGraph::new(&reactors);
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("image");
        super::snapshot::make(&graph, &path).await;
        let want = |read_only: bool| {
            json!({"driver": "qcow2", "node-name": "q", "read-only": read_only,
                "file": {"driver": "file", "filename": path.to_str().unwrap()}})
        };
        add(&graph, want(false)).await.unwrap();
        for read_only in [true, false, true] {
            assert_eq!(reopen(&graph, json!([want(read_only)])).await, "");
            assert!(graph.contents().nodes.iter().all(|node| node.info().read_only == read_only));
        }
        assert_eq!(reopen(&graph, json!([want(false)])).await, "");
        // What is refused leaves it as it was.
        let writer = graph.claim("q", &device("d0")).unwrap().unwrap();
        assert!(reopen(&graph, json!([want(true)])).await.contains("Read-only block node"));
        assert!(graph.contents().nodes.iter().all(|node| !node.info().read_only));
        assert!(!is_free(&path));
        graph.release(&writer).await;
        graph.close_all().await.unwrap();
        assert!(is_free(&path));
    });
}

#[test]
fn a_node_becomes_read_only_and_writable_again() {
    on_reactors(1, |reactors| async move {
        let graph = BlockGraph::new(&reactors);
        let image = image(1 << 20);
        add(&graph, raw("r", &image)).await.unwrap();
        let file = json!({"driver": "file", "filename": image.to_str().unwrap()});
        let want = |read_only: bool| {
            json!([{"driver": "raw", "node-name": "r", "file": file,
            "read-only": read_only, "discard": "unmap"}])
        };
        assert_eq!(reopen(&graph, want(true)).await, "");
        assert!(
            ro(&graph, "r") && ro(&graph, graph.contents().nodes.iter().next().unwrap().name())
        );
        let reader = graph.claim("r", &device("d0")).unwrap().unwrap();
        assert!(reader.info().read_only);
        graph.release(&reader).await;
        assert_eq!(reopen(&graph, want(false)).await, "");
        let writer = graph.claim("r", &device("d0")).unwrap().unwrap();
        assert!(!writer.info().read_only && writer.info().discard_granularity.is_some());
        let refused = "Read-only block node 'r' cannot support read-write users";
        let above = json!([{"driver": "raw", "node-name": "r", "read-only": true,
            "file": graph.contents().nodes.iter().next().unwrap().name()}]);
        // The image below becomes read-only with it, and comes first.
        let text = reopen(&graph, above).await;
        let below = graph.contents().nodes.iter().next().unwrap().name().to_owned();
        assert_eq!(text, refused.replace("'r'", &format!("'{below}'")));
        assert!(!writer.info().read_only);
        // It is locked as before.
        assert!(!is_free(&image));
        graph.release(&writer).await;
        assert!(is_free(&image));
    });
}

/// The second of two fails, so that the first stays as it was: options, children, locks and size.
#[test]
fn all_or_nothing() {
    on_reactors(1, |reactors| async move {
        let graph = BlockGraph::new(&reactors);
        let (a, b) = (image(1 << 20), image(1 << 21));
        add(&graph, file("f", &a)).await.unwrap();
        add(&graph, file("g", &b)).await.unwrap();
        add(&graph, json!({"driver": "raw", "node-name": "r", "file": "f"})).await.unwrap();
        add(&graph, json!({"driver": "raw", "node-name": "s", "file": "g"})).await.unwrap();
        let first = graph.claim("r", &device("d0")).unwrap().unwrap();
        let second = graph.claim("s", &device("d1")).unwrap().unwrap();
        let name = a.to_str().unwrap();
        for (list, expected) in [
            (
                json!([{"driver": "raw", "node-name": "r", "file": "f", "offset": 512},
                       {"driver": "raw", "node-name": "s", "file": "g", "offset": 4 << 20}]),
                "Offset (4194304) cannot be greater than size of the containing file (2097152)",
            ),
            (
                json!([{"driver": "file", "node-name": "f", "filename": name, "discard": "unmap"},
                       {"driver": "raw", "node-name": "s", "file": "f"}]),
                "Permission conflict on node 'f': permissions 'write' are both required by node 'r' \
                 (uses node 'f' as 'file' child) and unshared by node 's' (uses node 'f' as 'file' \
                 child).",
            ),
        ] {
            assert_eq!(reopen(&graph, list).await, expected);
            let r = Arc::clone(graph.contents().node("r").unwrap());
            assert_eq!((r.size(), first.size(), second.size()), (1 << 20, 1 << 20, 2 << 20));
            assert_eq!(graph.contents().node("f").unwrap().info().discard_granularity, None);
            for path in [&a, &b] {
                assert!(!is_free(path));
            }
        }
        graph.release(&first).await;
        graph.release(&second).await;
        for path in [&a, &b] {
            assert!(is_free(path));
        }
        graph.close_all().await.unwrap();
    });
}

/// A device's data goes elsewhere from one request to the next, and none is lost.
#[test]
fn a_child_is_changed_under_requests() {
    on_core(|graph, reactors| async move {
        let (a, b) = (image(1 << 20), image(1 << 20));
        let (shared, first, second) = (Arc::clone(&graph), file("f", &a), file("g", &b));
        let backend = in_main(&reactors, async move {
            add(&shared, json!({"driver": "raw", "node-name": "r", "file": first})).await.unwrap();
            add(&shared, second).await.unwrap();
            shared.claim("r", &device("d0")).unwrap().unwrap()
        })
        .await;
        let mut queue = backend.queue(&ram(), 4, 4).unwrap();
        let (shared, path) = (Arc::clone(&graph), a.to_str().unwrap().to_owned());
        let reopening = reactors.main().spawn("reopen", async move {
            for round in 0..40 {
                let below = json!({"driver": "file", "filename": path, "node-name": "f",
                    "cache": {"no-flush": round % 2 == 0}, "discard": "unmap"});
                let same = json!([{"driver": "raw", "node-name": "r", "file": below}]);
                assert_eq!(reopen(&shared, same).await, "");
            }
            // The image that was made with it goes with its last use.
            let other = json!([{"driver": "raw", "node-name": "r", "file": "g", "offset": 4096}]);
            assert_eq!(reopen(&shared, other).await, "");
            let contents = shared.contents();
            let names: Vec<_> = contents.nodes.iter().map(|node| node.name().to_owned()).collect();
            assert_eq!(names, ["g", "r"]);
        });
        for slot in 0..4 {
            submit(&mut *queue, slot, Request::Write { offset: 0, stable: false }, 0, 512);
        }
        let mut number = 0u64;
        while !reopening.is_finished() {
            let ended = done(&mut *queue).await;
            assert_eq!(ended.result, Ok(()));
            number += 1;
            submit(&mut *queue, ended.slot, Request::Write { offset: 0, stable: false }, 0, 512);
        }
        reopening.await.unwrap();
        assert!(number > 40);
        for _ in 0..4 {
            assert_eq!(done(&mut *queue).await.result, Ok(()));
        }
        assert!(is_free(&a) && !is_free(&b));
        assert_eq!(backend.size(), (1 << 20) - 4096);
        let ram = ram();
        ram.write_slice(&[9; 512], GuestAddress(0)).unwrap();
        let mut queue = backend.queue(&ram, 1, 1).unwrap();
        submit(&mut *queue, 0, Request::Write { offset: 512, stable: true }, 0, 512);
        assert_eq!(done(&mut *queue).await.result, Ok(()));
        let mut found = [0; 1];
        File::open(&b).unwrap().read_exact_at(&mut found, 4096 + 512).unwrap();
        assert_eq!(found, [9]);
    });
}

/// What is below `backend` changes once more while a queue goes over to this.
struct Changing {
    below: Arc<Node>,
    backend: Weak<Backend>,
    changed: AtomicBool,
}

impl Disk for Changing {
    fn name(&self) -> &str {
        self.below.name()
    }

    fn size(&self) -> u64 {
        self.below.size()
    }

    fn info(&self) -> DiskInfo {
        self.below.info()
    }

    fn queue(
        &self,
        ram: &Arc<GuestMemoryMmap<()>>,
        slots: usize,
        segments: usize,
    ) -> std::io::Result<Box<dyn DiskQueue>> {
        if !self.changed.swap(true, Ordering::Relaxed) {
            self.backend.upgrade().unwrap().renew();
        }
        self.below.queue(ram, slots, segments)
    }

    fn flush(&self) -> BoxFuture<'_, Result<(), DiskError>> {
        self.below.flush()
    }

    fn close(&self) -> BoxFuture<'_, Result<(), DiskError>> {
        Box::pin(ready(Ok(())))
    }
}

impl Driver for Changing {
    fn filename(&self) -> String {
        "changing".to_owned()
    }

    fn allocated(&self) -> Option<u64> {
        None
    }

    fn resize(&self, size: u64) -> BoxFuture<'_, Result<(), CommandError>> {
        self.below.resize(size)
    }
}

fn changes_twice(backend: &Arc<Backend>, below: &Arc<Node>) {
    let mut queue = backend.queue(&ram(), 1, 1).unwrap();
    let mut cx = Context::from_waker(Waker::noop());
    assert!(queue.poll_done(&mut cx).is_pending());
    let changing = Changing {
        below: Arc::clone(below),
        backend: Arc::downgrade(backend),
        changed: AtomicBool::new(false),
    };
    let options = options(json!({"driver": "null-co", "node-name": "changing"}));
    let node = Node::new("changing".to_owned(), Arc::new(changing), options, Vec::new());
    backend.set_root(Some(node));
    assert!(queue.needs_poll());
    assert!(queue.poll_done(&mut cx).is_pending());
    assert!(!queue.needs_poll(), "nobody wakes it for what came meanwhile");
}

/// A change that came while a queue went over to the one before was not noticed, and what the queue had
/// then was never closed: the command that had changed it waited for ever.
#[test]
fn an_idle_queue_notices_changes_that_come_close_together() {
    on_reactors(1, |reactors| async move {
        let graph = BlockGraph::new(&reactors);
        let image = image(1 << 20);
        add(&graph, file("f", &image)).await.unwrap();
        let backend = graph.claim("f", &device("d0")).unwrap().unwrap();
        let below = backend.root().unwrap();
        changes_twice(&backend, &below);
        backend.set_root(Some(below));
        graph.release(&backend).await;
        graph.delete("f").await.unwrap();
    });
}

/// A read-only switch opens the image anew: the old descriptor is closed when the command is over.
#[test]
fn descriptors_do_not_pile_up() {
    on_reactors(1, |reactors| async move {
        let graph = BlockGraph::new(&reactors);
        let image = image(1 << 20);
        add(&graph, file("f", &image)).await.unwrap();
        let count = || {
            let open = std::fs::read_dir("/proc/self/fd").unwrap();
            let link = |entry: std::io::Result<std::fs::DirEntry>| {
                std::fs::read_link(entry.unwrap().path()).is_ok_and(|target| target == *image)
            };
            open.filter_map(|entry| link(entry).then_some(())).count()
        };
        for round in 0..10 {
            let mut wanted = file("f", &image);
            wanted["read-only"] = (round % 2 == 0).into();
            assert_eq!(reopen(&graph, json!([wanted])).await, "");
            assert_eq!(ro(&graph, "f"), round % 2 == 0);
            assert_eq!(count(), 1);
        }
        graph.reopen(vec![options(file("f", &image))]).await.unwrap();
        graph.delete("f").await.unwrap();
        assert_eq!(count(), 0);
    });
}

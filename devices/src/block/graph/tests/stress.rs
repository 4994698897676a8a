//! Requests and readers on every core while main changes the graph below them.

use super::super::{Backend, BlockGraph, Options};
use super::requests::{done, ram, submit};
use super::snapshot::{make, named};
use super::{add, device, image, options, raw};
use crate::block::{Disk, DiskQueue, Request};
use crate::virtio::testing::on_reactors;
use reactor::{JoinHandle, Reactors, hop, yield_now};
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

const CORES: usize = 3;
const ROUNDS: i64 = 60;
const SIZE: i64 = 1 << 20;

/// Writes what the round says into a sector of its own, and reads it back, until it is stopped.
/// Returns how often.
async fn work(backend: Arc<Backend>, core: usize, stop: Arc<AtomicBool>) -> u64 {
    let ram: Arc<GuestMemoryMmap<()>> = ram();
    let mut queue = backend.queue(&ram, 2, 2).unwrap();
    let mut round = 0u64;
    while !stop.load(Ordering::Relaxed) {
        round += 1;
        let offset = core as u64 * 4096 + round % 8 * 512;
        let written = [round.to_le_bytes(), (core as u64).to_le_bytes()].concat();
        ram.write_slice(&written.repeat(32), GuestAddress(0)).unwrap();
        request(&mut *queue, Request::Write { offset, stable: round.is_multiple_of(16) }, 0).await;
        request(&mut *queue, Request::Read { offset }, 4096).await;
        let mut found = vec![0; 512];
        ram.read_slice(&mut found, GuestAddress(4096)).unwrap();
        assert_eq!(found, written.repeat(32), "core {core}, round {round}");
    }
    round
}

async fn request(queue: &mut dyn DiskQueue, request: Request, at: u64) {
    submit(queue, 0, request, at, 512);
    assert_eq!(done(queue).await.result, Ok(()));
}

/// Holds the graph for reading over waits and hops, until it is stopped.
async fn read(graph: Arc<BlockGraph>, home: reactor::Context, stop: Arc<AtomicBool>) -> u64 {
    let mut seen = 0;
    while !stop.load(Ordering::Relaxed) {
        let contents = graph.lock().read().await;
        for node in contents.iter() {
            for child in node.children() {
                assert!(contents.node(child.node.name()).is_some(), "a node without its child");
            }
        }
        yield_now().await;
        drop(contents);
        hop(&home).await;
        seen += 1;
    }
    seen
}

/// On each core data goes to a disk and back, and somebody reads the graph.
struct Load {
    stop: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<u64>>,
}

impl Load {
    fn start(reactors: &Reactors, graph: &Arc<BlockGraph>, backend: &Arc<Backend>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut tasks = Vec::new();
        for (n, core) in reactors.cores().iter().enumerate() {
            let (storage, end) = (Arc::clone(backend), Arc::clone(&stop));
            tasks.push(core.spawn_local_with("work", move || work(storage, n, end)));
            let reading = read(Arc::clone(graph), core.clone(), Arc::clone(&stop));
            tasks.push(core.spawn("reader", reading));
        }
        Self { stop, tasks }
    }

    /// All of them have come round.
    async fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            assert!(task.await.unwrap() > 0);
        }
    }
}

#[test]
fn data_and_readers_go_on_while_main_reopens_resizes_and_deletes() {
    on_reactors(CORES, |reactors| async move {
        let graph = BlockGraph::new(&reactors);
        let (image, other) = (image(SIZE as u64), image(SIZE as u64));
        add(&graph, raw("disk", &image)).await.unwrap();
        let backend = graph.claim("disk", &device("d0")).unwrap().unwrap();
        let load = Load::start(&reactors, &graph, &backend);
        for round in 0..ROUNDS {
            let discard = if round & 1 == 0 { "ignore" } else { "unmap" };
            let below = json!({"driver": "file", "filename": image.to_str().unwrap(),
                "discard": discard, "cache": {"no-flush": round % 3 == 0}});
            let wanted: Options =
                options(json!({"driver": "raw", "node-name": "disk", "file": below}));
            graph.reopen(vec![wanted]).await.unwrap();
            let size = SIZE + (round & 3) * 4096;
            graph.resize(None, Some("disk"), size).await.unwrap();
            assert_eq!(backend.size(), size as u64);
            add(&graph, raw("other", &other)).await.unwrap();
            graph.delete("other").await.unwrap();
            drop(graph.drain_all().await);
        }
        load.stop().await;
        graph.release(&backend).await;
        graph.delete("disk").await.unwrap();
        assert_eq!(graph.contents().nodes.iter().count(), 0);
    });
}

/// An image gets an overlay again and again, and each of its files is reopened, resized and given up
/// under the same load.
#[test]
fn data_and_readers_go_on_while_main_takes_snapshots() {
    const OVERLAYS: usize = 12;
    on_reactors(CORES, |reactors| async move {
        let graph = BlockGraph::new(&reactors);
        let directory = tempfile::tempdir().unwrap();
        let at = |n: usize| directory.path().join(n.to_string());
        let file = |n: usize, no_flush: bool| {
            json!({"driver": "file", "node-name": format!("file{n}"),
                "filename": at(n).to_str().unwrap(), "cache": {"no-flush": no_flush}})
        };
        make(&graph, &at(0)).await;
        add(&graph, file(0, false)).await.unwrap();
        let first = json!({"driver": "qcow2", "node-name": "disk0", "file": "file0"});
        add(&graph, first).await.unwrap();
        let backend = graph.claim("disk0", &device("d0")).unwrap().unwrap();
        let load = Load::start(&reactors, &graph, &backend);
        for n in 0..OVERLAYS {
            graph.reopen(vec![options(file(0, n % 2 == 0))]).await.unwrap();
            let (below, name) = (format!("disk{n}"), format!("disk{}", n + 1));
            if n % 2 == 0 {
                let made = graph.snapshot_to(None, Some(&below), named(&at(n + 1), &name)).await;
                made.unwrap();
            } else {
                make(&graph, &at(n + 1)).await;
                let file = json!({"driver": "file", "filename": at(n + 1).to_str().unwrap()});
                let over = json!({"driver": "qcow2", "node-name": name, "file": file,
                    "backing": null});
                add(&graph, over).await.unwrap();
                graph.snapshot(&below, &name).await.unwrap();
            }
            assert_eq!(backend.root().unwrap().name(), name);
            let size = SIZE + (n as i64 & 3) * 65536;
            graph.resize(None, Some(&name), size).await.unwrap();
            assert_eq!(backend.size(), size as u64);
            drop(graph.drain_all().await);
        }
        load.stop().await;
        graph.release(&backend).await;
        graph.close_all().await.unwrap();
        for n in 0..=OVERLAYS {
            super::qcow2::run(&["check", "-f", "qcow2", at(n).to_str().unwrap()]);
        }
    });
}

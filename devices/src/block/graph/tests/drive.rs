//! Drives: empty ones, and what becomes of devices whose drive is deleted.

use super::super::{BlockGraph, ClaimOptions, DriveOptions};
use super::requests::{done, in_main, on_core, ram, submit};
use super::{device, image, text};
use crate::block::{Disk, Request};
use crate::virtio::testing::on_reactors;
use std::future::{Future, poll_fn};
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;

async fn add(graph: &BlockGraph, id: &str, options: &str) -> Result<(), String> {
    let drive = DriveOptions::parse(options).map_err(|error| error.text)?;
    let added = graph.add_drive(id, drive.image, drive.writeback).await;
    added.map(drop).map_err(|error| error.text)
}

fn on(path: &Path) -> String {
    format!("file={},format=raw,if=none", path.display())
}

#[test]
fn only_devices_with_removable_media_take_an_empty_drive() {
    on_reactors(1, |reactors| async move {
        let graph = BlockGraph::new(&reactors);
        add(&graph, "e", "if=none").await.unwrap();
        let refused = graph.claim("e", &device("d0")).unwrap();
        assert_eq!(text(refused), "Device needs media, but drive is empty");
        let cd = ClaimOptions { may_be_empty: true, ..device("cd") };
        let backend = graph.claim("e", &cd).unwrap().unwrap();
        assert!(backend.root().is_none() && backend.is_removable());
        graph.give_back(&backend);
        let backend = graph.claim("e", &cd).unwrap().unwrap();
        graph.release(&backend).await;
        assert!(graph.claim("e", &cd).is_none());
    });
}

#[test]
fn a_device_whose_drive_is_deleted_gets_errors() {
    on_core(|graph, reactors| async move {
        let image = image(1 << 20);
        let (shared, options) = (Arc::clone(&graph), on(&image));
        let backend = in_main(&reactors, async move {
            add(&shared, "d", &options).await.unwrap();
            shared.claim("d", &device("d0")).unwrap().unwrap()
        })
        .await;
        let mut queue = backend.queue(&ram(), 1, 1).unwrap();
        submit(&mut *queue, 0, Request::Read { offset: 0 }, 0, 512);
        assert_eq!(done(&mut *queue).await.result, Ok(()));
        let (shared, options) = (Arc::clone(&graph), on(&image));
        let mut deleting = reactors.main().spawn("delete", async move {
            shared.delete_drive("d").await.unwrap();
            assert_eq!(text(shared.delete_drive("d").await), "Device 'd' not found");
            // It is the device's still.
            assert_eq!(shared.contents().backends.len(), 1);
            // The id is free, and so is the image with its locks.
            add(&shared, "d", &options).await.unwrap();
            shared.claim("d", &device("d1")).unwrap().unwrap();
        });
        // An idle queue lets go of the image.
        poll_fn(|cx| {
            assert!(queue.poll_done(cx).is_pending());
            Pin::new(&mut deleting).poll(cx)
        })
        .await
        .unwrap();
        submit(&mut *queue, 0, Request::Read { offset: 0 }, 0, 512);
        assert_eq!(done(&mut *queue).await.result, Err(libc::ENOMEDIUM));
        drop(queue);
        let shared = Arc::clone(&graph);
        in_main(&reactors, async move { shared.release(&backend).await }).await;
        let left = graph.contents().backends;
        assert_eq!(left.iter().map(|one| one.owner().drive).collect::<Vec<_>>(), ["d"]);
    });
}

#[test]
fn an_image_that_is_locked_makes_no_drive() {
    on_reactors(1, |reactors| async move {
        let (graph, other) = (BlockGraph::new(&reactors), BlockGraph::new(&reactors));
        let image = image(1 << 20);
        add(&graph, "d", &on(&image)).await.unwrap();
        // Idle drives do not mind each other; a device wants to be alone.
        add(&other, "d", &on(&image)).await.unwrap();
        other.delete_drive("d").await.unwrap();
        graph.claim("d", &device("d0")).unwrap().unwrap();
        assert_eq!(
            add(&other, "d", &on(&image)).await.unwrap_err(),
            "Failed to get \"write\" lock"
        );
        assert!(other.contents().backends.is_empty());
        assert_eq!(other.contents().nodes.iter().count(), 0);
    });
}

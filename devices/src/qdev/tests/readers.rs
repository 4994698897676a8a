//! Readers of the tree on other threads.

use super::*;
use crate::virtio::testing::on_reactors;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

#[test]
fn a_walk_calls_before_and_after_and_ends_early() {
    on_reactors(1, |reactors| async move {
        let rig = Rig::new(&reactors).await;
        for id in ["a", "b"] {
            rig.add(json!({"driver": "test-controller", "id": id})).await.unwrap();
        }
        for (id, bus) in [("a1", "a.0"), ("a2", "a.0"), ("b1", "b.0")] {
            rig.add(json!({"driver": "test-leaf", "id": id, "bus": bus})).await.unwrap();
        }
        let seen = Mutex::new(Vec::new());
        let visit = |prefix: &str, device: &Arc<Device>, last: &str| {
            let word = format!("{prefix}{}", device.id().unwrap());
            let end = word == last;
            seen.lock().unwrap().push(word);
            if end { Visit::Break(()) } else { Visit::Continue(()) }
        };
        let walk = |last: &str| {
            let guard = rcu::read();
            let ended = rig.tree.root().walk(
                &guard,
                &mut |device| visit("<", device, last),
                &mut |device| visit(">", device, last),
            );
            (ended.is_break(), std::mem::take(&mut *seen.lock().unwrap()).join(""))
        };
        assert_eq!(walk(""), (false, "<a<a1>a1<a2>a2>a<b<b1>b1>b".to_owned()));
        assert_eq!(walk("<a2"), (true, "<a<a1>a1<a2".to_owned()));
        assert_eq!(walk(">a1"), (true, "<a<a1>a1".to_owned()));
        assert_eq!(rig.tree.find("b1").unwrap().path(), "/machine/peripheral/b1");
        rig.tree.request_unplug("b1").unwrap();
        assert!(rig.tree.find("b1").is_none(), "at once: nobody is asked on this bus");
        assert_eq!(rig.log.next().await, ["deleted b1 /machine/peripheral/b1"]);
        let order: Vec<_> =
            rig.tree.devices().iter().map(|device| device.id().unwrap().to_owned()).collect();
        assert_eq!(order, ["a1", "a2", "a", "b"], "children first, for reset");
    });
}

/// Readers walk and look up while main adds and removes.
#[test]
fn readers_race_with_additions_and_removals() {
    on_reactors(1, |reactors| async move {
        let rig = Rig::new(&reactors).await;
        rig.add(json!({"driver": "test-controller", "id": "c"})).await.unwrap();
        rig.add(json!({"driver": "test-leaf", "id": "stays", "bus": "c.0"})).await.unwrap();
        let (end, walks) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let readers: Vec<_> = (0..3)
            .map(|_| {
                let (tree, end, walks) = (rig.tree.clone(), Arc::clone(&end), Arc::clone(&walks));
                std::thread::spawn(move || {
                    while !end.load(Ordering::Relaxed) {
                        assert!(tree.find("stays").is_some());
                        let devices = tree.devices();
                        assert!(devices.iter().all(|device| !device.path().is_empty()));
                        walks.fetch_add(1, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        for n in 0..200 {
            let id = format!("leaf{n}");
            rig.add(json!({"driver": "test-leaf", "id": id, "bus": "c.0"})).await.unwrap();
            rig.tree.request_unplug(&id).unwrap();
        }
        while walks.load(Ordering::Relaxed) < 10 {
            reactor::yield_now().await;
        }
        rig.tree.settled().await;
        end.store(true, Ordering::Relaxed);
        for reader in readers {
            reader.join().unwrap();
        }
        assert_eq!(rig.log.take().len(), 200);
        assert_eq!(rig.tree.devices().len(), 2);
    });
}

//! Removals: who is asked, what may be repeated, when a device is gone.

use super::*;
use crate::ErrorClass;
use crate::virtio::testing::{Driver, on_reactors};
use std::sync::mpsc;

fn down(rig: &Rig) -> u32 {
    let mut down = [0; 4];
    rig.hotplug.read(4, &mut down);
    u32::from_le_bytes(down)
}

#[test]
fn a_pci_device_goes_when_its_guest_ejects_it() {
    on_reactors(1, |reactors| async move {
        let rig = Rig::new(&reactors).await;
        let error = rig.tree.request_unplug("x").unwrap_err();
        assert_eq!(error, CommandError::device_not_found("x"));
        assert_eq!(error.class, ErrorClass::DeviceNotFound);
        let error = rig.tree.request_unplug("/machine").unwrap_err();
        assert_eq!(error.text, "/machine is not a device");

        rig.add(json!({"driver": "virtio-blk", "drive": "d0", "id": "x", "addr": "6"}))
            .await
            .unwrap();
        rig.tree.request_unplug("x").unwrap();
        assert_eq!(down(&rig), 1 << 6);
        for name in ["x", "/machine/peripheral/x"] {
            let error = rig.tree.request_unplug(name).unwrap_err();
            assert_eq!(error.text, format!("Device {name} is already in the process of unplug"));
        }
        assert_eq!(rig.refusal(blk("d1", "x")).await, "Duplicate device ID 'x'");
        assert_eq!(rig.log.take(), Vec::<String>::new());
        rig.eject(6);
        assert_eq!(rig.log.next().await, ["deleted x /machine/peripheral/x"]);
        assert_eq!(down(&rig), 0);
        rig.assert_empty("ejected");
        assert_eq!(
            rig.refusal(blk("d0", "x")).await,
            "Property 'virtio-blk-device.drive' can't find value 'd0'",
            "a drive of its own goes with the device"
        );
    });
}

#[test]
fn a_guest_that_never_answers_can_be_asked_again() {
    on_reactors(1, |reactors| async move {
        let rig = Rig::new(&reactors).await;
        let device = rig.add(blk("d0", "x")).await.unwrap();
        rig.tree.request_unplug("x").unwrap();
        rig.tree.request_unplug("x").unwrap_err();
        device.age_unplug_request();
        rig.tree.request_unplug("x").unwrap();
        assert_eq!(rig.tree.root().len(), 1, "it stays");
        rig.tree.complete_unplugs();
        assert_eq!(rig.log.next().await, ["deleted x /machine/peripheral/x"]);
        drop(device);
        rig.assert_empty("reset");
    });
}

#[test]
fn a_guest_may_refuse_and_may_eject_unasked() {
    on_reactors(1, |reactors| async move {
        let rig = Rig::new(&reactors).await;
        let device =
            rig.add(json!({"driver": "virtio-blk", "drive": "d0", "addr": "3"})).await.unwrap();
        rig.tree.unplug_refused(&device);
        assert!(rig.log.take().is_empty(), "nothing was asked");
        rig.tree.request_unplug(device.path()).unwrap();
        rig.tree.unplug_refused(&device);
        assert_eq!(rig.log.take(), ["refused - /machine/peripheral-anon/device[0]"]);
        rig.tree.request_unplug(device.path()).expect("the request is over");
        rig.tree.unplug_refused(&device);
        rig.log.take();
        rig.eject(3);
        assert_eq!(rig.log.next().await, ["deleted - /machine/peripheral-anon/device[0]"]);
    });
}

#[test]
fn a_live_device_ends_its_requests_before_it_is_gone() {
    on_reactors(2, |reactors| async move {
        let rig = Rig::new(&reactors).await;
        let device = rig
            .add(json!({"driver": "virtio-blk", "drive": "d0", "id": "x", "addr": "3"}))
            .await
            .unwrap();
        let driver = Driver::new(&rig.machine, 3, 0);
        assert!(driver.negotiate(driver.offered()));
        driver.use_vectors(2);
        let queues = [driver.set_up_queue(0, 16, true), driver.set_up_queue(1, 16, true)];
        driver.driver_ok();
        assert_eq!(rig.machine.platform.doorbells().len(), 2);
        rig.eject(3);
        assert_eq!(rig.log.next().await, ["deleted x /machine/peripheral/x"]);
        drop((device, queues, driver));
        rig.assert_empty("ejected while live");
    });
}

/// The regression: `device_add` waited below a read-side section, which could then never end.
#[test]
fn device_add_while_a_thread_sits_in_a_read_side_section() {
    on_reactors(1, |reactors| async move {
        let rig = Rig::new(&reactors).await;
        rig.add(json!({"driver": "virtio-blk", "drive": "d0", "id": "x", "addr": "3"}))
            .await
            .unwrap();
        let (release, released) = mpsc::channel::<()>();
        let (entered, entering) = mpsc::channel();
        let tree = rig.tree.clone();
        let reader = std::thread::spawn(move || {
            let guard = rcu::read();
            let device = tree.root().children(&guard).next().unwrap();
            entered.send(()).unwrap();
            let _ = released.recv();
            assert_eq!(device.id(), Some("x"), "readable to the end of the section");
        });
        entering.recv().unwrap();
        rig.eject(3);
        reactor::yield_now().await;
        // Its removal is pending: the new device waits for the id and the slot, and main goes on.
        let tree = rig.tree.clone();
        let request = json!({"driver": "virtio-blk", "drive": "d1", "id": "x", "addr": "3"});
        let adding = reactors.main().spawn("device_add", async move {
            tree.add(&DeviceRequest::json(object(request)), true)
                .await
                .map(|device| device.address())
        });
        for _ in 0..100 {
            reactor::yield_now().await;
        }
        assert!(rig.tree.find("x").is_none(), "unlinked at once");
        assert!(rig.log.take().is_empty(), "and not gone yet");
        drop(release);
        assert_eq!(adding.await.unwrap().unwrap(), Some(0x18));
        assert_eq!(rig.log.take(), ["deleted x /machine/peripheral/x"]);
        reader.join().unwrap();
    });
}

/// The regression: device emulation that led to `device_add` ran it below itself.
#[test]
fn device_emulation_that_triggers_device_add_from_its_own_path() {
    on_reactors(1, |reactors| async move {
        let rig = Rig::new(&reactors).await;
        rig.add(json!({"driver": "virtio-blk", "drive": "d0", "id": "x", "addr": "3"}))
            .await
            .unwrap();
        // An access of the guest's, on a thread that is inside of a section for its length, as a
        // vCPU's is; what it leads to is a task of main.
        let (main, tree) = (reactors.main().clone(), rig.tree.clone());
        let (added, adding) = reactor::sync::oneshot::channel();
        let hotplug = Arc::clone(&rig.hotplug);
        let access = std::thread::spawn(move || {
            let _section = rcu::read();
            hotplug.write(8, &(1u32 << 3).to_le_bytes());
            let task = main.spawn("device_add", async move {
                let again = json!({"driver": "virtio-blk", "drive": "d1", "id": "x", "addr": "3"});
                let result = tree.add(&DeviceRequest::json(object(again)), true).await;
                let _ = added.send(result.map(|device| device.path().to_owned()));
            });
            task.detach();
        });
        assert_eq!(adding.await.unwrap().unwrap(), "/machine/peripheral/x");
        assert_eq!(rig.log.take(), ["deleted x /machine/peripheral/x"]);
        access.join().unwrap();
    });
}

#[test]
fn a_reset_answers_for_the_guest_and_for_those_asked_only() {
    on_reactors(1, |reactors| async move {
        let rig = Rig::new(&reactors).await;
        rig.add(blk("d0", "x")).await.unwrap();
        rig.add(blk("d1", "y")).await.unwrap();
        rig.tree.request_unplug("x").unwrap();
        rig.tree.reset();
        rig.tree.quiesced().await;
        rig.tree.complete_unplugs();
        assert_eq!(rig.log.next().await, ["deleted x /machine/peripheral/x"]);
        assert!(rig.tree.find("y").is_some());
    });
}

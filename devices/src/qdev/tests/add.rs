//! Additions, and their complete roll-back.

use super::*;
use crate::virtio::testing::on_reactors;

#[test]
fn devices_have_paths_and_are_found_by_id_and_path() {
    on_reactors(1, |reactors| async move {
        let rig = Rig::new(&reactors).await;
        let named = rig.add(blk("d0", "x")).await.unwrap();
        assert_eq!(named.path(), "/machine/peripheral/x");
        let first = rig.add(json!({"driver": "virtio-blk", "drive": "d1"})).await.unwrap();
        let second = rig.add(json!({"driver": "virtio-blk", "drive": "d2"})).await.unwrap();
        assert_eq!(first.path(), "/machine/peripheral-anon/device[0]");
        assert_eq!(second.path(), "/machine/peripheral-anon/device[1]");
        for (name, expected) in [("x", &named), (first.path(), &first), (named.path(), &named)] {
            assert!(Arc::ptr_eq(&rig.tree.find(name).unwrap(), expected), "{name}");
        }
        assert!(rig.tree.find("y").is_none());
        assert_eq!(rig.refusal(blk("d3", "x")).await, "Duplicate device ID 'x'");
        assert_eq!(
            rig.refusal(blk("d1", "y")).await,
            "Drive 'd1' is already in use by another device"
        );
    });
}

#[test]
fn slots_that_are_taken_say_by_whom() {
    on_reactors(1, |reactors| async move {
        let rig = Rig::new(&reactors).await;
        let at = |drive: &str, addr: &str| json!({"driver": "virtio-blk-pci", "drive": drive, "addr": addr});
        rig.add(at("d0", "4")).await.unwrap();
        assert_eq!(
            rig.refusal(at("d1", "4")).await,
            "PCI: slot 4 function 0 not available for virtio-blk-pci, in use by virtio-blk-pci,id=(null)"
        );
        assert_eq!(
            rig.refusal(at("d1", "4.1")).await,
            "PCI: slot 4 function 0 already occupied by virtio-blk-pci, \
             new func virtio-blk-pci cannot be exposed to guest."
        );
        let mut first = at("d1", "5");
        first["multifunction"] = json!(true);
        let cold = async |arguments: &Value| {
            let request = DeviceRequest::json(object(arguments.clone()));
            rig.tree.add(&request, false).await.map_err(|error| error.text)
        };
        assert_eq!(
            cold(&at("d1", "4.1")).await.err().unwrap(),
            "PCI: single function device can't be populated in function 4.1"
        );
        // Before the machine starts they come in any order; after, function 0 comes last.
        cold(&first).await.unwrap();
        cold(&at("d2", "5.1")).await.unwrap();
        assert_eq!(
            rig.refusal(at("d3", "5.2")).await,
            "PCI: slot 5 function 0 already occupied by virtio-blk-pci, \
             new func virtio-blk-pci cannot be exposed to guest."
        );
        let rng = |addr: &str| json!({"driver": "virtio-rng-pci", "addr": addr});
        rig.add(rng("6.1")).await.unwrap();
        assert_eq!(
            rig.refusal(rng("6")).await,
            "PCI: 6.0 indicates single function, but 6.1 is already populated."
        );
        let mut zero = rng("6");
        zero["multifunction"] = json!(true);
        rig.add(zero).await.unwrap();
    });
}

/// Every step that an addition takes is made to fail in turn.
#[test]
fn an_addition_that_fails_at_any_step_leaves_nothing() {
    on_reactors(2, |reactors| async move {
        let rig = Rig::new(&reactors).await;
        let device = rig.add(blk("d0", "x")).await.unwrap();
        let steps = std::mem::take(&mut *rig.tree.steps().passed.lock().unwrap());
        for step in ["id", "realize", "drive", "device", "transport", "plug", "link", "announce"] {
            assert!(steps.iter().any(|passed| passed == step), "{step} among {steps:?}");
        }
        rig.tree.remove(&device).await.unwrap();
        drop(device);
        rig.assert_empty("removed");
        for step in &steps {
            *rig.tree.steps().fails.lock().unwrap() = Some(step.clone());
            let error = rig.refusal(blk("d1", "x")).await;
            assert_eq!(error, format!("the test lets '{step}' fail"));
            rig.assert_empty(step);
            assert!(rig.is_free("d1"), "{step}: the drive");
            assert_eq!(rig.log.take().len(), usize::from(step == &steps[0]), "{step}: no events");
            let up = {
                let mut up = [0; 4];
                rig.hotplug.read(0, &mut up);
                u32::from_le_bytes(up)
            };
            assert!(step == &steps[0] || up == 0, "{step}: the guest is told nothing");
        }
        *rig.tree.steps().fails.lock().unwrap() = None;
        rig.add(blk("d1", "x")).await.expect("the id, the drive and the slot are free");
    });
}

#[test]
fn a_device_of_a_controller_that_goes_meanwhile_is_refused() {
    on_reactors(1, |reactors| async move {
        let rig = Rig::new(&reactors).await;
        let controller = rig.add(json!({"driver": "test-controller", "id": "c"})).await.unwrap();
        let leaf = json!({"driver": "test-leaf", "id": "l", "bus": "c.0"});
        rig.add(leaf.clone()).await.unwrap();
        let gone = rig.tree.remove(&controller);
        assert_eq!(rig.refusal(leaf).await, "Bus 'c.0' not found");
        gone.await.unwrap();
        assert_eq!(
            rig.log.take(),
            ["deleted l /machine/peripheral/l", "deleted c /machine/peripheral/c"],
            "children first"
        );
        assert_eq!(
            rig.refusal(json!({"driver": "test-leaf"})).await,
            "No 'TEST' bus found for device 'test-leaf'"
        );
        assert_eq!(
            rig.refusal(json!({"driver": "test-leaf", "bus": "pci.0"})).await,
            "Device 'test-leaf' can't go on PCI bus"
        );
    });
}

//! Root ports in the tree: what goes below them, and how it leaves.

use super::*;
use crate::virtio::testing::on_reactors;

/// Adds a device before the machine starts.
async fn cold(rig: &Rig, arguments: Value) -> Result<Arc<Device>, String> {
    let request = DeviceRequest::json(object(arguments));
    rig.tree.add(&request, false).await.map_err(|error| error.text)
}

fn port(id: &str, chassis: u8) -> Value {
    json!({"driver": "pcie-root-port", "id": id, "chassis": chassis})
}

fn below(drive: &str, id: &str, bus: &str) -> Value {
    json!({"driver": "virtio-blk-pci", "drive": drive, "id": id, "bus": bus})
}

#[test]
fn a_port_has_a_bus_for_one_device() {
    on_reactors(1, |reactors| async move {
        let rig = Rig::new(&reactors).await;
        let r1 = cold(&rig, port("r1", 1)).await.unwrap();
        assert_eq!((r1.buses()[0].name(), r1.buses()[0].type_name()), ("r1", "PCIE"));
        assert_eq!(
            cold(&rig, port("r2", 1)).await.err().unwrap(),
            "Can't add chassis slot, error -16"
        );
        let mut inner = port("r2", 2);
        inner["bus"] = "r1".into();
        assert_eq!(
            cold(&rig, inner).await.err().unwrap(),
            "Device 'pcie-root-port' can't go on PCIE bus"
        );
        let mut far = below("d0", "x", "r1");
        far["addr"] = "2".into();
        assert_eq!(
            cold(&rig, far).await.err().unwrap(),
            "PCI: slot 2 is not valid for virtio-blk-pci, parent device only allows plugging into slot 0."
        );
        let device = rig.add(below("d0", "x", "r1")).await.unwrap();
        assert_eq!(device.address(), Some(0));
        assert_eq!(
            rig.refusal(below("d1", "y", "r1")).await,
            "PCI: slot 0 function 0 already occupied by virtio-blk-pci, \
             new func virtio-blk-pci cannot be exposed to guest."
        );
        // One that names no bus goes on the root bus.
        let other = rig.add(blk("d1", "y")).await.unwrap();
        assert_eq!(other.bus().unwrap().name(), "pci.0");
    });
}

#[test]
fn ports_neither_come_nor_go_while_the_machine_runs() {
    on_reactors(1, |reactors| async move {
        let rig = Rig::new(&reactors).await;
        let refused = "Device 'pcie-root-port' does not support hotplugging";
        assert_eq!(rig.refusal(port("r1", 1)).await, refused);
        let mut fixed = port("r1", 1);
        fixed["hotplug"] = false.into();
        let r1 = cold(&rig, fixed).await.unwrap();
        assert_eq!(rig.tree.request_unplug("r1").unwrap_err().text, refused);
        rig.tree.ejected(u32::MAX);
        assert_eq!(rig.tree.root().len(), 1, "a guest cannot eject one");
        assert_eq!(
            rig.refusal(below("d0", "x", "r1")).await,
            "Bus 'r1' does not support hotplugging"
        );
        assert_eq!(r1.property("hotplug"), Some(Value::from(false)));
    });
}

#[test]
fn a_device_in_a_slot_without_power_goes_at_once() {
    on_reactors(1, |reactors| async move {
        let rig = Rig::new(&reactors).await;
        cold(&rig, port("r1", 1)).await.unwrap();
        for drive in ["d0", "d1"] {
            rig.add(below(drive, "x", "r1")).await.unwrap();
            rig.tree.request_unplug("x").unwrap();
            assert_eq!(rig.log.next().await, ["deleted x /machine/peripheral/x"]);
        }
    });
}

#[test]
fn a_device_with_power_waits_for_the_answer_of_its_guest() {
    on_reactors(1, |reactors| async move {
        let rig = Rig::new(&reactors).await;
        let r1 = cold(&rig, port("r1", 1)).await.unwrap();
        cold(&rig, below("d0", "x", "r1")).await.unwrap();
        rig.tree.request_unplug("x").unwrap();
        assert_eq!(rig.tree.root().find_by_id("x").map(|x| x.unplug_pending()), Some(true));
        // The guest begins, and cancels.
        let control = |value: u16| {
            let function = r1.body().unwrap().function().unwrap();
            let mut at = function.config().u8(0x34);
            while function.config().u8(at.into()) != 0x10 {
                at = function.config().u8(u16::from(at) + 1);
            }
            function.config_write(u16::from(at) + 0x18, &value.to_le_bytes());
        };
        control(0x02c0);
        control(0x01c0);
        assert_eq!(rig.log.next().await, ["refused x /machine/peripheral/x"]);
        rig.tree.request_unplug("x").expect("the request is over");
        // It switches power and indicator off.
        control(0x02c0);
        control(0x07c0);
        assert_eq!(rig.log.next().await, ["deleted x /machine/peripheral/x"]);
        assert!(r1.buses()[0].is_empty());
    });
}

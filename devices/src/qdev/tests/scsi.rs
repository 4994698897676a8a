//! SCSI adapters, their bus, and the devices on it.

use super::*;
use crate::virtio::testing::on_reactors;

fn hd(drive: &str, id: &str) -> Value {
    json!({"driver": "scsi-hd", "drive": drive, "id": id, "bus": "s.0"})
}

fn with(mut device: Value, more: &[(&str, Value)]) -> Value {
    for (key, value) in more {
        device[*key] = value.clone();
    }
    device
}

impl Rig {
    async fn with_adapter(reactors: &Reactors) -> Self {
        let rig = Self::new(reactors).await;
        rig.add(json!({"driver": "virtio-scsi-pci", "id": "s"})).await.unwrap();
        rig
    }
}

#[test]
fn scsi_ids_are_given_from_0_upward() {
    on_reactors(1, |reactors| async move {
        let rig = Rig::with_adapter(&reactors).await;
        let place = |device: &Device| {
            (device.property("scsi-id").unwrap(), device.property("lun").unwrap())
        };
        for (n, drive) in ["d0", "d1"].into_iter().enumerate() {
            let device = rig.add(hd(drive, drive)).await.unwrap();
            assert_eq!(place(&device), (json!(n), json!(0)));
        }
        let cd = json!({"driver": "scsi-cd", "id": "cd", "scsi-id": 0});
        let device = rig.add(cd.clone()).await.unwrap();
        assert_eq!(place(&device), (json!(0), json!(1)), "the next free unit");
        let device = rig.add(with(hd("d2", "d2"), &[("lun", json!(5))])).await.unwrap();
        assert_eq!(place(&device), (json!(0), json!(5)));
        let at = |id: i64, lun: i64| [("scsi-id", json!(id)), ("lun", json!(lun))];
        for (place, text) in [
            (at(0, 5), "lun already used by 'd2'"),
            (at(256, 0), "bad scsi device id: 256"),
            (at(1, 16384), "bad scsi device lun: 16384"),
        ] {
            assert_eq!(rig.refusal(with(hd("d3", "x"), &place)).await, text);
        }
        let channel = with(hd("d3", "x"), &[("channel", json!(1))]);
        assert_eq!(rig.refusal(channel).await, "bad scsi channel id: 1");
        assert!(rig.is_free("d3"));
        rig.add(with(hd("d3", "x"), &at(255, 16383))).await.unwrap();
    });
}

#[test]
fn properties_that_cannot_be_are_refused() {
    on_reactors(1, |reactors| async move {
        let rig = Rig::new(&reactors).await;
        assert_eq!(
            rig.refusal(json!({"driver": "scsi-hd", "drive": "d0"})).await,
            "No 'SCSI' bus found for device 'scsi-hd'"
        );
        for (property, value, text) in [
            ("virtqueue_size", 2, "invalid virtqueue_size property (= 2), must be > 2"),
            (
                "virtqueue_size",
                100,
                "invalid virtqueue_size property (= 100), must be a power of 2 (max 1024)",
            ),
            (
                "num_queues",
                0,
                "Invalid number of queues (= 0), must be a positive integer less than 1023.",
            ),
        ] {
            let adapter = json!({"driver": "virtio-scsi-pci", property: value});
            assert_eq!(rig.refusal(adapter).await, text);
        }
        rig.add(json!({"driver": "virtio-scsi-pci", "id": "s"})).await.unwrap();
        let device = |property: &str, value: Value| with(hd("d0", "x"), &[(property, value)]);
        for (device, text) in [
            (hd("none", "x"), "Property 'scsi-hd.drive' can't find value 'none'"),
            (json!({"driver": "scsi-hd", "bus": "s.0"}), "drive property not set"),
            (
                device("logical_block_size", json!(100)),
                "parameter logical_block_size must be a power of 2 between 512 and 2097152",
            ),
            (
                device("vendor", json!("much too long")),
                "vendor='much too long' is not up to 8 printable ASCII characters; shorten it",
            ),
            (
                with(hd("d0", "x"), &[("bus", json!("pci.0"))]),
                "Device 'scsi-hd' can't go on PCI bus",
            ),
        ] {
            assert_eq!(rig.refusal(device).await, text);
            assert!(rig.is_free("d0"));
        }
    });
}

#[test]
fn a_disk_goes_at_once_and_its_drive_with_it() {
    on_reactors(2, |reactors| async move {
        let rig = Rig::with_adapter(&reactors).await;
        rig.add(hd("d0", "h")).await.unwrap();
        rig.tree.request_unplug("h").unwrap();
        assert_eq!(rig.log.next().await, ["deleted h /machine/peripheral/h"]);
        assert_eq!(
            rig.refusal(hd("d0", "h")).await,
            "Property 'scsi-hd.drive' can't find value 'd0'",
            "a drive goes with its device"
        );
        // An id and a place that are about to be free are free when they are asked for again.
        let at = [("scsi-id", json!(7))];
        for _ in 0..20 {
            let cd = with(json!({"driver": "scsi-cd", "id": "cd"}), &at);
            rig.add(cd).await.unwrap();
            rig.tree.request_unplug("cd").unwrap();
        }
        rig.tree.settled().await;
        assert_eq!(rig.log.take().len(), 20);
    });
}

#[test]
fn an_adapter_takes_its_disks_with_it() {
    on_reactors(2, |reactors| async move {
        let rig = Rig::with_adapter(&reactors).await;
        rig.add(hd("d0", "h")).await.unwrap();
        rig.add(json!({"driver": "scsi-cd", "id": "c"})).await.unwrap();
        let adapter = rig.tree.find("s").unwrap();
        rig.tree.remove(&adapter).await.unwrap();
        drop(adapter);
        let log = rig.log.take();
        assert_eq!(log.len(), 3);
        assert_eq!(log[2], "deleted s /machine/peripheral/s", "children first");
        rig.assert_empty("removed");
    });
}

/// Every step that an addition takes is made to fail in turn.
#[test]
fn a_disk_whose_addition_fails_leaves_nothing() {
    on_reactors(1, |reactors| async move {
        let rig = Rig::with_adapter(&reactors).await;
        rig.tree.steps().passed.lock().unwrap().clear();
        let device = rig.add(hd("d0", "h")).await.unwrap();
        let steps = std::mem::take(&mut *rig.tree.steps().passed.lock().unwrap());
        assert!(steps.iter().any(|step| step == "unit"), "{steps:?}");
        rig.tree.remove(&device).await.unwrap();
        drop(device);
        for step in &steps {
            *rig.tree.steps().fails.lock().unwrap() = Some(step.clone());
            let error = rig.refusal(hd("d1", "h")).await;
            assert_eq!(error, format!("the test lets '{step}' fail"));
            assert!(rig.is_free("d1"), "{step}: the drive");
            assert!(rig.tree.find("h").is_none(), "{step}");
        }
        *rig.tree.steps().fails.lock().unwrap() = None;
        let device = rig.add(hd("d1", "h")).await.expect("all of it is free");
        assert_eq!(device.property("scsi-id"), Some(json!(0)), "the place is free");
    });
}

#[test]
fn a_unit_tells_of_its_new_size() {
    use crate::qdev::types::scsi_disk::ScsiDisk;
    use crate::scsi::{Command, Kind};
    on_reactors(1, |reactors| async move {
        let rig = Rig::with_adapter(&reactors).await;
        let device = rig.add(hd("d0", "h")).await.unwrap();
        let disk = device.body().unwrap().as_any().downcast_ref::<ScsiDisk>().unwrap();
        let test_unit_ready = || {
            let cdb = Default::default();
            let command = Command::parse(&cdb, Kind::Disk);
            disk.unit().plan(&cdb, command, &|_| 0).err().map(|sense| (sense.asc, sense.ascq))
        };
        assert_eq!(test_unit_ready(), Some((0x29, 0)), "power on");
        assert_eq!(test_unit_ready(), None);
        rig.block.resize(Some("d0"), None, 2 << 20).await.unwrap();
        assert_eq!(test_unit_ready(), Some((0x2a, 9)));
        assert_eq!(test_unit_ready(), None);
    });
}

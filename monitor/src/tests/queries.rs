//! What queries return.

use super::stage::stage;
use crate::RunState;
use serde_json::json;

#[test]
fn the_hardware_is_described_as_qemu_does() {
    stage(|stage| {
        let mut client = stage.client();
        let uuid = json!({"UUID": "00000000-0000-0000-0000-000000000000"});
        assert_eq!(client.run("query-uuid"), uuid);
        assert_eq!(client.run("query-target"), json!({"arch": "x86_64"}));
        assert_eq!(client.run("query-machines"), json!([]));
        assert_eq!(client.run("query-iothreads"), json!([]));
        let params = json!({"wakeup-suspend-support": true});
        assert_eq!(client.run("query-current-machine"), params);
        let memory = json!({"base-memory": 67_108_864, "plugged-memory": 0});
        assert_eq!(client.run("query-memory-size-summary"), memory);
        let cpus = client.run("query-cpus-fast");
        assert_eq!(cpus.as_array().unwrap().len(), 2);
        assert_eq!(
            cpus[1],
            json!({"cpu-index": 1, "qom-path": "/machine/unattached/cpu[1]", "thread-id": 102,
                   "props": {"socket-id": 0, "core-id": 1, "thread-id": 0}, "target": "x86_64"})
        );
        let pci = client.run("query-pci");
        assert_eq!(
            pci[0]["devices"][0]["class_info"],
            json!({"desc": "SCSI controller", "class": 256})
        );
        let regions = json!([
            {"bar": 0, "type": "io", "address": -1, "size": 4096},
            {"bar": 4, "type": "memory", "address": 0xfebf_0000_u32, "size": 4096,
             "prefetch": true, "mem_type_64": true}
        ]);
        assert_eq!(pci[0]["devices"][0]["regions"], regions);
    });
}

#[test]
fn a_guest_wakes_up_only_from_sleep() {
    stage(|stage| {
        let mut client = stage.client();
        let wakeup = json!({"execute": "system_wakeup"});
        let awake = "Unable to wake up: guest is not in suspended state";
        assert_eq!(client.error(&wakeup).1, awake);
        stage.machine.set(RunState::Suspended);
        assert_eq!(client.ask(&wakeup), json!({"return": {}}));
        assert_eq!(client.error(&wakeup).1, awake);
    });
}

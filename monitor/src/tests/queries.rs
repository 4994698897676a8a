//! What queries return.

use super::human::hmp;
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
        let places = client.run("query-hotpluggable-cpus");
        assert_eq!(
            places[0],
            json!({"type": "host-x86_64-cpu", "vcpus-count": 1, "props": cpus[1]["props"],
                   "qom-path": cpus[1]["qom-path"]})
        );
        assert!(hmp(&mut client, "info hotpluggable-cpus").starts_with(
            "Hotpluggable CPUs:\r\n  type: \"host-x86_64-cpu\"\r\n  vcpus_count: \"1\"\r\n  qom_path: \
             \"/machine/unattached/cpu[1]\"\r\n  CPUInstance Properties:\r\n    socket-id: \"0\"\r\n    \
             core-id: \"1\"\r\n    thread-id: \"0\"\r\n  type:"
        ));
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
fn monitors_say_how_long_commands_took() {
    stage(|stage| {
        let (mut client, mut other) = (stage.client(), stage.client());
        for _ in 0..3 {
            other.run("query-status");
        }
        assert_eq!(other.ask(&json!({"execute": "stop"}))["event"], json!("STOP"));
        assert_eq!(other.message()["return"], json!({}));
        assert_eq!(client.message()["event"], json!("STOP"));
        let monitors = client.oob("query-monitors");
        let commands = monitors[1]["commands"].as_array().unwrap();
        let counts: Vec<_> = commands
            .iter()
            .map(|command| (command["name"].as_str().unwrap(), command["latency"]["count"].clone()))
            .collect();
        let expected = [("qmp_capabilities", 1), ("query-status", 3), ("stop", 1)];
        assert_eq!(counts, expected.map(|(name, count)| (name, json!(count))));
        for command in commands {
            let times = &command["latency"];
            let [p50, max] = ["p50-ns", "max-ns"].map(|member| times[member].as_u64().unwrap());
            assert!(0 < p50 && p50 <= max && max < 20_000_000_000, "{command}");
        }
        let shown = super::human::hmp(&mut client, "info monitors");
        assert!(shown.contains("query-status                    3 times, p50 "), "{shown}");
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

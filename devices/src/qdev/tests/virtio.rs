//! The types on virtio beside disks: network, balloon, console, entropy.

use super::*;
use crate::chardev::Backend;
use crate::net::{DgramOptions, NetdevOptions, SocketAddress};
use crate::qdev::value::Syntax;
use crate::virtio::testing::on_reactors;

impl Rig {
    fn resources(&self) -> &Resources {
        self.tree.resources()
    }

    /// A back end that nobody is at the other end of.
    fn netdev(&self, dir: &std::path::Path, id: &str) {
        let at = |name: String| Some(SocketAddress::Unix(dir.join(name)));
        let options = DgramOptions { local: at(id.to_owned()), remote: at(format!("{id}-far")) };
        let options = NetdevOptions::Dgram { kind: "dgram", options };
        let none = |_: &str| Err("none".to_owned());
        self.resources().network.add(id, options, &none).unwrap();
    }

    /// Lets each step of the addition of `device` fail in turn.
    async fn fail_each_step(&self, device: Value) {
        self.tree.steps().passed.lock().unwrap().clear();
        let added = self.add(device.clone()).await.unwrap();
        let steps = std::mem::take(&mut *self.tree.steps().passed.lock().unwrap());
        self.tree.remove(&added).await.unwrap();
        drop(added);
        for step in &steps {
            *self.tree.steps().fails.lock().unwrap() = Some(step.clone());
            let error = self.refusal(device.clone()).await;
            assert_eq!(error, format!("the test lets '{step}' fail"), "{device}");
            *self.tree.steps().fails.lock().unwrap() = None;
            let again = self.add(device.clone()).await.expect("everything is free again");
            self.tree.remove(&again).await.unwrap();
        }
        self.log.take();
    }
}

fn net(id: &str, netdev: &str) -> Value {
    json!({"driver": "virtio-net-pci", "id": id, "netdev": netdev})
}

#[test]
fn an_adapter_takes_a_back_end_and_gives_it_back() {
    on_reactors(1, |reactors| async move {
        let rig = Rig::new(&reactors).await;
        let dir = tempfile::tempdir().unwrap();
        rig.netdev(dir.path(), "n0");
        rig.fail_each_step(net("net0", "n0")).await;
        rig.assert_empty("failed");
        let netdevs = rig.resources().network.netdevs();
        assert!(netdevs.nics().is_empty());
        let device = rig.add(net("net0", "n0")).await.unwrap();
        assert_eq!(device.property("mac"), Some(json!("52:54:00:12:34:56")));
        assert_eq!(device.property("vectors"), Some(json!(4)));
        let second = rig.add(json!({"driver": "virtio-net", "vectors": 0})).await.unwrap();
        assert_eq!(second.property("mac"), Some(json!("52:54:00:12:34:57")));
        let far = dir.path().join("n0");
        assert_eq!(
            netdevs.info(),
            format!(
                "net0: index=0,type=nic,model=virtio-net-pci,macaddr=52:54:00:12:34:56\n \
                 \\ n0: index=0,type=dgram,udp={0}:{0}-far\n\
                 virtio-net-pci.0: index=0,type=nic,model=virtio-net-pci,macaddr=52:54:00:12:34:57\n",
                far.display()
            )
        );
        let filters = netdevs.rx_filters(Some("net0")).unwrap();
        assert!(filters[0].promiscuous);
        // The back end goes first: the adapter stays, and the id is free.
        netdevs.remove("n0").unwrap();
        assert!(netdevs.info().contains(" \\ n0: "), "{}", netdevs.info());
        rig.netdev(dir.path(), "n0");
        rig.tree.remove(&device).await.unwrap();
        assert_eq!(rig.log.take(), ["deleted net0 /machine/peripheral/net0"]);
        assert_eq!(netdevs.nics().len(), 1);
        rig.add(net("net0", "n0")).await.unwrap();
        rig.tree.stop().await;
        netdevs.close();
    });
}

#[test]
fn adapters_are_refused_in_the_words_of_qemu() {
    on_reactors(1, |reactors| async move {
        let rig = Rig::new(&reactors).await;
        let dir = tempfile::tempdir().unwrap();
        rig.netdev(dir.path(), "n0");
        rig.add(net("net0", "n0")).await.unwrap();
        for (arguments, text) in [
            (
                net("x", "n0"),
                "Property 'virtio-net-device.netdev' can't take value 'n0', it's in use",
            ),
            (net("x", "n9"), "Property 'virtio-net-device.netdev' can't find value 'n9'"),
            (
                json!({"driver": "virtio-net-pci", "rx_queue_size": 100}),
                "Invalid rx_queue_size (= 100), must be a power of 2 between 256 and 1024.",
            ),
            (
                json!({"driver": "virtio-net-pci", "mac": "xx"}),
                "Property 'virtio-net-pci.mac' doesn't take value 'xx'",
            ),
            (json!({"driver": "virtio-net-pci", "iothread": "x"}), "Device 'x' not found"),
        ] {
            assert_eq!(rig.refusal(arguments).await, text);
        }
        rig.tree.stop().await;
    });
}

#[test]
fn there_is_one_balloon_and_it_tells_of_the_guest() {
    on_reactors(1, |reactors| async move {
        let rig = Rig::new(&reactors).await;
        let balloon = |id: &str| json!({"driver": "virtio-balloon-pci", "id": id});
        rig.fail_each_step(balloon("b")).await;
        assert!(rig.resources().balloon.get().is_none());
        let device = rig.add(balloon("b")).await.unwrap();
        assert_eq!(rig.refusal(balloon("c")).await, "Only one balloon device is supported");
        let stats = device.property("guest-stats").unwrap();
        assert_eq!(stats["last-update"], json!(0));
        assert_eq!(stats["stats"]["stat-free-memory"], json!(u64::MAX));
        assert_eq!(stats["stats"].as_object().unwrap().len(), 16);
        let name = "guest-stats-polling-interval";
        let set = |value: Value| device.set_property(name, &value, Syntax::Json);
        assert_eq!(device.property(name), Some(json!(0)));
        set(json!(5)).unwrap();
        assert_eq!(device.property(name), Some(json!(5)));
        for (value, text) in [
            (json!(-5), "timer value must be greater than zero"),
            (json!(9_999_999_999_999_i64), "timer value is too big"),
            (
                json!("x"),
                "Invalid parameter type for 'guest-stats-polling-interval', expected: integer",
            ),
        ] {
            assert_eq!(set(value).unwrap_err().text, text);
        }
        assert_eq!(device.property(name), Some(json!(5)));
        let written = device.set_property("guest-stats", &json!([]), Syntax::Json);
        let text = "Property 'virtio-balloon-pci.guest-stats' is not writable";
        assert_eq!(written.unwrap_err().text, text);
        rig.tree.remove(&device).await.unwrap();
        // Somebody still looks at the device that is gone.
        rig.add(balloon("c")).await.expect("the place is free");
        rig.tree.stop().await;
    });
}

#[test]
fn ports_have_numbers_names_and_character_devices() {
    on_reactors(1, |reactors| async move {
        let rig = Rig::new(&reactors).await;
        let chardevs = rig.resources().chardevs.clone();
        for id in ["c0", "c1"] {
            chardevs.add(id, Backend::Ringbuf { size: 4096 }).await.unwrap();
        }
        let port = |id: &str| json!({"driver": "virtserialport", "id": id});
        let text = "No 'virtio-serial-bus' bus found for device 'virtserialport'";
        assert_eq!(rig.refusal(port("p")).await, text);
        for (ports, text) in [
            (0, "Maximum number of serial ports not specified"),
            (32, "maximum ports supported: 31"),
        ] {
            let serial = json!({"driver": "virtio-serial-pci", "id": "s", "max_ports": ports});
            assert_eq!(rig.refusal(serial).await, text);
        }
        let serial = json!({"driver": "virtio-serial", "id": "s", "max_ports": 4});
        rig.fail_each_step(serial.clone()).await;
        let serial = rig.add(serial).await.unwrap();
        let on = |id: &str, chardev: &str| json!({"driver": "virtserialport", "id": id, "chardev": chardev, "name": "org.x"});
        rig.fail_each_step(on("p", "c0")).await;
        let first = rig.add(on("p1", "c0")).await.unwrap();
        assert_eq!(first.property("nr"), Some(json!(1)));
        let shown = |id: &str| {
            chardevs.list().into_iter().find(|info| info.label == id).unwrap().frontend_open
        };
        assert!(!shown("c0"), "no program of the guest has it open");
        assert_eq!(chardevs.remove("c0").unwrap_err().text, "Chardev 'c0' is busy");
        let nr = |nr: u32| json!({"driver": "virtserialport", "nr": nr});
        for (arguments, text) in [
            (on("p2", "c9"), "Property 'virtserialport.chardev' can't find value 'c9'"),
            (
                on("p2", "c0"),
                "Property 'virtserialport.chardev' can't take value 'c0': \
                 chardev 'c0' is already in use",
            ),
            (on("p2", "c1"), "virtio-serial-bus: A port already exists by name org.x"),
            (nr(1), "virtio-serial-bus: A port already exists at id 1"),
            (nr(4), "virtio-serial-bus: Out-of-range port id specified, max. allowed: 3"),
            (
                nr(0),
                "Port number 0 on virtio-serial devices reserved for virtconsole devices for \
                 backward compatibility.",
            ),
        ] {
            assert_eq!(rig.refusal(arguments).await, text);
        }
        let console = json!({"driver": "virtconsole", "id": "con", "chardev": "c1"});
        assert_eq!(rig.add(console).await.unwrap().property("nr"), Some(json!(0)));
        assert!(shown("c1"), "a console is always open");
        // One port alone, then all of them with their device.
        rig.tree.request_unplug("p1").unwrap();
        rig.tree.settled().await;
        assert_eq!(rig.log.take(), ["deleted p1 /machine/peripheral/p1"]);
        chardevs.remove("c0").unwrap();
        rig.add(nr(1)).await.unwrap();
        rig.tree.remove(&serial).await.unwrap();
        assert_eq!(rig.log.take().last().unwrap(), "deleted s /machine/peripheral/s");
        chardevs.remove("c1").unwrap();
    });
}

#[test]
fn random_bytes_come_from_the_object_that_is_named() {
    on_reactors(1, |reactors| async move {
        let rig = Rig::new(&reactors).await;
        let objects = Arc::clone(&rig.resources().objects);
        let make = |ty: &str, id: &str| object(json!({"qom-type": ty, "id": id}));
        for (ty, id) in [("rng-random", "r"), ("rng-builtin", "b"), ("iothread", "t")] {
            objects.add(&make(ty, id), Syntax::Json).await.unwrap();
        }
        let rng = |rng: &str| json!({"driver": "virtio-rng-pci", "rng": rng});
        for name in ["r", "b", "/objects/r"] {
            rig.add(rng(name)).await.unwrap();
        }
        assert_eq!(rig.refusal(rng("x")).await, "Device 'x' not found");
        let text = "Invalid parameter type for 'rng', expected: rng-backend";
        assert_eq!(rig.refusal(rng("t")).await, text);
        rig.tree.stop().await;
    });
}

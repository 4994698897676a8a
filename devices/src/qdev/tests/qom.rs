//! The object tree over devices and objects.

use super::*;
use crate::ErrorClass;
use crate::qdev::value::Syntax;
use crate::qom::{ObjectTree, Part, device_properties, list_types, remove_object, type_properties};
use crate::virtio::testing::on_reactors;

impl Rig {
    async fn object(&self, arguments: Value) {
        let objects = &self.tree.resources().objects;
        objects.add(&object(arguments), Syntax::Json).await.unwrap();
    }

    fn tree(&self) -> ObjectTree {
        let cpu = Part {
            path: "/machine/unattached/cpu[0]".to_owned(),
            type_name: "host-x86_64-cpu",
            properties: vec![("core-id", "int32", json!(7))],
        };
        ObjectTree::new(&self.tree, [cpu])
    }

    fn get(&self, path: &str, name: &str) -> Result<Value, String> {
        let tree = self.tree();
        let node = tree.resolve(path).map_err(|error| error.text)?;
        node.get(name).map_err(|error| error.text)
    }

    fn set(&self, path: &str, name: &str, value: &Value) -> Result<(), String> {
        let tree = self.tree();
        let node = tree.resolve(path).map_err(|error| error.text)?;
        node.set(name, value, Syntax::Json).map_err(|error| error.text)
    }

    async fn with_devices(reactors: &Reactors) -> Self {
        let rig = Self::new(reactors).await;
        rig.object(json!({"qom-type": "iothread", "id": "io0"})).await;
        rig.add(json!({"driver": "virtio-blk-pci", "id": "v0", "drive": "d0", "serial": "abc",
                       "iothread": "io0", "addr": "05.0"}))
            .await
            .unwrap();
        rig.add(json!({"driver": "test-controller", "id": "c0"})).await.unwrap();
        rig.add(json!({"driver": "test-leaf", "bus": "c0.0"})).await.unwrap();
        rig
    }
}

#[test]
fn everything_has_its_place_in_the_tree() {
    on_reactors(2, async |reactors| {
        let rig = Rig::with_devices(&reactors).await;
        let tree = rig.tree();
        let at = |path: &str| tree.resolve(path).map(|node| (node.path(), node.type_name()));
        for (path, found) in [
            ("/", ("/", "container")),
            ("/machine", ("/machine", "pc-machine")),
            ("//machine/", ("/machine", "pc-machine")),
            ("v0", ("/machine/peripheral/v0", "virtio-blk-pci")),
            ("peripheral/v0", ("/machine/peripheral/v0", "virtio-blk-pci")),
            ("/machine/peripheral/c0/c0.0", ("/machine/peripheral/c0/c0.0", "TEST")),
            ("device[0]", ("/machine/peripheral-anon/device[0]", "test-leaf")),
            ("/objects/io0", ("/objects/io0", "iothread")),
            ("/machine/peripheral/v0/parent_bus", ("/machine/pci.0", "PCI")),
            ("/machine/peripheral/v0/iothread", ("/objects/io0", "iothread")),
            ("cpu[0]", ("/machine/unattached/cpu[0]", "host-x86_64-cpu")),
        ] {
            assert_eq!(at(path), Ok(found), "{path}");
        }
        for path in ["/nope", "nope", "/machine/peripheral/v0/serial", "/v0", "d0"] {
            assert_eq!(at(path), Err(CommandError::device_not_found(path)));
        }
        assert_eq!(at(""), Err(CommandError::generic("Path '' is ambiguous")));
        assert_eq!(at("parent_bus").unwrap_err().text, "Path 'parent_bus' is ambiguous");

        let listed = tree.resolve("/machine/peripheral").unwrap().properties();
        let listed: Vec<_> = listed.iter().map(|own| (&*own.name, &*own.ty)).collect();
        let expected =
            [("type", "string"), ("c0", "child<test-controller>"), ("v0", "child<virtio-blk-pci>")];
        assert_eq!(listed, expected);
    });
}

/// Values and texts are those of QEMU 10.0.
#[test]
fn properties_have_their_types_and_values() {
    on_reactors(2, async |reactors| {
        let rig = Rig::with_devices(&reactors).await;
        let v0 = "/machine/peripheral/v0";
        for (path, name, value) in [
            (v0, "serial", json!("abc")),
            (v0, "addr", json!(40)),
            (v0, "type", json!("virtio-blk-pci")),
            (v0, "parent_bus", json!("/machine/pci.0")),
            (v0, "realized", json!(true)),
            (v0, "hotplugged", json!(true)),
            (v0, "hotpluggable", json!(true)),
            (v0, "iothread", json!("/objects/io0")),
            (v0, "iothread-vq-mapping", json!([])),
            (v0, "num-queues", json!(2)),
            (v0, "bootindex", json!(-1)),
            ("/machine/peripheral", "v0", json!(v0)),
            ("/", "machine", json!("/machine")),
            ("/objects/io0", "poll-max-ns", json!(32_768)),
            ("cpu[0]", "core-id", json!(7)),
        ] {
            assert_eq!(rig.get(path, name), Ok(value), "{path} {name}");
        }
        let device = "after it was realized";
        let serial = format!(
            "Attempt to set property 'serial' on device 'v0' (type 'virtio-blk-pci') {device}"
        );
        for (path, name, value, text) in [
            (v0, "serial", json!("x"), &*serial),
            (v0, "nope", json!(1), "Property 'virtio-blk-pci.nope' not found"),
            (v0, "type", json!("x"), "Property 'virtio-blk-pci.type' is not writable"),
            (v0, "hotplugged", json!(true), "Property 'virtio-blk-pci.hotplugged' is not writable"),
            ("/objects", "io0", json!(1), "Property 'container.io0' is not writable"),
            ("/objects", "x", json!(1), "Property 'container.x' not found"),
            (
                "/objects/io0",
                "poll-max-ns",
                json!("x"),
                "Invalid parameter type for 'poll-max-ns', expected: integer",
            ),
            ("/nope", "x", json!(1), "Device '/nope' not found"),
        ] {
            assert_eq!(rig.set(path, name, &value), Err(text.to_owned()), "{path} {name}");
        }
        assert_eq!(rig.get(v0, "nope").unwrap_err(), "Property 'virtio-blk-pci.nope' not found");
        rig.set(v0, "bootindex", &json!(3)).unwrap();
        assert_eq!(rig.get(v0, "bootindex"), Ok(json!(3)));
        rig.set("/objects/io0", "poll-max-ns", &json!(5)).unwrap();
        assert_eq!(rig.get("/objects/io0", "poll-max-ns"), Ok(json!(5)));
    });
}

#[test]
fn objects_in_use_stay() {
    on_reactors(2, async |reactors| {
        let rig = Rig::with_devices(&reactors).await;
        rig.object(json!({"qom-type": "iothread", "id": "io1"})).await;
        let mapping = json!([{"iothread": "io1"}]);
        rig.add(json!({"driver": "virtio-blk-pci", "drive": "d1", "id": "v1",
                       "iothread-vq-mapping": mapping}))
            .await
            .unwrap();
        for id in ["io0", "io1"] {
            let error = remove_object(&rig.tree, id).unwrap_err();
            assert_eq!(error.text, format!("object '{id}' is in use, can not be deleted"));
        }
        assert_eq!(remove_object(&rig.tree, "x").unwrap_err().text, "object 'x' not found");
        for (device, object) in [("v0", "io0"), ("v1", "io1")] {
            let device = rig.tree.find(device).unwrap();
            rig.tree.remove(&device).await.unwrap();
            remove_object(&rig.tree, object).unwrap();
            assert!(rig.get("/objects", object).is_err());
        }
    });
}

#[test]
fn types_are_listed_with_what_they_derive_from() {
    let types = Types::new();
    let names = |base, with_abstract| {
        let list = list_types(&types, Some(base), with_abstract);
        list.into_iter().map(|ty| ty.name).collect::<Vec<_>>()
    };
    assert_eq!(names("virtio-blk-pci-base", true), ["virtio-blk-pci-base", "virtio-blk-pci"]);
    assert_eq!(names("virtio-blk-pci-base", false), ["virtio-blk-pci"]);
    assert_eq!(names("rng-backend", true), ["rng-backend", "rng-builtin", "rng-random"]);
    assert!(names("user-creatable", false).contains(&"iothread"));
    assert!(names("device", false).contains(&"virtio-blk-pci"));
    assert!(names("nope", true).is_empty());
    let all = list_types(&types, None, true);
    for ty in &all {
        let parent = ty.parent.filter(|parent| !all.iter().any(|ty| ty.name == *parent));
        assert_eq!(parent, None, "the parent of {} is not in the tree of types", ty.name);
    }
}

#[test]
fn types_say_what_properties_there_will_be() {
    let types = Types::new();
    let list = type_properties(&types, "virtio-blk-pci").unwrap();
    let find = |name: &str| list.iter().find(|own| own.name == name).unwrap();
    assert_eq!(find("parent_bus").ty, "link<bus>");
    let addr = find("addr");
    assert_eq!((&*addr.ty, &addr.default), ("str", &Some(json!(-1))));
    assert_eq!(
        addr.description.as_deref(),
        Some("Slot and optional function number, example: 06.0 or 06")
    );
    let own = device_properties(&types, "virtio-blk-pci").unwrap();
    assert_eq!(own.len(), list.len() - 5);
    assert!(own.iter().all(|own| own.name != "type" && own.name != "realized"));

    let error = type_properties(&types, "nope").unwrap_err();
    assert_eq!((error.class, &*error.text), (ErrorClass::DeviceNotFound, "Class 'nope' not found"));
    let error = device_properties(&types, "nope").unwrap_err();
    assert_eq!(error, CommandError::device_not_found("nope"));
    for name in ["iothread", "pci-device", "object"] {
        let error = device_properties(&types, name).unwrap_err();
        assert_eq!(error.text, "Parameter 'typename' expects a non-abstract device type");
    }
}

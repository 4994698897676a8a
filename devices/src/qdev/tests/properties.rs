//! Declarations: what is parsed, what is refused in which words, what the help says.

use super::*;
use crate::virtio::testing::on_reactors;

/// Texts of QEMU 10.0.
const REFUSED: &[(&str, &str)] = &[
    ("{}", "Parameter 'driver' is missing"),
    (r#"{"driver": 3}"#, "Parameter 'driver' is missing"),
    (r#"{"driver": "foo"}"#, "'foo' is not a valid device model name"),
    (r#"{"driver": "pci-device"}"#, "Parameter 'driver' expects a non-abstract device type"),
    (r#"{"driver": "virtio-blk-pci"}"#, "drive property not set"),
    (
        r#"{"driver": "virtio-blk-pci", "drive": "nope"}"#,
        "Property 'virtio-blk-device.drive' can't find value 'nope'",
    ),
];

/// More members of a virtio-blk-pci, and what QEMU 10.0 says.
const REFUSED_OF_BLK: &[(&str, &str)] = &[
    (r#""foo": 1"#, "Property 'virtio-blk-pci.foo' not found"),
    (r#""drive": 3"#, "Invalid parameter type for 'drive', expected: string"),
    (r#""addr": "zz""#, "Property 'virtio-blk-pci.addr' doesn't take value 'zz'"),
    (r#""addr": "33""#, "Property 'virtio-blk-pci.addr' doesn't take value '33'"),
    (r#""addr": "4.9""#, "Property 'virtio-blk-pci.addr' doesn't take value '4.9'"),
    (r#""addr": 300"#, "Parameter 'addr' expects a value between -1 and 255"),
    (r#""addr": [1]"#, "Invalid parameter type for 'addr', expected int or str"),
    (
        r#""addr": "0""#,
        "PCI: slot 0 function 0 not available for virtio-blk-pci, in use by i440FX,id=(null)",
    ),
    (r#""bus": "nope""#, "Bus 'nope' not found"),
    (r#""num-queues": 0"#, "num-queues property must be larger than 0"),
    (r#""num-queues": 70000"#, "Parameter 'num-queues' expects uint16_t"),
    (r#""num-queues": -1"#, "Parameter 'num-queues' expects uint16_t"),
    (r#""num-queues": "x""#, "Parameter 'num-queues' expects uint64"),
    (r#""num-queues": true"#, "Parameter 'num-queues' expects uint64"),
    (r#""queue-size": 100"#, "invalid queue-size property (100), must be a power of 2 (max 1024)"),
    (r#""queue-size": 2"#, "invalid queue-size property (2), must be > 2"),
    (
        r#""queue-size": 2048"#,
        "invalid queue-size property (2048), must be a power of 2 (max 1024)",
    ),
    (r#""multifunction": 1"#, "Invalid parameter type for 'multifunction', expected: boolean"),
    (r#""write-cache": "sometimes""#, "Parameter 'write-cache' does not accept value 'sometimes'"),
    (
        r#""logical_block_size": 100"#,
        "parameter logical_block_size must be a power of 2 between 512 and 2097152",
    ),
    (
        r#""logical_block_size": 4096, "physical_block_size": 512"#,
        "logical_block_size > physical_block_size not supported",
    ),
    (r#""logical_block_size": "4096""#, "Parameter 'logical_block_size' expects uint64"),
    (r#""serial": [1]"#, "Invalid parameter type for 'serial', expected: string"),
    (r#""iothread": "nope""#, "Device 'nope' not found"),
    (r#""iothread-vq-mapping": [{"iothread": "nope"}]"#, "IOThread \"nope\" object does not exist"),
];

/// Option strings, and what QEMU 10.0 says.
const REFUSED_OPTIONS: &[(&str, &str)] = &[
    ("num-queues=x", "Parameter 'num-queues' expects integer"),
    ("num-queues=70000", "Parameter 'num-queues' expects uint16_t"),
    ("multifunction=maybe", "Parameter 'multifunction' expects 'on' or 'off'"),
    ("addr=300", "Property 'virtio-blk-pci.addr' doesn't take value '300'"),
    ("addr=-1", "Property 'virtio-blk-pci.addr' doesn't take value '-1'"),
    ("logical_block_size=1x", "Parameter 'logical_block_size' expects size"),
    ("disable-legacy=x", "Parameter 'disable-legacy' does not accept value 'x'"),
    ("bootindex=x", "Parameter 'bootindex' expects integer"),
    ("bootindex=99999999999", "Parameter 'bootindex' expects int32_t"),
    ("bus=x", "Bus 'x' not found"),
    ("id=3x", "Parameter 'id' expects an identifier"),
];

#[test]
fn mistakes_have_the_words_of_qemu() {
    on_reactors(1, |reactors| async move {
        let rig = Rig::new(&reactors).await;
        let of_blk =
            |members: &str| format!(r#"{{"driver": "virtio-blk-pci", "drive": "d0", {members}}}"#);
        let all = REFUSED.iter().map(|(json, text)| ((*json).to_owned(), *text));
        let all = all.chain(REFUSED_OF_BLK.iter().map(|(json, text)| (of_blk(json), *text)));
        for (text, expected) in all {
            let arguments = serde_json::from_str(&text).unwrap();
            assert_eq!(rig.refusal(arguments).await, expected, "{text}");
        }
        for (text, expected) in REFUSED_OPTIONS {
            let text = format!("virtio-blk-pci,drive=d0,{text}");
            let error = match DeviceRequest::keyval(&text) {
                Ok(request) => rig.tree.add(&request, true).await.err().unwrap(),
                Err(error) => error,
            };
            assert_eq!(error.text, *expected, "{text}");
        }
        rig.assert_empty("refused");
        assert!(rig.is_free("d0"));
    });
}

#[test]
fn both_forms_of_an_option_give_the_same_device() {
    on_reactors(1, |reactors| async move {
        let rig = Rig::new(&reactors).await;
        let text = "virtio-blk,drive=d0,id=a,num-queues=0x2,serial=x,,y,addr=04.1,write-cache=off,\
                    queue-size=128,logical_block_size=4k,bootindex=-1,multifunction";
        let a = rig.tree.add(&DeviceRequest::keyval(text).unwrap(), false).await.unwrap();
        let b = rig
            .add(json!({
                "driver": "virtio-blk-pci", "drive": "d1", "id": "b", "num-queues": 2,
                "serial": "x,y", "addr": 0x29, "write-cache": "off", "queue-size": 128,
                "logical_block_size": 4096, "bootindex": -1, "multifunction": true,
            }))
            .await
            .unwrap();
        for name in ["num-queues", "serial", "write-cache", "queue-size", "logical_block_size"] {
            assert_eq!(a.property(name), b.property(name), "{name}");
        }
        assert_eq!((a.address(), b.address()), (Some(0x21), Some(0x29)));
        assert_eq!((a.hotplugged(), b.hotplugged()), (false, true));
        assert_eq!(a.property("serial"), Some(json!("x,y")));
        assert_eq!(a.property("bootindex"), Some(json!(-1)));
        assert_eq!(a.property("logical_block_size"), Some(json!(4096)));
    });
}

#[test]
fn slots_are_written_in_every_form() {
    on_reactors(1, |reactors| async move {
        let rig = Rig::new(&reactors).await;
        for (addr, expected) in [
            (json!("4"), 0x20),
            (json!("04.0"), 0x20),
            (json!("0x06"), 0x30),
            (json!("1f.7"), 0xff),
        ] {
            let mut arguments = object(blk("d0", "x"));
            arguments.insert("addr".to_owned(), addr.clone());
            let device = rig.add(Value::Object(arguments)).await.unwrap();
            assert_eq!(device.address(), Some(expected), "{addr}");
            rig.tree.remove(&device).await.unwrap();
            add_drive(&rig.block, "d0").await;
        }
    });
}

#[test]
fn automatic_values_are_shown_as_they_came_out() {
    on_reactors(1, |reactors| async move {
        let rig = Rig::new(&reactors).await;
        let device = rig.add(blk("d0", "x")).await.unwrap();
        assert_eq!(device.property("num-queues"), Some(json!(2)), "one a processor");
        assert_eq!(device.property("logical_block_size"), Some(json!(512)));
        assert_eq!(device.property("nope"), None);
        device.set_property("bootindex", &json!(3), value::Syntax::Json).unwrap();
        assert_eq!(device.property("bootindex"), Some(json!(3)));
        let error = device.set_property("serial", &json!("s"), value::Syntax::Json).unwrap_err();
        assert_eq!(
            error.text,
            "Attempt to set property 'serial' on device 'x' (type 'virtio-blk-pci') after it was realized"
        );
    });
}

#[test]
fn the_help_lists_every_property_in_qemus_layout() {
    let types = Types::new();
    let help = types.help_for("virtio-blk,help").unwrap().unwrap();
    let lines: Vec<_> = help.lines().collect();
    assert_eq!(lines[0], "virtio-blk-pci options:");
    assert!(lines[1..].is_sorted(), "{help}");
    for line in [
        "  addr=<str>             - Slot and optional function number, example: 06.0 or 06 (default: -1)",
        "  bootindex=<int32>",
        "  drive=<str>            - Node name or ID of a block device to use as a backend",
        "  multifunction=<bool>   - on/off (default: off)",
        "  num-queues=<uint16>    -  (default: 65535)",
        "  logical_block_size=<size> - A power of two between 512 B and 2 MiB (default: 0)",
    ] {
        assert!(lines.contains(&line), "{line} in\n{help}");
    }
    let all = types.help_for("help").unwrap().unwrap();
    let heading = all.lines().position(|line| line == "Storage devices:").unwrap();
    let blk = "name \"virtio-blk-pci\", bus PCI, alias \"virtio-blk\"";
    assert!(all.lines().skip(heading).take_while(|line| !line.is_empty()).any(|line| line == blk));
    assert_eq!(types.help_for("virtio-blk-pci,drive=help").unwrap(), None);
    assert!(types.help_for("nope,help").is_err());
}

use super::{Invocation, parse};
use crate::config::Config;
use devices::block::graph::DriverOptions;
use devices::chardev::Backend;
use monitor::{ActionSet, PanicAction, WatchdogAction};
use std::ffi::OsString;

fn config(args: &[&str]) -> Config {
    match parse(args.iter().map(OsString::from)) {
        Ok(Invocation::Run(config)) => *config,
        other => panic!("{other:?}"),
    }
}

fn error(args: &[&str]) -> String {
    parse(args.iter().map(OsString::from)).unwrap_err()
}

#[test]
fn without_options_the_embedded_guest_gets_a_disk_and_a_socket() {
    let config = config(&[]);
    assert!(config.kernel.is_none());
    let image = config.drives[0].drive.image.as_ref().unwrap();
    assert!(matches!(image.driver, DriverOptions::Scratch { .. }));
    assert_eq!(config.drives.len(), 1);
    assert_eq!((config.listen.len(), config.monitors.len()), (1, 1));
    assert_eq!(config.serial.as_deref(), Some("serial0"));
    let kinds = config.chardevs.iter().map(|chardev| &chardev.backend);
    assert!(matches!(
        kinds.collect::<Vec<_>>()[..],
        [Backend::Stdio { signal: false }, Backend::Mux { .. }]
    ));
    assert_eq!((config.memory.size, config.topology.count()), (128 << 20, 1));
}

#[test]
fn a_linux_machine_is_what_it_says() {
    let config = config(&[
        "-kernel",
        "vmlinux",
        "-initrd",
        "initramfs",
        "-append",
        "console=ttyS0 quiet",
        "-m",
        "512",
        "-smp",
        "2",
        "-drive",
        "file=disk.raw,format=raw,if=virtio",
        "-qmp",
        "unix:/tmp/x.qmp,server=on,wait=off",
        "-nographic",
    ]);
    assert_eq!(config.append, "console=ttyS0 quiet");
    assert_eq!((config.memory.size, config.topology.count()), (512 << 20, 2));
    assert_eq!((config.drives.len(), config.devices.len()), (1, 1));
    assert_eq!(config.listen.len(), 1);
}

#[test]
fn devices_come_in_both_forms_and_drives_make_their_own() {
    let config = config(&[
        "--device",
        "virtio-blk-pci,drive=d,num-queues=4,serial=s,addr=04.0",
        "-drive",
        "file=x,if=none,id=d,cache=none",
        "-device",
        "{'driver': 'virtio-blk-pci', 'drive': 'e', 'num-queues': 2}",
        "-drive",
        "file=y,if=virtio,serial=z",
    ]);
    let drives: Vec<_> = config.drives.iter().map(|drive| drive.id.as_str()).collect();
    assert_eq!(drives, ["d", "virtio0"]);
    let arguments: Vec<_> = config
        .devices
        .iter()
        .map(|device| serde_json::Value::Object(device.request.arguments.clone()).to_string())
        .collect();
    assert_eq!(
        arguments,
        [
            r#"{"driver":"virtio-blk-pci","drive":"d","num-queues":"4","serial":"s","addr":"04.0"}"#,
            r#"{"driver":"virtio-blk-pci","drive":"e","num-queues":2}"#,
            r#"{"driver":"virtio-blk-pci","drive":"virtio0","serial":"z"}"#,
        ]
    );
}

#[test]
fn devices_explain_themselves() {
    for (option, expected) in
        [("help", "Storage devices:\n"), ("virtio-blk,?", "virtio-blk-pci options:\n")]
    {
        match parse(["-device", option].map(OsString::from)) {
            Ok(Invocation::Print(text)) => assert!(text.contains(expected), "{text}"),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn mistakes_are_named_with_what_to_do() {
    for (args, expected) in [
        (&["-kernle", "x"][..], "there is no option -kernle; see: ringvisor -help"),
        (&["-kernel"], "-kernel needs a value"),
        (
            &["disk.raw"],
            "'disk.raw' is no option; a disk is given as -drive file=disk.raw,format=raw,if=virtio",
        ),
        (&["-m", "lots"], "-m: 'lots' is no size; write 512 (MiB), 512M or 2G"),
        (&["-m", "0"], "-m: '0' is no size; write 512 (MiB), 512M or 2G"),
        (&["-smp", "0"], "-smp: 'cpus' takes a number from 1 to 65536, not '0'"),
        (&["-smp", "4,cores=3"], "-smp: sockets * cores * threads is 3, not 4"),
        (&["-drive", "file=x,format=qcow3"], "-drive file=x,format=qcow3: Unknown driver 'qcow3'"),
        (
            &["-blockdev", "driver=raw,node-name=x"],
            "-blockdev driver=raw,node-name=x: Parameter 'file' is missing",
        ),
        (&["-device", "{"], "-device {: JSON parse error, premature EOI"),
        (&["-device", "nope,help"], "-device nope,help: 'nope' is not a valid device model name"),
        (&["-machine", "q35"], "-machine: there is no machine 'q35'; there are pc and none"),
        (&["-accel", "tcg"], "-accel: there is no accelerator 'tcg'; there are kvm, qtest"),
        (&["-audio", "alsa"], "-audio alsa: only none is there"),
        (&["-vga", "std"], "-vga std: only none is there"),
        (&["-initrd", "x"], "-initrd needs a -kernel"),
        (&["-reactor", "cores=3-1"], "-reactor: cores=3-1: write host CPUs as 0-3 or 0:2:5-7"),
        (
            &["-action", "reset=no"],
            "-action: there is no 'reset' here; there are reboot, shutdown, panic, watchdog",
        ),
        (
            &["-action", "panic=hang"],
            "-action: Parameter 'panic' does not accept value 'hang'; see: ringvisor -help",
        ),
        (
            &["-serial", "tape"],
            "-serial: 'tape' names no character device: write unix:PATH, tcp:HOST:PORT, stdio, \
             file:PATH, pty, ringbuf, null, chardev:ID or none",
        ),
        (
            &["-serial", "null", "-serial", "pty"],
            "-serial pty: there is one serial port, and it is taken",
        ),
        (
            &["-chardev", "null,id=a", "-chardev", "null,id=a"],
            "-chardev null,id=a: Duplicate ID 'a' for chardev",
        ),
        (
            &["-mon", "chardev=a,mode=foo"],
            "-mon: Parameter 'mode' does not accept value 'foo'; it takes readline or control",
        ),
        (&["-mon", "mode=control"], "-mon: a monitor needs chardev=ID"),
        (&["-add-fd", "fd=0,set=1"], "-add-fd: fd cannot be a standard I/O stream"),
        (&["-add-fd", "fd=999,set=1"], "-add-fd: fd is not valid or already in use"),
        (&["-add-fd", "set=1"], "-add-fd: it needs fd=N,set=M"),
        (&["-uuid", "1234"], "-uuid 1234: failed to parse UUID string: wrong format"),
    ] {
        assert_eq!(error(args), expected);
    }
    assert!(error(&["-cpu", "486"]).starts_with("-cpu 486: "));
    assert!(error(&["-qmp", "carrier-pigeon"]).starts_with("-qmp: 'carrier-pigeon' "));
}

#[test]
fn what_is_not_there_may_be_asked_not_to_be() {
    let none = ["-display", "none", "-audio", "none", "-vga", "none", "-net", "none"];
    config(&[&none[..], &["-no-user-config"]].concat());
}

#[test]
fn a_machine_under_test_has_only_what_it_is_given() {
    let config = config(&["-accel", "qtest", "-qtest", "unix:/q", "-qtest-log", "none"]);
    assert_eq!(config.accels, [crate::config::Accel::Qtest]);
    assert!(config.drives.is_empty() && config.listen.is_empty());
    assert_eq!(config.serial, None);
    assert_eq!(config.qtest.unwrap().log.as_deref(), Some("none"));
}

#[test]
fn kvm_in_a_list_of_accelerators_is_found() {
    config(&["-accel", "tcg:kvm", "-machine", "pc,accel=kvm"]);
}

#[test]
fn actions_have_the_words_of_set_action_and_two_short_forms() {
    let actions = |args: &[&str]| config(args).actions;
    assert_eq!(actions(&[]), ActionSet::default());
    assert_eq!(actions(&["-no-reboot"]), actions(&["-action", "reboot=shutdown"]));
    assert_eq!(actions(&["-no-shutdown"]), actions(&["-action", "shutdown=pause"]));
    let both = actions(&["-action", "panic=exit-failure,watchdog=none", "-action", "panic=pause"]);
    assert_eq!((both.panic, both.watchdog), (PanicAction::Pause, WatchdogAction::None));
}

#[test]
fn reactor_cores_are_a_list() {
    let config = config(&["-reactor", "cores=5:0-1,poll-max-ns=1000"]);
    assert_eq!(config.reactor.cores, Some(vec![0, 1, 5]));
    assert_eq!(config.reactor.poll_ns_max, 1000);
}

#[test]
fn help_lists_every_option() {
    let Ok(Invocation::Print(help)) = parse([OsString::from("-help")]) else { panic!() };
    for option in ["-kernel FILE", "-drive file=PATH", "-no-reboot", "Ctrl-A X"] {
        assert!(help.contains(option), "{option}");
    }
}

#[test]
fn a_program_that_drives_device_tests_is_understood() {
    let config = config(&[
        "-chardev",
        "socket,path=M,id=char0",
        "-mon",
        "chardev=char0,mode=control",
        "-display",
        "none",
        "-nodefaults",
    ]);
    assert_eq!((config.chardevs.len(), config.monitors.len(), config.listen.len()), (1, 1, 0));
    assert_eq!(config.serial, None);
}

#[test]
fn a_terminal_has_one_user() {
    let qmp = config(&["-qmp", "stdio"]);
    assert_eq!(qmp.serial, None);
    let shared = config(&["-monitor", "stdio"]);
    assert_eq!((shared.serial.as_deref(), shared.chardevs.len()), (Some("serial0"), 2));
    let alone = config(&["-monitor", "stdio", "-serial", "none"]);
    assert_eq!((alone.serial, alone.chardevs.len()), (None, 1));
}

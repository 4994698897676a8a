//! What a guest does on an ordinary day: file systems, random numbers, ports, a balloon, a stop, a reboot, and
//! the power button.

use super::{RINGVISOR, drive};
use serde_json::json;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};
use testkit::{Footprint, LinuxGuest};

const MIB: u64 = 1 << 20;
/// Memory of the guest, and what the balloon leaves of it.
const MEMORY: u64 = 128 * MIB;
const SMALL: u64 = 56 * MIB;
/// The file systems: disk and directory, and the image of it. The first is a virtio-blk disk in qcow2.
const FILE_SYSTEMS: [(&str, &str); 2] = [("vda", "blk"), ("sda", "unit")];

fn arguments(directory: &Path) -> Vec<String> {
    let blk = directory.join("blk");
    let blk = blk.to_str().unwrap();
    let create = ["img", "create", "-q", "-f", "qcow2", blk, "32M"];
    assert!(Command::new(RINGVISOR).args(create).status().unwrap().success());
    let blk = format!("file={blk},format=qcow2,if=none,id=blk,discard=unmap");
    // Too small for its file system until it has grown.
    let [unit, grows] = [("unit", 1), ("grows", 8)].map(|(id, mib)| drive(directory, id, mib));
    let port = format!("socket,id=c0,path={},server=on,wait=off", directory.join("port").display());
    [
        ["-m", "128"],
        ["-drive", &blk],
        ["-drive", &unit],
        ["-drive", &grows],
        ["-device", "virtio-blk-pci,drive=blk"],
        ["-device", "virtio-blk-pci,drive=grows"],
        ["-device", "virtio-scsi-pci,id=s"],
        ["-device", "scsi-hd,drive=unit,bus=s.0"],
        ["-object", "rng-random,id=rng,filename=/dev/urandom"],
        ["-device", "virtio-rng-pci,rng=rng"],
        ["-device", "virtio-balloon-pci"],
        ["-chardev", &port],
        ["-device", "virtio-serial-pci"],
        ["-device", "virtserialport,chardev=c0,name=org.test.0"],
    ]
    .concat()
    .into_iter()
    .map(str::to_owned)
    .collect()
}

/// The host's random numbers are those of the guest.
fn random_numbers(guest: &mut LinuxGuest) {
    assert_eq!(guest.run("cat /sys/class/misc/hw_random/rng_current"), "virtio_rng.0\n");
    let mut sums = [(); 2].map(|()| {
        guest.run("dd if=/dev/hwrng of=/tmp/random bs=64 count=8 iflag=fullblock 2>/dev/null");
        assert_eq!(guest.run("stat -c %s /tmp/random"), "512\n");
        guest.run("md5sum /tmp/random")
    });
    sums.sort();
    assert_ne!(sums[0], sums[1]);
}

/// A line each way.
fn port(guest: &mut LinuxGuest, directory: &Path) {
    let mut host = UnixStream::connect(directory.join("port")).unwrap();
    host.set_read_timeout(Some(LinuxGuest::PATIENCE)).unwrap();
    let names = guest.run(
        "cd /sys/class/virtio-ports; for p in *; do read -r n <$p/name && echo $p $n; done; cd /",
    );
    let line = names.lines().find(|line| line.ends_with(" org.test.0"));
    let (port, _) = line.and_then(|line| line.split_once(' ')).expect(&names);
    guest.run(&format!("echo from the guest >/dev/{port}"));
    let mut line = String::new();
    BufReader::new(&host).read_line(&mut line).unwrap();
    assert_eq!(line, "from the guest\n");
    guest.start_line(&format!("read -r line </dev/{port}; echo \"$line\""));
    host.write_all(b"from the host\n").unwrap();
    assert_eq!(guest.finish_line(), (0, "from the host\n".to_owned()));
}

/// Both kinds of disks grow under the guest, which writes to where there was nothing before.
fn growth(guest: &mut LinuxGuest, directory: &Path) {
    for (id, disk, mib) in [("grows", "vdb", 16), ("unit", "sda", 32)] {
        guest.qmp().execute_with("block_resize", json!({"device": id, "size": mib * MIB}));
        let size = mib * MIB / 512;
        let seen = format!(
            "while read -r n </sys/block/{disk}/size && [ $n != {size} ]; do sleep 0.1; done"
        );
        guest.run(&seen);
        let last = mib - 1;
        guest.run(&format!(
            "echo grown >/tmp/grown && dd if=/tmp/grown of=/dev/{disk} bs=1M seek={last} conv=sync,fsync 2>/dev/null"
        ));
        let image = std::fs::read(directory.join(id)).unwrap();
        assert_eq!(image.len() as u64, mib * MIB);
        assert!(image[(last * MIB) as usize..].starts_with(b"grown\n"), "{id}");
    }
    guest.wait_kernel("[vdb] new size: 32768 512-byte logical blocks", 1);
    guest.wait_kernel("sda: detected capacity change from 2048 to 65536", 1);
}

/// Returns when the guest has that much memory left.
fn set_balloon(guest: &mut LinuxGuest, size: u64) {
    guest.qmp().execute_with("balloon", json!({"value": size}));
    while guest.qmp().wait_event("BALLOON_CHANGE")["data"]["actual"] != size {}
    assert_eq!(guest.qmp().execute("query-balloon"), json!({"actual": size}));
}

/// Memory that the guest gives up is the host's again, until it is given back.
fn balloon(guest: &mut LinuxGuest) {
    guest.run("dd if=/dev/zero of=/tmp/fill bs=64k count=256 2>/dev/null");
    let before = Footprint::of(guest.vmm().pid()).memory;
    guest.run("rm /tmp/fill");
    set_balloon(guest, SMALL);
    let after = Footprint::of(guest.vmm().pid()).memory;
    // Half of what was filled: the guest has kept some, and has given away what it had never used.
    assert!(after + (8 << 10) < before, "{before} KiB, then {after} KiB");
    set_balloon(guest, MEMORY);
}

/// What the clocks of the guest show, monotonic and of the day, in seconds.
fn clocks(guest: &mut LinuxGuest) -> [f64; 2] {
    let text = guest.run("cat /proc/uptime; date +%s");
    let mut lines = text.lines().map(|line| line.split(' ').next().unwrap().parse().unwrap());
    [(); 2].map(|()| lines.next().unwrap())
}

/// The guest stands still for some seconds, and its clocks are those of a machine that did.
fn stop(guest: &mut LinuxGuest) {
    let start = Instant::now();
    let before = clocks(guest);
    guest.qmp().execute("stop");
    guest.qmp().wait_event("STOP");
    // That time passes is what is tested.
    std::thread::sleep(Duration::from_secs(5));
    guest.qmp().execute("cont");
    guest.qmp().wait_event("RESUME");
    // Timers work.
    guest.run("sleep 1");
    let after = clocks(guest);
    let elapsed = start.elapsed().as_secs_f64();
    for (before, after) in before.iter().zip(after) {
        // Whole seconds can differ by one.
        let passed = after - before;
        assert!((0.9..elapsed + 1.1).contains(&passed), "{passed} s passed in {elapsed} s");
    }
}

/// A guest that does nothing costs next to nothing.
fn idle(guest: &mut LinuxGuest) {
    let path = format!("/proc/{}/stat", guest.vmm().pid());
    // Fields 14 and 15 of proc_pid_stat(5), in hundredths of a second.
    let used = || {
        let line = std::fs::read_to_string(&path).unwrap();
        let mut fields = line.rsplit(") ").next().unwrap().split(' ').skip(11);
        let mut field = || fields.next().unwrap().parse::<f64>().unwrap();
        (field() + field()) / 100.0
    };
    let (start, before) = (Instant::now(), used());
    guest.run("sleep 20");
    let (used, elapsed) = (used() - before, start.elapsed().as_secs_f64());
    assert!(used < elapsed / 10.0, "{used} s of a processor in {elapsed} s");
}

fn mount(guest: &mut LinuxGuest) {
    for (disk, directory) in FILE_SYSTEMS {
        guest.run(&format!(
            "mkdir -p /mnt/{directory} && mount -t ext4 /dev/{disk} /mnt/{directory}"
        ));
    }
}

/// The checksums of all files, as the disks have them.
fn sums(guest: &mut LinuxGuest) -> String {
    guest.run("sync; echo 3 >/proc/sys/vm/drop_caches");
    guest.run("find /mnt -type f -exec md5sum {} +")
}

/// New file systems with files. Returns their checksums.
fn file_systems(guest: &mut LinuxGuest) -> String {
    for (disk, _) in FILE_SYSTEMS {
        guest.run(&format!("mkfs.ext4 -q -F /dev/{disk}"));
    }
    mount(guest);
    for (_, directory) in FILE_SYSTEMS {
        guest.run(&format!("cp /bin/busybox /bin/e2fsck /init /mnt/{directory}"));
    }
    let sums = sums(guest);
    assert_eq!(sums.lines().count(), 3 * FILE_SYSTEMS.len(), "{sums}");
    for (disk, directory) in FILE_SYSTEMS {
        guest.run(&format!("umount /mnt/{directory} && e2fsck -f -n /dev/{disk} >/dev/null 2>&1"));
    }
    sums
}

/// The power button ends it all, and leaves clean file systems.
fn power_button(mut guest: LinuxGuest, directory: &Path) {
    let script = "#!/bin/sh\\numount /mnt/blk /mnt/unit && exec poweroff -f\\n";
    guest.run(&format!("printf '{script}' >/etc/acpi/PWRF/00000080"));
    guest.run("acpid -l /dev/null -p /run/acpid.pid");
    guest.qmp().execute("system_powerdown");
    guest.qmp().wait_event("POWERDOWN");
    let shutdown = guest.qmp().wait_event("SHUTDOWN");
    assert_eq!(shutdown["data"], json!({"guest": true, "reason": "guest-shutdown"}));
    let finished = guest.finish();
    assert_eq!(finished.code(), 0, "{finished:#?}");

    let paths = ["blk", "blk.raw", "unit"].map(|name| directory.join(name));
    let [qcow2, raw, unit] = paths.each_ref().map(|path| path.to_str().unwrap());
    for args in [&["img", "check", "-q", qcow2][..], &["img", "convert", "-O", "raw", qcow2, raw]] {
        assert!(Command::new(RINGVISOR).args(args).status().unwrap().success(), "{args:?}");
    }
    for image in [raw, unit] {
        let output = Command::new("/usr/sbin/e2fsck").args(["-f", "-n", image]).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && !text.contains("recover"), "{image}: {text}");
    }
}

#[test]
fn linux_works_and_reboots_and_leaves_its_files() {
    const TEST: &str = "linux_works_and_reboots_and_leaves_its_files";
    if !testkit::kvm(TEST) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let args = arguments(directory);
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let log = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("linux-{TEST}.log"));
    let mut guest = LinuxGuest::boot(RINGVISOR, log, &args);
    random_numbers(&mut guest);
    port(&mut guest, directory);
    growth(&mut guest, directory);
    stop(&mut guest);
    idle(&mut guest);
    balloon(&mut guest);
    let written = file_systems(&mut guest);
    guest.reboot();
    mount(&mut guest);
    assert_eq!(sums(&mut guest), written);
    let log = guest.kernel_log();
    for wrong in ["BUG", "WARNING", "Oops", "Call Trace", "I/O error", "EXT4-fs error", "stall"] {
        assert!(!log.contains(wrong), "{log}");
    }
    power_button(guest, directory);
}

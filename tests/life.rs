//! The life of a machine as management tools see it: QMP, signals, images, idle cost.

use serde_json::json;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use testkit::Vmm;

const RINGVISOR: &str = env!("CARGO_BIN_EXE_ringvisor");

#[test]
fn stop_cont_reset_and_quit_have_their_events() {
    if !testkit::kvm("stop_cont_reset_and_quit_have_their_events") {
        return;
    }
    let mut vmm = Vmm::start(RINGVISOR, &["-name", "lively"]);
    vmm.wait_for("guest> ");
    let mut qmp = vmm.qmp();
    assert_eq!(qmp.greeting()["QMP"]["capabilities"], json!(["oob"]));
    assert_eq!(qmp.execute("query-status"), json!({"running": true, "status": "running"}));
    assert_eq!(qmp.execute("query-name"), json!({"name": "lively"}));
    qmp.execute("stop");
    qmp.wait_event("STOP");
    assert_eq!(qmp.execute("query-status"), json!({"running": false, "status": "paused"}));
    // Typed while stopped: answered once it runs again.
    vmm.type_in("help\r");
    qmp.execute("cont");
    qmp.wait_event("RESUME");
    vmm.wait_for_count("guest> ", 2);
    qmp.execute("system_reset");
    let reset = qmp.wait_event("RESET");
    assert_eq!(reset["data"], json!({"guest": false, "reason": "host-qmp-system-reset"}));
    vmm.wait_for_count("guest> ", 3);
    qmp.execute("quit");
    let shutdown = qmp.wait_event("SHUTDOWN");
    assert_eq!(shutdown["data"], json!({"guest": false, "reason": "host-qmp-quit"}));
    assert_eq!(vmm.finish().code(), 0);
}

#[test]
fn guest_resets_and_powers_off_by_itself() {
    if !testkit::kvm("guest_resets_and_powers_off_by_itself") {
        return;
    }
    for reset in ["reset", "triple"] {
        let mut vmm = Vmm::start(RINGVISOR, &[]);
        vmm.wait_for("guest> ");
        let mut qmp = vmm.qmp();
        vmm.type_in(&format!("{reset}\r"));
        let event = qmp.wait_event("RESET");
        assert_eq!(event["data"], json!({"guest": true, "reason": "guest-reset"}), "{reset}");
        vmm.wait_for_count("guest> ", 2);
        vmm.type_in("poweroff\r");
        let event = qmp.wait_event("SHUTDOWN");
        assert_eq!(event["data"], json!({"guest": true, "reason": "guest-shutdown"}));
        assert_eq!(vmm.finish().code(), 0);
    }
}

#[test]
fn no_reboot_and_no_shutdown_do_what_they_say() {
    if !testkit::kvm("no_reboot_and_no_shutdown_do_what_they_say") {
        return;
    }
    let vmm = Vmm::start(RINGVISOR, &["-no-reboot", "-append", "reset"]);
    assert_eq!(vmm.finish().code(), 0);
    let mut vmm = Vmm::start(RINGVISOR, &["-no-shutdown"]);
    let mut qmp = vmm.qmp();
    vmm.wait_for("guest> ");
    vmm.type_in("poweroff\r");
    qmp.wait_event("SHUTDOWN");
    qmp.wait_event("STOP");
    assert_eq!(qmp.execute("query-status")["status"], "shutdown");
    let refused = qmp.execute_raw("cont", serde_json::Value::Null);
    assert_eq!(refused["error"]["class"], "GenericError");
    qmp.execute("system_reset");
    qmp.wait_event("RESET");
    qmp.execute("cont");
    vmm.wait_for_count("guest> ", 2);
    qmp.execute("quit");
    assert_eq!(vmm.finish().code(), 0);
}

#[test]
fn actions_can_be_changed_while_the_guest_runs() {
    if !testkit::kvm("actions_can_be_changed_while_the_guest_runs") {
        return;
    }
    let mut vmm = Vmm::start(RINGVISOR, &["-action", "panic=none"]);
    let mut qmp = vmm.qmp();
    vmm.wait_for("guest> ");
    qmp.execute_with("set-action", json!({"panic": "pause", "shutdown": "pause"}));
    vmm.type_in("crash\r");
    assert_eq!(qmp.wait_event("GUEST_PANICKED")["data"]["action"], "pause");
    qmp.wait_event("STOP");
    assert_eq!(qmp.execute("query-status")["status"], "guest-panicked");
    let refused = qmp.execute_raw("cont", serde_json::Value::Null);
    assert_eq!(refused["error"]["desc"], "Resetting the Virtual Machine is required");
    qmp.execute("system_reset");
    qmp.wait_event("RESET");
    qmp.execute("cont");
    vmm.wait_for_count("guest> ", 2);
    vmm.type_in("poweroff\r");
    qmp.wait_event("SHUTDOWN");
    qmp.wait_event("STOP");
    assert_eq!(qmp.execute("query-status")["status"], "shutdown");
    qmp.execute("quit");
    assert_eq!(vmm.finish().code(), 0);
}

#[test]
fn memory_can_be_saved_by_both_kinds_of_address() {
    if !testkit::kvm("memory_can_be_saved_by_both_kinds_of_address") {
        return;
    }
    let mut vmm = Vmm::start(RINGVISOR, &["-smp", "2"]);
    vmm.wait_for("guest> ");
    let mut qmp = vmm.qmp();
    qmp.execute("stop");
    let (by_cpu, physical) = (vmm.dir().join("virtual"), vmm.dir().join("physical"));
    // The embedded guest maps its memory one to one.
    for cpu in 0..2 {
        let arguments =
            json!({"val": 0x10_0000, "size": 0x100_0000, "filename": by_cpu, "cpu-index": cpu});
        qmp.execute_with("memsave", arguments);
        let arguments = json!({"val": 0x10_0000, "size": 0x100_0000, "filename": physical});
        qmp.execute_with("pmemsave", arguments);
        let saved = std::fs::read(&by_cpu).unwrap();
        assert_eq!(saved.len(), 0x100_0000);
        assert!(saved.iter().any(|byte| *byte != 0));
        assert!(saved == std::fs::read(&physical).unwrap(), "CPU {cpu}");
    }
    qmp.execute("quit");
    assert_eq!(vmm.finish().code(), 0);
}

#[test]
fn paused_start_waits_for_cont() {
    if !testkit::kvm("paused_start_waits_for_cont") {
        return;
    }
    let mut vmm = Vmm::start(RINGVISOR, &["-S"]);
    let mut qmp = vmm.qmp();
    assert_eq!(qmp.execute("query-status"), json!({"running": false, "status": "prelaunch"}));
    assert_eq!(vmm.console(), "");
    qmp.execute("cont");
    vmm.wait_for("guest> ");
    qmp.execute("quit");
    assert_eq!(vmm.finish().code(), 0);
}

#[test]
fn vcpu_that_cannot_go_on_ends_the_guest_with_the_instruction() {
    if !testkit::kvm("vcpu_that_cannot_go_on_ends_the_guest_with_the_instruction") {
        return;
    }
    let mut vmm = Vmm::start(RINGVISOR, &["-S", "-append", "crash"]);
    let mut qmp = vmm.qmp();
    qmp.execute("cont");
    assert_eq!(qmp.wait_event("GUEST_PANICKED")["data"]["action"], "poweroff");
    assert_eq!(qmp.wait_event("SHUTDOWN")["data"]["reason"], "guest-panic");
    let finished = vmm.finish();
    assert_eq!(finished.code(), 1);
    assert!(finished.errors.contains("RIP"), "{}", finished.errors);
}

#[test]
fn many_clients_are_served_at_once() {
    if !testkit::kvm("many_clients_are_served_at_once") {
        return;
    }
    let mut vmm = Vmm::start(RINGVISOR, &[]);
    let mut clients: Vec<_> = (0..50).map(|_| vmm.qmp()).collect();
    for qmp in &mut clients {
        assert_eq!(qmp.execute("query-status")["running"], true);
    }
    clients[0].execute("stop");
    for qmp in &mut clients {
        qmp.wait_event("STOP");
    }
    clients[49].execute("quit");
    assert_eq!(vmm.finish().code(), 0);
}

/// The bytes of a disk that `check` has left behind are in the file after each kind of end.
#[test]
fn images_are_flushed_and_unlocked_at_every_end() {
    if !testkit::kvm("images_are_flushed_and_unlocked_at_every_end") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("disk.raw");
    std::fs::File::create(&image).unwrap().set_len(8 << 20).unwrap();
    let drive = format!("file={},format=raw,if=virtio", image.display());
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGKILL] {
        let vmm = Vmm::start(RINGVISOR, &["-drive", &drive, "-append", "check"]);
        vmm.wait_for("check: ");
        // Nobody else may have it meanwhile.
        let second = Command::new(RINGVISOR).args(["-drive", &drive, "-nodefaults"]).output();
        let refusal = String::from_utf8(second.unwrap().stderr).unwrap();
        assert!(refusal.contains("disk.raw") && refusal.contains("lock"), "{refusal}");
        vmm.signal(signal);
        let finished = vmm.finish();
        assert!(finished.console.contains(" 0 failed"), "{}", finished.console);
        if signal != libc::SIGKILL {
            assert_eq!(finished.code(), 0);
        }
        assert!(has_data(&image));
    }
    let vmm = Vmm::start(RINGVISOR, &["-drive", &drive, "-append", "check;poweroff"]);
    assert_eq!(vmm.finish().code(), 0);
}

fn has_data(image: &Path) -> bool {
    let mut file = std::fs::File::open(image).unwrap();
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(0)).unwrap();
    file.read_to_end(&mut bytes).unwrap();
    bytes.iter().any(|byte| *byte != 0)
}

/// An idle guest costs nothing: no context of the VMM makes a system call, no thread uses the CPU.
#[test]
fn idle_guest_makes_no_system_calls_for_ten_seconds() {
    if !testkit::kvm("idle_guest_makes_no_system_calls_for_ten_seconds") {
        return;
    }
    let mut vmm = Vmm::start(RINGVISOR, &["-m", "256"]);
    vmm.wait_for("guest> ");
    let mut qmp = vmm.qmp();
    qmp.execute("query-status");
    // Let the reply's own turns end before the first look: the clock of the test is the window itself.
    std::thread::sleep(Duration::from_millis(500));
    let before = switches_and_ticks(vmm.pid());
    std::thread::sleep(Duration::from_secs(10));
    let after = switches_and_ticks(vmm.pid());
    assert!(before.len() >= 5, "contexts and a vCPU: {before:?}");
    assert_eq!(before, after, "threads ran while the guest was idle (name, switches, ticks)");
    qmp.execute("quit");
    assert_eq!(vmm.finish().code(), 0);
}

/// Each thread's name, context switches and CPU ticks. The kernel's own io_uring workers, which
/// make no system calls, look at their idle timer now and then and are left out.
fn switches_and_ticks(pid: u32) -> Vec<(String, u64, u64)> {
    let mut threads = Vec::new();
    for entry in std::fs::read_dir(format!("/proc/{pid}/task")).unwrap() {
        let path = entry.unwrap().path();
        let status = std::fs::read_to_string(path.join("status")).unwrap();
        let name = status.lines().next().unwrap_or_default().trim_start_matches("Name:\t");
        if name.starts_with("iou-") {
            continue;
        }
        let switches = status
            .lines()
            .filter(|line| line.contains("ctxt_switches"))
            .filter_map(|line| line.split_whitespace().last()?.parse::<u64>().ok())
            .sum();
        let stat = std::fs::read_to_string(path.join("stat")).unwrap();
        // After the name in parentheses: state is field 3, utime 14, stime 15.
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        let ticks = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
        threads.push((name.to_owned(), switches, ticks));
    }
    threads.sort();
    threads
}

//! The terminal: Ctrl-A, the monitor behind it, and the mode that is put back.

use std::io::{Read, Write};
use std::os::fd::{FromRawFd, OwnedFd};
use std::process::{Command, Stdio};
use testkit::Vmm;

const RINGVISOR: &str = env!("CARGO_BIN_EXE_ringvisor");

#[test]
fn monitor_is_behind_ctrl_a_c() {
    if !testkit::kvm("monitor_is_behind_ctrl_a_c") {
        return;
    }
    let mut vmm = Vmm::start(RINGVISOR, &[]);
    vmm.wait_for("guest> ");
    vmm.type_in("\x01h");
    vmm.wait_for("switch between console and monitor");
    vmm.type_in("\x01c");
    vmm.wait_for("(ringvisor) ");
    vmm.type_in("info status\n");
    vmm.wait_for("VM status: running");
    vmm.type_in("stop\n");
    vmm.wait_for_count("(ringvisor) ", 3);
    vmm.type_in("info status\n");
    vmm.wait_for("VM status: paused");
    vmm.type_in("nonsense\n");
    vmm.wait_for("unknown command: 'nonsense'");
    vmm.type_in("cont\n");
    vmm.wait_for_count("(ringvisor) ", 6);
    // Back to the guest, which answers again.
    vmm.type_in("\x01chelp\r");
    vmm.wait_for("lspci");
    vmm.type_in("\x01x");
    assert_eq!(vmm.finish().code(), 0);
}

#[test]
fn quit_in_the_monitor_ends_the_program() {
    if !testkit::kvm("quit_in_the_monitor_ends_the_program") {
        return;
    }
    let mut vmm = Vmm::start(RINGVISOR, &[]);
    vmm.type_in("\x01cquit\n");
    assert_eq!(vmm.finish().code(), 0);
}

/// A long paste reaches the guest whole: the receiver's flow control holds it back.
#[test]
fn pasted_text_reaches_the_guest_whole() {
    if !testkit::kvm("pasted_text_reaches_the_guest_whole") {
        return;
    }
    let mut vmm = Vmm::start(RINGVISOR, &[]);
    vmm.wait_for("guest> ");
    vmm.type_in(&"lspci\r".repeat(100));
    vmm.wait_for_count("1af4:1042", 100);
    vmm.type_in("poweroff\r");
    assert_eq!(vmm.finish().code(), 0);
}

/// A pseudo terminal: what the program gets, and the user's end of it.
fn pty() -> (OwnedFd, std::fs::File) {
    let (mut user, mut program) = (-1, -1);
    let none = std::ptr::null_mut();
    // SAFETY: both numbers are valid for writing; nothing else is asked for.
    let result = unsafe {
        libc::openpty(
            &raw mut user,
            &raw mut program,
            none,
            std::ptr::null_mut(),
            std::ptr::null_mut(),
        )
    };
    assert_eq!(result, 0);
    // SAFETY: openpty has just made both descriptors.
    unsafe { (OwnedFd::from_raw_fd(program), std::fs::File::from_raw_fd(user)) }
}

fn mode(user: &std::fs::File) -> String {
    let output = Command::new("stty")
        .arg("-g")
        .stdin(Stdio::from(user.try_clone().unwrap()))
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap()
}

/// Starts the program on a terminal; it is ended when it does not end by itself.
fn start(program: OwnedFd) -> std::process::Child {
    Command::new("timeout")
        .args(["--foreground", "120", RINGVISOR])
        .stdin(Stdio::from(program.try_clone().unwrap()))
        .stdout(Stdio::from(program.try_clone().unwrap()))
        .stderr(Stdio::from(program))
        .spawn()
        .unwrap()
}

/// Reads up to `text` and gives everything read, without carriage returns.
fn read_to(user: &mut std::fs::File, text: &str) -> String {
    let (mut seen, mut chunk) = (String::new(), [0; 1024]);
    while !seen.contains(text) {
        let read = user.read(&mut chunk);
        let n = read.unwrap_or_else(|error| panic!("{text:?} never came ({error}): {seen}"));
        seen.push_str(&String::from_utf8_lossy(&chunk[..n]).replace('\r', ""));
    }
    seen
}

#[test]
fn the_monitor_on_a_terminal_completes_remembers_and_pages() {
    if !testkit::kvm("the_monitor_on_a_terminal_completes_remembers_and_pages") {
        return;
    }
    let (program, mut user) = pty();
    let size = Command::new("stty")
        .args(["rows", "6", "cols", "200"])
        .stdin(Stdio::from(user.try_clone().unwrap()))
        .status();
    assert!(size.unwrap().success());
    let mut child = start(program);
    read_to(&mut user, "guest> ");
    user.write_all(b"\x01c").unwrap();
    read_to(&mut user, "(ringvisor) ");
    user.write_all(b"info stat\t\r").unwrap();
    read_to(&mut user, "VM status: running\n(ringvisor) ");
    user.write_all(b"stop\r\x1b[A\x1b[A\r").unwrap();
    read_to(&mut user, "VM status: paused\n(ringvisor) ");
    user.write_all(b"help\r").unwrap();
    let page = read_to(&mut user, "-- more --");
    assert_eq!(page.matches(" -- ").count(), 5 + 1, "{page}");
    user.write_all(b"qquit\r").unwrap();
    assert!(child.wait().unwrap().success());
}

#[test]
fn terminal_gets_its_mode_back() {
    if !testkit::kvm("terminal_gets_its_mode_back") {
        return;
    }
    let (program, mut user) = pty();
    let before = mode(&user);
    let mut child = start(program);
    read_to(&mut user, "guest> ");
    assert_ne!(mode(&user), before, "the terminal is raw while the guest has it");
    // Ctrl-C is the guest's, Ctrl-A X is ours.
    user.write_all(b"\x03\x01x").unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(mode(&user), before);
}

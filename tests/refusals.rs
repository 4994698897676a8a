//! Bad input: one clear line on stderr, exit status 1, nothing created and nothing half-started.

use std::path::Path;
use std::process::Command;

const RINGVISOR: &str = env!("CARGO_BIN_EXE_ringvisor");

/// Runs the program, which must refuse; returns its line.
fn refusal(args: &[&str]) -> String {
    // That the host was slow for a moment, which is a warning, has nothing to do with it.
    let quiet = ("RINGVISOR_LOG", "error");
    let output = Command::new(RINGVISOR).args(args).env(quiet.0, quiet.1).output().unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{args:?}: {errors}");
    assert!(output.stdout.is_empty(), "{args:?} printed on stdout");
    let lines: Vec<&str> = errors.lines().collect();
    assert!(lines.len() == 1 && lines[0].starts_with("ringvisor: "), "{args:?}: {errors}");
    lines[0].to_owned()
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn wrong_options_are_refused() {
    for (args, expected) in [
        (&["-kernle", "x"][..], "no option -kernle"),
        (&["-m"], "-m needs a value"),
        (&["-smp", "two"], "not 'two'"),
        (&["-cpu", "host,+warp"], "warp"),
        (&["-qmp", "unix:"], "-qmp"),
        (&["-reactor", "cores=999"], "CPU 999"),
        (&["stray"], "'stray' is no option"),
    ] {
        let line = refusal(args);
        assert!(line.contains(expected), "{line}");
    }
}

#[test]
fn kernels_that_cannot_be_booted_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("missing");
    let empty = dir.path().join("empty");
    std::fs::write(&empty, b"").unwrap();
    let text = dir.path().join("text");
    std::fs::write(&text, "this is no kernel\n".repeat(100)).unwrap();
    let truncated = dir.path().join("truncated");
    std::fs::write(&truncated, &guest::EMBEDDED[..guest::EMBEDDED.len() / 2]).unwrap();
    for kernel in [&missing, &empty, &text, &truncated, &dir.path().to_path_buf()] {
        let line = refusal(&["-kernel", path(kernel), "-nodefaults"]);
        assert!(line.contains(path(kernel)), "{line}");
    }
    let good = dir.path().join("good");
    std::fs::write(&good, guest::EMBEDDED).unwrap();
    let line = refusal(&["-kernel", path(&good), "-initrd", path(&missing)]);
    assert!(line.contains(path(&missing)), "{line}");
    // A PVH kernel has room for a page of command line at least, but not for a megabyte.
    let line = refusal(&["-append", &"x".repeat(1 << 16)]);
    assert!(line.contains("command line"), "{line}");
}

#[test]
fn images_that_cannot_be_used_are_refused() {
    if !testkit::kvm("images_that_cannot_be_used_are_refused") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("missing.raw");
    let odd = dir.path().join("odd.raw");
    std::fs::write(&odd, [0; 1000]).unwrap();
    for image in [&missing, &odd, &dir.path().to_path_buf()] {
        let socket = dir.path().join("socket");
        let drive = format!("file={},format=raw,if=virtio", path(image));
        let qmp = format!("unix:{},server=on,wait=off", path(&socket));
        let line = refusal(&["-drive", &drive, "-qmp", &qmp]);
        assert!(line.contains(path(image)), "{line}");
        assert!(!socket.exists(), "a socket was made for a machine that cannot be");
    }
}

#[test]
fn memory_beyond_the_host_is_refused() {
    if !testkit::kvm("memory_beyond_the_host_is_refused") {
        return;
    }
    for size in ["8000000T", "100000G", "17179869183G"] {
        let line = refusal(&["-m", size]);
        assert!(line.contains("-m"), "{line}");
    }
}

#[test]
fn more_vcpus_than_kvm_takes_are_refused() {
    if !testkit::kvm("more_vcpus_than_kvm_takes_are_refused") {
        return;
    }
    let line = refusal(&["-smp", "65536"]);
    assert!(line.contains("vCPUs at most"), "{line}");
}

#[test]
fn a_socket_that_is_in_use_is_refused_and_left_alone() {
    if !testkit::kvm("a_socket_that_is_in_use_is_refused_and_left_alone") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("socket");
    let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let line = refusal(&["-qmp", &format!("unix:{},server=on,wait=off", path(&socket))]);
    assert!(line.contains(path(&socket)), "{line}");
    drop(std::os::unix::net::UnixStream::connect(&socket).unwrap());
    drop(listener);
}

#[test]
fn help_and_version_succeed() {
    for (option, expected) in [("-help", "-kernel FILE"), ("-version", "ringvisor 0")] {
        let output = Command::new(RINGVISOR).arg(option).output().unwrap();
        assert!(output.status.success());
        assert!(String::from_utf8(output.stdout).unwrap().contains(expected));
    }
}

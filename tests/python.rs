//! The Python package `qemu.qmp`, from PyPI, as clients that others wrote: the library, qmp-shell and
//! qmp-tui.
//!
//! The test makes its own virtual environment, under target/, and says so. Without PyPI and
//! without an environment from before it fails: a client that was not there proves nothing.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Mutex, PoisonError};
use testkit::Vmm;

const RINGVISOR: &str = env!("CARGO_BIN_EXE_ringvisor");
/// With the version of urwid that qmp-tui was made for.
const PACKAGES: [&str; 2] = ["qemu.qmp[tui]==0.0.6", "urwid==2.6.16"];

fn run(program: &Path, args: &[&str]) -> Output {
    let output = Command::new(program).args(args).output();
    output.unwrap_or_else(|error| panic!("{}: {error}; install python3", program.display()))
}

fn said(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    text(&output.stdout) + &text(&output.stderr)
}

/// An interpreter that has the packages. Tests ask one after the other.
fn interpreter() -> PathBuf {
    static MAKING: Mutex<()> = Mutex::new(());
    let _making = MAKING.lock().unwrap_or_else(PoisonError::into_inner);
    let environment = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("qemu-qmp-tui-venv");
    let python = environment.join("bin/python");
    let (packages, place) = (PACKAGES.join(" "), environment.display());
    let usable = || {
        Command::new(&python)
            .args(["-c", "import qemu.qmp.qmp_tui, readline"])
            .output()
            .is_ok_and(|output| output.status.success())
    };
    if usable() {
        println!("using {packages} in {place}");
        return python;
    }
    println!("making a virtual environment with {packages} in {place}");
    let path = environment.to_str().expect("a path in UTF-8");
    let made = run("python3".as_ref(), &["-m", "venv", "--clear", path]);
    assert!(made.status.success(), "no virtual environment; install python3-venv: {}", said(&made));
    let install =
        [&["-m", "pip", "install", "--disable-pip-version-check"], &PACKAGES[..]].concat();
    let installed = run(&python, &install);
    assert!(
        installed.status.success(),
        "{packages} are not to be had from PyPI: {}",
        said(&installed)
    );
    assert!(usable(), "{packages} cannot be imported");
    python
}

/// Runs a script of tests/python against a stopped machine; it must say so many times that a part is
/// right.
fn drive(name: &str, script: &str, parts: usize) -> Option<Vmm> {
    if !testkit::kvm(name) {
        return None;
    }
    let python = interpreter();
    let mut vmm = Vmm::start(RINGVISOR, &["-S", "-name", "python"]);
    drop(vmm.qmp());
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python").join(script);
    let socket = vmm.dir().join("qmp");
    let args = [script, socket].map(|path| path.to_str().expect("UTF-8").to_owned());
    let output = run(&python, &args.each_ref().map(String::as_str));
    println!("{}", said(&output));
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(said(&output).matches("ok ").count(), parts);
    Some(vmm)
}

#[test]
fn qemus_python_library_drives_a_machine() {
    let name = "qemus_python_library_drives_a_machine";
    let Some(vmm) = drive(name, "client.py", 7) else { return };
    assert_eq!(vmm.finish().code(), 0);
}

#[test]
fn qmp_shell_and_qmp_tui_are_at_home() {
    let name = "qmp_shell_and_qmp_tui_are_at_home";
    let Some(mut vmm) = drive(name, "shells.py", 3) else { return };
    vmm.qmp().execute("quit");
    assert_eq!(vmm.finish().code(), 0);
}

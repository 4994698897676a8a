//! The Python package `qemu.qmp`, from PyPI, as a client that others wrote.
//!
//! The test makes its own virtual environment, under target/, and says so. Without PyPI and
//! without an environment from before it fails: a client that was not there proves nothing.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use testkit::Vmm;

const RINGVISOR: &str = env!("CARGO_BIN_EXE_ringvisor");
const PACKAGE: &str = "qemu.qmp==0.0.6";

fn run(program: &Path, args: &[&str]) -> Output {
    let output = Command::new(program).args(args).output();
    output.unwrap_or_else(|error| panic!("{}: {error}; install python3", program.display()))
}

fn said(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    text(&output.stdout) + &text(&output.stderr)
}

/// An interpreter that has the package.
fn interpreter() -> PathBuf {
    let environment = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("qemu-qmp-venv");
    let python = environment.join("bin/python");
    let usable = || {
        Command::new(&python)
            .args(["-c", "import qemu.qmp"])
            .output()
            .is_ok_and(|output| output.status.success())
    };
    if usable() {
        println!("using {PACKAGE} in {}", environment.display());
        return python;
    }
    println!("making a virtual environment with {PACKAGE} in {}", environment.display());
    let path = environment.to_str().expect("a path in UTF-8");
    let made = run("python3".as_ref(), &["-m", "venv", "--clear", path]);
    assert!(made.status.success(), "no virtual environment; install python3-venv: {}", said(&made));
    let install = ["-m", "pip", "install", "--disable-pip-version-check", PACKAGE];
    let installed = run(&python, &install);
    assert!(
        installed.status.success(),
        "{PACKAGE} is not to be had from PyPI: {}",
        said(&installed)
    );
    assert!(usable(), "{PACKAGE} cannot be imported");
    python
}

#[test]
fn qemus_python_library_drives_a_machine() {
    if !testkit::kvm("qemus_python_library_drives_a_machine") {
        return;
    }
    let python = interpreter();
    let mut vmm = Vmm::start(RINGVISOR, &["-S", "-name", "python"]);
    drop(vmm.qmp());
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python/client.py");
    let socket = vmm.dir().join("qmp");
    let args = [script, socket].map(|path| path.to_str().expect("UTF-8").to_owned());
    let output = run(&python, &args.each_ref().map(String::as_str));
    println!("{}", said(&output));
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(said(&output).matches("ok ").count(), 7);
    assert_eq!(vmm.finish().code(), 0);
}

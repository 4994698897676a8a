//! Compiles this package's library a second time, as the bare-metal guest image.
//!
//! Only the stable toolchain that builds the workspace is used: the image is an ordinary static
//! executable of the host's own target with its own linker script and without a C library, so no
//! extra target has to be installed. The options are fixed here, whatever the outer profile is.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

fn main() {
    println!("cargo::rustc-check-cfg=cfg(guest_image)");
    for path in ["build.rs", "guest.ld", "src"] {
        println!("cargo::rerun-if-changed={path}");
    }
    let target = variable("TARGET");
    if !(target.starts_with("x86_64-") && target.contains("-linux-")) {
        fail(&format!(
            "the embedded guest is built for x86_64 Linux targets only, not for {target}"
        ));
    }
    let manifest_dir = PathBuf::from(variable("CARGO_MANIFEST_DIR"));
    let image = Path::new(&variable("OUT_DIR")).join("guest.elf");
    let mut rustc = Command::new(variable("RUSTC"));
    rustc.current_dir(&manifest_dir).arg("src/lib.rs").arg("-o").arg(&image);
    rustc.args(["--crate-name", "guest_image", "--crate-type", "bin", "--edition", "2024"]);
    rustc.args([
        "--cfg",
        "guest_image",
        "--check-cfg",
        "cfg(guest_image, test)",
        "--target",
        &target,
    ]);
    for option in [
        "panic=abort",
        "opt-level=2",
        "codegen-units=1",
        "overflow-checks=on",
        "relocation-model=static",
        "target-feature=+crt-static",
        "strip=debuginfo",
        "link-arg=-nostartfiles",
        "link-arg=-nostdlib",
        "link-arg=-static",
        "link-arg=-no-pie",
        "link-arg=-Wl,-Tguest.ld,--build-id=none,-z,noexecstack,--gc-sections",
    ] {
        rustc.args(["-C", option]);
    }
    if let Some(linker) = env::var_os("RUSTC_LINKER") {
        let mut option = std::ffi::OsString::from("linker=");
        option.push(linker);
        rustc.arg("-C").arg(option);
    }
    // Neither what cargo meant for the outer build nor a wrapper may change the image.
    rustc.env_remove("RUSTFLAGS").env_remove("CARGO_ENCODED_RUSTFLAGS");
    let output = match rustc.output() {
        Ok(output) => output,
        Err(error) => fail(&format!("the guest image needs rustc, which did not start: {error}")),
    };
    let messages = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        fail(&format!("the guest image did not compile:\n{messages}"));
    }
    for line in messages.lines().filter(|line| !line.trim().is_empty()) {
        println!("cargo::warning=guest image: {line}");
    }
}

fn variable(name: &str) -> String {
    match env::var(name) {
        Ok(value) => value,
        Err(error) => fail(&format!("cargo sets {name} for build scripts, but: {error}")),
    }
}

fn fail(message: &str) -> ! {
    eprintln!("{message}");
    std::process::exit(1);
}

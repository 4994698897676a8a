//! What Linux finds. Run by `tests/linux/run.sh`, which builds the guest first.

mod boot;
mod hotplug;
mod scsi;

const RINGVISOR: &str = env!("CARGO_BIN_EXE_ringvisor");

/// Where the console of the guest of `test` is kept.
fn log(test: &str) -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("linux-{test}.log"))
}

/// Makes an image of so many MiB; returns its path.
fn image(directory: &std::path::Path, name: &str, mib: u64) -> String {
    let path = directory.join(name);
    std::fs::File::create(&path).unwrap().set_len(mib << 20).unwrap();
    path.to_str().unwrap().to_owned()
}

/// The `-drive` option for a new image.
fn drive(directory: &std::path::Path, id: &str, mib: u64) -> String {
    format!("file={},format=raw,if=none,id={id}", image(directory, id, mib))
}

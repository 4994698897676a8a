//! What cannot be opened, and what the user is told.

use super::super::open::{check_size, refused};
use super::super::{Cache, FileOptions, OpenError, open_file, scratch};
use crate::virtio::testing::on_core;
use std::io;
use std::path::Path;

async fn message(options: FileOptions) -> String {
    let Err(error) = open_file(options).await else { panic!("it opens") };
    let message = error.to_string();
    assert!(!message.contains('\n'), "one line: {message}");
    message
}

#[test]
fn images_that_are_none_are_refused_in_one_line() {
    on_core(|_| async {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let path = at("missing");
        assert_eq!(
            message(FileOptions::new(&path)).await,
            format!(
                "image '{}' does not exist; create it (for example: truncate -s 1G FILE) or correct the path",
                path.display()
            )
        );
        assert!(!path.exists(), "nothing is created");
        assert!(message(FileOptions::new(at("missing/below"))).await.contains("does not exist"));
        assert!(message(FileOptions::new(directory.path())).await.contains("is a directory"));
        assert!(message(FileOptions::new("/dev/null")).await.contains("is a character device"));
        assert!(message(FileOptions::new("nul\0byte")).await.contains("NUL"));

        for (name, bytes, expected) in [
            ("empty", 0, "is 0 bytes long, less than one sector of 512"),
            ("tiny", 511, "is 511 bytes long, less than one sector of 512"),
            ("odd", 1000, "is 1000 bytes long, not a multiple of 512"),
        ] {
            std::fs::write(at(name), vec![0; bytes]).unwrap();
            let message = message(FileOptions::new(at(name))).await;
            assert!(message.contains(expected), "{message}");
        }
        // A refused image is not left locked.
        std::fs::write(at("odd"), vec![0; 1024]).unwrap();
        open_file(FileOptions::new(at("odd"))).await.unwrap().close().await.unwrap();
    });
}

#[test]
fn a_fifo_is_refused_without_waiting_for_its_other_end() {
    on_core(|_| async {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("fifo");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        for read_only in [false, true] {
            let options = FileOptions { read_only, ..FileOptions::new(&path) };
            assert!(message(options).await.contains("is a FIFO"));
        }
    });
}

#[test]
fn errors_of_open_are_told_apart() {
    let of = |errno, direct, readable| {
        let error = io::Error::from_raw_os_error(errno);
        refused(Path::new("x"), direct, readable, error)
    };
    assert!(matches!(of(libc::EACCES, false, true), OpenError::NotWritable(_)));
    assert!(matches!(of(libc::EACCES, false, false), OpenError::NotReadable(_)));
    assert!(matches!(of(libc::EPERM, false, true), OpenError::NotWritable(_)));
    assert!(matches!(of(libc::EROFS, false, false), OpenError::ReadOnlyStorage(_)));
    assert!(matches!(of(libc::EINVAL, true, false), OpenError::NoDirectIo(_)));
    assert!(matches!(of(libc::EINVAL, false, false), OpenError::Io { .. }));
    let message = of(libc::EMFILE, false, false).to_string();
    assert_eq!(message, "image 'x': opening it failed: Too many open files (os error 24)");
    let message = of(libc::EACCES, false, true).to_string();
    assert!(message.ends_with("change its permissions or use readonly=on"), "{message}");
}

#[test]
fn sizes_are_whole_sectors() {
    assert!(check_size(Path::new("x"), 512).is_ok());
    assert!(check_size(Path::new("x"), u64::MAX - 511).is_ok());
    assert!(matches!(check_size(Path::new("x"), u64::MAX), Err(OpenError::PartialSector { .. })));
}

#[test]
fn a_scratch_disk_is_an_empty_disk_that_nobody_else_sees() {
    use super::{Rig, pattern};
    use crate::block::Request;
    on_core(|_| async {
        for (asked, got) in [(64 << 20, 64 << 20), (1000, 1024), (0, 512)] {
            assert_eq!(scratch(asked).await.unwrap().size(), got);
        }
        let (one, two) = (scratch(1 << 20).await.unwrap(), scratch(1 << 20).await.unwrap());
        let (mut a, mut b) = (Rig::new(&*one), Rig::new(&*two));
        let data = pattern(4096, 1);
        a.fill(0, &data);
        let write = Request::Write { offset: 8192, stable: false };
        assert_eq!(a.run(write, &[(0, 4096)]).await, Ok(()));
        let read = Request::Read { offset: 8192 };
        assert_eq!(a.run(read, &[(0x10000, 4096)]).await, Ok(()));
        assert_eq!(a.memory(0x10000, 4096), data);
        assert_eq!(b.run(read, &[(0, 4096)]).await, Ok(()));
        assert_eq!(b.memory(0, 4096), vec![0; 4096]);
        let zero = Request::WriteZeroes { offset: 8192, len: 512, unmap: true, stable: true };
        assert_eq!(a.run(zero, &[]).await, Ok(()));
        assert_eq!(a.run(read, &[(0, 4096)]).await, Ok(()));
        assert_eq!(a.memory(0, 512), vec![0; 512]);
        assert_eq!(a.memory(512, 3584), data[512..]);
        drop((a, b));
        one.close().await.unwrap();
        two.close().await.unwrap();
    });
}

#[test]
fn a_scratch_disk_larger_than_files_can_be_is_refused() {
    on_core(|_| async {
        let Err(error) = scratch(u64::MAX).await else { panic!("there is no such file") };
        assert!(error.to_string().contains("setting its size failed"), "{error}");
    });
}

#[test]
fn cache_none_wants_direct_io() {
    on_core(|_| async {
        // procfs does no direct I/O; nor is anything there a whole number of sectors.
        let options = FileOptions {
            cache: Cache::NONE,
            read_only: true,
            locking: false,
            ..FileOptions::new("/proc/version")
        };
        let message = message(options).await;
        assert!(message.contains("use cache=writeback instead of cache=none"), "{message}");
    });
}

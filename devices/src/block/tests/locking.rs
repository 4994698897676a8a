//! Two users of one image.

use super::super::{FileOptions, open_file};
use crate::virtio::testing::on_reactors;
use nix::fcntl::{FcntlArg, fcntl};
use std::io::Write;
use std::path::Path;

fn image() -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&[7; 4096]).unwrap();
    file
}

/// Bytes of the file that a lock of somebody else covers.
fn locked_bytes(path: &Path) -> Vec<i64> {
    let file = std::fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    let locked = |byte: &i64| {
        let mut probe = libc::flock {
            l_type: libc::F_WRLCK as i16,
            l_whence: libc::SEEK_SET as i16,
            l_start: *byte,
            l_len: 1,
            l_pid: 0,
        };
        fcntl(&file, FcntlArg::F_OFD_GETLK(&mut probe)).unwrap();
        probe.l_type != libc::F_UNLCK as i16
    };
    (90..220).filter(locked).collect()
}

#[test]
fn a_second_writer_is_refused_until_the_first_has_closed() {
    on_reactors(1, |_| async {
        let file = image();
        let first = open_file(FileOptions::new(file.path())).await.unwrap();
        let message = open_file(FileOptions::new(file.path())).await.err().unwrap().to_string();
        assert!(message.contains(&file.path().display().to_string()), "{message}");
        assert!(message.contains("in use by another process (its \"write\" lock is held)"));
        assert!(message.contains("-drive ...,file.locking=off"), "{message}");
        // The way out works, and does not loosen the first one's lock.
        let options = FileOptions { locking: false, ..FileOptions::new(file.path()) };
        open_file(options).await.unwrap().close().await.unwrap();
        assert!(open_file(FileOptions::new(file.path())).await.is_err());
        let reader = FileOptions { read_only: true, ..FileOptions::new(file.path()) };
        assert!(open_file(reader.clone()).await.is_err(), "a writer keeps readers out");

        first.close().await.unwrap();
        assert!(first.flush().await.is_err(), "closed is closed");
        first.close().await.unwrap();
        let (a, b) = (open_file(reader.clone()).await.unwrap(), open_file(reader).await.unwrap());
        assert!(open_file(FileOptions::new(file.path())).await.is_err());
        a.close().await.unwrap();
        b.close().await.unwrap();
        open_file(FileOptions::new(file.path())).await.unwrap().close().await.unwrap();
    });
}

#[test]
fn the_locks_are_where_qemu_looks_for_them() {
    on_reactors(1, |_| async {
        let file = image();
        assert_eq!(locked_bytes(file.path()), [0i64; 0]);
        let writer = open_file(FileOptions::new(file.path())).await.unwrap();
        // Used: consistent read, write, resize. Refused to others: write, resize.
        assert_eq!(locked_bytes(file.path()), [100, 101, 103, 201, 203]);
        writer.close().await.unwrap();
        assert_eq!(locked_bytes(file.path()), [0i64; 0]);
        let options = FileOptions { read_only: true, ..FileOptions::new(file.path()) };
        let reader = open_file(options).await.unwrap();
        assert_eq!(locked_bytes(file.path()), [100, 201, 203]);
        reader.close().await.unwrap();
    });
}

#[test]
fn the_lock_ends_with_the_disk_even_when_it_is_just_dropped() {
    on_reactors(1, |_| async {
        let file = image();
        drop(open_file(FileOptions::new(file.path())).await.unwrap());
        assert_eq!(locked_bytes(file.path()), [0i64; 0]);
        open_file(FileOptions::new(file.path())).await.unwrap().close().await.unwrap();
    });
}

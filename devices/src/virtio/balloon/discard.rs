//! Giving guest memory back to the host.

use crate::virtio::Ram;
use std::io;
use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryRegion};

/// The unit of the balloon (section 5.5.6), which is the host's page as well.
pub(super) const PAGE: u64 = 4096;

/// Frees what backs the whole pages of `len` bytes at `address`; they read as zero afterwards. What
/// is not RAM is left alone. Returns how many bytes were freed.
///
/// Does not wait for storage: anonymous memory and memfds have none.
pub(super) fn discard(ram: &Ram, address: u64, len: u64) -> io::Result<u64> {
    let Some(start) = address.checked_next_multiple_of(PAGE) else { return Ok(0) };
    let end = address.saturating_add(len) & !(PAGE - 1);
    let (mut at, mut freed) = (start, 0);
    while at < end {
        let Some(region) = ram.find_region(GuestAddress(at)) else { break };
        let Some(offset) = region.to_region_addr(GuestAddress(at)) else { break };
        let here = (end - at).min(region.len() - offset.0) & !(PAGE - 1);
        if here == 0 {
            break;
        }
        let host = region.get_host_address(offset).map_err(io::Error::other)?;
        // Shared memory keeps its pages when a mapping lets go of them: they must go from the file.
        let advice =
            if region.file_offset().is_some() { libc::MADV_REMOVE } else { libc::MADV_DONTNEED };
        // SAFETY: `here` bytes from `host` on are guest RAM, mapped while `ram` lives, and at page
        // borders. Their contents become zero, which is a change that the guest has asked for and
        // could have made itself; no Rust reference to guest memory exists.
        let result = unsafe { libc::madvise(host.cast(), here as usize, advice) };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
        freed += here;
        at += here;
    }
    Ok(freed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::memfd::{MFdFlags, memfd_create};
    use std::fs::File;
    use std::os::unix::fs::MetadataExt;
    use vm_memory::{Bytes, FileOffset, GuestRegionMmap, MmapRegion};

    const LEN: usize = 16 * PAGE as usize;

    fn memfd() -> File {
        let file = File::from(memfd_create(c"test", MFdFlags::MFD_CLOEXEC).unwrap());
        file.set_len(LEN as u64).unwrap();
        file
    }

    #[test]
    fn whole_pages_are_freed_and_nothing_around_them() {
        let file = memfd();
        let shared = FileOffset::new(file.try_clone().unwrap(), 0);
        let regions = [None, Some(shared)].map(|file| {
            let region =
                file.map_or_else(|| MmapRegion::new(LEN), |file| MmapRegion::from_file(file, LEN));
            let region = GuestRegionMmap::new(region.unwrap(), GuestAddress(0x10_0000)).unwrap();
            Ram::from_regions(vec![region]).unwrap()
        });
        for ram in regions {
            let ones = vec![0xff; LEN];
            ram.write_slice(&ones, GuestAddress(0x10_0000)).unwrap();
            let freed = discard(&ram, 0x10_0000 + PAGE - 1, 3 * PAGE).unwrap();
            assert_eq!(freed, 2 * PAGE, "the pages that lie wholly inside");
            let mut bytes = vec![0; LEN];
            ram.read_slice(&mut bytes, GuestAddress(0x10_0000)).unwrap();
            let page = PAGE as usize;
            assert!(bytes[..page].iter().all(|byte| *byte == 0xff));
            assert!(bytes[page..3 * page].iter().all(|byte| *byte == 0));
            assert!(bytes[3 * page..].iter().all(|byte| *byte == 0xff));
            for (address, len) in [(0, PAGE), (u64::MAX, 1), (u64::MAX - PAGE, u64::MAX), (0, 0)] {
                assert_eq!(discard(&ram, address, len).unwrap(), 0, "{address:#x} is not RAM");
            }
            assert_eq!(discard(&ram, 0x10_0000 + 15 * PAGE, 8 * PAGE).unwrap(), PAGE);
        }
        let blocks = file.metadata().unwrap().blocks();
        // Looking at the first two has brought them back: three were freed.
        assert_eq!(blocks * 512, 15 * PAGE, "the memfd has shrunk");
    }
}

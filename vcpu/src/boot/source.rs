//! Where kernels and initrds come from.

use super::BootError;
use crate::memory::Ram;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use vm_memory::{Bytes, GuestAddress};

/// Bytes copied at once.
const CHUNK: usize = 256 * 1024;
const PAGE: usize = 4096;

/// A file, kept open so that a reset loads what the start has checked; or bytes of this program.
#[derive(Debug)]
pub(super) struct Source {
    pub option: &'static str,
    pub path: String,
    pub len: u64,
    content: Content,
}

#[derive(Debug)]
enum Content {
    File(File),
    Bytes(&'static [u8]),
}

impl Source {
    /// Opens a regular file that is not empty.
    pub fn open(option: &'static str, path: &Path) -> Result<Self, BootError> {
        let name = path.display().to_string();
        let error = |source| BootError::Open { option, path: name.clone(), source };
        // Nonblocking, lest a FIFO holds us up until somebody writes to it.
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(path)
            .map_err(error)?;
        let metadata = file.metadata().map_err(error)?;
        if !metadata.is_file() {
            return Err(BootError::NotAFile { option, path: name });
        }
        if metadata.len() == 0 {
            return Err(BootError::Empty { option, path: name });
        }
        Ok(Self { option, path: name, len: metadata.len(), content: Content::File(file) })
    }

    /// Bytes that are in memory already; `name` is for messages.
    pub fn embedded(name: &str, bytes: &'static [u8]) -> Self {
        let (path, len) = (name.to_owned(), bytes.len() as u64);
        Self { option: "-kernel", path, len, content: Content::Bytes(bytes) }
    }

    /// Fills `data` from `offset`.
    pub fn read(&self, offset: u64, data: &mut [u8]) -> Result<(), BootError> {
        let result = match &self.content {
            Content::File(file) => file.read_exact_at(data, offset),
            Content::Bytes(bytes) => usize::try_from(offset)
                .ok()
                .and_then(|start| bytes.get(start..start.checked_add(data.len())?))
                .map(|part| data.copy_from_slice(part))
                .ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof)),
        };
        result.map_err(|source| BootError::Read {
            option: self.option,
            path: self.path.clone(),
            source,
        })
    }

    /// At most `len` bytes from `offset`, as far as the source goes.
    pub fn bytes(&self, offset: u64, len: u64) -> Result<Vec<u8>, BootError> {
        let len = len.min(self.len.saturating_sub(offset));
        let mut data = vec![0; len as usize];
        self.read(offset, &mut data)?;
        Ok(data)
    }

    /// Copies `len` bytes from `offset` to guest memory at `to`.
    pub fn copy(&self, offset: u64, len: u64, ram: &Ram, to: u64) -> Result<(), BootError> {
        let mut buffer = vec![0; CHUNK.min(len as usize)];
        let mut done = 0;
        while done < len {
            let piece = (len - done).min(CHUNK as u64) as usize;
            let data = buffer.get_mut(..piece).unwrap_or_default();
            self.read(offset + done, data)?;
            ram.write_slice(data, GuestAddress(to + done))?;
            done += piece as u64;
        }
        Ok(())
    }
}

/// Clears guest memory, without touching pages that are zero already: a fresh guest's uninitialized
/// data costs the host nothing.
pub(super) fn clear(ram: &Ram, from: u64, len: u64) -> Result<(), BootError> {
    let (mut at, end) = (from, from.saturating_add(len));
    let mut page = [0; PAGE];
    while at < end {
        let piece = (PAGE as u64 - at % PAGE as u64).min(end - at) as usize;
        let part = page.get_mut(..piece).unwrap_or_default();
        ram.read_slice(part, GuestAddress(at))?;
        if part.iter().any(|byte| *byte != 0) {
            part.fill(0);
            ram.write_slice(part, GuestAddress(at))?;
        }
        at += piece as u64;
    }
    Ok(())
}

//! Ring creation and the features that the reactor cannot do without.

use io_uring::{IoUring, Probe, opcode};
use std::io;

/// Why no ring could be made.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// `io_uring_setup` is forbidden or absent.
    #[error(
        "io_uring is not available ({0}): needs Linux 6.1 or later, \
         `sysctl kernel.io_uring_disabled=0` and a seccomp profile that allows io_uring_setup"
    )]
    Unavailable(#[source] io::Error),
    /// The kernel refuses a set-up flag.
    #[error(
        "this kernel's io_uring has no IORING_SETUP_{flag} (since Linux {since}): upgrade the kernel"
    )]
    Flag {
        /// The flag without its prefix.
        flag: &'static str,
        /// The first version that has it.
        since: &'static str,
    },
    /// The kernel has no such opcode or feature.
    #[error("this kernel's io_uring has no {feature} (since Linux {since}): upgrade the kernel")]
    Missing {
        /// The opcode or feature.
        feature: &'static str,
        /// The first version that has it.
        since: &'static str,
    },
    /// No memory or descriptors for a ring.
    #[error(
        "no io_uring of {entries} entries can be made ({source}): raise `ulimit -l` or `ulimit -n`"
    )]
    Resources {
        /// The ring's size.
        entries: u32,
        /// What the kernel answered.
        #[source]
        source: io::Error,
    },
}

/// What newer kernels can do and the reactor can do without.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Features {
    /// `IORING_OP_READ_MULTISHOT`, Linux 6.7.
    pub(crate) read_multishot: bool,
    /// `IORING_OP_FTRUNCATE`, Linux 6.9.
    pub(crate) ftruncate: bool,
}

/// The number of submission entries that a ring has when asked for `entries`: a power of two from 4 to
/// 32768. An entry and its time limit go in together, and leave room.
pub(crate) fn fitting_entries(entries: u32) -> u32 {
    entries.clamp(4, 32768).next_power_of_two()
}

/// Makes the ring with the flags of the design and checks what it can do.
pub(super) fn build(entries: u32) -> Result<(IoUring, Features), SetupError> {
    let ring = IoUring::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_taskrun_flag()
        .setup_submit_all()
        .setup_clamp()
        // Room for bursts of multishot completions; more are kept by the kernel (NODROP).
        .setup_cqsize(entries.saturating_mul(4).max(64))
        .build(entries)
        .map_err(|error| explain(error, entries))?;
    let params = ring.params();
    for (present, feature, since) in [
        (params.is_feature_nodrop(), "IORING_FEAT_NODROP", "5.5"),
        (params.is_feature_submit_stable(), "IORING_FEAT_SUBMIT_STABLE", "5.5"),
        (params.is_feature_fast_poll(), "IORING_FEAT_FAST_POLL", "5.7"),
        (params.is_feature_ext_arg(), "IORING_FEAT_EXT_ARG", "5.11"),
        (params.is_feature_skip_cqe_on_success(), "IORING_FEAT_CQE_SKIP", "5.17"),
    ] {
        if !present {
            return Err(SetupError::Missing { feature, since });
        }
    }
    let features = probe(&ring, entries)?;
    Ok((ring, features))
}

fn probe(ring: &IoUring, entries: u32) -> Result<Features, SetupError> {
    let mut probe = Probe::new();
    ring.submitter()
        .register_probe(&mut probe)
        .map_err(|source| SetupError::Resources { entries, source })?;
    for (code, feature, since) in [
        (opcode::Readv::CODE, "IORING_OP_READV", "5.1"),
        (opcode::Writev::CODE, "IORING_OP_WRITEV", "5.1"),
        (opcode::Fsync::CODE, "IORING_OP_FSYNC", "5.1"),
        (opcode::PollAdd::CODE, "IORING_OP_POLL_ADD", "5.1"),
        (opcode::ReadFixed::CODE, "IORING_OP_READ_FIXED", "5.1"),
        (opcode::WriteFixed::CODE, "IORING_OP_WRITE_FIXED", "5.1"),
        (opcode::SendMsg::CODE, "IORING_OP_SENDMSG", "5.3"),
        (opcode::RecvMsg::CODE, "IORING_OP_RECVMSG", "5.3"),
        (opcode::LinkTimeout::CODE, "IORING_OP_LINK_TIMEOUT", "5.5"),
        (opcode::Accept::CODE, "IORING_OP_ACCEPT", "5.5"),
        (opcode::Connect::CODE, "IORING_OP_CONNECT", "5.5"),
        (opcode::AsyncCancel::CODE, "IORING_OP_ASYNC_CANCEL", "5.5"),
        (opcode::Read::CODE, "IORING_OP_READ", "5.6"),
        (opcode::Write::CODE, "IORING_OP_WRITE", "5.6"),
        (opcode::Recv::CODE, "IORING_OP_RECV", "5.6"),
        (opcode::Send::CODE, "IORING_OP_SEND", "5.6"),
        (opcode::Fallocate::CODE, "IORING_OP_FALLOCATE", "5.6"),
        (opcode::OpenAt::CODE, "IORING_OP_OPENAT", "5.6"),
        (opcode::Close::CODE, "IORING_OP_CLOSE", "5.6"),
        (opcode::Statx::CODE, "IORING_OP_STATX", "5.6"),
        (opcode::Shutdown::CODE, "IORING_OP_SHUTDOWN", "5.11"),
        (opcode::RenameAt::CODE, "IORING_OP_RENAMEAT", "5.11"),
        (opcode::UnlinkAt::CODE, "IORING_OP_UNLINKAT", "5.11"),
        (opcode::MkDirAt::CODE, "IORING_OP_MKDIRAT", "5.15"),
        (opcode::MsgRingData::CODE, "IORING_OP_MSG_RING", "5.18"),
    ] {
        if !probe.is_supported(code) {
            return Err(SetupError::Missing { feature, since });
        }
    }
    Ok(Features {
        read_multishot: probe.is_supported(opcode::ReadMulti::CODE),
        ftruncate: probe.is_supported(opcode::Ftruncate::CODE),
    })
}

fn explain(error: io::Error, entries: u32) -> SetupError {
    match error.raw_os_error() {
        // SINGLE_ISSUER (6.0) is older than DEFER_TASKRUN (6.1), so the later one names the version.
        Some(libc::EINVAL) => SetupError::Flag { flag: "DEFER_TASKRUN", since: "6.1" },
        Some(libc::ENOSYS | libc::EPERM | libc::EACCES) => SetupError::Unavailable(error),
        _ => SetupError::Resources { entries, source: error },
    }
}

#[cfg(test)]
mod tests {
    use super::{SetupError, explain, fitting_entries};
    use std::io;

    #[test]
    fn sizes_become_powers_of_two() {
        let sizes = [(0, 4), (1, 4), (4, 4), (5, 8), (100, 128), (128, 128), (u32::MAX, 32768)];
        for (asked, given) in sizes {
            assert_eq!(fitting_entries(asked), given);
        }
    }

    #[test]
    fn each_refusal_says_what_to_do() {
        let text = |errno| explain(io::Error::from_raw_os_error(errno), 128).to_string();
        assert!(text(1).contains("kernel.io_uring_disabled"), "{}", text(1)); // EPERM
        assert!(text(38).contains("seccomp"), "{}", text(38)); // ENOSYS
        assert!(text(22).contains("IORING_SETUP_DEFER_TASKRUN"), "{}", text(22)); // EINVAL
        assert!(text(12).contains("ulimit -l"), "{}", text(12)); // ENOMEM
        let emfile = explain(io::Error::from_raw_os_error(24), 128);
        assert!(matches!(emfile, SetupError::Resources { entries: 128, .. }));
    }
}

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

/// Makes the ring with the flags of the design and checks what it can do.
pub(super) fn build(entries: u32) -> Result<IoUring, SetupError> {
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
    probe(&ring, entries)?;
    Ok(ring)
}

fn probe(ring: &IoUring, entries: u32) -> Result<(), SetupError> {
    let mut probe = Probe::new();
    ring.submitter()
        .register_probe(&mut probe)
        .map_err(|source| SetupError::Resources { entries, source })?;
    for (code, feature, since) in [
        (opcode::Readv::CODE, "IORING_OP_READV", "5.1"),
        (opcode::Writev::CODE, "IORING_OP_WRITEV", "5.1"),
        (opcode::Fsync::CODE, "IORING_OP_FSYNC", "5.1"),
        (opcode::PollAdd::CODE, "IORING_OP_POLL_ADD", "5.1"),
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
        (opcode::MsgRingData::CODE, "IORING_OP_MSG_RING", "5.18"),
    ] {
        if !probe.is_supported(code) {
            return Err(SetupError::Missing { feature, since });
        }
    }
    Ok(())
}

fn explain(error: io::Error, entries: u32) -> SetupError {
    match error.raw_os_error() {
        // SINGLE_ISSUER (6.0) is older than DEFER_TASKRUN (6.1), so the later one names the version.
        Some(libc::EINVAL) => SetupError::Flag { flag: "DEFER_TASKRUN", since: "6.1" },
        Some(libc::ENOSYS | libc::EPERM | libc::EACCES) => SetupError::Unavailable(error),
        _ => SetupError::Resources { entries, source: error },
    }
}

//! How the commands of the block graph and of objects differ from QEMU's, and why.

/// As `DIFFERENCES` in `schema`.
pub(super) const BLOCK: &[(&str, &str)] = &[
    (
        "blockdev-add: arguments(blkdebug).align is QEMU's only",
        "requests have the limits of the node below",
    ),
    ("blockdev-add: arguments(blkdebug).config is QEMU's only", "rules are given as members"),
    (
        "blockdev-add: arguments(blkdebug).max-discard is QEMU's only",
        "requests have the limits of the node below",
    ),
    (
        "blockdev-add: arguments(blkdebug).max-transfer is QEMU's only",
        "requests have the limits of the node below",
    ),
    (
        "blockdev-add: arguments(blkdebug).max-write-zero is QEMU's only",
        "requests have the limits of the node below",
    ),
    (
        "blockdev-add: arguments(blkdebug).opt-discard is QEMU's only",
        "requests have the limits of the node below",
    ),
    (
        "blockdev-add: arguments(blkdebug).opt-write-zero is QEMU's only",
        "requests have the limits of the node below",
    ),
    ("blockdev-add: arguments(blkdebug).set-state is QEMU's only", "rules have no states"),
    (
        "blockdev-add: arguments(blkdebug).take-child-perms is QEMU's only",
        "for tests of permissions",
    ),
    (
        "blockdev-add: arguments(blkdebug).unshare-child-perms is QEMU's only",
        "for tests of permissions",
    ),
    (
        "blockdev-add: arguments(blkdebug).inject-error[].state is QEMU's only",
        "rules have no states",
    ),
    (
        "blockdev-add: arguments(blkdebug).inject-error[].x-bytes is ours only",
        "an extension: torn requests",
    ),
    (
        "blockdev-add: arguments(blkdebug).inject-error[].x-delay-ns is ours only",
        "an extension: slow requests",
    ),
    ("blockdev-add: arguments has other variants", "the other drivers are not there"),
    (
        "blockdev-add: arguments(file).aio-max-batch is QEMU's only",
        "requests are batched by the turn of the loop",
    ),
    (
        "blockdev-add: arguments(file).drop-cache is QEMU's only",
        "for migration, which is not there",
    ),
    (
        "blockdev-add: arguments(file).pr-manager is QEMU's only",
        "persistent reservations are not there",
    ),
    ("blockdev-add: arguments(file).x-check-cache-dropped is QEMU's only", "unstable there"),
    (
        "blockdev-add: arguments(qcow2).cache-clean-interval is QEMU's only",
        "the caches of tables have a fixed size",
    ),
    ("blockdev-add: arguments(qcow2).cache-size is QEMU's only", "as above"),
    (
        "blockdev-add: arguments(qcow2).data-file is QEMU's only",
        "external data files are not supported",
    ),
    (
        "blockdev-add: arguments(qcow2).discard-no-unref is QEMU's only",
        "discards always free clusters",
    ),
    ("blockdev-add: arguments(qcow2).encrypt is QEMU's only", "encrypted images are not supported"),
    ("blockdev-add: arguments(qcow2).l2-cache-entry-size is QEMU's only", "as above"),
    ("blockdev-add: arguments(qcow2).l2-cache-size is QEMU's only", "as above"),
    (
        "blockdev-add: arguments(qcow2).lazy-refcounts is QEMU's only",
        "reference counts are always written",
    ),
    (
        "blockdev-add: arguments(qcow2).overlap-check is QEMU's only",
        "metadata is never written over by design of the allocator",
    ),
    (
        "blockdev-add: arguments(qcow2).pass-discard-other is QEMU's only",
        "discards always reach the file",
    ),
    ("blockdev-add: arguments(qcow2).pass-discard-request is QEMU's only", "as above"),
    ("blockdev-add: arguments(qcow2).pass-discard-snapshot is QEMU's only", "as above"),
    (
        "blockdev-add: arguments(qcow2).refcount-cache-size is QEMU's only",
        "the caches of tables have a fixed size",
    ),
    ("blockdev-add: arguments(vmdk).backing is QEMU's only", "delta images are not supported"),
    ("blockdev-add: arguments.active is QEMU's only", "for migration, which is not there"),
    (
        "blockdev-change-medium: arguments.device has other features",
        "QEMU marks it as deprecated; members have no features here",
    ),
    (
        "blockdev-close-tray: arguments.device has other features",
        "QEMU marks it as deprecated; members have no features here",
    ),
    (
        "blockdev-open-tray: arguments.device has other features",
        "QEMU marks it as deprecated; members have no features here",
    ),
    (
        "eject: arguments.device has other features",
        "QEMU marks it as deprecated; members have no features here",
    ),
    (
        "block_set_io_throttle: arguments.device has other features",
        "QEMU marks it as deprecated; members have no features here",
    ),
    (
        "blockdev-add: arguments.force-share is QEMU's only",
        "for readers of images in use, which QEMU's tools are",
    ),
    (
        "query-block: return[].inserted.dirty-bitmaps is QEMU's only",
        "optional there: there are no dirty bitmaps",
    ),
    (
        "query-block: return[].inserted.image.compressed is QEMU's only",
        "optional there: of formats that are not there",
    ),
    (
        "query-block: return[].inserted.image.encrypted is QEMU's only",
        "optional there: of formats that are not there",
    ),
    (
        "query-block: return[].inserted.image.format-specific has other variants",
        "the other formats are not there",
    ),
    (
        "query-block: return[].inserted.image.format-specific(qcow2).data.bitmaps is QEMU's only",
        "optional there: there are no dirty bitmaps",
    ),
    (
        "query-block: return[].inserted.image.format-specific(qcow2).data.data-file is QEMU's only",
        "optional there: external data files are not supported",
    ),
    (
        "query-block: return[].inserted.image.format-specific(qcow2).data.data-file-raw is QEMU's only",
        "as above",
    ),
    (
        "query-block: return[].inserted.image.format-specific(qcow2).data.encrypt is QEMU's only",
        "optional there: encrypted images are not supported",
    ),
    (
        "query-block: return[].inserted.image.format-specific.type: word luks is QEMU's only",
        "the other formats are not there",
    ),
    (
        "query-block: return[].inserted.image.format-specific.type: word rbd is QEMU's only",
        "as above",
    ),
    (
        "query-block: return[].inserted.image.format-specific.type: word vmdk is QEMU's only",
        "there is nothing to tell of flat extents",
    ),
    ("query-blockstats: return[].backing is QEMU's only", "optional there: only devices count"),
    (
        "query-blockstats: return[].driver-specific is QEMU's only",
        "optional there: only devices count",
    ),
    ("query-blockstats: return[].parent is QEMU's only", "optional there: only devices count"),
];

/// As `DIFFERENCES` in `schema`, of objects.
pub(super) const OBJECTS: &[(&str, &str)] = &[
    ("object-add: arguments has other variants", "the other types are not there"),
    (
        "object-add: arguments(memory-backend-file).align is QEMU's only",
        "the pages of what holds it are the alignment",
    ),
    (
        "object-add: arguments(memory-backend-file).discard-data is QEMU's only",
        "the file keeps what was written",
    ),
    (
        "object-add: arguments(memory-backend-file).host-nodes is QEMU's only",
        "memory is not bound to nodes of the host",
    ),
    ("object-add: arguments(memory-backend-file).pmem is QEMU's only", "there are no NVDIMMs"),
    (
        "object-add: arguments(memory-backend-file).policy is QEMU's only",
        "memory is not bound to nodes of the host",
    ),
    (
        "object-add: arguments(memory-backend-file).prealloc-context is QEMU's only",
        "there are no such contexts",
    ),
    (
        "object-add: arguments(memory-backend-file).readonly is QEMU's only",
        "the guest writes to its memory",
    ),
    (
        "object-add: arguments(memory-backend-file).rom is QEMU's only",
        "the guest writes to its memory",
    ),
    (
        "object-add: arguments(memory-backend-file).x-use-canonical-path-for-ramblock-id is QEMU's only",
        "for migration",
    ),
    (
        "object-add: arguments(memory-backend-memfd).host-nodes is QEMU's only",
        "memory is not bound to nodes of the host",
    ),
    (
        "object-add: arguments(memory-backend-memfd).policy is QEMU's only",
        "memory is not bound to nodes of the host",
    ),
    (
        "object-add: arguments(memory-backend-memfd).prealloc-context is QEMU's only",
        "there are no such contexts",
    ),
    (
        "object-add: arguments(memory-backend-memfd).x-use-canonical-path-for-ramblock-id is QEMU's only",
        "for migration",
    ),
    (
        "object-add: arguments(memory-backend-ram).host-nodes is QEMU's only",
        "memory is not bound to nodes of the host",
    ),
    (
        "object-add: arguments(memory-backend-ram).policy is QEMU's only",
        "memory is not bound to nodes of the host",
    ),
    (
        "object-add: arguments(memory-backend-ram).prealloc-context is QEMU's only",
        "there are no such contexts",
    ),
    (
        "object-add: arguments(memory-backend-ram).x-use-canonical-path-for-ramblock-id is QEMU's only",
        "for migration",
    ),
    ("object-add: arguments(rng-builtin).opened is QEMU's only", "deprecated there"),
    ("object-add: arguments(rng-random).opened is QEMU's only", "deprecated there"),
    (
        "object-add: arguments(throttle-group).x-iops-total is QEMU's only",
        "unstable there: see limits",
    ),
    (
        "object-add: arguments(throttle-group).x-iops-total-max is QEMU's only",
        "unstable there: see limits",
    ),
    (
        "object-add: arguments(throttle-group).x-iops-total-max-length is QEMU's only",
        "unstable there: see limits",
    ),
    (
        "object-add: arguments(throttle-group).x-iops-read is QEMU's only",
        "unstable there: see limits",
    ),
    (
        "object-add: arguments(throttle-group).x-iops-read-max is QEMU's only",
        "unstable there: see limits",
    ),
    (
        "object-add: arguments(throttle-group).x-iops-read-max-length is QEMU's only",
        "unstable there: see limits",
    ),
    (
        "object-add: arguments(throttle-group).x-iops-write is QEMU's only",
        "unstable there: see limits",
    ),
    (
        "object-add: arguments(throttle-group).x-iops-write-max is QEMU's only",
        "unstable there: see limits",
    ),
    (
        "object-add: arguments(throttle-group).x-iops-write-max-length is QEMU's only",
        "unstable there: see limits",
    ),
    (
        "object-add: arguments(throttle-group).x-bps-total is QEMU's only",
        "unstable there: see limits",
    ),
    (
        "object-add: arguments(throttle-group).x-bps-total-max is QEMU's only",
        "unstable there: see limits",
    ),
    (
        "object-add: arguments(throttle-group).x-bps-total-max-length is QEMU's only",
        "unstable there: see limits",
    ),
    (
        "object-add: arguments(throttle-group).x-bps-read is QEMU's only",
        "unstable there: see limits",
    ),
    (
        "object-add: arguments(throttle-group).x-bps-read-max is QEMU's only",
        "unstable there: see limits",
    ),
    (
        "object-add: arguments(throttle-group).x-bps-read-max-length is QEMU's only",
        "unstable there: see limits",
    ),
    (
        "object-add: arguments(throttle-group).x-bps-write is QEMU's only",
        "unstable there: see limits",
    ),
    (
        "object-add: arguments(throttle-group).x-bps-write-max is QEMU's only",
        "unstable there: see limits",
    ),
    (
        "object-add: arguments(throttle-group).x-bps-write-max-length is QEMU's only",
        "unstable there: see limits",
    ),
    (
        "object-add: arguments(throttle-group).x-iops-size is QEMU's only",
        "unstable there: see limits",
    ),
    (
        "query-memdev: return[].policy: word bind is QEMU's only",
        "memory is not bound to nodes of the host",
    ),
    (
        "query-memdev: return[].policy: word interleave is QEMU's only",
        "memory is not bound to nodes of the host",
    ),
    (
        "query-memdev: return[].policy: word preferred is QEMU's only",
        "memory is not bound to nodes of the host",
    ),
];

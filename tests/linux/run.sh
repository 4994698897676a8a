#!/usr/bin/env bash
# Builds the Linux guest, where it is not in the cache, and boots it in ringvisor.
set -euo pipefail
cd "$(dirname "$0")/../.."
built=$(tests/linux/build.sh)
printf '%s\n' "$built"
eval "$(tail -n 3 <<<"$built")"
# The variables are named by the last lines of build.sh.
# shellcheck disable=SC2154
RINGVISOR_LINUX_KERNEL=$kernel RINGVISOR_LINUX_INITRD=$initrd \
    cargo test --locked --release -p ringvisor --features linux-guest --test linux -- --test-threads 1 "$@"

#!/bin/bash
# Builds the Linux guest that the tests boot, or finds it in the cache.
# Usage: build.sh [--unpatched]
# Progress goes to stderr; the last lines of stdout name the results:
#   bzimage=PATH
#   kernel=PATH     (uncompressed ELF vmlinux)
#   initrd=PATH
# See README.md in this folder.
set -euo pipefail
export LC_ALL=C
umask 022

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
readonly here
readonly source_package=linux-source-6.1
readonly source_tarball=/usr/src/$source_package.tar.xz
# What decides the bytes of each result: its packages' versions are hashed.
readonly kernel_inputs=("$source_package" gcc binutils)
readonly initramfs_inputs=(busybox-static sg3-utils libsgutils2-1.46-2 libc6
	e2fsprogs libext2fs2 libcom-err2 libblkid1 libuuid1)
# What else the two builds run.
readonly tools=(make flex bison bc patch xz-utils cpio libelf-dev libc6-dev)

note() { printf '%s\n' "$*" >&2; }
die() {
	note "build.sh: $*"
	exit 1
}

# Prints "package version", a line for each installed package among "$@".
installed() {
	dpkg-query -W -f '${db:Status-Status} ${Package} ${Version}\n' "$@" 2>/dev/null |
		sed -n 's/^installed //p' || true
}

# Installs those packages of "$@" that are missing, or says how.
require() {
	local have missing=() package
	have=$(installed "$@" | cut -d ' ' -f 1)
	for package in "$@"; do
		grep -qxF -e "$package" <<<"$have" || missing+=("$package")
	done
	((${#missing[@]})) || return 0
	local apt=(apt-get install -y --no-install-recommends "${missing[@]}")
	((EUID == 0)) || die "packages are missing; run: sudo ${apt[*]}"
	note "installing ${missing[*]}"
	export DEBIAN_FRONTEND=noninteractive
	apt=("${apt[0]}" -o DPkg::Lock::Timeout=300 "${apt[@]:1}")
	# The second try is for a machine whose package lists are absent or old.
	"${apt[@]}" >&2 </dev/null ||
		{ apt-get update >&2 </dev/null && "${apt[@]}" >&2 </dev/null; } ||
		die "cannot install ${missing[*]}: see the message of apt-get above"
}

# Prints 16 hex digits for the files "$@" and the text on stdin.
digest() {
	{
		cat
		(cd "$here" && sha256sum "$@")
	} | sha256sum | cut -c 1-16
}

# Fills directory $1 of the cache by running "${@:2} OUT" in a scratch folder,
# unless it is there. A build that fails leaves nothing but its log.
cached() {
	local result=$cache/$1 log=$cache/$1.log work
	[[ -d $result ]] && return
	mkdir -p "$cache" || die "cannot create $cache: set RINGVISOR_CACHE to a writable folder"
	(
		flock 9
		[[ -d $result ]] && exit # another process built it meanwhile
		rm -rf "$cache"/.work.* # left by a build that was killed; the lock is ours
		require "${kernel_inputs[@]}" "${initramfs_inputs[@]}" "${tools[@]}"
		work=$(mktemp -d "$cache/.work.XXXXXX")
		trap 'rm -rf "$work"' EXIT
		trap 'exit 1' HUP INT TERM
		mkdir "$work/out"
		chmod 755 "$work/out"
		note "building $result"
		if ! (cd "$work" && "${@:2}" "$work/out") >"$log" 2>&1 </dev/null 9>&-; then
			tail -n 40 "$log" >&2
			die "the build of $1 failed: the whole log is $log"
		fi
		mv -T "$work/out" "$result"
		rm -f "$log"
	) 9>"$cache/.lock"
}

main() {
	local patches=() versions kernel initramfs
	case "${1-}" in
	'') patches=("$here"/patches/*.patch) ;;
	--unpatched) ;;
	*) die "unknown argument '$1': the only option is --unpatched" ;;
	esac
	command -v dpkg-query >/dev/null ||
		die "the guest is built from Debian packages: run this on Debian 12 or in a container of it"
	cache=${RINGVISOR_CACHE:-${XDG_CACHE_HOME:-${HOME:?set HOME or RINGVISOR_CACHE}/.cache}/ringvisor}
	[[ $cache == /* ]] || cache=$PWD/$cache
	readonly cache

	require "${kernel_inputs[@]}" "${initramfs_inputs[@]}"
	versions=$(installed "${kernel_inputs[@]}")
	kernel=linux-$(digest kernel.sh guest.config "${patches[@]#"$here"/}" <<<"$versions")
	versions=$(installed "${initramfs_inputs[@]}")
	initramfs=initramfs-$(digest initramfs.sh init <<<"$versions")

	cached "$kernel" "$here/kernel.sh" "$source_tarball" "$here/guest.config" \
		"${patches[@]}"
	cached "$initramfs" "$here/initramfs.sh" "$here/init"
	printf '%s\n' "bzimage=$cache/$kernel/bzImage" "kernel=$cache/$kernel/vmlinux" \
		"initrd=$cache/$initramfs/initramfs.cpio"
}

main "$@"

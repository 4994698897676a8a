#!/bin/bash
# Builds the guest kernel in the current folder, which must be empty.
# Usage: kernel.sh TARBALL CONFIG [PATCH...] OUT
# OUT gets vmlinux (stripped), bzImage, config and System.map.
# Called by build.sh, which caches the result by the hash of this file.
set -euo pipefail
export LC_ALL=C

tarball=$1 config=$2 out=${*: -1}
patches=("${@:3:$#-3}")

# Of drivers that the guest cannot have, only the Kconfig and make files are needed.
skip=()
for folder in drivers/gpu drivers/media drivers/infiniband drivers/staging sound \
	tools/perf tools/testing; do
	skip+=(--exclude="*/$folder/*.[chS]")
done
mkdir source
tar -xf "$tarball" -C source --strip-components=1 --wildcards "${skip[@]}"
cd source
for patch in "${patches[@]}"; do
	patch -p1 --no-backup-if-mismatch <"$patch"
done

# The same inputs give the same bytes, whoever builds them and when.
export KBUILD_BUILD_USER=ringvisor KBUILD_BUILD_HOST=ringvisor KBUILD_BUILD_VERSION=1
KBUILD_BUILD_TIMESTAMP=$(date -u -r Makefile '+%Y-%m-%d %H:%M:%S UTC')
export KBUILD_BUILD_TIMESTAMP

make -s tinyconfig
scripts/kconfig/merge_config.sh -m .config "$config" >/dev/null
make -s olddefconfig
wrong=0
while read -r line; do
	case $line in
	CONFIG_*=*) grep -qxF -e "$line" .config && continue ;;
	'# CONFIG_'*' is not set')
		option=${line#\# }
		grep -q "^${option% is not set}=" .config || continue
		;;
	*) continue ;;
	esac
	echo "Kconfig did not take: $line"
	wrong=1
done <"$config"
((wrong == 0)) || exit 1

make -s -j"$(nproc)" bzImage
strip --strip-all -o "$out/vmlinux" vmlinux
cp arch/x86/boot/bzImage System.map "$out"
cp .config "$out/config"

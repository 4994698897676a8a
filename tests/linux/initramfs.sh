#!/bin/bash
# Packs the guest's initramfs in the current folder, which must be empty.
# Usage: initramfs.sh INIT OUT
# OUT gets initramfs.cpio, uncompressed: the guest would have to decompress it
# in CPL 0, which hosts without VMX/SVM emulate.
# Called by build.sh, which caches the result by the hash of this file.
set -euo pipefail
export LC_ALL=C

init=$1 out=$2

# /dev/console comes from the archive that is built into every kernel. One name
# is enough: this busybox's shell finds all its applets by itself.
mkdir -p root/{bin,dev,etc/acpi/PWRF,proc,root,run,sys,tmp}
cp /bin/busybox root/bin
ln -s busybox root/bin/sh
# SCSI's own tools and those of ext4, with the libraries that they load.
for tool in /usr/bin/sg_{inq,luns,vpd,readcap,unmap,write_same,sync,reset,turs,verify,modes,requests} \
	/usr/sbin/{mkfs.ext4,e2fsck}; do
	cp -L "$tool" root/bin
	ldd "$tool" | sed -n 's/.*[[:space:]]\(\/[^ ]*\) (.*/\1/p'
done | sort -u | while read -r library; do
	mkdir -p "root${library%/*}"
	cp -L "$library" "root$library"
done
install -m 755 "$init" root/init
# busybox acpid runs this when the power button is pressed.
printf '#!/bin/sh\nexec poweroff -f\n' >root/etc/acpi/PWRF/00000080
chmod 755 root/etc/acpi/PWRF/00000080

cd root
find . -exec touch -h -d @0 {} +
find . -print0 | sort -z |
	cpio --quiet --null -o -H newc --reproducible --owner 0:0 >"$out/initramfs.cpio"

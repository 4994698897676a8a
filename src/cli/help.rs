//! What `-help` prints; also the list of options that take a value.

use std::fmt::Write;

/// Option, its value, what it does.
const OPTIONS: &[(&str, &str, &str)] = &[
    (
        "kernel",
        "FILE",
        "boot this kernel: vmlinux or another PVH ELF, or bzImage (default: the embedded guest)",
    ),
    ("initrd", "FILE", "initial RAM disk of the kernel"),
    (
        "append",
        "TEXT",
        "command line of the kernel; of the embedded guest: commands, such as \"check;poweroff\"",
    ),
    ("m", "SIZE", "RAM in MiB, or with a suffix (512M, 6G); default 128M"),
    ("smp", "N", "vCPUs; also cpus=N,sockets=N,cores=N,threads=N; default 1"),
    ("cpu", "host[,+F][,-F]", "the host's CPU, with features added or taken away"),
    (
        "drive",
        "file=PATH[,...]",
        "a disk: format=raw|qcow2|vmdk, if=virtio|none, id=ID, serial=TEXT, readonly=on|off,",
    ),
    (
        "",
        "",
        "  cache=none|writeback|writethrough|directsync|unsafe, discard=ignore|unmap, file.locking=on|off,",
    ),
    (
        "",
        "",
        "  detect-zeroes=off|on|unmap, file.OPTION=VALUE for the node below, file=null-co://,",
    ),
    (
        "",
        "",
        "  throttling.bps-total=N (-read, -write; iops-; -max, -max-length), throttling.group=NAME",
    ),
    (
        "blockdev",
        "driver=D,node-name=N[,...]",
        "a block node, also as JSON: file, host_device, raw, qcow2, vmdk, null-co; a device names it with drive=N",
    ),
    (
        "device",
        "TYPE[,PROPERTY=VALUE...]",
        "a device, also as JSON; -device help lists the types, -device TYPE,help its properties",
    ),
    (
        "netdev",
        "TYPE,id=ID[,...]",
        "a network back end, also as JSON, for -device virtio-net-pci,netdev=ID (-netdev help):",
    ),
    (
        "",
        "",
        "  socket: listen=HOST:PORT | connect=HOST:PORT | fd=N | udp=HOST:PORT,localaddr=HOST:PORT;",
    ),
    (
        "",
        "",
        "  stream: addr.type=unix|inet|fd, addr.path|host|port|str, server=on|off, reconnect-ms=N;",
    ),
    ("", "", "  dgram: local.type, local.path, remote.type, remote.path, ...;"),
    ("", "", "  tap: ifname=NAME | fd=N | fds=N:N, queues=N, vnet_hdr=on|off; no script is run"),
    (
        "nic",
        "none|TYPE[,...]",
        "a network back end and its adapter: the keys of -netdev, and mac=ADDRESS, addr=SLOT",
    ),
    (
        "object",
        "TYPE,id=ID[,...]",
        "an object, also as JSON: iothread, memory-backend-ram, rng-random, secret, throttle-group, ...",
    ),
    (
        "chardev",
        "KIND,id=ID[,...]",
        "a character device: socket, stdio, file, pty, ringbuf, null (-chardev help); mux=on shares it:",
    ),
    (
        "",
        "",
        "  socket: path=PATH[,abstract=on] | host=ADDRESS,port=PORT | fd=N, server=on|off, wait=on|off,",
    ),
    ("", "", "    reconnect-ms=N, nodelay=on|off, uids=ID:ID, gids=ID:ID"),
    ("", "", "  file: path=PATH, append=on|off, input-path=PATH; pty: path=LINK; ringbuf: size=N;"),
    ("", "", "  stdio: signal=on|off"),
    (
        "mon",
        "chardev=ID,mode=control|readline",
        "a monitor on it: QMP (pretty=on|off) or for people",
    ),
    (
        "serial",
        "WHERE",
        "COM1: mon:stdio (default), stdio, file:PATH, unix:PATH[,server=on,wait=off], tcp:ADDRESS:PORT,",
    ),
    ("", "", "  pty, ringbuf, null, chardev:ID, none"),
    (
        "qmp",
        "unix:PATH,server=on,wait=off",
        "QMP for many clients; also tcp:ADDRESS:PORT,...; without server=on it connects; else as -serial",
    ),
    ("qmp-pretty", "WHERE", "the same, with line breaks and indentation"),
    ("monitor", "WHERE", "monitor for people, in the same places; stdio"),
    ("add-fd", "fd=N,set=M[,opaque=TEXT]", "put an inherited descriptor into a set (query-fdsets)"),
    ("uuid", "UUID", "the machine's identifier, for query-uuid"),
    ("name", "TEXT", "the guest's name, for query-name"),
    ("machine", "pc|none", "machine type; none: only a monitor. Also accel=kvm, memory-backend=ID"),
    ("M", "pc|none", "the same"),
    (
        "accel",
        "kvm|qtest",
        "accelerator; may be repeated, the first usable one is taken. qtest: no vCPU runs, a",
    ),
    ("", "", "  program outside does the guest's accesses (device tests; needs no KVM)"),
    ("qtest", "unix:PATH|chardev:ID", "speak the qtest protocol there; server=on: listen"),
    ("qtest-log", "FILE|none", "log of the qtest protocol; default: stderr"),
    ("display", "none", "there is no other display"),
    ("audio", "none", "there is no sound"),
    ("vga", "none", "there is no graphics adapter"),
    ("net", "none", "as -nic none"),
    ("no-user-config", "", "accepted; no configuration file is read"),
    (
        "reactor",
        "cores=LIST,poll-max-ns=N",
        "host CPUs of the I/O reactors (0-3, 0:2:5); how long they poll before they sleep",
    ),
    ("nographic", "", "serial console and monitor on the terminal (the default)"),
    ("nodefaults", "", "no scratch disk, no default QMP socket, no default console"),
    ("S", "", "do not start the vCPUs; type cont in the monitor"),
    ("preconfig", "", "wait for x-exit-preconfig before the machine is configured"),
    (
        "action",
        "EVENT=ACTION[,...]",
        "reboot=reset|shutdown, shutdown=poweroff|pause, panic=pause|shutdown|exit-failure|none,",
    ),
    ("", "", "  watchdog=reset|shutdown|poweroff|pause|debug|none|inject-nmi"),
    ("no-reboot", "", "exit when the guest resets: -action reboot=shutdown"),
    ("no-shutdown", "", "stop, but do not exit, when the guest powers off: -action shutdown=pause"),
    ("enable-kvm", "", "the same as -accel kvm"),
    ("version", "", "print the version"),
    ("help", "", "print this"),
];

/// The names of all options.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    OPTIONS.iter().map(|(name, ..)| *name).filter(|name| !name.is_empty())
}

/// Whether `-option VALUE` exists.
pub(super) fn takes_value(option: &str) -> bool {
    OPTIONS.iter().any(|(name, value, _)| !value.is_empty() && *name == option)
}

/// One line with the version.
pub(super) fn version() -> String {
    concat!("ringvisor ", env!("CARGO_PKG_VERSION"), "\n").to_owned()
}

/// The help text.
pub(super) fn text() -> String {
    let mut text = version();
    text.push_str("usage: ringvisor [options]\n       ringvisor qmp [options] SOCKET [COMMAND [ARGUMENTS]]; see ringvisor qmp -help\n       ringvisor img COMMAND ...; see ringvisor img -help\n\n");
    for (name, value, what) in OPTIONS {
        let left = if name.is_empty() { String::new() } else { format!("-{name} {value}") };
        let gap = if left.len() > 31 { format!("\n{:33}", "") } else { String::new() };
        let _infallible = writeln!(text, "{left:33}{gap}{what}");
    }
    text.push_str(
        "\nOn the terminal: Ctrl-A H help, Ctrl-A X quit, Ctrl-A C console or monitor.\n\
         Try: ringvisor -append \"check;poweroff\"\n",
    );
    text
}

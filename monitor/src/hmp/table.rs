//! The commands of the human monitor.

use super::args::Failure;
use super::{block, chardev, devices, hardware, info, media, memory, net, qom};
use crate::BoxFuture;
use crate::commands::memory::inject_nmi;
use crate::commands::run_state;
use crate::core::Env;
use crate::error::QmpError;
use std::fmt::Write as _;

/// Runs with the rest of the line and gives text whose lines end in `\n`.
pub(super) type Run = for<'a> fn(&'a Env, &'a str) -> BoxFuture<'a, Result<String, Failure>>;

/// A command.
pub(super) struct HmpCommand {
    /// The name and its abbreviations, separated by `|`.
    pub(super) names: &'static str,
    /// How its arguments are written, for the help; empty where there are none.
    pub(super) params: &'static str,
    /// What it does.
    pub(super) help: &'static str,
    pub(super) run: Run,
}

impl HmpCommand {
    fn is_called(&self, name: &str) -> bool {
        self.names.split('|').any(|own| own == name)
    }

    fn help_line(&self, prefix: &str) -> String {
        format!("{prefix}{} {} -- {}\n", self.names, self.params, self.help)
    }
}

pub(super) const COMMANDS: &[HmpCommand] = &[
    HmpCommand {
        names: "balloon",
        params: "target",
        help: "request VM to change its memory allocation (in MB)",
        run: |env, rest| ready(hardware::balloon(env, rest)),
    },
    HmpCommand {
        names: "block_resize",
        params: "device size",
        help: "resize a block image",
        run: |env, rest| Box::pin(block::resize(env, rest)),
    },
    HmpCommand {
        names: "block_set_io_throttle",
        params: "device bps bps_rd bps_wr iops iops_rd iops_wr",
        help: "change I/O throttle limits for a block drive",
        run: |env, rest| Box::pin(block::set_io_throttle(env, rest)),
    },
    HmpCommand {
        names: "change",
        params: "device [-f] filename [format [read-only-mode]]",
        help: "change a removable medium, optional format, use -f to force the operation",
        run: |env, rest| Box::pin(media::change(env, rest)),
    },
    HmpCommand {
        names: "chardev-add",
        params: "args",
        help: "add chardev",
        run: |env, rest| Box::pin(chardev::add(env, rest)),
    },
    HmpCommand {
        names: "chardev-change",
        params: "id args",
        help: "change chardev",
        run: |env, rest| Box::pin(chardev::change(env, rest)),
    },
    HmpCommand {
        names: "chardev-remove",
        params: "id",
        help: "remove chardev",
        run: |env, rest| ready(chardev::remove(env, rest)),
    },
    HmpCommand {
        names: "chardev-send-break",
        params: "id",
        help: "send a break on chardev",
        run: |env, rest| ready(chardev::send_break(env, rest)),
    },
    HmpCommand {
        names: "closefd",
        params: "closefd name",
        help: "close a file descriptor previously passed via SCM rights",
        run: |env, rest| ready(chardev::close_fd(env, rest)),
    },
    HmpCommand {
        names: "cont|c",
        params: "",
        help: "resume emulation",
        run: |env, _| quietly(run_state::cont(env.clone(), ())),
    },
    HmpCommand {
        names: "device_add",
        params: "driver[,prop=value][,...]",
        help: "add device, like -device on the command line",
        run: |env, rest| Box::pin(devices::add(env, rest)),
    },
    HmpCommand {
        names: "device_del",
        params: "device",
        help: "remove device",
        run: |env, rest| Box::pin(devices::del(env, rest)),
    },
    HmpCommand {
        names: "device_set_iothread",
        params: "device [iothread]",
        help: "serve a device's queues by an I/O thread, or by all cores",
        run: |env, rest| Box::pin(devices::set_iothread(env, rest)),
    },
    HmpCommand {
        names: "drive_add",
        params: "[-n] slot [file=file][,if=none][,id=id][,option=value][,...]",
        help: "add a drive for a device to come; -n: a block node, like -blockdev",
        run: |env, rest| Box::pin(block::drive_add(env, rest)),
    },
    HmpCommand {
        names: "drive_del",
        params: "device",
        help: "remove host block device",
        run: |env, rest| Box::pin(block::drive_del(env, rest)),
    },
    HmpCommand {
        names: "eject",
        params: "[-f] device",
        help: "eject a removable medium (use -f to force it)",
        run: |env, rest| Box::pin(media::eject(env, rest)),
    },
    HmpCommand {
        names: "exit_preconfig",
        params: "",
        help: "exit the preconfig state",
        run: |env, _| quietly(run_state::x_exit_preconfig(env.clone(), ())),
    },
    HmpCommand {
        names: "getfd",
        params: "getfd name",
        help: "receive a file descriptor via SCM rights and assign it a name",
        run: |env, rest| ready(chardev::get_fd(env, rest)),
    },
    HmpCommand {
        names: "help|?",
        params: "[cmd]",
        help: "show the help",
        run: |_, rest| Box::pin(async move { Ok(help(rest)) }),
    },
    HmpCommand {
        names: "info",
        params: "[subcommand]",
        help: "show various information about the system state",
        run: |env, rest| Box::pin(run_info(env, rest)),
    },
    HmpCommand {
        names: "memsave",
        params: "addr size file",
        help: "save to disk virtual memory dump starting at 'addr' of size 'size'",
        run: |env, rest| Box::pin(memory::memsave(env, rest)),
    },
    HmpCommand {
        names: "netdev_add",
        params: "[socket|stream|dgram|tap],id=str[,prop=value][,...]",
        help: "add host network device",
        run: |env, rest| Box::pin(std::future::ready(net::add(env, rest))),
    },
    HmpCommand {
        names: "netdev_del",
        params: "id",
        help: "remove host network device",
        run: |env, rest| Box::pin(std::future::ready(net::del(env, rest))),
    },
    HmpCommand {
        names: "nmi",
        params: "",
        help: "inject an NMI",
        run: |env, _| quietly(inject_nmi(env.clone(), ())),
    },
    HmpCommand {
        names: "object_add",
        params: "[qom-type=]type,id=str[,prop=value][,...]",
        help: "create QOM object",
        run: |env, rest| Box::pin(qom::object_add(env, rest)),
    },
    HmpCommand {
        names: "object_del",
        params: "id",
        help: "destroy QOM object",
        run: |env, rest| Box::pin(qom::object_del(env, rest)),
    },
    HmpCommand {
        names: "pmemsave",
        params: "addr size file",
        help: "save to disk physical memory dump starting at 'addr' of size 'size'",
        run: |env, rest| Box::pin(memory::pmemsave(env, rest)),
    },
    HmpCommand {
        names: "print|p",
        params: "/fmt expr",
        help: "print expression value (fmt is one of x, d, u, o, c)",
        run: |_, rest| Box::pin(std::future::ready(memory::print(rest))),
    },
    HmpCommand {
        names: "qom-get",
        params: "path property",
        help: "print QOM property",
        run: |env, rest| Box::pin(std::future::ready(qom::get(env, rest))),
    },
    HmpCommand {
        names: "qom-list",
        params: "path",
        help: "list QOM properties",
        run: |env, rest| Box::pin(std::future::ready(qom::list(env, rest))),
    },
    HmpCommand {
        names: "qom-set",
        params: "[-j] path property value",
        help: "set QOM property (-j: the value is specified in json format)",
        run: |env, rest| Box::pin(std::future::ready(qom::set(env, rest))),
    },
    HmpCommand {
        names: "quit|q",
        params: "",
        help: "quit the emulator",
        run: |env, _| quietly(run_state::quit(env.clone(), ())),
    },
    HmpCommand {
        names: "ringbuf_read",
        params: "device size",
        help: "Read from a ring buffer character device",
        run: |env, rest| ready(chardev::ring_read(env, rest)),
    },
    HmpCommand {
        names: "ringbuf_write",
        params: "device data",
        help: "Write to a ring buffer character device",
        run: |env, rest| ready(chardev::ring_write(env, rest)),
    },
    HmpCommand {
        names: "set_link",
        params: "name on|off",
        help: "change the link status of a network adapter",
        run: |env, rest| ready(net::set_link(env, rest)),
    },
    HmpCommand {
        names: "snapshot_blkdev",
        params: "[-n] device [new-image-file] [format]",
        help: "initiate a live snapshot of device into a new image (qcow2 by default; -n: it is there already)",
        run: |env, rest| Box::pin(block::snapshot_blkdev(env, rest)),
    },
    HmpCommand {
        names: "stop|s",
        params: "",
        help: "stop emulation",
        run: |env, _| quietly(run_state::stop(env.clone(), ())),
    },
    HmpCommand {
        names: "sum",
        params: "addr size",
        help: "compute the checksum of a memory region",
        run: |env, rest| Box::pin(memory::sum(env, rest)),
    },
    HmpCommand {
        names: "system_powerdown",
        params: "",
        help: "send system power down event",
        run: |env, _| quietly(run_state::system_powerdown(env.clone(), ())),
    },
    HmpCommand {
        names: "system_reset",
        params: "",
        help: "reset the system",
        run: |env, _| quietly(run_state::system_reset(env.clone(), ())),
    },
    HmpCommand {
        names: "system_wakeup",
        params: "",
        help: "wakeup guest from suspend",
        run: |env, _| quietly(run_state::system_wakeup(env.clone(), ())),
    },
    HmpCommand {
        names: "x",
        params: "/fmt addr",
        help: "virtual memory dump starting at 'addr' (fmt: count, one of x d u o c, one of b h w g)",
        run: |env, rest| Box::pin(memory::x(env, rest)),
    },
    HmpCommand {
        names: "xp",
        params: "/fmt addr",
        help: "physical memory dump starting at 'addr'",
        run: |env, rest| Box::pin(std::future::ready(memory::xp(env, rest))),
    },
];

/// A command that does not wait.
fn ready<'a>(result: Result<String, Failure>) -> BoxFuture<'a, Result<String, Failure>> {
    Box::pin(std::future::ready(result))
}

/// A command that says nothing when it succeeds.
fn quietly<'a>(
    command: impl Future<Output = Result<(), QmpError>> + Send + 'a,
) -> BoxFuture<'a, Result<String, Failure>> {
    Box::pin(async move { Ok(command.await.map(|()| String::new())?) })
}

/// What `info` knows.
pub(super) fn info() -> &'static [HmpCommand] {
    info::COMMANDS
}

/// Whether a line only looks at the machine, without waiting.
pub(super) fn only_looks(line: &str) -> bool {
    const LOOKS: [&str; 8] = ["", "info", "help", "?", "print", "p", "qom-get", "qom-list"];
    LOOKS.contains(&split(line).0)
}

/// Runs one line.
pub(super) async fn run(env: &Env, line: &str) -> String {
    let (name, rest) = split(line);
    if name.is_empty() {
        return String::new();
    }
    match COMMANDS.iter().find(|command| command.is_called(name)) {
        Some(command) => call(command, env, rest, name).await,
        None => format!("unknown command: '{name}'\n"),
    }
}

/// Runs a command. `asked` is how to ask for its help.
async fn call(command: &HmpCommand, env: &Env, rest: &str, asked: &str) -> String {
    let result = if command.params.is_empty() && !rest.is_empty() {
        Err(Failure::Argument("extraneous characters at the end of line"))
    } else {
        (command.run)(env, rest).await
    };
    let text = match result {
        Ok(text) => return text,
        Err(Failure::Command(error)) => return format!("Error: {error}\n"),
        Err(Failure::Syntax(text)) => text,
        Err(Failure::Argument(text)) => format!("{}: {text}", command.names),
    };
    format!("{text}\nTry \"help {asked}\" for more information\n")
}

async fn run_info(env: &Env, rest: &str) -> Result<String, Failure> {
    let (name, rest) = split(rest);
    if name.is_empty() {
        return Ok(help("info"));
    }
    Ok(match info::COMMANDS.iter().find(|command| command.is_called(name)) {
        Some(command) => call(command, env, rest, &format!("info {name}")).await,
        None => format!("unknown command: 'info {name}'\n"),
    })
}

fn help(rest: &str) -> String {
    let (name, sub) = split(rest);
    let lines = |commands: &[HmpCommand], prefix: &str| {
        commands.iter().fold(String::new(), |mut text, command| {
            let _ = text.write_str(&command.help_line(prefix));
            text
        })
    };
    match (name, sub) {
        ("", _) => lines(COMMANDS, ""),
        ("info", "") => lines(info::COMMANDS, "info "),
        ("info", sub) => match info::COMMANDS.iter().find(|command| command.is_called(sub)) {
            Some(command) => command.help_line("info "),
            None => format!("unknown command: 'info {sub}'\n"),
        },
        (name, _) => match COMMANDS.iter().find(|command| command.is_called(name)) {
            Some(command) => command.help_line(""),
            None => format!("unknown command: '{name}'\n"),
        },
    }
}

/// The first word and the rest, without the white space around them. A format may follow at once:
/// `xp/4xw 0`.
fn split(text: &str) -> (&str, &str) {
    let text = text.trim();
    let end = text.find(|c: char| c.is_whitespace() || c == '/').unwrap_or(text.len());
    let (word, rest) = text.split_at(end);
    (word, rest.trim_start())
}

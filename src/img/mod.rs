//! `ringvisor img`: makes, looks at, checks and converts disk images, with the arguments of qemu-img.
//!
//! | what | where |
//! |---|---|
//! | its commands | here |
//! | their arguments, sizes, options of formats | `arguments` |
//! | opening images, by the block graph | `image` |
//! | what a range of a chain of images is | `extents` |
//! | `create`, `info`, `check`, `convert`, `resize`, `map` | files of these names |
//! | sizes and progress as text | `output` |
//!
//! A reactor on one core runs underneath: images are read and written by the drivers that a machine
//! uses.

mod arguments;
mod check;
mod convert;
mod create;
mod extents;
mod image;
mod info;
mod map;
mod output;
mod resize;

use arguments::{Arguments, Option_};
use std::ffi::OsString;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

/// What `-help` prints.
const HELP: &str = "\
usage: ringvisor img COMMAND [options] ...

create [-q] [-f FORMAT] [-o OPTIONS] [-b BACKING -F FORMAT] [-u] FILE [SIZE]
info [-f FORMAT] [-U] [--backing-chain] [--output human|json] FILE
check [-q] [-f FORMAT] [-U] [--output human|json] FILE
convert [-p] [-q] [-n] [-f FORMAT] [-O FORMAT] [-o OPTIONS] [-S SIZE] [-m N] [-U] SOURCE TARGET
resize [-q] [-f FORMAT] [--preallocation MODE] [--shrink] FILE [+|-]SIZE
map [-f FORMAT] [-U] [-s OFFSET] [-l LENGTH] [--output human|json] FILE

Formats: raw, qcow2; vmdk to be read (flat extents). SIZE is in bytes, or with k, M, G, T, P, E.
OPTIONS: size, preallocation=off|metadata|falloc|full (raw: off, falloc, full);
for qcow2 also cluster_size, refcount_bits, backing_file, backing_fmt.

Arguments, output and exit status are those of qemu-img.

Try: ringvisor img create -f qcow2 disk.qcow2 20G
     ringvisor img info disk.qcow2
";

type Work = Pin<Box<dyn Future<Output = Result<u8, String>>>>;

/// A command: its options, and what it does with its arguments.
struct Command {
    name: &'static str,
    options: &'static [Option_],
    run: fn(Arguments) -> Work,
}

const COMMANDS: &[Command] = &[
    Command { name: "create", options: create::OPTIONS, run: |args| Box::pin(create::run(args)) },
    Command { name: "info", options: info::OPTIONS, run: |args| Box::pin(info::run(args)) },
    Command { name: "check", options: check::OPTIONS, run: |args| Box::pin(check::run(args)) },
    Command {
        name: "convert",
        options: convert::OPTIONS,
        run: |args| Box::pin(convert::run(args)),
    },
    Command { name: "resize", options: resize::OPTIONS, run: |args| Box::pin(resize::run(args)) },
    Command { name: "map", options: map::OPTIONS, run: |args| Box::pin(map::run(args)) },
];

/// Runs a command; the exit status. The error is one line for the user.
pub(crate) fn run(args: impl IntoIterator<Item = OsString>) -> Result<u8, String> {
    let mut words = Vec::new();
    for arg in args {
        let word =
            arg.into_string().map_err(|arg| format!("{} is not valid UTF-8", arg.display()))?;
        words.push(word);
    }
    let mut words = words.into_iter();
    let name = words.next().unwrap_or_default();
    if name.is_empty() || ["-h", "-help", "--help", "help"].contains(&name.as_str()) {
        print!("{HELP}");
        return Ok(0);
    }
    let command = COMMANDS.iter().find(|command| command.name == name);
    let command = command.ok_or_else(|| {
        format!("img: no command '{name}'; see: ringvisor img -help (and qemu-img has more)")
    })?;
    let named = |error: String| format!("img {name}: {error}");
    let Some(args) = Arguments::parse(command.options, words).map_err(named)? else {
        print!("{HELP}");
        return Ok(0);
    };
    let allowed = reactor::allowed_cpus().map_err(|error| format!("sched_getaffinity: {error}"))?;
    let mut config = reactor::Config::with_cores(allowed.into_iter().take(1).collect());
    config.hooks = vec![rcu::turn_hook()];
    // Nobody else waits here.
    config.stall_limit = Duration::MAX;
    let work = command.run;
    let result = reactor::run(config, move |reactors| async move {
        image::set_reactors(&reactors);
        let task = reactors.main().spawn_local_with("img", move || work(args));
        task.await.unwrap_or_else(|error| Err(error.to_string()))
    });
    result.map_err(|error| error.to_string())?.map_err(named)
}

//! The `key=value` parameters of options, for `query-command-line-options`.

use super::help;
use monitor::CommandLineParameterType::{self, Boolean, Number, Size, String as Text};
use monitor::{CommandLineOptionInfo, CommandLineParameterInfo};

type Parameter = (&'static str, CommandLineParameterType, &'static str);

/// Option and parameters. An option that takes no `key=value` is not here.
const PARAMETERS: &[(&str, &[Parameter])] = &[
    ("accel", &[("accel", Text, "kvm")]),
    (
        "action",
        &[
            ("reboot", Text, "reset or shutdown"),
            ("shutdown", Text, "poweroff or pause"),
            ("panic", Text, "pause, shutdown, exit-failure or none"),
            ("watchdog", Text, "reset, shutdown, poweroff, pause, debug, none or inject-nmi"),
        ],
    ),
    (
        "add-fd",
        &[
            ("fd", Number, "the descriptor"),
            ("set", Number, "the set"),
            ("opaque", Text, "a text to know it by"),
        ],
    ),
    (
        "chardev",
        &[
            ("backend", Text, "socket, stdio, file, pty, ringbuf or null"),
            ("id", Text, "its name"),
            ("mux", Boolean, "several front ends share it"),
            ("path", Text, "where it is"),
            ("abstract", Boolean, "the path is an abstract name"),
            ("host", Text, "IP address"),
            ("port", Text, "TCP port"),
            ("fd", Text, "inherited descriptor"),
            ("server", Boolean, "listens"),
            ("wait", Boolean, "the machine waits for a client"),
            ("nodelay", Boolean, "small packets are sent at once"),
            ("reconnect", Number, "seconds until a lost connection is made anew"),
            ("reconnect-ms", Number, "milliseconds until a lost connection is made anew"),
        ],
    ),
    (
        "drive",
        &[
            ("file", Text, "the image"),
            ("format", Text, "raw"),
            ("if", Text, "virtio or none"),
            ("id", Text, "its name for -device"),
            ("cache", Text, "none, writeback, writethrough, directsync or unsafe"),
            ("readonly", Boolean, "the guest may not write"),
            ("discard", Text, "ignore or unmap"),
            ("detect-zeroes", Text, "off, on or unmap"),
            ("throttling.group", Text, "whom it shares its limits with"),
            ("throttling.bps-total", Number, "bytes a second"),
            ("throttling.bps-read", Number, "bytes read a second"),
            ("throttling.bps-write", Number, "bytes written a second"),
            ("throttling.iops-total", Number, "requests a second"),
            ("throttling.iops-read", Number, "reads a second"),
            ("throttling.iops-write", Number, "writes a second"),
            ("throttling.iops-size", Number, "bytes of a request that counts as one"),
            ("aio", Text, "io_uring"),
            ("file.locking", Boolean, "other processes are kept from the image"),
            ("serial", Text, "serial number"),
        ],
    ),
    ("machine", &[("type", Text, "pc"), ("accel", Text, "kvm")]),
    ("m", &[("size", Size, "RAM")]),
    (
        "mon",
        &[
            ("chardev", Text, "character device"),
            ("mode", Text, "control or readline"),
            ("pretty", Boolean, "line breaks and indentation"),
        ],
    ),
    ("name", &[("guest", Text, "for query-name")]),
    (
        "reactor",
        &[("cores", Text, "host CPUs"), ("poll-max-ns", Number, "longest poll before a sleep")],
    ),
    (
        "smp",
        &[
            ("cpus", Number, "vCPUs"),
            ("sockets", Number, "packages"),
            ("cores", Number, "cores of a package"),
            ("threads", Number, "threads of a core"),
            ("maxcpus", Number, "as cpus"),
        ],
    ),
];

/// All options by name.
pub(crate) fn describe() -> Vec<CommandLineOptionInfo> {
    let mut options: Vec<CommandLineOptionInfo> = help::names().map(option).collect();
    options.sort_by(|a, b| a.option.cmp(&b.option));
    options
}

fn option(name: &str) -> CommandLineOptionInfo {
    let parameters = PARAMETERS.iter().find(|(option, _)| *option == name);
    let parameter = |&(name, ty, help): &Parameter| CommandLineParameterInfo {
        name: name.to_owned(),
        ty,
        help: Some(help.to_owned()),
        default: None,
    };
    CommandLineOptionInfo {
        option: name.to_owned(),
        parameters: parameters.map_or(&[][..], |(_, list)| list).iter().map(parameter).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::{PARAMETERS, describe};
    use crate::cli::parse;
    use std::ffi::OsString;

    /// The error that an option's value leads to, if any.
    fn error(option: &str, value: &str) -> String {
        let args = [format!("-{option}"), value.to_owned()].map(OsString::from);
        parse(args).err().unwrap_or_default()
    }

    #[test]
    fn each_parameter_is_one_that_its_option_takes() {
        for (option, parameters) in PARAMETERS {
            let needed = match *option {
                "drive" => "file=x,if=none,format=raw,",
                "accel" => "accel=kvm,",
                "add-fd" => "fd=0,set=1,",
                "chardev" => "backend=socket,path=x,id=a,",
                "mon" => "chardev=a,mode=control,",
                "m" => "size=1,",
                _ => "",
            };
            for (name, ..) in *parameters {
                let other = needed.split(',').filter(|pair| !pair.starts_with(&format!("{name}=")));
                let value = format!("{name}=1,{}", other.collect::<Vec<_>>().join(","));
                let error = error(option, &value);
                assert!(!error.contains("there is no '"), "-{option} {value}: {error}");
            }
            let unknown = error(option, &format!("{needed}nonsense=1"));
            assert!(unknown.contains("nonsense"), "-{option}: {unknown}");
        }
    }

    #[test]
    fn options_are_listed_once() {
        let names: Vec<String> = describe().into_iter().map(|option| option.option).collect();
        assert!(names.is_sorted_by(|a, b| a < b), "{names:?}");
        for (option, _) in PARAMETERS {
            assert!(names.iter().any(|name| name == option), "{option}");
        }
    }
}

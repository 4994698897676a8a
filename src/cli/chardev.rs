//! `-chardev`, and the short forms of `-serial`, `-monitor` and `-qmp`.

use super::keyval::{self, KeyVal};
use devices::chardev::{
    Address, AllowList, BACKENDS, Backend, RINGBUF_SIZE, SocketFrom, SocketOptions, inherited,
};
use devices::text::is_identifier;
use std::fmt::Write;
use std::time::Duration;

/// Milliseconds of `reconnect-ms`: up to a day.
const RECONNECT_MS_MAX: u64 = 24 * 60 * 60 * 1000;

/// What a short form stands for.
#[derive(Debug)]
pub(super) enum Short {
    /// Nothing.
    None,
    /// The character device of this id.
    Id(String),
    /// A character device of its own; shared with a monitor when `mux` is set.
    New { backend: Backend, mux: bool },
}

/// `-chardev help`
pub(super) fn help() -> String {
    let mut text = "Available chardev backend types:\n".to_owned();
    for name in BACKENDS {
        let _infallible = writeln!(text, "  {name}");
    }
    text
}

/// A `-chardev` option: its id, what it is, and whether front ends share it.
pub(super) fn parse(value: &str) -> Result<(String, Backend, bool), String> {
    let mut kv = KeyVal::parse("chardev", value, Some("backend"))?;
    let name = kv.take("backend").unwrap_or_default();
    let id = kv.take("id").ok_or_else(|| kv.error("a character device needs id=ID"))?;
    if !is_identifier(&id) {
        return Err(kv.error(&format!(
            "'id={id}' is no identifier: letters, digits, '-', '.', '_', a letter first"
        )));
    }
    let mux = kv.take_bool("mux")?.unwrap_or(false);
    let backend = backend(&name, &mut kv)?;
    Ok((id, backend, mux))
}

/// Takes everything out of `kv` that the back end has.
fn backend(name: &str, kv: &mut KeyVal) -> Result<Backend, String> {
    let (backend, known) = match name {
        "socket" => return socket(kv).map(Backend::Socket),
        "null" => (Backend::Null, "id, mux"),
        "stdio" => {
            let signal = kv.take_bool("signal")?.unwrap_or(true);
            (Backend::Stdio { signal }, "id, mux, signal")
        }
        "file" => {
            let path = kv.take("path").filter(|path| !path.is_empty());
            let path = path.ok_or_else(|| kv.error("a file needs path=PATH"))?;
            let append = kv.take_bool("append")?.unwrap_or(false);
            let input = kv.take("input-path").map(Into::into);
            (
                Backend::File { path: path.into(), append, input },
                "id, mux, path, append, input-path",
            )
        }
        "pty" => {
            let link = kv.take("path").map(Into::into);
            (Backend::Pty { link }, "id, mux, path")
        }
        "ringbuf" | "memory" => {
            let size = kv.take("size").map(|text| {
                keyval::size(&text, 1)
                    .filter(|size| size.is_power_of_two())
                    .ok_or_else(|| kv.error("size of ringbuf chardev must be power of two"))
            });
            (Backend::Ringbuf { size: size.transpose()?.unwrap_or(RINGBUF_SIZE) }, "id, mux, size")
        }
        other => {
            return Err(kv.error(&format!(
                "there is no back end '{other}'; there are socket, stdio, file, pty, ringbuf, null"
            )));
        }
    };
    kv.nothing_left(known)?;
    Ok(backend)
}

/// The keys of a socket.
fn socket(kv: &mut KeyVal) -> Result<SocketOptions, String> {
    for key in ["telnet", "tn3270", "websocket"] {
        if kv.take_bool(key)?.unwrap_or(false) {
            return Err(kv.error(&format!("'{key}' is not supported; leave it out")));
        }
    }
    let from = socket_from(kv)?;
    let server = kv.take_bool("server")?.unwrap_or(false);
    let mut options = SocketOptions::new(from, server);
    match kv.take_bool("wait")? {
        Some(true) if !server => {
            return Err(kv.error("'wait=on' is for listening sockets; add server=on"));
        }
        Some(wait) => options.wait = wait,
        None => {}
    }
    // `nodelay` alone reads as `delay` switched off.
    let nodelay = kv.take_bool("nodelay")?.or(kv.take_bool("delay")?.map(|delay| !delay));
    options.nodelay = nodelay.unwrap_or(false);
    options.reconnect = reconnect(kv)?;
    options.allow = AllowList { uids: ids(kv, "uids")?, gids: ids(kv, "gids")? };
    let is_tcp = matches!(options.from, SocketFrom::Address(Address::Tcp(_)));
    if is_tcp && options.allow != AllowList::default() {
        return Err(kv.error("uids and gids are for UNIX sockets"));
    }
    kv.nothing_left(
        "id, mux, path, abstract, host, port, fd, server, wait, nodelay, reconnect-ms, uids, gids",
    )?;
    Ok(options)
}

fn socket_from(kv: &mut KeyVal) -> Result<SocketFrom, String> {
    let (path, host, fd) = (kv.take("path"), kv.take("host"), kv.take("fd"));
    let port = kv.take("port");
    let hidden = kv.take_bool("abstract")?.unwrap_or(false);
    if kv.take_bool("tight")? == Some(false) {
        return Err(kv.error("'tight=off' is not supported; leave it out"));
    }
    match (path, host, fd) {
        (Some(path), None, None) if path.is_empty() => {
            Err(kv.error("a UNIX socket needs a path: write unix:PATH or path=PATH"))
        }
        (Some(path), None, None) if hidden => Ok(SocketFrom::Address(Address::Abstract(path))),
        (Some(path), None, None) => Ok(SocketFrom::Address(Address::Unix(path.into()))),
        (None, Some(host), None) if !hidden => {
            let port = port.ok_or_else(|| kv.error("no port given; write HOST:PORT or port=N"))?;
            let address = Address::tcp(&host, &port).map_err(|error| kv.error(&error))?;
            Ok(SocketFrom::Address(address))
        }
        (None, None, Some(fd)) => {
            let taken = fd.parse().ok().and_then(|number| inherited(number).ok());
            let taken = taken
                .ok_or_else(|| kv.error(&format!("File descriptor '{fd}' is not a socket")))?;
            Ok(SocketFrom::Fd(taken, fd))
        }
        _ => Err(kv.error("a socket needs one of path=PATH, host=HOST with port=PORT, fd=N")),
    }
}

fn reconnect(kv: &mut KeyVal) -> Result<Option<Duration>, String> {
    let ms = kv.take_number("reconnect-ms", 0..=RECONNECT_MS_MAX)?;
    let seconds = kv.take_number("reconnect", 0..=RECONNECT_MS_MAX / 1000)?;
    if ms.is_some() && seconds.is_some() {
        return Err(kv.error("'reconnect' and 'reconnect-ms' are mutually exclusive"));
    }
    let ms = ms.or(seconds.map(|seconds| seconds * 1000)).filter(|ms| *ms > 0);
    Ok(ms.map(Duration::from_millis))
}

/// `1000:1001`
fn ids(kv: &mut KeyVal, key: &str) -> Result<Vec<u32>, String> {
    let Some(value) = kv.take(key) else { return Ok(Vec::new()) };
    let ids: Option<Vec<u32>> = value.split(':').map(|id| id.parse().ok()).collect();
    ids.ok_or_else(|| kv.error(&format!("'{key}' is ID:ID:..., not '{value}'")))
}

/// The short forms of `-option`.
pub(super) fn short(option: &str, value: &str) -> Result<Short, String> {
    let unknown = || {
        format!(
            "-{option}: '{value}' names no character device: write unix:PATH, tcp:HOST:PORT, \
             stdio, file:PATH, pty, ringbuf, null, chardev:ID or none"
        )
    };
    let (head, rest) = value.split_once(':').unwrap_or((value, ""));
    let new = |backend| Ok(Short::New { backend, mux: false });
    match head {
        "none" if rest.is_empty() => Ok(Short::None),
        "chardev" if !rest.is_empty() => Ok(Short::Id(rest.to_owned())),
        "mon" => match short(option, rest)? {
            Short::New { backend: Backend::Stdio { .. }, .. } => {
                Ok(Short::New { backend: Backend::Stdio { signal: false }, mux: true })
            }
            Short::New { backend, .. } => Ok(Short::New { backend, mux: true }),
            Short::None | Short::Id(_) => Err(unknown()),
        },
        "unix" if rest.is_empty() || rest.starts_with(',') => {
            Err(format!("-{option}: a UNIX socket needs a path; write unix:PATH"))
        }
        "unix" => {
            let mut kv = KeyVal::parse(option, rest, Some("path"))?;
            new(Backend::Socket(socket(&mut kv)?))
        }
        "tcp" => {
            let (place, options) = rest.split_once(',').unwrap_or((rest, ""));
            let (host, port) = place.rsplit_once(':').ok_or_else(|| {
                format!("-{option}: 'tcp:{place}' has no port; write tcp:HOST:PORT")
            })?;
            let options = format!("host={host},port={port},{options}");
            let mut kv = KeyVal::parse(option, &options, None)?;
            new(Backend::Socket(socket(&mut kv)?))
        }
        "stdio" | "null" | "ringbuf" if rest.is_empty() => {
            new(backend(head, &mut KeyVal::parse(option, "", None)?)?)
        }
        "file" | "pty" if head == "pty" || !rest.is_empty() => {
            new(backend(head, &mut KeyVal::parse(option, rest, Some("path"))?)?)
        }
        _ => Err(unknown()),
    }
}

#[cfg(test)]
mod tests {
    use super::{Short, parse, short};
    use devices::chardev::{Address, Backend, SocketFrom, SocketOptions};
    use std::time::Duration;

    fn socket(value: &str) -> SocketOptions {
        match short("qmp", value) {
            Ok(Short::New { backend: Backend::Socket(options), mux: false }) => options,
            other => panic!("{value}: {other:?}"),
        }
    }

    fn address(options: &SocketOptions) -> &Address {
        match &options.from {
            SocketFrom::Address(address) => address,
            SocketFrom::Fd(..) => panic!("a descriptor"),
        }
    }

    #[test]
    fn short_forms_of_sockets() {
        let unix = socket("unix:/run/a b,server=on,wait=off");
        assert_eq!(*address(&unix), Address::Unix("/run/a b".into()));
        assert!(unix.server && !unix.wait);
        assert!(socket("unix:x,server").wait);
        assert!(!socket("unix:x,server,nowait").wait);
        assert!(!socket("unix:x").server);
        let listed = socket("unix:x,server=on,abstract=on,uids=1:2,gids=3");
        assert_eq!(*address(&listed), Address::Abstract("x".to_owned()));
        assert_eq!((listed.allow.uids, listed.allow.gids), (vec![1, 2], vec![3]));
        let tcp = socket("tcp::4444,reconnect-ms=250,nodelay");
        assert_eq!(address(&tcp).to_string(), "tcp:127.0.0.1:4444");
        assert!(tcp.nodelay);
        assert_eq!(tcp.reconnect, Some(Duration::from_millis(250)));
        assert_eq!(socket("tcp:[::1]:1,reconnect=2").reconnect, Some(Duration::from_secs(2)));
    }

    #[test]
    fn short_forms_of_others() {
        assert!(matches!(short("serial", "none"), Ok(Short::None)));
        assert!(matches!(short("serial", "chardev:a"), Ok(Short::Id(id)) if id == "a"));
        let stdio = |value| match short("serial", value) {
            Ok(Short::New { backend: Backend::Stdio { signal }, mux }) => (signal, mux),
            other => panic!("{other:?}"),
        };
        assert_eq!(stdio("stdio"), (true, false));
        assert_eq!(stdio("mon:stdio"), (false, true));
        assert!(matches!(
            short("serial", "pty"),
            Ok(Short::New { backend: Backend::Pty { link: None }, .. })
        ));
    }

    #[test]
    fn long_forms() {
        let (id, backend, mux) =
            parse("file,id=f,path=/tmp/a,,b,append=on,mux=on,input-path=c").unwrap();
        assert_eq!((id.as_str(), mux), ("f", true));
        let Backend::File { path, append, input } = backend else { panic!("{backend:?}") };
        assert_eq!((path.to_str(), append, input), (Some("/tmp/a,b"), true, Some("c".into())));
        let (_, backend, _) = parse("socket,path=M,id=char0").unwrap();
        let Backend::Socket(options) = backend else { panic!("{backend:?}") };
        assert!(!options.server && !options.wait);
        let (_, backend, _) = parse("ringbuf,id=r,size=4k").unwrap();
        assert!(matches!(backend, Backend::Ringbuf { size: 4096 }));
    }

    #[test]
    fn mistakes_are_named_with_what_to_do() {
        for (value, part) in [
            ("socket,id=a", "needs one of path=PATH, host=HOST with port=PORT, fd=N"),
            ("socket,id=a,path=x,host=y,port=1", "needs one of"),
            ("socket,id=a,host=127.0.0.1", "no port given"),
            ("socket,id=a,fd=99", "File descriptor '99' is not a socket"),
            ("socket,id=a,path=x,telnet=on", "'telnet' is not supported"),
            ("socket,id=a,path=x,wait=on", "add server=on"),
            ("socket,id=a,path=x,reconnect=1,reconnect-ms=1", "mutually exclusive"),
            ("socket,id=a,path=x,speed=9", "there is no 'speed' here"),
            ("socket,id=a,path=x,server=maybe", "'server' takes on or off, not 'maybe'"),
            ("socket,id=a,path=x,server,uids=root", "'uids' is ID:ID:..., not 'root'"),
            ("null", "needs id=ID"),
            ("null,id=1a", "'id=1a' is no identifier"),
            ("null,id=a,foo=1", "there is no 'foo' here"),
            ("tape,id=a", "there is no back end 'tape'"),
            ("ringbuf,id=a,size=3", "size of ringbuf chardev must be power of two"),
            ("file,id=a", "a file needs path=PATH"),
        ] {
            let error = parse(value).unwrap_err();
            assert!(error.starts_with("-chardev: ") && error.contains(part), "{value}: {error}");
        }
        for (value, part) in [
            ("", "write unix:PATH, tcp:HOST:PORT"),
            ("unix:,server=on", "a UNIX socket needs a path"),
            ("vsock:1:2,server=on", "write unix:PATH"),
            ("tcp::1,server=on,gids=1", "for UNIX sockets"),
            ("tcp:4444", "has no port; write tcp:HOST:PORT"),
            ("tcp:h:4444,server=on", "'h' is not an IP address"),
            ("mon:none", "names no character device"),
        ] {
            let error = short("qmp", value).unwrap_err();
            assert!(error.starts_with("-qmp: ") && error.contains(part), "{value}: {error}");
        }
    }
}

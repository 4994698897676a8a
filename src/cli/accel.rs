//! `-accel`, `-machine accel=`, `-qtest` and `-qtest-log`.

use super::keyval::KeyVal;
use crate::config::{Accel, QtestConfig};
use crate::qtest::Address;
use std::net::ToSocketAddrs;
use std::path::PathBuf;

/// Accelerators in the order in which they were named. Unknown ones are never usable, so they are passed
/// over as long as another follows.
#[derive(Default)]
pub(super) struct Accels {
    known: Vec<Accel>,
    unknown: Option<String>,
}

impl Accels {
    /// Takes a list such as `kvm:qtest`.
    pub(super) fn add(&mut self, list: &str) {
        for name in list.split(':') {
            match name {
                "kvm" => self.known.push(Accel::Kvm),
                "qtest" => self.known.push(Accel::Qtest),
                _ => self.unknown = Some(name.to_owned()),
            }
        }
    }

    /// `-accel`.
    pub(super) fn option(&mut self, value: &str) -> Result<(), String> {
        let mut kv = KeyVal::parse("accel", value, Some("accel"))?;
        self.add(&kv.take("accel").unwrap_or_default());
        kv.finish("accel")
    }

    pub(super) fn finish(self) -> Result<Vec<Accel>, String> {
        match (self.known.is_empty(), self.unknown) {
            (true, None) => Ok(vec![Accel::Kvm]),
            (true, Some(name)) => {
                Err(format!("-accel: there is no accelerator '{name}'; there are kvm, qtest"))
            }
            (false, _) => Ok(self.known),
        }
    }
}

/// `unix:PATH` or `tcp:HOST:PORT`, connected to, or listened on with `server=on`.
pub(super) fn qtest(value: &str) -> Result<QtestConfig, String> {
    let mut parts = value.split(',');
    let head = parts.next().unwrap_or_default();
    let address = match head.split_once(':') {
        Some(("unix", path)) if !path.is_empty() => Address::Unix(PathBuf::from(path)),
        Some(("tcp", rest)) => {
            let wrong = || format!("-qtest: '{rest}' is no HOST:PORT");
            let rest = if rest.starts_with(':') { format!("localhost{rest}") } else { rest.into() };
            Address::Tcp(
                rest.to_socket_addrs().ok().and_then(|mut all| all.next()).ok_or_else(wrong)?,
            )
        }
        _ => {
            return Err(format!("-qtest: '{head}' is no socket; write unix:PATH or tcp:HOST:PORT"));
        }
    };
    let mut server = false;
    for part in parts {
        match part {
            "server" | "server=on" => server = true,
            // The machine never waits for a client here.
            "server=off" | "wait=off" | "nowait" => {}
            _ => return Err(format!("-qtest: there is no option '{part}' (server=on, wait=off)")),
        }
    }
    Ok(QtestConfig { address, server, log: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_usable_accelerator_wins() {
        let accels = |lists: &[&str]| {
            let mut accels = Accels::default();
            for list in lists {
                accels.add(list);
            }
            accels.finish()
        };
        assert_eq!(accels(&[]), Ok(vec![Accel::Kvm]));
        assert_eq!(accels(&["tcg", "kvm:qtest"]), Ok(vec![Accel::Kvm, Accel::Qtest]));
        assert!(accels(&["tcg"]).unwrap_err().contains("'tcg'"));
    }

    #[test]
    fn sockets_are_connected_to_unless_told_otherwise() {
        let unix = qtest("unix:/tmp/q").unwrap();
        assert_eq!((unix.address, unix.server), (Address::Unix("/tmp/q".into()), false));
        let tcp = qtest("tcp:127.0.0.1:4444,server=on,wait=off").unwrap();
        let address = "127.0.0.1:4444".parse().unwrap();
        assert_eq!((tcp.address, tcp.server), (Address::Tcp(address), true));
        for (text, part) in [
            ("", "write unix:PATH"),
            ("unix:", "write unix:PATH"),
            ("tcp:4444", "is no HOST:PORT"),
            ("unix:x,speed=9", "no option 'speed=9'"),
        ] {
            assert!(qtest(text).unwrap_err().contains(part), "{text}");
        }
    }
}

//! Network back ends, in the option strings of the command line.

use super::args::{Args, Failure};
use crate::commands::net::{self, NetdevDel, SetLink};
use crate::commands::net_backend::Netdev;
use crate::core::Env;
use crate::error::QmpError;

pub(super) fn add(env: &Env, rest: &str) -> Result<String, Failure> {
    if matches!(rest, "help" | "?") {
        return Ok(Netdev::help());
    }
    net::netdev_add(env, Netdev::keyval(rest)?)?;
    Ok(String::new())
}

pub(super) fn del(env: &Env, rest: &str) -> Result<String, Failure> {
    let mut args = Args::new(rest);
    let id = args.word()?;
    args.end()?;
    net::netdev_del(env, NetdevDel { id })?;
    Ok(String::new())
}

pub(super) fn set_link(env: &Env, rest: &str) -> Result<String, Failure> {
    let mut args = Args::new(rest);
    let name = args.word()?;
    let up = args.switch()?;
    args.end()?;
    net::set_link(env, SetLink { name, up })?;
    Ok(String::new())
}

pub(super) fn info(env: &Env) -> Result<String, QmpError> {
    Ok(net::network(env)?.netdevs().info())
}

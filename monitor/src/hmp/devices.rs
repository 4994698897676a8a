//! Devices, in the option strings of the command line.

use super::args::{Args, Failure};
use crate::commands::qdev::{self, DeviceDel};
use crate::core::Env;
use crate::error::QmpError;
use devices::qdev::DeviceRequest;

pub(super) async fn add(env: &Env, rest: &str) -> Result<String, Failure> {
    let help = env.devices()?.types().help_for(rest).map_err(QmpError::from)?;
    if let Some(help) = help {
        return Ok(help);
    }
    let request = DeviceRequest::keyval(rest).map_err(QmpError::from)?;
    qdev::add(env, request).await?;
    Ok(String::new())
}

pub(super) async fn del(env: &Env, rest: &str) -> Result<String, Failure> {
    let mut args = Args::new(rest);
    let id = args.word()?;
    args.end()?;
    qdev::device_del(env.clone(), DeviceDel { id }).await?;
    Ok(String::new())
}

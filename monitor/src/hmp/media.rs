//! `eject` and `change`.

use super::args::{Args, Failure};
use crate::commands::block::media::{
    BlockdevChangeMedium, BlockdevChangeReadOnlyMode, BlockdevOpenTray, change_medium,
    eject as eject_medium,
};
use crate::core::Env;
use crate::error::QmpError;

pub(super) async fn eject(env: &Env, rest: &str) -> Result<String, Failure> {
    let mut args = Args::new(rest);
    let mut word = || args.word().map_err(|_| Failure::Argument("block device name expected"));
    let mut device = word()?;
    let force = device == "-f";
    if force {
        device = word()?;
    }
    args.end()?;
    let asked = BlockdevOpenTray { device: Some(device), id: None, force: Some(force) };
    eject_medium(env.clone(), asked).await?;
    Ok(String::new())
}

pub(super) async fn change(env: &Env, rest: &str) -> Result<String, Failure> {
    let mut args = Args::new(rest);
    let device = args.word().map_err(|_| Failure::Argument("block device name expected"))?;
    let mut filename = args.word().map_err(|_| Failure::Argument("filename expected"))?;
    let force = filename == "-f";
    if force {
        filename = args.word().map_err(|_| Failure::Argument("filename expected"))?;
    }
    let (format, mode) = (args.word().ok(), args.word().ok());
    args.end()?;
    let read_only_mode = match mode.as_deref() {
        None => None,
        Some("retain") => Some(BlockdevChangeReadOnlyMode::Retain),
        Some("read-only") => Some(BlockdevChangeReadOnlyMode::ReadOnly),
        Some("read-write") => Some(BlockdevChangeReadOnlyMode::ReadWrite),
        Some(other) => {
            return Err(QmpError::generic(format!("invalid parameter value: {other}")).into());
        }
    };
    let (device, id, force) = (Some(device), None, Some(force));
    let asked = BlockdevChangeMedium { device, id, filename, format, force, read_only_mode };
    change_medium(env.clone(), asked).await?;
    Ok(String::new())
}

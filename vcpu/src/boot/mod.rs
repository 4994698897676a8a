//! boot
mod state;
mod tables;
pub use state::BootState;
pub(crate) use tables::install;
/// x
#[derive(Debug, thiserror::Error)]
pub enum BootError {}

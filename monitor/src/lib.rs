//! The monitor (in the making).
pub mod wire;

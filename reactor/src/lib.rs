//! The reactor (in the making).
mod fd;
pub use fd::Fd;

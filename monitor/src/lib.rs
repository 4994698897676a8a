//! The monitor (in the making).
pub mod dispatch;
mod error;
pub mod registry;
pub mod wire;

pub use error::{ErrorClass, QmpError};

use std::pin::Pin;

/// A boxed future that may move between contexts.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

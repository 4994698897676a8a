//! Memory that the kernel knows before an operation names it: provided buffer rings and registered
//! buffers.

mod fixed;
mod pool;
mod region;

pub use fixed::{FixedBuffer, FixedMemory};
pub use pool::{BufRing, RingBuf};
pub(crate) use pool::{Pool, retire};
pub(crate) use region::Region;

//! The human monitor: lines of text in, text out.
//!
//! Its commands call the handlers of QMP and format what they give. Each line runs in *main*, in
//! coroutine context, as coroutine commands of QMP do, so that it may wait; the session that it
//! came from waits for it without holding anybody up. There is no nested event loop to run.

mod args;
mod complete;
mod edit;
mod hardware;
mod info;
mod line;
mod memory;
mod page;
mod session;
mod table;

pub use session::{Echo, HmpSession};

use crate::core::Env;

/// Runs one line and gives its output with `\r\n` ends. In main, in coroutine context, with the
/// coroutine lane held.
pub(crate) async fn run_line(env: &Env, line: &str) -> String {
    debug_assert!(env.core.reactors.main().is_current());
    table::run(env, line).await.replace('\n', "\r\n")
}

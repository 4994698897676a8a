//! The human monitor: lines of text in, text out.
//!
//! Its commands call the handlers of QMP and format what they give. Each line runs in *main*, in
//! coroutine context, as coroutine commands of QMP do, so that it may wait; the session that it
//! came from waits for it without holding anybody up. There is no nested event loop to run.

mod args;
mod block;
mod chardev;
mod complete;
mod devices;
mod edit;
mod hardware;
mod info;
mod line;
mod media;
mod memory;
mod net;
mod page;
mod qom;
mod session;
mod table;

pub use session::{Echo, HmpSession};

use crate::core::Env;

/// Any bytes through the line editor, completion and the parser of arguments.
#[cfg(test)]
pub(crate) fn edit_any(bytes: &[u8]) {
    let (mut editor, mut out) = (edit::Editor::new("> "), Vec::new());
    for byte in bytes {
        match editor.take(*byte, &mut out) {
            edit::Typed::Complete(before) => editor.complete(&complete::words(&before), &mut out),
            edit::Typed::Line(line) => {
                let mut args = args::Args::new(&line);
                let _ = (args.format(), args.expression(), args.word());
            }
            edit::Typed::Nothing | edit::Typed::Interrupted => {}
        }
    }
}

/// Runs one line and gives its output with `\r\n` ends. In main, in coroutine context, with the
/// coroutine lane held unless the line only looks.
pub(crate) async fn run_line(env: &Env, line: &str) -> String {
    debug_assert!(env.core.reactors.main().is_current());
    table::run(env, line).await.replace('\n', "\r\n")
}

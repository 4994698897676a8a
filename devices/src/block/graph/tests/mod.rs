//! The graph on real files and reactors.

mod change;
mod drive;
mod errors;
mod qcow2;
mod reopen;
mod requests;
mod snapshot;
mod stress;

use super::{BlockGraph, ClaimOptions, ErrorPolicy, Options};
use crate::block::lock::{self, Claim};
use crate::error::CommandError;
use serde_json::{Value, json};
use std::fs::OpenOptions;
use std::path::Path;

fn options(value: Value) -> Options {
    let Value::Object(map) = value else { panic!("an object") };
    Options::parse(map).unwrap()
}

async fn add(graph: &BlockGraph, value: Value) -> Result<(), String> {
    graph.add(options(value)).await.map_err(|error| error.text)
}

fn text<T>(result: Result<T, CommandError>) -> String {
    result.err().map(|error| error.text).unwrap_or_default()
}

fn device(name: &str) -> ClaimOptions {
    let device = format!("/machine/peripheral/{name}/virtio-backend");
    ClaimOptions {
        device,
        read_only: false,
        share_writes: false,
        may_be_empty: false,
        on_error: ErrorPolicy::default(),
    }
}

fn file(name: &str, path: &Path) -> Value {
    json!({"driver": "file", "node-name": name, "filename": path.to_str().unwrap()})
}

fn raw(name: &str, path: &Path) -> Value {
    let file = json!({"driver": "file", "filename": path.to_str().unwrap()});
    json!({"driver": "raw", "node-name": name, "file": file})
}

/// An image that nobody has open.
fn image(bytes: u64) -> tempfile::TempPath {
    let image = tempfile::NamedTempFile::new().unwrap();
    image.as_file().set_len(bytes).unwrap();
    image.into_temp_path()
}

/// Whether another program could write to the image. Leaves no lock behind, not even in a process
/// that another test is just starting and that still has a copy of the descriptor.
fn is_free(path: &Path) -> bool {
    let image = OpenOptions::new().read(true).write(true).open(path).unwrap();
    let claimed = lock::claim(&image, Claim::WRITER);
    lock::release(&image);
    claimed.is_ok()
}

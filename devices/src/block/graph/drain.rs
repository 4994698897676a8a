//! Sections in which a part of the graph has no requests.
//!
//! A drained section first holds new requests of the devices above a node off, then waits for those
//! in flight. It nests. Requests that arrive meanwhile go on in their order when the last section
//! ends. Waiting is `.await` in a task like any other: whoever has a request in flight, a command
//! handler in `main` included, gets its completion and goes on, so a drain does not wait for
//! somebody who waits for it.

use super::backend::Backend;
use super::drivers::Driver;
use super::node::Node;
use super::{BlockGraph, Contents};
use std::sync::Arc;

/// A section without requests; ends when dropped, on any thread.
#[must_use = "dropping the section ends it"]
pub struct Drained {
    backends: Vec<Arc<Backend>>,
    /// What has been told of it.
    drivers: Vec<Arc<dyn Driver>>,
}

impl Drained {
    /// Holds off and waits for what `backends` have in flight.
    pub(super) async fn begin(backends: Vec<Arc<Backend>>) -> Self {
        for backend in &backends {
            backend.quiesce.begin();
        }
        let mut nodes = Vec::new();
        backends
            .iter()
            .filter_map(|backend| backend.root())
            .for_each(|root| below(&root, &mut nodes));
        let drivers: Vec<_> = nodes.iter().map(|node| node.driver()).collect();
        for driver in &drivers {
            driver.drained(true);
        }
        // From here on a drop ends the section.
        let drained = Self { backends, drivers };
        for backend in &drained.backends {
            backend.quiesce.emptied().await;
        }
        drained
    }

    /// The back ends in it.
    pub(super) fn backends(&self) -> &[Arc<Backend>] {
        &self.backends
    }
}

/// A node, and all below it.
fn below(node: &Arc<Node>, nodes: &mut Vec<Arc<Node>>) {
    if nodes.iter().any(|known| Arc::ptr_eq(known, node)) {
        return;
    }
    nodes.push(Arc::clone(node));
    for child in node.children() {
        below(&child.node, nodes);
    }
}

impl Drop for Drained {
    fn drop(&mut self) {
        for driver in &self.drivers {
            driver.drained(false);
        }
        for backend in &self.backends {
            backend.quiesce.end();
        }
    }
}

impl Contents {
    /// The back ends whose requests reach `node`.
    pub(super) fn above(&self, node: &Arc<Node>) -> Vec<Arc<Backend>> {
        let reaches =
            |backend: &&Arc<Backend>| backend.root().is_some_and(|root| root.reaches(node));
        self.backends.iter().filter(reaches).cloned().collect()
    }
}

impl BlockGraph {
    /// A section without requests to `node`. Any context.
    pub async fn drain(&self, node: &Arc<Node>) -> Drained {
        Drained::begin(self.contents().above(node)).await
    }

    /// A section without any requests. Any context.
    pub async fn drain_all(&self) -> Drained {
        Drained::begin(self.contents().backends.clone()).await
    }
}

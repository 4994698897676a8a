//! Other options for nodes in use (`blockdev-reopen`): all of them, or none.
//!
//! The nodes are drained. Each image is opened anew beside the old one, children first, which goes
//! on serving where anything fails; then uses, permissions and locks go over; then the old images
//! are closed.

use super::backend::Backend;
use super::change::{cannot_find, connect_child, drop_unused};
use super::drain::Drained;
use super::drivers::{self, Driver};
use super::node::{Child, Node};
use super::options::{DriverOptions as O, Options, Reference};
use super::permissions::{Permissions, Use};
use super::{BlockGraph, Contents};
use crate::block::Disk;
use crate::error::CommandError;
use std::sync::Arc;

/// Roles of children that may become other nodes.
const REPLACEABLE: [&str; 2] = ["file", "backing"];

fn generic<T>(text: String) -> Result<T, CommandError> {
    Err(CommandError::generic(text))
}

/// What a node shall become.
pub(super) struct Plan {
    pub(super) node: Arc<Node>,
    pub(super) options: Options,
    pub(super) children: Vec<Child>,
}

/// A back end that shall have another root, and its use of that.
pub(super) struct Move {
    pub(super) backend: Arc<Backend>,
    pub(super) to: Option<Arc<Node>>,
    pub(super) entry: Use,
}

/// A node that does what was planned.
struct Done {
    plan: Plan,
    driver: Arc<dyn Driver>,
    options: Options,
}

/// The plans, in the order of the command.
pub(super) struct Plans<'a> {
    graph: &'a BlockGraph,
    contents: Contents,
    list: Vec<Plan>,
}

impl<'a> Plans<'a> {
    pub(super) fn new(graph: &'a BlockGraph) -> Self {
        Self { graph, contents: graph.contents(), list: Vec::new() }
    }

    /// Plans a node as it is given.
    pub(super) fn push(&mut self, plan: Plan) {
        self.list.push(plan);
    }

    fn children(&self, node: &Arc<Node>) -> Vec<Child> {
        let planned = self.list.iter().find(|plan| Arc::ptr_eq(&plan.node, node));
        planned.map_or_else(|| node.children(), |plan| plan.children.clone())
    }

    fn reaches(&self, from: &Arc<Node>, to: &Arc<Node>) -> bool {
        let below = |child: &Child| self.reaches(&child.node, to);
        Arc::ptr_eq(from, to) || self.children(from).iter().any(below)
    }

    /// Plans a node, and those below it that were made with it.
    pub(super) fn add(
        &mut self,
        node: &Arc<Node>,
        mut options: Options,
    ) -> Result<(), CommandError> {
        let before = node.options();
        unchangeable(&before.driver, &options.driver)?;
        if options.node_name.as_ref().is_some_and(|name| name != node.name()) {
            return generic("Cannot change the option 'node-name'".to_owned());
        }
        options.node_name.clone_from(&before.node_name);
        let mut children = node.children();
        for child in &mut children {
            let of_role = |options: &Options| {
                let mut all = options.driver.children().into_iter();
                all.find(|(role, _)| *role == child.role).map(|(_, reference)| reference.clone())
            };
            let Some(wanted) = of_role(&options) else { continue };
            // Options that it was made with, by this node; a named one has its own.
            let made_with = match of_role(&before) {
                Some(Reference::New(with)) => Some(with),
                _ => None,
            };
            match (wanted, made_with) {
                (Reference::New(with), Some(_)) => {
                    self.add(&child.node, with.for_parent(&options))?;
                }
                (Reference::New(_), None) => {
                    return generic(format!("Cannot change the option '{}.driver'", child.role));
                }
                (Reference::Name(name), with) if name == child.node.name() => {
                    if let Some(with) = with {
                        self.add(&child.node, with.for_parent(&options))?;
                        options.driver.set_child(child.role, Reference::New(with));
                    }
                }
                (Reference::Name(name), _) => *child = self.other(node, child.role, &name)?,
            }
        }
        self.list.retain(|plan| !Arc::ptr_eq(&plan.node, node));
        self.list.push(Plan { node: Arc::clone(node), options, children });
        Ok(())
    }

    /// The node that shall be a child of `node` from now on.
    fn other(
        &self,
        node: &Arc<Node>,
        role: &'static str,
        name: &str,
    ) -> Result<Child, CommandError> {
        if !REPLACEABLE.contains(&role) {
            return generic(format!("Cannot change the option '{role}'"));
        }
        let of_drive = || self.contents.backend(name).and_then(|backend| backend.root());
        let other = of_drive().or_else(|| self.contents.node(name).cloned());
        let other = other.ok_or_else(|| cannot_find("", name))?;
        if self.reaches(&other, node) {
            let (node, other) = (node.name(), other.name());
            return generic(format!(
                "Making '{other}' a {role} child of '{node}' would create a cycle"
            ));
        }
        Ok(Child { role, node: other, id: self.graph.number() })
    }

    /// The plans with those of children first.
    pub(super) fn sorted(self) -> Vec<Plan> {
        let mut nodes = Vec::new();
        for plan in &self.list {
            self.collect(&plan.node, &mut nodes);
        }
        let place = |plan: &Plan| nodes.iter().position(|node| Arc::ptr_eq(node, &plan.node));
        let mut list = self.list;
        list.sort_by_key(place);
        list
    }

    fn collect(&self, node: &Arc<Node>, nodes: &mut Vec<Arc<Node>>) {
        if nodes.iter().any(|known| Arc::ptr_eq(known, node)) {
            return;
        }
        for child in self.children(node) {
            self.collect(&child.node, nodes);
        }
        nodes.push(Arc::clone(node));
    }
}

/// Whether what cannot change has stayed. The texts are QEMU's.
fn unchangeable(before: &O, wanted: &O) -> Result<(), CommandError> {
    let changed = |name: &str| generic(format!("Cannot change the option '{name}'"));
    let check = |name: &str, same: bool, usual: bool| match (same, usual) {
        (true, _) => Ok(()),
        (false, true) => generic(format!("Option '{name}' cannot be reset to its default value")),
        (false, false) => changed(name),
    };
    if before.driver() != wanted.driver() {
        return changed("driver");
    }
    match (before, wanted) {
        (
            O::File { filename, locking, aio, .. },
            O::File { filename: new_filename, locking: new_locking, aio: new_aio, .. },
        ) => {
            check("filename", filename == new_filename, false)?;
            check("aio", aio == new_aio, new_aio.is_none())?;
            check("locking", locking == new_locking, *new_locking)
        }
        (
            O::NullCo { size, latency_ns, read_zeroes },
            O::NullCo { size: new_size, latency_ns: new_latency, read_zeroes: new_zeroes },
        ) => {
            check("size", size == new_size, *new_size == 1 << 30)?;
            check("latency-ns", latency_ns == new_latency, *new_latency == 0)?;
            check("read-zeroes", read_zeroes == new_zeroes, !new_zeroes)
        }
        // It has no name to be found by.
        (O::Scratch { .. }, _) => changed("filename"),
        (O::Blkdebug { rules, .. }, O::Blkdebug { rules: new, .. }) => {
            check("inject-error", rules == new, new.is_empty())
        }
        _ => Ok(()),
    }
}

impl Done {
    /// Has the node do what is planned.
    async fn make(graph: &BlockGraph, plan: Plan) -> Result<Self, CommandError> {
        let (node, options) = (&plan.node, &plan.options);
        let driver = match node.driver().reopen(options, &graph.fdsets).await? {
            Some(driver) => driver,
            None => drivers::open(options, &plan.children, graph).await?,
        };
        let (driver, options) = node.replace_driver(driver, options.clone());
        Ok(Self { plan, driver, options })
    }

    /// Gives up what it does with its children and does no more: a format that becomes read-only.
    fn give_up(&self) {
        let node = &self.plan.node;
        let (driver, access) = (node.driver(), node.access());
        for child in node.children() {
            let Some(known) = child.node.uses().into_iter().find(|known| known.id == child.id)
            else {
                continue;
            };
            let access = driver.child_access(child.role, access);
            if access.uses != known.access.uses && known.access.uses.contains(access.uses) {
                // Nobody can mind; what is left is checked next.
                let _checked_next = child.node.add_use(Use { access, ..known });
            }
        }
    }

    fn check(&self) -> Result<(), CommandError> {
        let node = &self.plan.node;
        let writes = node.access().uses.contains(Permissions::WRITE);
        if writes && node.info().read_only && !self.driver.info().read_only {
            let name = node.name();
            return generic(format!(
                "Read-only block node '{name}' cannot support read-write users"
            ));
        }
        node.update_access()
    }

    /// Undoes [`make`](Self::make); returns what is to be closed.
    fn undo(self) -> Arc<dyn Driver> {
        let node = &self.plan.node;
        node.driver().give_back();
        node.replace_driver(self.driver, self.options).0
    }
}

/// Has formats write down what they know: whoever opens an image anew finds it there. Those above come
/// first, before what is below them is another.
async fn write_down(plans: &[Plan]) -> Result<(), CommandError> {
    for Plan { node, options, .. } in plans.iter().rev() {
        let knows = !matches!(
            options.driver,
            O::Blkdebug { .. }
                | O::File { .. }
                | O::NullCo { .. }
                | O::Raw { .. }
                | O::Throttle { .. }
        );
        let driver = node.driver();
        if knows && !driver.info().read_only {
            let flushed = driver.flush_at_end().await;
            flushed.map_err(|error| CommandError::generic(error.to_string()))?;
        }
    }
    Ok(())
}

/// Connects nodes with the children that `done` has for them instead of those they have, which are
/// in its place afterwards; likewise back ends with their roots.
fn exchange(done: &mut [Done], moves: &mut [Move]) -> Result<(), CommandError> {
    let is_new = |child: &Child, known: &[Child]| known.iter().all(|known| known.id != child.id);
    for one in moves.iter_mut() {
        let before = one.backend.root();
        if let Some(before) = &before {
            before.remove_use(one.entry.id);
        }
        one.backend.set_root(std::mem::replace(&mut one.to, before));
    }
    let mut added = Vec::new();
    for Done { plan, .. } in done {
        let before = plan.node.children();
        for child in before.iter().filter(|child| is_new(child, &plan.children)) {
            child.node.remove_use(child.id);
        }
        let wanted = std::mem::replace(&mut plan.children, before);
        let new = wanted.iter().filter(|child| is_new(child, &plan.children)).cloned();
        added.extend(new.map(|child| (Arc::clone(&plan.node), child)));
        plan.node.set_children(wanted);
    }
    // Whatever happens, each is entered: nobody is left without a use to take back.
    let mut results: Vec<_> =
        added.iter().map(|(node, child)| connect_child(node, child)).collect();
    results.extend(moves.iter().map(|one| match one.backend.root() {
        Some(root) => root.add_use(one.entry.clone()),
        None => Ok(()),
    }));
    results.into_iter().collect()
}

/// Tells those of `backends` whose size is not what it was.
pub(super) fn tell_sizes(backends: &[Arc<Backend>], before: &[u64]) {
    for (backend, size) in backends.iter().zip(before) {
        if backend.size() != *size {
            backend.size_changed();
        }
    }
}

/// Closes what others have the place of, when nobody uses it any more.
pub(super) async fn retire(drivers: Vec<Arc<dyn Driver>>) {
    for driver in drivers {
        driver.unused().await;
        if let Err(error) = driver.retire().await {
            tracing::warn!(%error, "closing a block node that was reopened");
        }
    }
}

impl BlockGraph {
    /// Gives nodes other options: what is not given is as by default. On an error nothing has
    /// changed. Their requests go on afterwards (`blockdev-reopen`).
    pub async fn reopen(&self, wanted: Vec<Options>) -> Result<(), CommandError> {
        let _alone = self.changing.lock().await;
        let contents = self.contents();
        let mut plans = Plans::new(self);
        for options in wanted {
            let Some(name) = options.node_name.clone() else {
                return generic("node-name not specified".to_owned());
            };
            let Some(node) = contents.node(&name) else {
                return generic(format!("Failed to find node with node-name='{name}'"));
            };
            plans.add(node, options)?;
        }
        let plans = plans.sorted();
        let mut above: Vec<Arc<Backend>> = Vec::new();
        for backend in plans.iter().flat_map(|plan| contents.above(&plan.node)) {
            if !above.iter().any(|known| Arc::ptr_eq(known, &backend)) {
                above.push(backend);
            }
        }
        drop(contents);
        let sizes: Vec<_> = above.iter().map(|backend| backend.size()).collect();
        let drained = Drained::begin(above).await;
        let (result, closing) = self.carry_out(plans, Vec::new(), drained.backends()).await;
        tell_sizes(drained.backends(), &sizes);
        drop(drained);
        retire(closing).await;
        result
    }

    /// Returns the result, and what is to be closed after it. `above` is drained.
    pub(super) async fn carry_out(
        &self,
        plans: Vec<Plan>,
        mut moves: Vec<Move>,
        above: &[Arc<Backend>],
    ) -> (Result<(), CommandError>, Vec<Arc<dyn Driver>>) {
        if let Err(error) = write_down(&plans).await {
            return (Err(error), Vec::new());
        }
        let mut done = Vec::new();
        for plan in plans {
            match Done::make(self, plan).await {
                Ok(one) => done.push(one),
                Err(error) => {
                    let closing = done.into_iter().rev().map(Done::undo).collect();
                    for backend in above {
                        backend.renew();
                    }
                    return (Err(error), closing);
                }
            }
        }
        let mut writer = self.lock.write().await;
        let taken = done.iter().try_for_each(|one| one.plan.node.driver().take_over());
        let result = exchange(&mut done, &mut moves);
        done.iter().rev().for_each(Done::give_up);
        let result = taken.and(result).and_then(|()| done.iter().try_for_each(Done::check));
        let closing = if result.is_ok() {
            writer.sort();
            for child in done.iter().flat_map(|one| &one.plan.children) {
                drop_unused(&mut writer, &child.node);
            }
            done.into_iter().map(|one| one.driver).collect()
        } else {
            // Those that were there before have been entitled to it.
            if let Err(error) = exchange(&mut done, &mut moves) {
                tracing::warn!(%error, "taking a change of block nodes back");
            }
            let nodes: Vec<_> = done.iter().map(|one| Arc::clone(&one.plan.node)).collect();
            let closing = done.into_iter().rev().map(Done::undo).collect();
            // They do with their children what they did.
            for node in nodes.iter().rev() {
                if let Err(error) = node.update_access() {
                    tracing::warn!(node = node.name(), %error, "taking a reopen back");
                }
            }
            closing
        };
        self.publish(&writer);
        // Before the unlock: it waits until no queue has a handle of what is dropped.
        for backend in above {
            backend.renew();
        }
        writer.unlock().await;
        (result, closing)
    }
}

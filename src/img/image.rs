//! Opening images: as drives of a block graph that has no machine.

use super::arguments::Arguments;
use devices::block::graph::{BlockGraph, Content, DriveOptions, NewImage, Node};
use devices::error::CommandError;
use reactor::Reactors;
use std::cell::RefCell;
use std::path::Path;
use std::sync::Arc;

thread_local! {
    /// Of the main thread, where all commands run.
    static REACTORS: RefCell<Option<Reactors>> = const { RefCell::new(None) };
}

/// Says where commands run; in main, before the first.
pub(super) fn set_reactors(reactors: &Reactors) {
    REACTORS.with(|known| *known.borrow_mut() = Some(reactors.clone()));
}

/// The images of one command.
pub(super) struct Images {
    graph: Arc<BlockGraph>,
    next: u32,
}

/// An open image.
pub(super) struct Image {
    pub(super) node: Arc<Node>,
    pub(super) content: Content,
}

/// How to open an image.
#[derive(Clone, Copy, Default)]
pub(super) struct Access<'a> {
    /// Told by its content where it is not said.
    pub(super) format: Option<&'a str>,
    pub(super) write: bool,
    /// Others may be writing to it.
    pub(super) shared: bool,
}

impl<'a> Access<'a> {
    /// To look at an image, as `-f` and `-U` say.
    pub(super) fn to_look(args: &'a Arguments) -> Self {
        Self { format: args.value("format"), shared: args.has("force-share"), write: false }
    }
}

impl Images {
    pub(super) fn new() -> Result<Self, String> {
        let reactors = REACTORS.with(|known| known.borrow().clone());
        let reactors = reactors.ok_or("it runs on a reactor only")?;
        Ok(Self { graph: BlockGraph::new(&reactors), next: 0 })
    }

    /// Opens an image, with what is behind it.
    pub(super) async fn open(&mut self, path: &str, access: Access<'_>) -> Result<Image, String> {
        let (id, mut text) = (self.id(), format!("if=none,file={}", path.replace(',', ",,")));
        if let Some(format) = access.format {
            text += ",format=";
            text += format;
        }
        if !access.write {
            text += ",read-only=on";
        }
        if access.shared {
            text += ",file.locking=off";
        }
        let failed = |error: CommandError| could_not_open(path, &error.text);
        DriveOptions::parse(&text).map_err(failed)?.open(&self.graph, &id).await.map_err(failed)?;
        self.opened(&id, path)
    }

    /// Makes an image.
    pub(super) async fn create(&self, path: &str, new: NewImage) -> Result<(), String> {
        let made = self.graph.create(Path::new(path), new).await;
        made.map_err(|error| error.text)
    }

    fn id(&mut self) -> String {
        self.next += 1;
        format!("image{}", self.next)
    }

    fn opened(&self, id: &str, path: &str) -> Result<Image, String> {
        let contents = self.graph.contents();
        let root = contents.backend(id).and_then(|backend| backend.root());
        let node = root.ok_or_else(|| could_not_open(path, "it has gone"))?;
        let content = Content::of(&node).map_err(|error| could_not_open(path, &error.text))?;
        Ok(Image { node, content })
    }

    /// Changes the size of an image.
    pub(super) async fn resize(&self, image: &Image, size: u64) -> Result<(), String> {
        let size = i64::try_from(size).map_err(|_| "the size is too large".to_owned())?;
        let node = Some(image.node.name());
        self.graph.resize(None, node, size).await.map_err(|error| error.text)
    }

    /// Closes all images; what was written is stable then.
    pub(super) async fn close(self) -> Result<(), String> {
        self.graph.close_all().await
    }
}

/// The text for an image that cannot be opened, which says its name once.
fn could_not_open(path: &str, why: &str) -> String {
    if why.starts_with("Could not open") {
        return why.to_owned();
    }
    format!("Could not open '{path}': {why}")
}

/// The node that another uses as `role`.
pub(super) fn child(node: &Node, role: &str) -> Option<Arc<Node>> {
    let mut children = node.uses_of_others().into_iter();
    children.find(|(known, _)| *known == role).map(|(_, node)| node)
}

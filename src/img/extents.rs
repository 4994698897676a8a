//! What a range of an image is: data of one of the images of its chain, or zero.

use super::image::{Image, child};
use devices::block::graph::{Content, Kept, Node};
use std::io;
use std::sync::Arc;

/// One image of a chain.
struct Layer {
    content: Content,
    /// What holds it, where that has holes because only its tables are there.
    file: Option<Content>,
    filename: String,
}

/// An image and those behind it.
pub(super) struct Layers(Vec<Layer>);

/// A range that is of one kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Extent {
    pub(super) start: u64,
    pub(super) len: u64,
    /// The number of the image whose it is.
    pub(super) depth: usize,
    /// That image has it.
    pub(super) present: bool,
    pub(super) zero: bool,
    /// It has a place in the file that is read.
    pub(super) data: bool,
    pub(super) compressed: bool,
    /// The place.
    pub(super) offset: Option<u64>,
}

impl Layers {
    pub(super) fn of(image: &Image) -> Result<Self, String> {
        let mut layers = Vec::new();
        let mut next = Some(Arc::clone(&image.node));
        while let Some(node) = next {
            layers.push(Layer::of(&node)?);
            next = child(&node, "backing");
        }
        Ok(Self(layers))
    }

    pub(super) fn filename(&self, depth: usize) -> &str {
        &self.0[depth].filename
    }

    /// What `start` is, and how many bytes likewise, at most `len`, which is not 0.
    pub(super) async fn at(&self, start: u64, len: u64) -> io::Result<Extent> {
        let mut extent = Extent {
            start,
            len,
            depth: 0,
            present: true,
            zero: false,
            data: false,
            compressed: false,
            offset: None,
        };
        loop {
            let layer = &self.0[extent.depth];
            let (kept, len) = layer.content.kept(start, extent.len).await?;
            if len == 0 {
                // Behind the end of a shorter image there are zeroes.
                return Ok(Extent { zero: true, ..extent });
            }
            extent.len = len;
            match kept {
                Kept::Data(at) => {
                    (extent.data, extent.offset) = (true, Some(at));
                    if let Some(file) = &layer.file {
                        let (below, len) = file.kept(at, len).await?;
                        extent.len = if len == 0 { extent.len } else { len };
                        extent.zero = len > 0 && matches!(below, Kept::Zero(_));
                    }
                    return Ok(extent);
                }
                Kept::Compressed => {
                    (extent.data, extent.compressed) = (true, true);
                    return Ok(extent);
                }
                Kept::Zero(at) => {
                    (extent.zero, extent.offset) = (true, at);
                    return Ok(extent);
                }
                Kept::Behind if extent.depth + 1 < self.0.len() => extent.depth += 1,
                Kept::Behind => {
                    (extent.present, extent.zero) = (false, true);
                    return Ok(extent);
                }
            }
        }
    }
}

impl Layer {
    fn of(node: &Arc<Node>) -> Result<Self, String> {
        let content = |node: &Node| Content::of(node).map_err(|error| error.text);
        let formatted = node.details().is_some();
        // Where most of the file is not there, as after `preallocation=metadata`; as QEMU does, others
        // are not asked, cluster by cluster.
        let hollow =
            |file: &Arc<Node>| file.allocated().is_some_and(|bytes| bytes < file.size() / 2);
        let file = child(node, "file").filter(|file| formatted && hollow(file));
        Ok(Self {
            content: content(node)?,
            file: file.map(|file| content(&file)).transpose()?,
            filename: node.filename(),
        })
    }
}

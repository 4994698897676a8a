//! New images: a file is made and filled by the drivers that will open it.

use super::BlockGraph;
use super::change::drop_unused;
use super::content::Content;
use super::drivers::bytes::NodeStorage;
use super::drivers::format::here;
use super::node::Node;
use super::options::{DriverOptions, Options};
use super::permissions::{Access, Permissions, Use, User};
use crate::error::CommandError;
use crate::fdset;
use crate::text::system_error;
use imago::FormatCreateBuilder;
use imago::format::PreallocateMode;
use imago::qcow2::Qcow2CreateBuilder;
use reactor::io as rio;
use std::io;
use std::path::Path;
use std::sync::Arc;

/// How much of a new image is there from the beginning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Preallocation {
    /// What is written.
    #[default]
    Off,
    /// The tables.
    Metadata,
    /// The tables, and space in the file system.
    Falloc,
    /// All of it, written with zeroes.
    Full,
}

/// A qcow2 image to be made, of version 3.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewQcow2 {
    /// What its user sees, in bytes.
    pub size: u64,
    /// Bytes of a cluster: a power of two, 512 to 2 MiB.
    pub cluster_size: u32,
    /// Bits of a refcount: a power of two, 1 to 64.
    pub refcount_bits: u32,
    /// What is behind it, and the format of that; nothing is looked at.
    pub backing: Option<(String, String)>,
    /// How much is there from the beginning.
    pub preallocation: Preallocation,
}

impl NewQcow2 {
    /// Bytes of a cluster, where nothing is said.
    pub const CLUSTER_SIZE: u32 = 64 << 10;
    /// Bits of a refcount, where nothing is said.
    pub const REFCOUNT_BITS: u32 = 16;

    /// Makes the image in a node that is empty, in the calling context.
    pub(super) async fn create(self, file: &Arc<Node>) -> io::Result<()> {
        let preallocation = match self.preallocation {
            Preallocation::Off => PreallocateMode::None,
            Preallocation::Metadata => PreallocateMode::FormatAllocate,
            Preallocation::Falloc => PreallocateMode::FullAllocate,
            Preallocation::Full => PreallocateMode::WriteData,
        };
        let mut builder = Qcow2CreateBuilder::<NodeStorage>::new(
            NodeStorage::new(file).map_err(|error| io::Error::other(error.text))?,
        )
        .size(self.size)
        .preallocate(preallocation)
        .cluster_size(self.cluster_size as usize)
        .refcount_width(self.refcount_bits as usize);
        if let Some((name, format)) = self.backing {
            builder = builder.backing(name, format);
        }
        builder.create().await
    }
}

/// An image to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NewImage {
    /// Bytes as they are.
    Raw {
        /// How many.
        size: u64,
        /// How much is there from the beginning.
        preallocation: Preallocation,
    },
    /// Clusters.
    Qcow2(NewQcow2),
}

impl NewImage {
    async fn fill(self, node: &Arc<Node>) -> Result<(), CommandError> {
        let (content, file) = (Content::of(node)?, Arc::clone(node));
        let filled = here(move || async move {
            content.resize(0).await?;
            match self {
                Self::Raw { size, preallocation } => {
                    content.resize(size).await?;
                    content.preallocate(0, size, preallocation).await?;
                }
                Self::Qcow2(new) => new.create(&file).await?,
            }
            content.flush().await
        });
        filled.await.map_err(|error| CommandError::generic(system_error(&error)))
    }
}

impl BlockGraph {
    /// Makes an image; what was at `path` is lost, unless somebody uses it. In `main`.
    pub async fn create(&self, path: &Path, new: NewImage) -> Result<(), CommandError> {
        let _alone = self.changing.lock().await;
        self.create_image(path, new).await
    }

    /// The same, for who changes the graph.
    pub(super) async fn create_image(
        &self,
        path: &Path,
        new: NewImage,
    ) -> Result<(), CommandError> {
        if !fdset::is_set(path) {
            make_file(path).await.map_err(|error| {
                let (path, why) = (path.display(), system_error(&error));
                CommandError::generic(format!("Could not create '{path}': {why}"))
            })?;
        }
        let filename = path.to_owned();
        let driver = DriverOptions::file(filename);
        let node = self.open(Options::new(driver)).await?;
        let id = self.number();
        let uses = Permissions::CONSISTENT_READ | Permissions::WRITE | Permissions::RESIZE;
        let access = Access { uses, shares: Permissions::CONSISTENT_READ };
        let by = User::Device(String::new());
        let made = match node.add_use(Use { id, by, role: "root", access }) {
            Ok(()) => new.fill(&node).await,
            Err(error) => Err(error),
        };
        node.remove_use(id);
        self.drop_node(node).await;
        made
    }

    /// Closes a node, and what it alone uses, unless somebody keeps it.
    pub(super) async fn drop_node(&self, node: Arc<Node>) {
        let mut writer = self.lock.write().await;
        drop_unused(&mut writer, &node);
        self.publish(&writer);
        drop(node);
        writer.unlock().await;
    }
}

/// Makes a file, if it is not there.
async fn make_file(path: &Path) -> io::Result<()> {
    let flags = libc::O_CREAT | libc::O_RDWR | libc::O_CLOEXEC;
    rio::close(rio::openat(path, flags, 0o644).await?).await
}

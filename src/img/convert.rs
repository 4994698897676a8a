//! `convert`: an image's content into another image.

use super::arguments::{Arguments, FormatOptions, Option_, size};
use super::create::{make, parse};
use super::extents::Layers;
use super::image::{Access, Images};
use super::output::Progress;
use devices::block::graph::Content;
use reactor::JoinHandle;
use std::collections::VecDeque;
use std::io;
use std::os::unix::fs::MetadataExt;

pub(super) const OPTIONS: &[Option_] = &[
    Option_('p', "progress", false),
    Option_('q', "quiet", false),
    Option_('n', "no-create", false),
    Option_('f', "source-format", true),
    Option_('O', "target-format", true),
    Option_('o', "target-options", true),
    Option_('S', "sparse-size", true),
    Option_('m', "parallel", true),
    Option_('U', "force-share", false),
];

/// Bytes that are copied in one piece.
const PIECE: u64 = 2 << 20;
/// Pieces that are read side by side, where nothing is said.
const PARALLEL: usize = 8;
/// Zeroes from so many bytes on are not written.
const SPARSE: u64 = 4096;

pub(super) async fn run(args: Arguments) -> Result<u8, String> {
    let [source, target] = args.files.as_slice() else {
        return Err("Expecting one source and one target file name".to_owned());
    };
    let parallel = args.value("parallel").map_or(Ok(PARALLEL), |text| {
        let known = text.parse().ok().filter(|n| (1..=16).contains(n));
        known.ok_or("Allowed number of coroutines is between 1 and 16")
    })?;
    let sparse = args.value("sparse-size").map(size).transpose()?.unwrap_or(SPARSE);
    let format = args.value("target-format").unwrap_or("raw");
    let mut images = Images::new()?;
    let access = Access {
        format: args.value("source-format"),
        shared: args.has("force-share"),
        ..Access::default()
    };
    let from = images.open(source, access).await?;
    let bytes = from.content.size();
    if same_file(source, target) {
        return Err(format!("'{source}' and '{target}' are one file"));
    }
    if !args.has("no-create") {
        let mut options = FormatOptions::parse(args.values("target-options"));
        if options.take("backing_file").is_some() {
            return Err("the target is a whole image; a backing file is not supported".to_owned());
        }
        make(target, parse(format, options, bytes, None)?).await?;
    } else if args.has("target-options") {
        return Err("-o has no effect with -n".to_owned());
    }
    let access = Access { format: Some(format), write: true, ..Access::default() };
    let to = images.open(target, access).await?;
    if to.content.size() < bytes {
        let text = "output file is smaller than input file";
        images.close().await?;
        return Err(text.to_owned());
    }
    let copy = Copy { sparse: sparse as usize, blank: !args.has("no-create"), parallel };
    let shown = args.has("progress") && !args.has("quiet");
    let copied = copy.run(&Layers::of(&from)?, &from.content, &to.content, shown).await;
    let copied = copied.map_err(|error| format!("'{source}' to '{target}': {error}"));
    let closed = images.close().await;
    copied.and(closed)?;
    Ok(0)
}

/// Whether two names are those of one file, which would be lost before it is read.
fn same_file(one: &str, other: &str) -> bool {
    let place = |path: &str| std::fs::metadata(path).ok().map(|file| (file.dev(), file.ino()));
    place(one).is_some() && place(one) == place(other)
}

struct Copy {
    /// Zeroes from so many bytes on are not written; 0: all are.
    sparse: usize,
    /// The target reads as zeroes where nothing was written.
    blank: bool,
    parallel: usize,
}

impl Copy {
    async fn run(
        &self,
        layers: &Layers,
        from: &Content,
        to: &Content,
        shown: bool,
    ) -> io::Result<()> {
        let end = from.size();
        let mut progress = Progress::new(shown, end);
        let mut pieces: VecDeque<Piece> = VecDeque::new();
        let mut at = 0;
        // Pieces are read side by side and written in their order, which is then that in the file.
        while at < end {
            let extent = layers.at(at, end - at).await?;
            let zero = extent.zero && self.sparse > 0;
            let len = if zero { extent.len } else { extent.len.min(PIECE) };
            let (source, start) = (from.clone(), at);
            let data = (!zero).then(|| {
                let read = async move { source.read(start, len as usize).await };
                reactor::spawn_local("read", read)
            });
            pieces.push_back(Piece { start, len, data });
            at += len;
            if pieces.len() >= self.parallel {
                self.write_one(&mut pieces, to, &mut progress).await?;
            }
        }
        while !pieces.is_empty() {
            self.write_one(&mut pieces, to, &mut progress).await?;
        }
        to.flush().await
    }

    async fn write_one(
        &self,
        pieces: &mut VecDeque<Piece>,
        to: &Content,
        progress: &mut Progress,
    ) -> io::Result<()> {
        let Some(Piece { start, len, data }) = pieces.pop_front() else { return Ok(()) };
        match data {
            Some(data) => {
                let data = data.await.map_err(io::Error::other)??;
                write_sparsely(to, start, data, self.sparse, self.blank).await?;
            }
            None if self.blank => {}
            None => to.write_zeroes(start, len, true).await?,
        }
        progress.add(len);
        Ok(())
    }
}

/// A range that is on its way; without data it is zero.
struct Piece {
    start: u64,
    len: u64,
    data: Option<JoinHandle<io::Result<Vec<u8>>>>,
}

/// Writes what is not zero, in blocks of `sparse` bytes that are looked at each.
async fn write_sparsely(
    to: &Content,
    start: u64,
    data: Vec<u8>,
    sparse: usize,
    blank: bool,
) -> io::Result<()> {
    if sparse == 0 {
        return to.write(start, data).await;
    }
    let is_zero = |block: &[u8]| block.iter().all(|byte| *byte == 0);
    let mut at = 0;
    while at < data.len() {
        let zero = is_zero(&data[at..data.len().min(at + sparse)]);
        let mut end = at;
        while end < data.len() && is_zero(&data[end..data.len().min(end + sparse)]) == zero {
            end = data.len().min(end + sparse);
        }
        let (offset, len) = (start + at as u64, (end - at) as u64);
        match (zero, blank) {
            (true, true) => {}
            (true, false) => to.write_zeroes(offset, len, true).await?,
            (false, _) => to.write(offset, data[at..end].to_vec()).await?,
        }
        at = end;
    }
    Ok(())
}

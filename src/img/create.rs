//! `create`: a new image.

use super::arguments::{Arguments, FormatOptions, Option_, size};
use super::image::{Access, Images};
use devices::block::graph::{NewImage, NewQcow2, Preallocation};
use std::fmt::Write;
use std::path::Path;

pub(super) const OPTIONS: &[Option_] = &[
    Option_('q', "quiet", false),
    Option_('f', "format", true),
    Option_('o', "options", true),
    Option_('b', "backing", true),
    Option_('F', "backing-format", true),
    Option_('u', "backing-unsafe", false),
];

const MODES: [(&str, Preallocation); 4] = [
    ("off", Preallocation::Off),
    ("metadata", Preallocation::Metadata),
    ("falloc", Preallocation::Falloc),
    ("full", Preallocation::Full),
];

pub(super) fn preallocation(text: &str) -> Result<Preallocation, String> {
    let mode = MODES.iter().find(|(name, _)| *name == text).map(|(_, mode)| *mode);
    mode.ok_or_else(|| format!("Parameter 'preallocation' does not accept value '{text}'"))
}

fn mode_name(mode: Preallocation) -> &'static str {
    MODES.iter().find(|(_, known)| *known == mode).map_or("off", |(name, _)| name)
}

pub(super) async fn run(args: Arguments) -> Result<u8, String> {
    let (path, given) = match args.files.as_slice() {
        [path] => (path, None),
        [path, bytes] => (path, Some(size(bytes)?)),
        _ => return Err("Expecting image file name".to_owned()),
    };
    let mut options = FormatOptions::parse(args.values("options"));
    let named = |key: &str, option| args.value(key).map(str::to_owned).or(option);
    let backing = named("backing", options.take("backing_file"));
    let format = named("backing-format", options.take("backing_fmt"));
    let in_options = options.take("size").map(|text| size(&text)).transpose()?;
    let mut bytes = given.or(in_options);
    let failed = |error: String| format!("{path}: {error}");
    let backing = match (backing, format) {
        (None, None) => None,
        (None, Some(_)) => return Err("Backing format needs a backing file".to_owned()),
        (Some(_), None) => {
            return Err(failed("Backing file specified without backing format".into()));
        }
        (Some(name), Some(format)) => Some((name, format)),
    };
    if let Some((name, format)) = backing.as_ref().filter(|_| !args.has("backing-unsafe")) {
        let found = size_of(path, name, format).await;
        let found = found.map_err(|error| failed(format!("{error}; -u makes the image anyway")))?;
        bytes = bytes.or(Some(found));
    }
    let bytes = bytes.ok_or_else(|| failed("Image creation needs a size parameter".to_owned()))?;
    let new = parse(args.value("format").unwrap_or("raw"), options, bytes, backing);
    let new = new.map_err(failed)?;
    if !args.has("quiet") {
        println!("{}", describe(&new, path));
    }
    make(path, new).await.map_err(failed)?;
    Ok(0)
}

/// The size of what will be behind an image, which names it relative to itself.
async fn size_of(image: &str, name: &str, format: &str) -> Result<u64, String> {
    let below = Path::new(image).parent().unwrap_or(Path::new("")).join(name);
    let below = below.to_str().ok_or("its path is not UTF-8")?;
    let mut images = Images::new()?;
    let access = Access { format: Some(format), shared: true, ..Access::default() };
    let image = images.open(below, access).await?;
    let size = image.content.size();
    images.close().await?;
    Ok(size)
}

/// The image that options ask for.
pub(super) fn parse(
    format: &str,
    mut options: FormatOptions,
    size: u64,
    backing: Option<(String, String)>,
) -> Result<NewImage, String> {
    let size = size.next_multiple_of(512);
    let mode = options.take("preallocation").map(|text| preallocation(&text)).transpose()?;
    let mode = mode.unwrap_or_default();
    let new = match format {
        "raw" if backing.is_some() => {
            return Err("Backing file not supported for file format 'raw'".to_owned());
        }
        "raw" if mode == Preallocation::Metadata => {
            let text = "Parameter 'preallocation' does not accept value 'metadata'";
            return Err(text.to_owned());
        }
        "raw" => NewImage::Raw { size, preallocation: mode },
        "qcow2" => NewImage::Qcow2(qcow2(&mut options, size, backing, mode)?),
        "vmdk" => return Err("vmdk images can only be read here".to_owned()),
        other => return Err(format!("Unknown file format '{other}'")),
    };
    options.finish()?;
    Ok(new)
}

/// The line that qemu-img prints.
fn describe(new: &NewImage, path: &str) -> String {
    let mut text = format!("Formatting '{path}', ");
    // Nothing fails where memory is written to.
    let _ = match new {
        NewImage::Raw { size, preallocation: Preallocation::Off } => {
            write!(text, "fmt=raw size={size}")
        }
        NewImage::Raw { size, preallocation } => {
            write!(text, "fmt=raw size={size} preallocation={}", mode_name(*preallocation))
        }
        NewImage::Qcow2(new) => {
            let mode = match new.preallocation {
                Preallocation::Off => String::new(),
                mode => format!(" preallocation={}", mode_name(mode)),
            };
            let backing = new.backing.as_ref().map_or(String::new(), |(name, format)| {
                format!(" backing_file={name} backing_fmt={format}")
            });
            write!(
                text,
                "fmt=qcow2 cluster_size={} extended_l2=off{mode} compression_type=zlib \
                 size={}{backing} lazy_refcounts=off refcount_bits={}",
                new.cluster_size, new.size, new.refcount_bits
            )
        }
    };
    text
}

/// Makes an image; what was at `path` is lost, unless somebody uses it.
pub(super) async fn make(path: &str, new: NewImage) -> Result<(), String> {
    let images = Images::new()?;
    let made = images.create(path, new).await;
    images.close().await?;
    made
}

fn qcow2(
    options: &mut FormatOptions,
    size: u64,
    backing: Option<(String, String)>,
    preallocation: Preallocation,
) -> Result<NewQcow2, String> {
    let number = |text: Option<String>| text.map(|text| self::size(&text)).transpose();
    let cluster_size =
        number(options.take("cluster_size"))?.unwrap_or(NewQcow2::CLUSTER_SIZE.into());
    if !cluster_size.is_power_of_two() || !(512..=2 << 20).contains(&cluster_size) {
        return Err("Cluster size must be a power of two between 512 and 2048k".to_owned());
    }
    let refcount_bits =
        number(options.take("refcount_bits"))?.unwrap_or(NewQcow2::REFCOUNT_BITS.into());
    if !refcount_bits.is_power_of_two() || refcount_bits > 64 {
        let text = "Refcount width must be a power of two and may not exceed 64 bits";
        return Err(text.to_owned());
    }
    if backing.is_some() && preallocation != Preallocation::Off {
        return Err("preallocation of images with a backing file is not supported here".to_owned());
    }
    options.only("compat", &["1.1", "v3"])?;
    options.only("lazy_refcounts", &["off"])?;
    options.only("extended_l2", &["off"])?;
    options.only("compression_type", &["zlib"])?;
    let (cluster_size, refcount_bits) = (cluster_size as u32, refcount_bits as u32);
    Ok(NewQcow2 { size, cluster_size, refcount_bits, backing, preallocation })
}

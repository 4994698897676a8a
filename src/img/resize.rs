//! `resize`: another size.

use super::arguments::{Arguments, Option_, size};
use super::create::preallocation;
use super::image::{Access, Images};
use devices::block::graph::Preallocation;

pub(super) const OPTIONS: &[Option_] = &[
    Option_('q', "quiet", false),
    Option_('f', "format", true),
    Option_('\0', "shrink", false),
    Option_('\0', "preallocation", true),
];

pub(super) async fn run(args: Arguments) -> Result<u8, String> {
    let [path, wanted] = args.files.as_slice() else {
        return Err("Expecting image file name and size".to_owned());
    };
    let mode = preallocation(args.value("preallocation").unwrap_or("off"))?;
    let mut images = Images::new()?;
    let access = Access { format: args.value("format"), write: true, ..Access::default() };
    let image = images.open(path, access).await?;
    let before = image.content.size();
    let result = match new_size(before, wanted) {
        Ok(size) if size < before && !args.has("shrink") => Err(format!(
            "Use the --shrink option to perform a shrink operation: it deletes the data behind \
             {size} bytes of '{path}', which has {before}"
        )),
        Ok(size) if size < before && mode != Preallocation::Off => {
            Err("Preallocation can only be used for growing images".to_owned())
        }
        Ok(_) if mode != Preallocation::Off && image.node.details().is_some() => {
            Err("--preallocation is for raw images only".to_owned())
        }
        Ok(size) => {
            images.resize(&image, size).await?;
            let allocated = image.content.preallocate(before, size, mode).await;
            allocated.map_err(|error| devices::text::system_error(&error))
        }
        Err(error) => Err(error),
    };
    images.close().await?;
    result?;
    if !args.has("quiet") {
        println!("Image resized.");
    }
    Ok(0)
}

/// `SIZE`, or by how much to grow (`+SIZE`) or shrink (`-SIZE`).
fn new_size(before: u64, wanted: &str) -> Result<u64, String> {
    let sized = match (wanted.strip_prefix('+'), wanted.strip_prefix('-')) {
        (Some(by), _) => before.checked_add(size(by)?),
        (_, Some(by)) => before.checked_sub(size(by)?).filter(|size| *size > 0),
        _ => Some(size(wanted)?),
    };
    let sized = sized.ok_or("New image size must be positive")?;
    Ok(sized.next_multiple_of(512))
}

#[cfg(test)]
mod tests {
    use super::new_size;

    #[test]
    fn sizes_may_be_relative() {
        for (wanted, bytes) in [("2k", 2048), ("+1k", 5120), ("-1k", 3072), ("1000", 1024)] {
            assert_eq!(new_size(4096, wanted), Ok(bytes));
        }
        for wanted in ["-4k", "-1M", "x"] {
            assert!(new_size(4096, wanted).is_err());
        }
    }
}

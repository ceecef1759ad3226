//! Models in several GGUF files: `NAME-00001-of-00005.gguf`.
//!
//! In: any part. Out: all parts in order, each checked.
//!
//! Invariants: the keys `split.no` and `split.count` of every part agree with its name; `split.tensors.count` is
//! the number of tensors of all; parts stand beside one another.

use std::path::{Path, PathBuf};

use super::file::GgufFile;
use crate::error::{FrontendError, Problem, Result};
use crate::limits;

const NUMBER: &str = "split.no";
const COUNT: &str = "split.count";
const TENSORS: &str = "split.tensors.count";

/// Opens the file, or all parts of the model that it is a part of.
pub fn open(path: &Path) -> Result<Vec<GgufFile>> {
    let file = GgufFile::open(path)?;
    let count = file
        .metadata
        .count_or(COUNT, 0..=limits::SHARDS as u32, 1)?;
    if count <= 1 {
        return Ok(vec![file]);
    }
    let stem = stem(path, count).ok_or_else(|| {
        let expected = format!("a file name that ends in -00001-of-{count:05}.gguf");
        file.metadata
            .problem(COUNT, format!("found {count}, expected {expected}"))
            .help("parts are found by their names")
            .input()
    })?;
    let paths: Vec<PathBuf> = (1..=count)
        .map(|number| path.with_file_name(format!("{stem}-{number:05}-of-{count:05}.gguf")))
        .collect();
    let missing: Vec<_> = paths.iter().filter(|path| !path.exists()).collect();
    if !missing.is_empty() {
        let problem = Problem::of(path, "parts of the model are missing").field(COUNT);
        let problem = missing.iter().take(20).fold(problem, |problem, path| {
            problem.line(path.display().to_string())
        });
        return Err(problem.help("is the download complete?").input());
    }
    // Opened again, because a part is known by its place in the list.
    drop(file);
    let files: Vec<GgufFile> = paths
        .iter()
        .map(|path| GgufFile::open(path))
        .collect::<Result<_>>()?;
    for (number, file) in (0..).zip(&files) {
        for (key, expected) in [(NUMBER, number), (COUNT, count)] {
            if file
                .metadata
                .optional_count(key, 0..=limits::SHARDS as u32)?
                != Some(expected)
            {
                return Err(disagrees(file, key, expected));
            }
        }
    }
    let total: usize = files.iter().map(|file| file.tensors.len()).sum();
    match files[0].metadata.optional_count(TENSORS, 0..=u32::MAX)? {
        Some(expected) if expected as usize != total => {
            let what = format!("found {expected}, expected {total}, as the parts have together");
            Err(files[0].metadata.problem(TENSORS, what).input())
        }
        _ => Ok(files),
    }
}

fn disagrees(file: &GgufFile, key: &str, expected: u32) -> FrontendError {
    file.metadata
        .wrong(key, format_args!("{expected}, as the file's name says"))
}

/// What stands before `-00001-of-00005.gguf` in the name of a part of so many.
fn stem(path: &Path, count: u32) -> Option<String> {
    let name = path.file_name()?.to_str()?.strip_suffix(".gguf")?;
    let is_one = name.ends_with(&format!("-of-{count:05}"));
    let stem = is_one.then(|| stem_of_any(name))??;
    Some(stem.to_owned())
}

/// What stands before `-00001-of-00005`.
pub fn stem_of_any(name: &str) -> Option<&str> {
    let number = |text: &str| -> Option<u32> {
        let is_number = text.len() == 5 && text.bytes().all(|byte| byte.is_ascii_digit());
        is_number.then(|| text.parse().ok())?
    };
    let (rest, count) = name.rsplit_once("-of-")?;
    let (stem, part) = rest.rsplit_once('-')?;
    (1..=number(count)?)
        .contains(&number(part)?)
        .then_some(stem)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_known_by_their_names() {
        for (name, expected) in [
            ("m-00001-of-00002.gguf", Some("m")),
            ("a-b-00002-of-00002.gguf", Some("a-b")),
            ("m-00003-of-00002.gguf", None),
            ("m-00000-of-00002.gguf", None),
            ("m-1-of-00002.gguf", None),
            ("m-00001-of-00003.gguf", None),
            ("m.gguf", None),
        ] {
            assert_eq!(stem(Path::new(name), 2).as_deref(), expected, "{name}");
        }
    }
}

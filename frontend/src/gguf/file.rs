//! One GGUF file: its header, checked, over a mapping.
//!
//! In: a path. Out: [`GgufFile`]: metadata and tensors, as places in the mapping.
//!
//! Layout: `GGUF`, `u32` version, `u64` tensors, `u64` keys; keys with typed values; tensors (name, dimensions
//! innermost first, type, offset); padding to `general.alignment`; the data.
//!
//! Invariants, checked before anything can be reached:
//! - G1 the version is 2 or 3, in little-endian order;
//! - G2 counts fit the bytes that are left, and bounds far above every published file;
//! - G3 keys and names are unique, not empty, short and UTF-8;
//! - G4 values are of known types and lie inside the file (`value`);
//! - G5 a tensor has at most 4 dimensions, none of them 0, of a known type, and rows of whole blocks; its size does
//!   not overflow;
//! - G6 the alignment is a power of two; tensors are aligned, inside the file, and do not overlap.
//!
//! Not here: what keys and names mean (`architectures`), files in several parts (`parts`).

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use indexmap::IndexMap;
use indexmap::map::Entry;

use super::cursor::Cursor;
use super::ggml_type::GgmlType;
use super::metadata::Metadata;
use super::value::{self, Value};
use crate::error::{Excerpt, Problem, Result};
use crate::limits;
use crate::weights::mapping::Mapping;

/// Bytes of a header: metadata with the largest published tokenizers take 20 MB.
const HEADER: usize = 512 << 20;
const KEYS: u64 = 1 << 16;
const TENSORS: u64 = 1 << 18;
/// Bytes of the shortest key with a value, and of the shortest description of a tensor.
const KEY_BYTES: u64 = 8 + 1 + 4 + 1;
const TENSOR_BYTES: u64 = 8 + 1 + 4 + 4 + 8;
const KEY_LENGTH: usize = 65_535;
/// ggml's own limit is 63.
const NAME_LENGTH: usize = 255;
const DIMENSIONS: u32 = 4;
const ALIGNMENT: &str = "general.alignment";
const DEFAULT_ALIGNMENT: u32 = 32;

/// A tensor of a file.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    /// The type of its elements.
    pub ty: GgmlType,
    /// Its dimensions, outermost first.
    pub shape: Vec<u64>,
    /// Its bytes in the mapping.
    pub place: Range<usize>,
}

/// A mapped file whose header holds what it promises.
#[derive(Debug)]
pub struct GgufFile {
    /// Keys and values.
    pub metadata: Metadata,
    /// Tensors by name, in the order of the file.
    pub tensors: IndexMap<String, Tensor>,
}

impl GgufFile {
    /// Maps a file and checks its header.
    pub fn open(path: &Path) -> Result<Self> {
        let map = Arc::new(Mapping::open(path)?);
        let bytes = map.bytes();
        let mut cursor = Cursor::new(path, &bytes[..bytes.len().min(HEADER)]);
        let (tensors, keys) = preamble(path, &mut cursor)?;
        let mut values = IndexMap::new();
        for index in 0..keys {
            let (key, value) = key_value(path, &mut cursor, index)?;
            insert(path, &mut values, key, value)?;
        }
        let metadata = Metadata::new(map.clone(), values);
        let alignment = alignment(&metadata)?;
        let mut infos = IndexMap::new();
        for index in 0..tensors {
            let (name, info) = tensor(path, &mut cursor, index)?;
            insert(path, &mut infos, name, info)?;
        }
        let start = (cursor.at() as u64).next_multiple_of(alignment);
        let tensors = place(path, infos, (start, bytes.len() as u64, alignment))?;
        Ok(Self { metadata, tensors })
    }

    /// The bytes of a tensor of this file.
    pub fn data(&self, tensor: &Tensor) -> &[u8] {
        &self.metadata.map().bytes()[tensor.place.clone()]
    }
}

/// G1, G2: the numbers of tensors and keys.
fn preamble(path: &Path, cursor: &mut Cursor) -> Result<(u64, u64)> {
    let wrong = |what: String| Problem::of(path, what);
    let magic: [u8; 4] = cursor.take("magic")?;
    match &magic {
        b"GGUF" => {}
        b"lmgg" | b"fmgg" | b"tjgg" | b"algg" => {
            let what = "a GGML file of a format before GGUF".to_owned();
            return Err(wrong(what)
                .help("convert the original model to GGUF")
                .unsupported());
        }
        _ => {
            let found: String = magic.iter().map(|b| b.escape_ascii().to_string()).collect();
            return Err(wrong(format!("magic: found \"{found}\", expected \"GGUF\"")).input());
        }
    }
    let version = cursor.u32("version")?;
    match version {
        2 | 3 => {}
        1 => return Err(wrong("GGUF version 1, supported are 2 and 3".into()).unsupported()),
        _ if (1..=3).contains(&version.swap_bytes()) => {
            return Err(wrong("a big-endian GGUF file".into())
                .help("convert the model on a little-endian machine")
                .unsupported());
        }
        _ => return Err(wrong(format!("version: found {version}, expected 2 or 3")).input()),
    }
    let tensors = cursor.u64("the number of tensors")?;
    let keys = cursor.u64("the number of keys")?;
    for (what, found, most, bytes) in [
        ("tensors", tensors, TENSORS, TENSOR_BYTES),
        ("keys", keys, KEYS, KEY_BYTES),
    ] {
        let most = most.min(cursor.left() / bytes);
        if found > most {
            let what = format!(
                "the number of {what}: found {found}, expected at most {most} in {} bytes",
                cursor.left()
            );
            return Err(wrong(what).help("is the download complete?").input());
        }
    }
    Ok((tensors, keys))
}

/// G3.
fn insert<T>(path: &Path, map: &mut IndexMap<String, T>, name: &str, value: T) -> Result<()> {
    match map.entry(name.to_owned()) {
        Entry::Vacant(slot) => drop(slot.insert(value)),
        Entry::Occupied(slot) => {
            return Err(Problem::of(path, "occurs twice").field(slot.key()).input());
        }
    }
    Ok(())
}

fn key_value<'a>(path: &Path, cursor: &mut Cursor<'a>, index: u64) -> Result<(&'a str, Value)> {
    let key = cursor.name(KEY_LENGTH, &format!("key {index}"))?;
    let what = format!("the value of `{}`", Excerpt(key));
    match value::read(cursor, &what)? {
        Ok(value) => Ok((key, value)),
        Err(what) => Err(Problem::of(path, what).field(key).input()),
    }
}

fn alignment(metadata: &Metadata) -> Result<u64> {
    let alignment = metadata.count_or(ALIGNMENT, 1..=1 << 30, DEFAULT_ALIGNMENT)?;
    match alignment.is_power_of_two() {
        true => Ok(alignment.into()),
        false => Err(metadata.wrong(ALIGNMENT, "a power of two")),
    }
}

/// A tensor as the header describes it: type, shape, offset, bytes.
type Info = (GgmlType, Vec<u64>, u64, u64);

/// G5.
fn tensor<'a>(path: &Path, cursor: &mut Cursor<'a>, index: u64) -> Result<(&'a str, Info)> {
    let name = cursor.name(NAME_LENGTH, &format!("the name of tensor {index}"))?;
    let of = format!("tensor `{}`", Excerpt(name));
    let wrong = |what: String| Problem::of(path, what).field(name).input();
    let dimensions = cursor.u32(&of)?;
    if dimensions > DIMENSIONS {
        return Err(wrong(format!(
            "found {dimensions} dimensions, expected at most {DIMENSIONS}"
        )));
    }
    let mut shape = Vec::new();
    for _ in 0..dimensions {
        shape.push(cursor.u64(&of)?);
    }
    shape.reverse();
    let ty = cursor.u32(&of)?;
    let offset = cursor.u64(&of)?;
    let ty =
        GgmlType::from_id(ty).map_err(|what| Problem::of(path, what).field(name).unsupported())?;
    let elements = shape.iter().try_fold(1u64, |n, dim| n.checked_mul(*dim));
    let Some(elements) = elements.filter(|n| (1..=limits::ELEMENTS).contains(n)) else {
        return Err(wrong(format!(
            "shape: found {shape:?}, expected 1 to 2^40 elements"
        )));
    };
    let columns = shape.last().copied().unwrap_or(1);
    if !columns.is_multiple_of(ty.block_len) {
        let what = format!(
            "shape: found {shape:?}, expected rows of a multiple of {} elements for {ty}",
            ty.block_len
        );
        return Err(wrong(what));
    }
    let Some(bytes) = ty.bytes(elements) else {
        return Err(wrong(format!("shape: {shape:?} of {ty} overflows")));
    };
    Ok((name, (ty, shape, offset, bytes)))
}

/// G6: the tensors in the data, which begins at `start` of `length` bytes.
fn place(
    path: &Path,
    infos: IndexMap<String, Info>,
    (start, length, alignment): (u64, u64, u64),
) -> Result<IndexMap<String, Tensor>> {
    let data = length.saturating_sub(start);
    let mut tensors = IndexMap::with_capacity(infos.len());
    for (name, (ty, shape, offset, bytes)) in infos {
        let wrong = |what: String| Problem::of(path, what).field(name.as_str());
        if !offset.is_multiple_of(alignment) {
            let what =
                format!("offset: found {offset}, expected a multiple of {ALIGNMENT} ({alignment})");
            return Err(wrong(what).input());
        }
        if offset > data || bytes > data - offset {
            let what = format!(
                "offset: found {offset} for {bytes} bytes, expected a place inside the file's {data} bytes of data"
            );
            return Err(wrong(what).help("is the download complete?").input());
        }
        let first = (start + offset) as usize;
        let place = first..first + bytes as usize;
        tensors.insert(name, Tensor { ty, shape, place });
    }
    let mut order: Vec<_> = tensors.iter().collect();
    order.sort_by_key(|(_, tensor)| tensor.place.start);
    for pair in order.windows(2) {
        let [(before, first), (name, second)] = pair else {
            continue;
        };
        if second.place.start < first.place.end {
            let what = format!("offset: overlaps tensor `{}`", Excerpt(before));
            return Err(Problem::of(path, what).field(name.as_str()).input());
        }
    }
    Ok(tensors)
}

//! One safetensors file: its header, checked, over a mapping.
//!
//! In: a path. Out: [`SafetensorsFile`], tensors by name as byte ranges of the mapping.
//!
//! Layout: `u64` header length, a JSON object (name → dtype, shape, data_offsets), the data.
//!
//! Invariants, checked before a tensor can be reached:
//! - S1 the header lies inside the file and is at most 100 MB, the bound of the format;
//! - S2 names are unique and not empty;
//! - S3 shapes have at most 8 dimensions, and shape × type does not overflow;
//! - S4 `data_offsets` are ordered, inside the data, and as long as shape × type says;
//! - S5 tensors neither overlap nor leave bytes that belong to none.
//!
//! Not here: which file holds a tensor (`checkpoint`), what the names mean (`models`).

use std::fmt;
use std::ops::Range;
use std::path::Path;

use indexmap::IndexMap;
use indexmap::map::Entry as Slot;
use serde::Deserialize;
use serde::de::{Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::mapping::Mapping;
use super::{StoredType, TensorInfo};
use crate::error::{Excerpt, FrontendError, Problem, Result};

const HEADER_LIMIT: u64 = 100_000_000;
const DIMENSIONS: usize = 8;

/// A mapped file whose header holds what it promises.
pub struct SafetensorsFile {
    map: Mapping,
    /// Name → description and place in `map`.
    tensors: IndexMap<String, (TensorInfo, Range<usize>)>,
}

impl SafetensorsFile {
    /// Maps a file and checks its header.
    pub fn open(path: &Path) -> Result<Self> {
        let map = Mapping::open(path)?;
        let length = map.bytes().len();
        if length < 8 {
            let what = format!(
                "the file has {length} bytes, expected at least the 8 of the header's length"
            );
            return Err(truncated(path, what));
        }
        let tensors = read_header(path, map.bytes())?;
        Ok(Self { map, tensors })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        self.map.path()
    }

    /// All names, in the order of the header.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Type and shape.
    pub fn info(&self, name: &str) -> Option<&TensorInfo> {
        self.tensors.get(name).map(|(info, _)| info)
    }

    /// The bytes of a tensor.
    pub fn data(&self, name: &str) -> Option<&[u8]> {
        self.tensors
            .get(name)
            .and_then(|(_, place)| self.map.bytes().get(place.clone()))
    }

    /// Gives the whole pages inside `range` of a tensor back to the system.
    pub fn release(&self, name: &str, range: Range<u64>) {
        let Some((_, place)) = self.tensors.get(name) else {
            return;
        };
        let bound = |offset: u64| {
            place.start
                + usize::try_from(offset)
                    .unwrap_or(usize::MAX)
                    .min(place.len())
        };
        self.map.release(bound(range.start)..bound(range.end));
    }
}

fn truncated(path: &Path, what: String) -> FrontendError {
    Problem::of(path, what)
        .help("is the download complete, and is it a safetensors file?")
        .input()
}

fn read_header(path: &Path, map: &[u8]) -> Result<IndexMap<String, (TensorInfo, Range<usize>)>> {
    let Some((length, rest)) = map.split_first_chunk::<8>() else {
        return Err(truncated(
            path,
            "the file is shorter than its header's length".into(),
        ));
    };
    let length = u64::from_le_bytes(*length);
    if length > HEADER_LIMIT || length > rest.len() as u64 {
        let bound = HEADER_LIMIT.min(rest.len() as u64);
        let what = format!(
            "header length: found {length}, expected at most {bound} (the file has {} bytes)",
            map.len()
        );
        return Err(truncated(path, what));
    }
    let (header, data) = rest.split_at(length as usize);
    if header.first() != Some(&b'{') {
        return Err(truncated(path, "header: expected a JSON object".into()));
    }
    let Header(entries) = serde_json::from_slice(header)
        .map_err(|e| Problem::of(path, format!("header: {}", Excerpt(&e.to_string()))).input())?;

    let start = 8 + header.len();
    let mut tensors = IndexMap::with_capacity(entries.len());
    for (name, entry) in entries {
        let (info, place) = check_entry(path, &name, entry, data.len() as u64)?;
        tensors.insert(
            name,
            (
                info,
                start + place.start as usize..start + place.end as usize,
            ),
        );
    }
    check_cover(path, &tensors, start..map.len())?;
    Ok(tensors)
}

fn check_entry(
    path: &Path,
    name: &str,
    entry: Entry,
    data: u64,
) -> Result<(TensorInfo, Range<u64>)> {
    let problem = |what: String| Problem::of(path, what).field(name);
    let Some(stored) = StoredType::from_safetensors(&entry.dtype) else {
        let what = format!(
            "dtype: found \"{}\", supported are F32, F16 and BF16",
            Excerpt(&entry.dtype)
        );
        return Err(problem(what).unsupported());
    };
    let bytes = entry
        .shape
        .0
        .iter()
        .try_fold(1u64, |elements, dim| elements.checked_mul(*dim))
        .and_then(|elements| stored.bytes(elements));
    let Some(bytes) = bytes.filter(|bytes| *bytes <= i64::MAX as u64) else {
        return Err(problem(format!("shape: {:?} of {stored} overflows", entry.shape.0)).input());
    };
    let [begin, end] = entry.data_offsets;
    if begin > end || end > data {
        let what = format!(
            "data_offsets: found [{begin}, {end}], expected a range inside the file's {data} bytes of data"
        );
        return Err(problem(what).help("is the download complete?").input());
    }
    if end - begin != bytes {
        let what = format!(
            "data_offsets: found {} bytes, expected {bytes} for the shape {:?} of {stored}",
            end - begin,
            entry.shape.0
        );
        return Err(problem(what).input());
    }
    Ok((
        TensorInfo {
            stored,
            shape: entry.shape.0,
        },
        begin..end,
    ))
}

/// S5.
fn check_cover(
    path: &Path,
    tensors: &IndexMap<String, (TensorInfo, Range<usize>)>,
    data: Range<usize>,
) -> Result<()> {
    let mut order: Vec<_> = tensors
        .iter()
        .map(|(name, (_, place))| (place, name))
        .collect();
    order.sort_by_key(|(place, _)| (place.start, place.end));
    let mut at = data.start;
    let mut before = "";
    for (place, name) in order {
        if place.start < at {
            let what = format!("data_offsets: overlaps tensor `{}`", Excerpt(before));
            return Err(Problem::of(path, what).field(name.as_str()).input());
        }
        if place.start > at {
            let what = format!(
                "data_offsets: {} bytes before it belong to no tensor",
                place.start - at
            );
            return Err(Problem::of(path, what).field(name.as_str()).input());
        }
        at = place.end;
        before = name;
    }
    if at != data.end {
        let what = format!("the last {} bytes belong to no tensor", data.end - at);
        return Err(Problem::of(path, what).input());
    }
    Ok(())
}

/// The header's tensors, in its order; `__metadata__` is skipped.
struct Header(IndexMap<String, Entry>);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    dtype: String,
    shape: Shape,
    data_offsets: [u64; 2],
}

/// At most [`DIMENSIONS`] numbers.
struct Shape(Vec<u64>);

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Header;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of tensors")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Header, A::Error> {
                let mut entries = IndexMap::new();
                while let Some(name) = map.next_key::<String>()? {
                    if name == "__metadata__" {
                        map.next_value::<IgnoredAny>()?;
                        continue;
                    }
                    if name.is_empty() {
                        return Err(A::Error::custom("a tensor has no name"));
                    }
                    match entries.entry(name) {
                        Slot::Vacant(slot) => {
                            let name = Excerpt(slot.key()).to_string();
                            let entry = map.next_value().map_err(|e| {
                                A::Error::custom(format_args!("tensor `{name}`: {e}"))
                            })?;
                            slot.insert(entry);
                        }
                        Slot::Occupied(slot) => {
                            let name = Excerpt(slot.key());
                            return Err(A::Error::custom(format_args!(
                                "tensor `{name}` occurs twice"
                            )));
                        }
                    }
                }
                Ok(Header(entries))
            }
        }
        deserializer.deserialize_map(Members)
    }
}

impl<'de> Deserialize<'de> for Shape {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Dimensions;
        impl<'de> Visitor<'de> for Dimensions {
            type Value = Shape;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a shape of at most {DIMENSIONS} non-negative integers")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Shape, A::Error> {
                let mut shape = Vec::new();
                while let Some(dim) = sequence.next_element()? {
                    if shape.len() == DIMENSIONS {
                        return Err(A::Error::invalid_length(DIMENSIONS + 1, &self));
                    }
                    shape.push(dim);
                }
                Ok(Shape(shape))
            }
        }
        deserializer.deserialize_seq(Dimensions)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads a header over `data` bytes; what it lists, or the error without the file's name.
    fn read(header: &str, data: usize) -> String {
        let mut file = (header.len() as u64).to_le_bytes().to_vec();
        file.extend_from_slice(header.as_bytes());
        file.resize(file.len() + data, 0);
        match read_header(Path::new("w"), &file) {
            Ok(tensors) => tensors
                .iter()
                .map(|(name, (info, _))| format!("{name}: {:?} {}; ", info.shape, info.stored))
                .collect(),
            Err(error) => error.to_string(),
        }
    }

    #[track_caller]
    fn check(header: &str, data: usize, expected: &str) {
        let found = read(header, data);
        assert!(found.contains(expected), "{header}: {found}");
    }

    #[test]
    fn well_formed_headers_are_read() {
        check("{}", 0, "");
        check(
            r#"{"__metadata__": {"format": "pt"}, "a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
                "s": {"dtype": "I64", "shape": [], "data_offsets": [8, 16]}, "z": {"dtype": "F16", "shape": [0, 4], "data_offsets": [16, 16]}}  "#,
            16,
            "a: [2] f32; s: [] i64; z: [0, 4] f16; ",
        );
    }

    #[test]
    fn contradictions_are_refused() {
        let one = |shape: &str, begin: u64, end: u64| {
            format!(
                r#"{{"a": {{"dtype": "F32", "shape": {shape}, "data_offsets": [{begin}, {end}]}}}}"#
            )
        };
        check("[]", 0, "header: expected a JSON object");
        check("{\"a\"", 0, "header: ");
        check(
            &one("[2]", 0, 8),
            4,
            "`a`: data_offsets: found [0, 8], expected a range inside the file's 4 bytes",
        );
        check(&one("[2]", 8, 0), 8, "`a`: data_offsets: found [8, 0]");
        check(
            &one("[3]", 0, 8),
            8,
            "`a`: data_offsets: found 8 bytes, expected 12 for the shape [3] of f32",
        );
        check(
            &one("[4294967296, 4294967296]", 0, 8),
            8,
            "`a`: shape: [4294967296, 4294967296] of f32 overflows",
        );
        check(
            &one("[-1]", 0, 8),
            8,
            "tensor `a`: invalid value: integer `-1`",
        );
        check(&one("[1,1,1,1,1,1,1,1,2]", 0, 8), 8, "at most 8");
        check(
            &one("[2]", 0, 8),
            12,
            "the last 4 bytes belong to no tensor",
        );
        check(
            &one("[1]", 4, 8),
            8,
            "`a`: data_offsets: 4 bytes before it belong to no tensor",
        );
        let two = |first: &str, second: &str| {
            format!(
                r#"{{"{first}": {{"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}},
                    "{second}": {{"dtype": "F32", "shape": [2], "data_offsets": [4, 12]}}}}"#
            )
        };
        check(&two("a", "b"), 12, "`b`: data_offsets: overlaps tensor `a`");
        check(&two("a", "a"), 12, "tensor `a` occurs twice");
        check(&two("", "a"), 12, "a tensor has no name");
        check(
            r#"{"a": {"dtype": "Q9", "shape": [], "data_offsets": [0, 1]}}"#,
            1,
            "`a`: dtype: found \"Q9\"",
        );
        check(
            r#"{"a": {"dtype": "F32", "shape": []}}"#,
            1,
            "tensor `a`: missing field `data_offsets`",
        );
    }

    #[test]
    fn the_header_lies_inside_the_file() {
        let huge = u64::MAX.to_le_bytes();
        let error = read_header(Path::new("w"), &huge).unwrap_err().to_string();
        assert!(
            error.contains("header length: found 18446744073709551615, expected at most 0"),
            "{error}"
        );
    }

    #[test]
    fn released_pages_read_back_the_same() {
        let data: Vec<u8> = (0..1_000_000u32).map(|i| (i % 251) as u8).collect();
        let header = r#"{"a": {"dtype": "U8", "shape": [1000000], "data_offsets": [0, 1000000]}}"#;
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend_from_slice(header.as_bytes());
        bytes.extend_from_slice(&data);
        let path = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(path.path(), bytes).unwrap();
        let file = SafetensorsFile::open(path.path()).unwrap();
        for range in [0..1_000_000, 300_000..700_001, 5..6, 9..u64::MAX] {
            file.release("a", range);
            assert!(file.data("a").unwrap() == data);
        }
    }
}

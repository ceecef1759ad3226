//! The checkpoint of a Hugging Face directory: one safetensors file, or shards with an index.
//!
//! In: a directory, a `.safetensors` file or an index. Out: a [`WeightSource`] over mappings.
//!
//! Invariants: the index names plain files beside it; a tensor that the index promises is in its shard; a name
//! belongs to one file.
//!
//! Not here: formats that can run code. Pickle checkpoints (`.bin`, `.pt`, …) are refused by name.

use std::borrow::Cow;
use std::ops::Range;
use std::path::{Component, Path, PathBuf};

use indexmap::IndexMap;

use super::safetensors::SafetensorsFile;
use super::{TensorInfo, WeightSource};
use crate::error::{Excerpt, Problem, Result};
use crate::json::{Json, Limits};
use crate::limits;

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
const PICKLES: [&str; 4] = ["bin", "pt", "pth", "ckpt"];

/// The tensors of one or more mapped files.
pub struct Checkpoint {
    files: Vec<SafetensorsFile>,
    /// Name → index into `files`.
    tensors: IndexMap<String, usize>,
}

impl std::fmt::Debug for Checkpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list()
            .entries(self.files.iter().map(SafetensorsFile::path))
            .finish()
    }
}

impl Checkpoint {
    /// Opens what `path` says: a directory, a `.safetensors` file or an index.
    pub fn open(path: &Path) -> Result<Self> {
        if path.is_dir() {
            return Self::open_file(&find(path)?);
        }
        Self::open_file(path)
    }

    /// Whether a directory has a file of weights under one of the usual names.
    pub fn is_in(folder: &Path) -> bool {
        [SINGLE, INDEX]
            .iter()
            .any(|name| folder.join(name).exists())
    }

    fn open_file(path: &Path) -> Result<Self> {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("json") => Self::open_index(path),
            Some(extension) if PICKLES.contains(&extension) => Err(refuse_pickle(path)),
            _ => {
                let file = SafetensorsFile::open(path)?;
                let tensors = file.names().map(|name| (name.to_owned(), 0)).collect();
                Ok(Self {
                    files: vec![file],
                    tensors,
                })
            }
        }
    }

    fn open_index(path: &Path) -> Result<Self> {
        let index = Json::read(path, Limits::CONFIG)?;
        let map = index
            .as_object()
            .and_then(|members| members.get("weight_map"));
        let Some(map) = map.and_then(Json::as_object) else {
            let found = map.map_or("missing".into(), |value| {
                format!("found {}", value.describe())
            });
            let what = format!("{found}, expected an object of tensor names and file names");
            return Err(Problem::of(path, what).field("weight_map").input());
        };

        let mut shards: IndexMap<&str, usize> = IndexMap::new();
        let mut tensors = IndexMap::with_capacity(map.len());
        for (name, shard) in map.iter() {
            let field = || format!("weight_map.{name}");
            let Some(shard) = shard.as_str().filter(|shard| is_plain_file_name(shard)) else {
                let what = format!(
                    "found {}, expected the name of a file beside the index",
                    shard.describe()
                );
                return Err(Problem::of(path, what).field(field()).input());
            };
            if !shard.ends_with(".safetensors") {
                let what = format!("found \"{}\", expected a .safetensors file", Excerpt(shard));
                return Err(Problem::of(path, what).field(field()).input());
            }
            let next = shards.len();
            let shard = *shards.entry(shard).or_insert(next);
            tensors.insert(name.clone(), shard);
        }
        if shards.len() > limits::SHARDS {
            let what = format!(
                "found {} shards, expected at most {}",
                shards.len(),
                limits::SHARDS
            );
            return Err(Problem::of(path, what).field("weight_map").input());
        }

        let folder = path.parent().unwrap_or(Path::new(""));
        let absent: Vec<_> = shards
            .keys()
            .filter(|shard| !folder.join(shard).exists())
            .collect();
        if !absent.is_empty() {
            let problem = Problem::of(path, "shards are missing").field("weight_map");
            let problem = absent
                .iter()
                .take(20)
                .fold(problem, |p, shard| p.line(Excerpt(shard).to_string()));
            return Err(problem.help("is the download complete?").input());
        }
        let files = shards
            .keys()
            .map(|shard| SafetensorsFile::open(&folder.join(shard)));
        let files = files.collect::<Result<Vec<_>>>()?;

        let lost: Vec<_> = tensors
            .iter()
            .filter(|(name, shard)| files[**shard].info(name).is_none())
            .collect();
        if !lost.is_empty() {
            let problem = Problem::of(path, "tensors are not in the shards that the index names")
                .field("weight_map");
            let line = |(name, shard): &(&String, &usize)| {
                format!(
                    "{}: not in {}",
                    Excerpt(name),
                    files[**shard].path().display()
                )
            };
            let problem = lost
                .iter()
                .take(20)
                .fold(problem, |p, entry| p.line(line(entry)));
            return Err(problem
                .help("are index and shards of the same checkpoint?")
                .input());
        }
        Ok(Self { files, tensors })
    }
}

impl WeightSource for Checkpoint {
    fn names(&self) -> Vec<&str> {
        self.tensors.keys().map(String::as_str).collect()
    }

    fn info(&self, name: &str) -> Option<&TensorInfo> {
        self.files[*self.tensors.get(name)?].info(name)
    }

    fn read(&self, name: &str, range: Range<u64>) -> Result<Cow<'_, [u8]>> {
        let file = self.tensors.get(name).map(|file| &self.files[*file]);
        let data = file.and_then(|file| file.data(name));
        let range = usize::try_from(range.start)
            .ok()
            .zip(usize::try_from(range.end).ok());
        let bytes = data
            .zip(range)
            .and_then(|(data, (start, end))| data.get(start..end));
        bytes.map(Cow::Borrowed).ok_or_else(|| {
            let problem = Problem::new("a read outside the checkpoint's tensors").field(name);
            problem.input()
        })
    }

    fn release(&self, name: &str, range: Range<u64>) {
        if let Some(file) = self.tensors.get(name) {
            self.files[*file].release(name, range);
        }
    }

    fn file(&self, name: &str) -> Option<&Path> {
        self.tensors.get(name).map(|file| self.files[*file].path())
    }
}

/// A name without folders: nothing outside the checkpoint's folder can be reached with it.
fn is_plain_file_name(name: &str) -> bool {
    let mut parts = Path::new(name).components();
    let plain = matches!(parts.next(), Some(Component::Normal(_))) && parts.next().is_none();
    plain && !name.contains(['/', '\\', '\0'])
}

/// The file to open in a directory.
fn find(folder: &Path) -> Result<PathBuf> {
    for name in [SINGLE, INDEX] {
        let path = folder.join(name);
        if path.exists() {
            return Ok(path);
        }
    }
    let mut names: Vec<String> = match std::fs::read_dir(folder) {
        Ok(entries) => entries
            .flatten()
            .take(10_000)
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect(),
        Err(error) => return Err(crate::FrontendError::io("read", folder, error)),
    };
    names.sort();
    let has_extension = |name: &&String, wanted: &[&str]| {
        Path::new(name.as_str())
            .extension()
            .and_then(|e| e.to_str())
            .is_some_and(|e| wanted.contains(&e))
    };
    if let Some(pickle) = names
        .iter()
        .find(|name| has_extension(name, &PICKLES) && *name != "training_args.bin")
    {
        return Err(refuse_pickle(&folder.join(pickle)));
    }
    if names.iter().any(|name| name == "adapter_model.safetensors") {
        return Err(Problem::of(
            &folder.join("adapter_model.safetensors"),
            "an adapter without its base model",
        )
        .help("give the base model's directory, and the adapter with --lora")
        .input());
    }
    let problem = Problem::of(folder, format!("no weights: expected {SINGLE} or {INDEX}"));
    Err(match names
        .iter()
        .find(|name| has_extension(name, &["safetensors"]))
    {
        Some(other) => problem.help(format!("to use {}, give it with --weights", Excerpt(other))),
        None => problem.help("give them with --weights, or compile with --random-weights SEED"),
    }
    .input())
}

fn refuse_pickle(path: &Path) -> crate::FrontendError {
    Problem::of(
        path,
        "a pickle checkpoint, which can run code when it is read; llmc reads safetensors only",
    )
    .help(
        "convert it: load it in transformers and call save_pretrained(…, safe_serialization=True)",
    )
    .unsupported()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shard_names_stay_in_their_folder() {
        for (name, expected) in [
            ("model-00001-of-00002.safetensors", true),
            ("../model.safetensors", false),
            ("/etc/model.safetensors", false),
            ("a/b.safetensors", false),
            ("a\\b.safetensors", false),
            ("..", false),
            (".", false),
            ("", false),
        ] {
            assert_eq!(is_plain_file_name(name), expected, "{name}");
        }
    }
}

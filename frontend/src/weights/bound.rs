//! Weights under the family's names.
//!
//! In: a checkpoint or a seed, and the tensors that a module wants. Out: [`BoundWeights`], which answers to the
//! names that the module uses; or one error that lists everything that does not fit.
//!
//! Names: a checkpoint may have or lack the prefix of the base model (`model.`, `bert.`), and may call a layer
//! norm's tensors `gamma` and `beta`. Tensors that nobody wants (buffers, heads of another task) are left alone.
//!
//! Invariants: every wanted tensor is there, with the wanted shape and a type that the compiler computes with; the
//! model's size fits 63 bits.
//!
//! Not here: packing.

use std::borrow::Cow;
use std::ops::Range;

use indexmap::IndexMap;
use indexmap::IndexSet;
use llmc_ir::quant::Format;
use llmc_ir::source::{TensorInfo as IrTensorInfo, tensor_name};
use llmc_ir::{DType, TensorSource};

use super::synthetic::Synthetic;
use super::{StoredType, TensorInfo, WeightSource};
use crate::blocks::{Catalog, Wanted};
use crate::config::Config;
use crate::error::{Excerpt, Problem, Result};
use crate::limits;

/// Parameters of a model.
const PARAMETERS: u64 = 1 << 42;
/// Mismatches that one error lists.
const LISTED: usize = 20;

/// The tensor of a head that is not the token table.
pub const HEAD: &str = "lm_head.weight";

/// A checkpoint, asked by a family's names.
pub struct Naming<'s> {
    /// The checkpoint.
    pub source: &'s dyn WeightSource,
    /// The prefix that its names may have or lack.
    pub prefix: &'static str,
}

impl Naming<'_> {
    /// What the checkpoint calls a tensor.
    pub fn stored(&self, tensor: &str) -> Option<(String, &TensorInfo)> {
        let legacy = ["weight", "bias"]
            .iter()
            .zip(["gamma", "beta"])
            .find_map(|(new, old)| {
                let stem = tensor
                    .strip_suffix(new)
                    .filter(|stem| stem.ends_with("LayerNorm."))?;
                Some(format!("{stem}{old}"))
            });
        for name in [Some(tensor.to_owned()), legacy].into_iter().flatten() {
            let bare = name.strip_prefix(self.prefix).map(str::to_owned);
            let prefixed = format!("{}{name}", self.prefix);
            for name in [Some(name), bare, Some(prefixed)].into_iter().flatten() {
                if let Some(info) = self.source.info(&name) {
                    return Some((name, info));
                }
            }
        }
        None
    }
}

impl Naming<'_> {
    /// A tensor's name for a message: the file's own, and the family's where they differ.
    fn called(&self, tensor: &str) -> String {
        match self.source.stored_name(tensor) {
            Some(stored) => format!("{stored} ({tensor})"),
            None => tensor.to_owned(),
        }
    }
}

impl Catalog for Naming<'_> {
    fn dtype(&self, tensor: &str) -> Option<DType> {
        // A type that cannot be computed with is reported when the weights are bound.
        self.stored(tensor)
            .map(|(_, info)| info.stored.dtype().unwrap_or(DType::F32))
    }

    fn norms_include_offset(&self) -> bool {
        self.source.norms_include_offset()
    }
}

/// All tensors there are, in one type.
pub struct Anything(pub DType);

impl Catalog for Anything {
    fn dtype(&self, _tensor: &str) -> Option<DType> {
        Some(self.0)
    }
}

/// The weights of one model.
pub struct BoundWeights {
    source: Box<dyn WeightSource>,
    /// The family's name → the source's, and what stands there.
    tensors: IndexMap<String, (String, IrTensorInfo)>,
    /// Tensors of the source that the model does not use.
    pub unused: Vec<String>,
    /// Elements of all tensors.
    pub parameters: u64,
}

impl BoundWeights {
    /// Finds every wanted tensor in a checkpoint.
    pub fn from_checkpoint(
        source: Box<dyn WeightSource>,
        (family, prefix): (&str, &'static str),
        config: &Config,
        wanted: &[Wanted],
    ) -> Result<Self> {
        let naming = Naming {
            source: &*source,
            prefix,
        };
        let mut tensors = IndexMap::new();
        let mut mismatches = Mismatches::default();
        let mut parameters = 0;
        for want in wanted {
            parameters += check_size(want)?;
            for tensor in names(want) {
                match naming.stored(&tensor) {
                    None => mismatches.missing(naming.called(&tensor), want),
                    Some((name, info)) => match check(info, expected(want)) {
                        Ok(dtype) => {
                            let info = IrTensorInfo {
                                dtype,
                                dims: want.shape.clone(),
                            };
                            tensors.insert(tensor, (name, info));
                        }
                        Err(found) => {
                            mismatches.differs(naming.called(&tensor), &found, want);
                        }
                    },
                }
            }
        }
        check_total(parameters)?;
        mismatches.finish(family, config, &*source)?;
        let used: IndexSet<&str> = tensors.values().map(|(name, _)| name.as_str()).collect();
        let unused: Vec<String> = source
            .names()
            .into_iter()
            .filter(|name| !used.contains(name))
            .map(str::to_owned)
            .collect();
        if source.is_exact() {
            check_unused(family, &*source, &unused)?;
        }
        Ok(Self {
            source,
            tensors,
            unused,
            parameters,
        })
    }

    /// Makes every wanted tensor up.
    pub fn random(seed: u64, dtype: DType, wanted: &[Wanted]) -> Result<Self> {
        let stored = match dtype {
            DType::F16 => StoredType::F16,
            DType::BF16 => StoredType::BF16,
            DType::F32 | DType::I32 | DType::Block(_) | DType::Int8 | DType::Q8(_) => {
                StoredType::F32
            }
        };
        let mut source = Synthetic::new(seed);
        let mut tensors = IndexMap::new();
        let mut parameters = 0;
        for want in wanted {
            parameters += check_size(want)?;
            for tensor in names(want) {
                let shape = want.shape.iter().map(|dim| u64::from(*dim)).collect();
                source.add(tensor.clone(), stored, shape, want.fill)?;
                let info = IrTensorInfo {
                    dtype,
                    dims: want.shape.clone(),
                };
                tensors.insert(tensor.clone(), (tensor, info));
            }
        }
        check_total(parameters)?;
        Ok(Self {
            source: Box::new(source),
            tensors,
            unused: Vec::new(),
            parameters,
        })
    }

    /// The family's names of all tensors, in the order in which the module names them.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// The only number of a tensor.
    pub fn scalar(&self, tensor: &str) -> Result<f32> {
        let info = TensorSource::info(self, tensor);
        let dtype = info.map_or(DType::F32, |info| info.dtype);
        let read = TensorSource::read(self, tensor, 0..dtype.row_bytes(1));
        let bytes = read.map_err(|what| Problem::new(what).field(tensor).input())?;
        match (dtype, &*bytes) {
            (DType::F32, &[a, b, c, d]) => Ok(f32::from_le_bytes([a, b, c, d])),
            (DType::F16, &[a, b]) => Ok(half::f16::from_le_bytes([a, b]).to_f32()),
            (DType::BF16, &[a, b]) => Ok(half::bf16::from_le_bytes([a, b]).to_f32()),
            _ => Err(
                Problem::new(format!("found {}, expected a float", dtype.name()))
                    .field(tensor)
                    .input(),
            ),
        }
    }

    /// The file and the name in it of a tensor, for `verify` and messages.
    pub fn stored(&self, tensor: &str) -> Option<(Option<&std::path::Path>, &str)> {
        let (name, _) = self.tensors.get(tensor)?;
        Some((self.source.file(name), name))
    }
}

impl TensorSource for BoundWeights {
    fn info(&self, name: &str) -> Option<IrTensorInfo> {
        self.tensors.get(name).map(|(_, info)| info.clone())
    }

    fn read(&self, name: &str, range: Range<u64>) -> Result<Cow<'_, [u8]>, String> {
        let Some((stored, _)) = self.tensors.get(name) else {
            return Err(format!("the model has no tensor `{name}`"));
        };
        self.source
            .read(stored, range)
            .map_err(|error| error.to_string())
    }

    fn release(&self, name: &str, range: Range<u64>) {
        if let Some((stored, _)) = self.tensors.get(name) {
            self.source.release(stored, range);
        }
    }
}

/// The names of a wanted tensor: one, or one per layer, or of each expert of a layer.
fn names(want: &Wanted) -> Vec<String> {
    let of_layers: Vec<String> = match want.layers.is_empty() {
        true => vec![want.pattern.clone()],
        false => {
            let layers = want.layers.iter();
            layers
                .map(|layer| tensor_name(&want.pattern, Some(*layer)).into_owned())
                .collect()
        }
    };
    let Some(experts) = want.experts else {
        return of_layers;
    };
    let of_expert = |name: &String, e: u32| name.replace("{expert}", &e.to_string());
    let all = of_layers
        .iter()
        .flat_map(|name| (0..experts).map(move |e| of_expert(name, e)));
    all.collect()
}

/// The shape that a tensor has in the checkpoint.
fn expected(want: &Wanted) -> &[u32] {
    want.stored.as_ref().unwrap_or(&want.shape)
}

fn check(info: &TensorInfo, shape: &[u32]) -> Result<DType, String> {
    if !info
        .shape
        .iter()
        .copied()
        .eq(shape.iter().map(|dim| u64::from(*dim)))
    {
        return Err(format!("found {:?}, expected {shape:?}", info.shape));
    }
    info.stored.dtype().ok_or_else(|| {
        let blocks = match info.stored {
            StoredType::Ggml(_) => Format::ALL.iter().map(|f| f.name()).collect(),
            _ => Vec::new(),
        };
        let mut supported = [&["f32", "f16", "bf16"], &blocks[..]].concat();
        let last = supported.pop().unwrap_or_default();
        let first = supported.join(", ");
        format!(
            "found type {}, supported are {first} and {last}",
            info.stored
        )
    })
}

fn check_size(want: &Wanted) -> Result<u64> {
    let elements = want
        .shape
        .iter()
        .try_fold(1u64, |n, dim| n.checked_mul(u64::from(*dim)));
    match elements.filter(|elements| *elements <= limits::ELEMENTS) {
        Some(elements) => {
            let tensors = (want.layers.len() as u64).max(1) * u64::from(want.experts.unwrap_or(1));
            Ok(elements.saturating_mul(tensors))
        }
        None => {
            let what = format!(
                "expected {:?}, which is more than 2^40 elements",
                want.shape
            );
            Err(Problem::new(what)
                .field(want.pattern.as_str())
                .note(want.why.as_str())
                .input())
        }
    }
}

fn check_total(parameters: u64) -> Result<()> {
    if parameters <= PARAMETERS {
        return Ok(());
    }
    Err(Problem::new(format!(
        "the model has {parameters} parameters, expected at most 2^42"
    ))
    .input())
}

/// A tensor that the model does not use would change the result, save a head that is a copy of the token table or
/// that nobody asked for.
fn check_unused(family: &str, source: &dyn WeightSource, unused: &[String]) -> Result<()> {
    let mut rest = unused.iter().filter(|name| *name != HEAD);
    let Some(first) = rest.next() else {
        return Ok(());
    };
    let what = format!("a tensor that family `{family}` does not use");
    let problem = source
        .file(first)
        .map_or_else(|| Problem::new(&what), |file| Problem::of(file, &what));
    let name = source.stored_name(first).unwrap_or_else(|| first.clone());
    let more = rest.count();
    let problem = problem.field(name);
    Err(match more {
        0 => problem,
        _ => problem.note(format!("and {more} more")),
    }
    .unsupported())
}

/// Everything that does not fit, for one error.
#[derive(Default)]
struct Mismatches {
    lines: Vec<String>,
    notes: IndexSet<String>,
    missing: usize,
    differing: usize,
}

impl Mismatches {
    fn missing(&mut self, tensor: String, want: &Wanted) {
        self.missing += 1;
        self.lines
            .push(format!("{tensor}: missing, expected {:?}", expected(want)));
    }

    fn differs(&mut self, tensor: String, found: &str, want: &Wanted) {
        self.differing += 1;
        self.lines.push(format!("{tensor}: {found}"));
        self.notes.insert(want.why.clone());
    }

    fn finish(self, family: &str, config: &Config, source: &dyn WeightSource) -> Result<()> {
        let what = match (self.missing, self.differing) {
            (0, 0) => return Ok(()),
            (0, _) => "weight shape mismatch",
            (_, 0) => "weights are missing",
            _ => "weights do not match",
        };
        let what = format!("{what} for family `{family}`");
        let file = source.names().first().and_then(|name| source.file(name));
        let problem = file.map_or_else(|| Problem::new(&what), |file| Problem::of(file, &what));
        let total = self.lines.len();
        let mut problem = self
            .lines
            .into_iter()
            .take(LISTED)
            .fold(problem, Problem::line);
        if total > LISTED {
            problem = problem.line(format!("… and {} more", total - LISTED));
        }
        if self.differing == 0
            && let Some(first) = source.names().first()
        {
            let first = source
                .stored_name(first)
                .unwrap_or_else(|| (*first).to_owned());
            problem = problem.note(format!(
                "the checkpoint has {} tensors, such as {}",
                source.names().len(),
                Excerpt(&first)
            ));
        }
        let problem = self
            .notes
            .into_iter()
            .take(LISTED)
            .map(|why| format!("expected {why}, from {}", config.file_name()))
            .fold(problem, Problem::note);
        Err(problem
            .help("does this checkpoint belong to another config?")
            .input())
    }
}

//! Golden cases (`tests/golden/README.md`): inputs, expected outputs, tolerances.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use serde_json::Value;

/// A tensor of a golden or an output file.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    pub shape: Vec<usize>,
    pub data: Data,
}

/// Its elements.
#[derive(Clone, Debug, PartialEq)]
pub enum Data {
    F32(Vec<f32>),
    I64(Vec<i64>),
}

impl Tensor {
    /// i64 of `shape`.
    pub fn i64(shape: &[usize], data: Vec<i64>) -> Tensor {
        Tensor {
            shape: shape.to_vec(),
            data: Data::I64(data),
        }
    }

    /// The elements, which must be floats.
    pub fn floats(&self) -> &[f32] {
        match &self.data {
            Data::F32(v) => v,
            Data::I64(_) => panic!("expected f32"),
        }
    }

    /// The elements, which must be integers.
    pub fn ints(&self) -> &[i64] {
        match &self.data {
            Data::I64(v) => v,
            Data::F32(_) => panic!("expected i64"),
        }
    }
}

/// Named tensors.
pub type Tensors = BTreeMap<String, Tensor>;

/// Reads a safetensors file.
pub fn read(path: &Path) -> Tensors {
    let bytes = std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let file = SafeTensors::deserialize(&bytes).unwrap();
    file.tensors()
        .into_iter()
        .map(|(name, t)| {
            let data = match t.dtype() {
                Dtype::F32 => Data::F32(
                    t.data()
                        .chunks_exact(4)
                        .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
                        .collect(),
                ),
                Dtype::I64 => Data::I64(
                    t.data()
                        .chunks_exact(8)
                        .map(|b| i64::from_le_bytes(b.try_into().unwrap()))
                        .collect(),
                ),
                other => panic!("{name} is {other:?}"),
            };
            (
                name,
                Tensor {
                    shape: t.shape().to_vec(),
                    data,
                },
            )
        })
        .collect()
}

/// Writes a safetensors file.
pub fn write(path: &Path, tensors: &Tensors) {
    let bytes: Vec<(String, Dtype, Vec<usize>, Vec<u8>)> = tensors
        .iter()
        .map(|(name, t)| {
            let (dtype, bytes) = match &t.data {
                Data::F32(v) => (Dtype::F32, v.iter().flat_map(|x| x.to_le_bytes()).collect()),
                Data::I64(v) => (Dtype::I64, v.iter().flat_map(|x| x.to_le_bytes()).collect()),
            };
            (name.clone(), dtype, t.shape.clone(), bytes)
        })
        .collect();
    let views = bytes.iter().map(|(name, dtype, shape, bytes)| {
        (
            name.clone(),
            TensorView::new(*dtype, shape.clone(), bytes).unwrap(),
        )
    });
    safetensors::serialize_to_file(views, None, path).unwrap();
}

/// One case of `tests/golden/models`.
pub struct Case {
    pub name: String,
    pub dir: PathBuf,
    pub tensors: Tensors,
    pub info: Value,
}

/// The folder of the golden data.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden")
}

/// The folders of model cases: the golden data, and what this repository adds to it.
pub fn folders() -> [PathBuf; 2] {
    [
        root().join("models"),
        root().with_file_name("golden_more").join("models"),
    ]
}

/// The model cases whose names start with one of `prefixes`, in order.
pub fn cases(prefixes: &[&str]) -> Vec<Case> {
    let mut dirs: Vec<(String, PathBuf)> = folders()
        .iter()
        .flat_map(|folder| std::fs::read_dir(folder).unwrap())
        .map(|e| e.unwrap())
        .map(|e| (e.file_name().into_string().unwrap(), e.path()))
        .filter(|(n, _)| prefixes.iter().any(|p| n.starts_with(p)))
        .collect();
    dirs.sort();
    dirs.into_iter()
        .map(|(name, dir)| {
            let tensors = read(&dir.join("golden.safetensors"));
            let info = serde_json::from_slice(&std::fs::read(dir.join("case.json")).unwrap());
            Case {
                name,
                dir,
                tensors,
                info: info.unwrap(),
            }
        })
        .collect()
}

impl Case {
    /// The inputs of a scenario (`single`, `batch`) under HF's names.
    pub fn inputs(&self, scenario: &str) -> Tensors {
        let prefix = format!("in.{scenario}.");
        [
            "input_ids",
            "attention_mask",
            "token_type_ids",
            "decoder_input_ids",
        ]
        .iter()
        .filter_map(|n| {
            Some((
                n.to_string(),
                self.tensors.get(&format!("{prefix}{n}"))?.clone(),
            ))
        })
        .collect()
    }

    /// What the case gives (`in.`) or expects (`out.`), under the names behind the prefix.
    pub fn part(&self, prefix: &str) -> Tensors {
        let named =
            |(n, t): (&String, &Tensor)| Some((n.strip_prefix(prefix)?.to_owned(), t.clone()));
        self.tensors.iter().filter_map(named).collect()
    }

    /// The expected outputs of a scenario under HF's names.
    pub fn outputs(&self, scenario: &str) -> impl Iterator<Item = (&str, &Tensor)> {
        let prefix = format!("out.{scenario}.");
        self.tensors
            .iter()
            .filter_map(move |(n, t)| Some((n.strip_prefix(&prefix)?, t)))
    }

    /// Whether there is something to compare in a scenario.
    pub fn has(&self, scenario: &str) -> bool {
        self.outputs(scenario).next().is_some()
    }

    /// transformers goes by the longest row of a batch, a compiled model by each row: what a longrope's
    /// padded rows generate is not compared.
    pub fn is_padded_longrope(&self, scenario: &str) -> bool {
        let longrope = self.info["options"]["longrope"].as_bool().unwrap_or(false);
        longrope && matches!(scenario, "batch" | "eos_test")
    }

    /// Whether texts are about a source.
    pub fn has_source(&self) -> bool {
        self.tensors.contains_key("in.single.decoder_input_ids")
    }

    /// Whether the mask is that of the output's positions; texts about a source have none.
    pub fn is_masked(&self, output: &str) -> bool {
        !self.has_source() || output.starts_with("encoder_")
    }

    /// A scalar input: `pad_token_id`, `eos_test.eos_token_id`.
    pub fn scalar(&self, name: &str) -> Option<i64> {
        self.tensors.get(&format!("in.{name}")).map(|t| t.ints()[0])
    }

    fn tolerance(&self) -> (f32, f32) {
        let t = &self.info["tolerance"]["float_outputs"];
        (
            t["atol"].as_f64().unwrap() as f32,
            t["rtol"].as_f64().unwrap() as f32,
        )
    }

    /// Compares an output with what is expected. Decoders' goldens hold the last positions only;
    /// masked positions are not compared. Err: the first difference.
    pub fn compare(
        &self,
        what: &str,
        expected: &Tensor,
        found: &Tensor,
        mask: Option<&Tensor>,
    ) -> Result<(), String> {
        let Data::F32(want) = &expected.data else {
            return if expected == found {
                Ok(())
            } else {
                Err(format!("{what}: found {found:?}, expected {expected:?}"))
            };
        };
        let (atol, rtol) = self.tolerance();
        let got = found.floats();
        let (es, fs) = (&expected.shape, &found.shape);
        if es.len() != fs.len() || es[0] != fs[0] || es.last() != fs.last() {
            return Err(format!("{what}: shape {fs:?}, expected {es:?}"));
        }
        let width = *es.last().unwrap();
        let (rows, have) = if es.len() == 3 {
            (es[1], fs[1])
        } else {
            (1, 1)
        };
        if rows > have {
            return Err(format!("{what}: shape {fs:?}, expected {es:?}"));
        }
        let first = if self.info["logits_kept"]
            .as_str()
            .is_some_and(|k| k.contains("LAST"))
        {
            have - rows
        } else {
            0
        };
        for b in 0..es[0] {
            for s in 0..rows {
                let masked = es.len() == 3
                    && mask.is_some_and(|m| m.ints()[b * m.shape[1] + first + s] == 0);
                for c in 0..width {
                    let w = want[(b * rows + s) * width + c];
                    let g = got[(b * have + first + s) * width + c];
                    // False for a NaN.
                    let near = (g - w).abs() <= atol + rtol * w.abs();
                    if masked {
                        if g != 0.0 {
                            return Err(format!("{what}[{b}, {s}, {c}] is masked, but {g}"));
                        }
                    } else if !near {
                        return Err(format!("{what}[{b}, {s}, {c}]: found {g}, expected {w}"));
                    }
                }
            }
        }
        Ok(())
    }
}

//! An executable against the evaluator: a configuration with made-up weights, the same on both sides.

use std::path::Path;

use llmc::{CompileOptions, Observer, compile};
use llmc_frontend::{Kind, Model};
use llmc_ir::eval::{
    self, Evaluator,
    batch::Batch,
    encoder_decoder,
    infer::{InferOptions, InferOutput, infer},
    pictures::see,
};
use llmc_passes::{Manager, Precision, Quant, pipeline};
use serde_json::Value;

use crate::{
    binaries,
    golden::{self, Data, Tensor, Tensors},
};

/// How far an executable's f32 may be from the evaluator, relative to the largest value of a row.
pub const F32: f32 = 2e-5;

/// Pictures in rows of ids, one in each.
struct Told {
    token: u32,
    rows: Vec<Vec<i64>>,
    pixels: Tensor,
    /// What comes of the pictures, and the rows of all of them.
    seen: InferOutput,
    features: eval::Tensor,
}

/// Tokens before a picture, so that one step ends in it and the next begins there.
const BEFORE: usize = 490;

/// Puts pictures into rows, where the model is told any.
fn told(model: &Model, evaluator: &mut Evaluator<'_>, rows: &[Vec<i64>]) -> Option<Told> {
    let pictures = model.pictures.as_ref()?;
    let (token, count) = pictures.tokens?;
    let with_picture = |row: &Vec<i64>| {
        let (before, behind) = row.split_at(row.len().min(BEFORE));
        let picture = vec![i64::from(token); count as usize];
        [before, &picture, behind].concat()
    };
    let edge = pictures.grid.image as usize;
    let wave = |i: usize| ((i * 37 % 101) as f32 / 50.0) - 1.0;
    let pixels = eval::Tensor {
        dims: vec![rows.len(), 3, edge, edge],
        data: (0..rows.len() * 3 * edge * edge).map(wave).collect(),
    };
    let seen = see(evaluator, &pixels, false).unwrap();
    Some(Told {
        token,
        rows: rows.iter().map(with_picture).collect(),
        pixels: Tensor {
            shape: pixels.dims,
            data: Data::F32(pixels.data),
        },
        features: seen.tensors["image_features"].clone(),
        seen,
    })
}

/// What is compiled, and how it is compared.
pub struct Compared<'a> {
    pub name: &'a str,
    /// `config.json`.
    pub config: &'a Value,
    pub precision: Precision,
    /// Relative to the largest value of a row.
    pub tolerance: f32,
    /// The CPU's feature level.
    pub level: &'a str,
}

impl Compared<'_> {
    /// Compiles the model and runs these rows of ids as one left-padded batch on both sides; every
    /// output that differs.
    pub fn run(&self, rows: &[Vec<i64>]) -> Vec<String> {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("config.json");
        std::fs::write(&config, self.config.to_string()).unwrap();
        let exe = dir.path().join("model");
        let options = CompileOptions {
            input: config.to_str().unwrap().into(),
            output: Some(exe.clone()),
            random_weights: Some(7),
            precision: self.precision,
            ..CompileOptions::default()
        };
        let observer: &mut dyn Observer = &mut ();
        compile(&options, observer).unwrap_or_else(|e| panic!("{}: {e}", self.name));

        let (_, mut model) = llmc::compile::read(&options).unwrap();
        if let Some(dtype) = self.precision.kv.dtype() {
            model.module.states.iter_mut().for_each(|s| s.dtype = dtype);
        }
        if self.precision.quant != Quant::None {
            let passes = pipeline::fused_in(self.precision);
            Manager::new().run(&passes, &mut model.module).unwrap();
        }
        let mut evaluator = Evaluator::new(&model.module, &model.weights).unwrap();
        let told = told(&model, &mut evaluator, rows);
        let rows = told.as_ref().map_or(rows, |told| &told.rows);
        let len = rows.iter().map(Vec::len).max().unwrap();
        let pads = |row: &Vec<i64>| len - row.len();
        let ids: Vec<i64> = rows
            .iter()
            .flat_map(|row| std::iter::repeat_n(0, pads(row)).chain(row.iter().copied()))
            .collect();
        let mask: Vec<bool> = rows
            .iter()
            .flat_map(|row| (0..len).map(|i| i >= pads(row)))
            .collect();
        let batch = Batch {
            rows: rows.len(),
            len,
            ids: ids.iter().map(|&i| i as i32).collect(),
            mask: Some(mask.clone()),
            pictures: told
                .as_ref()
                .map(|told| (told.token, told.features.clone())),
            ..Batch::default()
        };
        let options = InferOptions {
            hidden_states: true,
            ..InferOptions::default()
        };
        // Texts of another length than their sources.
        let columns = rows.iter().map(Vec::len).min().unwrap().div_ceil(2);
        let texts: Vec<i64> = rows
            .iter()
            .flat_map(|row| row[..columns].to_vec())
            .collect();
        let expected = match model.kind {
            Kind::EncoderDecoder => {
                let text = Batch {
                    rows: rows.len(),
                    len: columns,
                    ids: texts.iter().map(|&i| i as i32).collect(),
                    ..Batch::default()
                };
                encoder_decoder::infer(&mut evaluator, &batch, Some(&text), 0, &options)
            }
            Kind::Decoder | Kind::Encoder => infer(&mut evaluator, &batch, &options),
        };
        let mut expected = expected.unwrap();

        let shape = [rows.len(), len];
        let mask = mask.into_iter().map(i64::from).collect();
        let mut inputs = Tensors::from([
            ("input_ids".to_string(), Tensor::i64(&shape, ids)),
            ("attention_mask".to_string(), Tensor::i64(&shape, mask)),
        ]);
        if model.kind == Kind::EncoderDecoder {
            let texts = Tensor::i64(&[rows.len(), columns], texts);
            inputs.insert("decoder_input_ids".into(), texts);
        }
        if let Some(told) = told {
            inputs.insert("pixel_values".into(), told.pixels);
            expected.tensors.extend(told.seen.tensors);
        }
        let found = self.execute(&exe, &inputs);
        let of = |(name, want): (&String, &llmc_ir::eval::Tensor)| match found.get(name) {
            None => Some(format!("{} {}: {name} is missing", self.name, self.level)),
            Some(got) => self.difference(name, want, got.floats()),
        };
        expected.tensors.iter().filter_map(of).collect()
    }

    /// The first row that is too far off.
    fn difference(&self, name: &str, want: &llmc_ir::eval::Tensor, got: &[f32]) -> Option<String> {
        let width = *want.dims.last().unwrap();
        let rows = want.data.chunks(width).zip(got.chunks(width));
        for (row, (w, g)) in rows.enumerate() {
            let largest = w.iter().fold(1e-3f32, |m, x| m.max(x.abs()));
            let apart = w.iter().zip(g).map(|(w, g)| (w - g).abs());
            let off = apart.fold(0f32, |m, x| if x > m || x.is_nan() { x } else { m });
            if off.is_nan() || off > self.tolerance * largest {
                let (model, level) = (self.name, self.level);
                return Some(format!(
                    "{model} {level}: {name} row {row} is off by {off}, of {largest}"
                ));
            }
        }
        (want.data.len() != got.len()).then(|| format!("{}: {name} is of another size", self.name))
    }

    fn execute(&self, exe: &Path, inputs: &Tensors) -> Tensors {
        let dir = exe.parent().unwrap();
        let (input, output) = (dir.join("in.st"), dir.join("out.st"));
        golden::write(&input, inputs);
        let args = [
            "infer",
            input.to_str().unwrap(),
            output.to_str().unwrap(),
            "--hidden-states",
        ];
        binaries::ok(exe, &[&["--level", self.level], &args[..]].concat());
        golden::read(&output)
    }
}

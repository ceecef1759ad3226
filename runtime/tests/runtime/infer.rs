//! `infer` end to end over the fake model: padding, hidden states, generation, wrong files.

use crate::fake;
use clap::Parser;
use llmc_abi::Manifest;
use llmc_runtime::Result;
use llmc_runtime::infer::{InferArgs, infer};
use safetensors::tensor::{Dtype, SafeTensors, TensorView, serialize_to_file};
use std::path::Path;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    args: InferArgs,
}

fn write(path: &Path, tensors: &[(&str, &[usize], &[i64])]) {
    let data: Vec<Vec<u8>> = tensors
        .iter()
        .map(|(_, _, v)| v.iter().flat_map(|v| v.to_le_bytes()).collect())
        .collect();
    let views = tensors.iter().zip(&data).map(|((name, shape, _), d)| {
        (
            *name,
            TensorView::new(Dtype::I64, shape.to_vec(), d).unwrap(),
        )
    });
    serialize_to_file(views, None, path).unwrap();
}

fn run(manifest: &Manifest, dir: &Path, flags: &str) -> Result<()> {
    let (input, output) = (dir.join("in"), dir.join("out"));
    let line = ["infer"]
        .into_iter()
        .chain([input.to_str().unwrap(), output.to_str().unwrap()]);
    let line = Line::parse_from(line.chain(flags.split_whitespace()));
    infer(&fake::session(manifest, &[]), &line.args)
}

fn floats(tensors: &SafeTensors<'_>, name: &str, shape: &[usize]) -> Vec<f32> {
    let t = tensors.tensor(name).unwrap_or_else(|_| panic!("no {name}"));
    assert_eq!((t.dtype(), t.shape()), (Dtype::F32, shape), "{name}");
    t.data()
        .chunks(4)
        .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
        .collect()
}

fn ids(tensors: &SafeTensors<'_>, shape: &[usize]) -> Vec<i64> {
    let t = tensors.tensor("generated_ids").unwrap();
    assert_eq!((t.dtype(), t.shape()), (Dtype::I64, shape));
    t.data()
        .chunks(8)
        .map(|b| i64::from_le_bytes(b.try_into().unwrap()))
        .collect()
}

/// A batch of rows with padding on either side, a hole, and one row wholly masked.
struct Padded {
    columns: usize,
    ids: Vec<i64>,
    mask: Vec<i64>,
    types: Vec<i64>,
}

fn padded(columns: usize) -> Padded {
    let rows = 5;
    let mut p = Padded {
        columns,
        ids: vec![],
        mask: vec![],
        types: vec![],
    };
    for r in 0..rows {
        for c in 0..columns {
            let kept = match r {
                0 => true,
                1 => c >= 4,
                2 => c + 3 < columns,
                3 => c % 5 != 2,
                _ => false,
            };
            p.ids.push(((r * 13 + c * 7) % fake::VOCAB) as i64);
            p.mask.push(i64::from(kept));
            p.types.push(i64::from(c > columns / 2));
        }
    }
    p
}

impl Padded {
    fn write(&self, path: &Path) {
        let shape = &[5, self.columns][..];
        write(
            path,
            &[
                ("input_ids", shape, &self.ids),
                ("attention_mask", shape, &self.mask),
                ("token_type_ids", shape, &self.types),
            ],
        );
    }

    /// The kept columns of a row.
    fn kept(&self, row: usize) -> Vec<usize> {
        (0..self.columns)
            .filter(|c| self.mask[row * self.columns + c] == 1)
            .collect()
    }

    fn pick(&self, values: &[i64], row: usize) -> Vec<i32> {
        self.kept(row)
            .iter()
            .map(|c| values[row * self.columns + c] as i32)
            .collect()
    }
}

fn check(manifest: &Manifest, columns: usize) {
    let dir = tempfile::tempdir().unwrap();
    let p = padded(columns);
    p.write(&dir.path().join("in"));
    run(manifest, dir.path(), "--hidden-states").unwrap();
    let bytes = std::fs::read(dir.path().join("out")).unwrap();
    let out = SafeTensors::deserialize(&bytes).unwrap();
    let logits = floats(&out, "logits", &[5, columns, fake::VOCAB]);
    let hidden = floats(&out, "last_hidden_state", &[5, columns, fake::WIDTH]);
    let tap = floats(&out, "hidden_states.1", &[5, columns, fake::WIDTH]);
    floats(&out, "hidden_states.0", &[5, columns, fake::WIDTH]);
    let mut expected = vec![0.0; logits.len()];
    let mut expected_hidden = vec![0.0; hidden.len()];
    let mut expected_tap = vec![0.0; hidden.len()];
    let mut pooled = vec![0.0; 5 * fake::WIDTH];
    for row in 0..5 {
        let (ids, types) = (p.pick(&p.ids, row), p.pick(&p.types, row));
        for (value, c) in fake::values(manifest, &ids, &types, false)
            .into_iter()
            .zip(p.kept(row))
        {
            let at = row * columns + c;
            expected[at * fake::VOCAB..][..fake::VOCAB].copy_from_slice(&fake::logits(value));
            for (i, h) in fake::hidden(value).into_iter().enumerate() {
                expected_hidden[at * fake::WIDTH + i] = h;
                expected_tap[at * fake::WIDTH + i] = h + 1.0;
                pooled[row * fake::WIDTH + i] = h;
            }
        }
    }
    assert!(logits == expected && hidden == expected_hidden && tap == expected_tap);
    if manifest.embeds {
        assert_eq!(
            floats(&out, "sentence_embedding", &[5, fake::WIDTH]),
            pooled
        );
    }
}

#[test]
fn padding_is_packed_and_scattered_back() {
    check(&fake::decoder(), 12);
    check(&fake::decoder(), 230);
    check(&fake::encoder(), 12);
    check(&fake::encoder(), 100);
}

#[test]
fn rows_are_continued_as_if_alone() {
    let manifest = fake::decoder();
    let dir = tempfile::tempdir().unwrap();
    let rows: Vec<Vec<i64>> = (0..5)
        .map(|r| {
            (0..20)
                .map(|c| ((r * 11 + c * 3) % fake::VOCAB) as i64)
                .collect()
        })
        .collect();
    write(
        &dir.path().join("in"),
        &[("input_ids", &[5, 20], &rows.concat())],
    );
    let alone = |eos: &[i32], new| -> Vec<Vec<i64>> {
        let prompt = |r: &Vec<i64>| r.iter().map(|&i| i as i32).collect::<Vec<_>>();
        rows.iter()
            .map(|r| fake::greedy(&manifest, &prompt(r), new, eos))
            .collect()
    };
    let read = |flags: &str| {
        run(&manifest, dir.path(), flags).unwrap();
        std::fs::read(dir.path().join("out")).unwrap()
    };
    let bytes = read("--generate 80 --eos none");
    let out = SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(ids(&out, &[5, 80]), alone(&[], 80).concat());
    // An EOS that some row meets early.
    let eos = alone(&[], 10)[2][3];
    let expected = alone(&[eos as i32], 30);
    let width = expected.iter().map(Vec::len).max().unwrap();
    let bytes = read(&format!("--generate 30 --eos {eos} --temperature 0"));
    let out = SafeTensors::deserialize(&bytes).unwrap();
    let padded: Vec<i64> = expected
        .iter()
        .flat_map(|r| {
            r.iter()
                .copied()
                .chain(std::iter::repeat_n(9, width - r.len()))
        })
        .collect();
    assert_eq!(ids(&out, &[5, width]), padded);
    floats(&out, "logits", &[5, 20, fake::VOCAB]);

    let sampled = read("--generate 10 --eos none --temperature 1 --seed 4");
    assert_eq!(
        sampled,
        read("--generate 10 --eos none --temperature 1 --seed 4")
    );
    assert_ne!(
        sampled,
        read("--generate 10 --eos none --temperature 1 --seed 5")
    );
    let bytes = read("--probs --temperature 0.7 --top-k 10");
    let probs = floats(
        &SafeTensors::deserialize(&bytes).unwrap(),
        "probs",
        &[5, fake::VOCAB],
    );
    for row in probs.chunks(fake::VOCAB) {
        assert!((row.iter().sum::<f32>() - 1.0).abs() < 1e-5);
        assert!((10..12).contains(&row.iter().filter(|p| **p > 0.0).count()));
    }
    read("--generate 0");
}

#[test]
fn wrong_use_is_one_clear_error() {
    let manifest = fake::decoder();
    let dir = tempfile::tempdir().unwrap();
    let input = dir.path().join("in");
    let refused = |manifest: &Manifest, flags: &str, expected: &str| {
        let e = run(manifest, dir.path(), flags).unwrap_err();
        assert!(e.to_string().contains(expected), "{e}");
        assert_eq!(e.exit_code(), 2, "{e}");
        assert!(!dir.path().join("out").exists());
    };
    refused(&manifest, "", "cannot read");
    std::fs::write(&input, b"nonsense").unwrap();
    refused(&manifest, "", "no safetensors file");
    write(&input, &[("input_ids", &[1, 2], &[1, 2])]);
    refused(&manifest, "--temperature 1", "need --generate");
    refused(
        &manifest,
        "--generate 4 --beams 4",
        "--beams is not supported",
    );
    refused(
        &manifest,
        "--generate 4 --length-penalty 0.5",
        "--length-penalty is not supported",
    );
    refused(
        &manifest,
        "--generate 4 --early-stopping",
        "--early-stopping",
    );
    refused(&manifest, "--generate 4 --top-p 2", "--top-p");
    refused(&manifest, "--generate 4 --eos x", "--eos x");
    refused(&manifest, "--generate 400", "more than the context");
    refused(
        &fake::encoder(),
        "--generate 4",
        "no task `infer --generate`",
    );
    let mut bare = fake::decoder();
    bare.taps.count = 0;
    refused(&bare, "--hidden-states", "no hidden states");
    write(
        &input,
        &[
            ("input_ids", &[1, 2], &[1, 2]),
            ("attention_mask", &[1, 2], &[0, 0]),
        ],
    );
    refused(&manifest, "--generate 4", "masked wholly");
    let left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().collect();
    assert_eq!(left.len(), 1, "no temporary file is left");
}

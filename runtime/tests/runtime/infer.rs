//! `infer` end to end over the fake model: padding, hidden states, generation, wrong files.

use crate::fake;
use clap::Parser;
use llmc_abi::Manifest;
use llmc_runtime::Result;
use llmc_runtime::beam_search::{BeamParams, BeamSearch, EarlyStopping, Hypotheses, Move};
use llmc_runtime::infer::{InferArgs, infer};
use llmc_runtime::sampler::Sampler;
use llmc_runtime::sampling_params::GREEDY;
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

/// Rows of made-up tokens.
fn rows(count: usize, columns: usize) -> Vec<Vec<i64>> {
    let id = |r: usize, c: usize| ((r * 11 + c * 3 + c * c % 7) % fake::VOCAB) as i64;
    (0..count)
        .map(|r| (0..columns).map(|c| id(r, c)).collect())
        .collect()
}

/// Sequences that are computed from their start in every step.
struct Recomputed {
    manifest: Manifest,
    rows: Vec<Vec<i32>>,
}

impl Recomputed {
    fn logits(&self, row: usize) -> Vec<f32> {
        let values = fake::values(&self.manifest, &self.rows[row], &[], false);
        fake::logits(*values.last().unwrap())
    }
}

impl Hypotheses for Recomputed {
    fn step(
        &mut self,
        moves: &[Move],
        take: &mut dyn FnMut(usize, &[f32]) -> Result<()>,
    ) -> Result<()> {
        let extend = |m: &Move| [&self.rows[m.from][..], &[m.token as i32]].concat();
        self.rows = moves.iter().map(extend).collect();
        (0..self.rows.len()).try_for_each(|row| take(row, &self.logits(row)))
    }
}

/// Beams through the cache, forked and reordered, find what beams without a cache find: bit for
/// bit, over windows that slide and pages that are shared.
#[test]
fn beams_share_the_cache() {
    let manifest = fake::decoder();
    let dir = tempfile::tempdir().unwrap();
    for (count, columns, new, beams) in [(1, 1, 9, 2), (5, 20, 60, 3), (2, 130, 80, 5)] {
        let rows = rows(count, columns);
        let shape = [count, columns];
        write(
            &dir.path().join("in"),
            &[("input_ids", &shape, &rows.concat())],
        );
        let flags = format!("--generate {new} --eos 2,3 --beams {beams} --num-return 2");
        run(&manifest, dir.path(), &flags).unwrap();
        let bytes = std::fs::read(dir.path().join("out")).unwrap();
        let out = SafeTensors::deserialize(&bytes).unwrap();
        let scores = floats(&out, "sequences_scores", &[2 * count]);

        let params = BeamParams {
            beams,
            returned: 2,
            length_penalty: 1.0,
            early_stopping: EarlyStopping::Heuristic,
        };
        let sampler = Sampler::new(GREEDY, fake::VOCAB, &[2, 3], columns + new);
        let prompts = rows.iter().map(|r| r.iter().map(|&i| i as u32).collect());
        let mut search = BeamSearch::new(params, sampler, &[2, 3], prompts.collect(), new);
        let mut model = Recomputed {
            manifest: manifest.clone(),
            rows: rows
                .iter()
                .map(|r| r.iter().map(|&i| i as i32).collect())
                .collect(),
        };
        for item in 0..count {
            search.first(item, &model.logits(item)).unwrap();
        }
        search.run(&mut model).unwrap();
        let expected: Vec<_> = search.results().into_iter().flatten().collect();
        let width = expected.iter().map(|h| h.ids.len()).max().unwrap();
        let padded = expected.iter().flat_map(|h| {
            let ids = h.ids.iter().map(|&id| i64::from(id));
            ids.chain(std::iter::repeat_n(9, width - h.ids.len()))
        });
        assert_eq!(ids(&out, &[2 * count, width]), padded.collect::<Vec<_>>());
        let expected: Vec<f32> = expected.iter().map(|h| h.score).collect();
        assert_eq!(scores, expected);
    }
}

/// Guesses change nothing but the number of steps, whatever is done with the logits.
#[test]
fn guesses_do_not_change_the_text() {
    let manifest = fake::decoder();
    let dir = tempfile::tempdir().unwrap();
    for (count, columns) in [(1, 20), (5, 20), (2, 180)] {
        let rows = rows(count, columns);
        let shape = [count, columns];
        write(
            &dir.path().join("in"),
            &[("input_ids", &shape, &rows.concat())],
        );
        let read = |flags: &str| {
            run(&manifest, dir.path(), flags).unwrap();
            std::fs::read(dir.path().join("out")).unwrap()
        };
        for flags in [
            "--eos none",
            "--eos 2,7,9",
            "--eos none --temperature 1 --seed 3",
            "--eos none --repeat-penalty 1.2 --no-repeat-ngram 3",
            // Two tokens alone: guesses are often right.
            "--eos none --logit-bias 5:100 --logit-bias 6:99",
            "--eos none --temperature 0.8 --seed 1 --logit-bias 5:100 --logit-bias 6:99",
            "--eos 6 --logit-bias 5:100 --logit-bias 6:96",
            "--eos none --frequency-penalty 0.5 --presence-penalty 1",
            "--eos none --temperature 1 --seed 3 --num-return 3",
        ] {
            let flags = format!("--generate 90 {flags}");
            let plain = read(&flags);
            for lookup in [1, 3, 20] {
                let guessed = read(&format!("{flags} --prompt-lookup {lookup}"));
                assert!(plain == guessed, "{flags}, {lookup} guesses at a time");
            }
        }
    }
}

#[test]
fn samples_of_a_row_differ_and_repeat() {
    let manifest = fake::decoder();
    let dir = tempfile::tempdir().unwrap();
    let rows = rows(4, 20);
    write(
        &dir.path().join("in"),
        &[("input_ids", &[4, 20], &rows.concat())],
    );
    let read = |flags: &str| {
        run(&manifest, dir.path(), flags).unwrap();
        let bytes = std::fs::read(dir.path().join("out")).unwrap();
        ids(&SafeTensors::deserialize(&bytes).unwrap(), &[8, 12])
    };
    let flags = "--generate 12 --eos none --temperature 1 --seed 8 --num-return 2";
    let found = read(flags);
    assert_eq!(found, read(flags));
    for pair in found.chunks(24) {
        assert_ne!(pair[..12], pair[12..]);
    }
    let beams = "--generate 12 --eos none --beams 3 --num-return 2 --temperature 2 --seed";
    assert_eq!(read(&format!("{beams} 1")), read(&format!("{beams} 1")));
    assert_ne!(read(&format!("{beams} 1")), read(&format!("{beams} 2")));
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
    for (flags, expected) in [
        ("--beams 4", "need --generate"),
        ("--generate 4 --beams 0", "--beams 0"),
        ("--generate 4 --beams 2 --num-return 3", "--num-return 3"),
        ("--generate 4 --num-return 2", "--num-return 2"),
        ("--generate 4 --length-penalty 0.5", "--length-penalty"),
        ("--generate 4 --early-stopping", "--early-stopping"),
        ("--generate 4 --beams 2 --probs", "--probs and --beams"),
        ("--probs --beams 2", "--probs and --beams"),
        ("--probs --num-return 2 --temperature 1", "need --generate"),
        ("--generate 4 --logit-bias 50:1", "ids are below 50"),
    ] {
        refused(&manifest, flags, expected);
    }
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

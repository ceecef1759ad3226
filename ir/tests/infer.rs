//! `eval::infer` on a tiny decoder and a tiny encoder: chunks, batches and paddings give what one row
//! alone gives in one step, to the bit; wrong inputs are refused.

use llmc_ir::{
    DType, Module, TensorSource,
    eval::{
        Evaluator, SeqStep, StepInput,
        batch::Batch,
        infer::{InferOptions, InferOutput, infer},
    },
    parse,
    source::TensorInfo,
};
use std::{borrow::Cow, ops::Range};

/// Every tensor there could be: numbers that depend on the name's length and the place.
struct Made(Vec<(&'static str, Vec<u32>)>);

impl TensorSource for Made {
    fn info(&self, name: &str) -> Option<TensorInfo> {
        let (_, dims) = self.0.iter().find(|(n, _)| *n == name)?;
        Some(TensorInfo {
            dtype: DType::F32,
            dims: dims.clone(),
        })
    }

    fn read(&self, name: &str, range: Range<u64>) -> Result<Cow<'_, [u8]>, String> {
        let mut seed = name
            .bytes()
            .fold(7u32, |s, b| s.wrapping_mul(31).wrapping_add(b.into()));
        let mut next = || {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (seed >> 8) as f32 / (1 << 23) as f32 - 1.0
        };
        let bytes = (0..range.end / 4)
            .flat_map(|_| next().to_le_bytes())
            .collect::<Vec<u8>>();
        Ok(bytes[range.start as usize..].to_vec().into())
    }

    fn release(&self, _: &str, _: Range<u64>) {}
}

fn made() -> Made {
    Made(vec![
        ("embed", vec![16, 8]),
        ("types", vec![2, 8]),
        ("0.qkv", vec![16, 8]),
        ("1.qkv", vec![16, 8]),
        ("wide", vec![8, 16]),
        ("0.o", vec![8, 8]),
        ("1.o", vec![8, 8]),
        ("norm", vec![8]),
    ])
}

const DECODER: &str = r#"
module "decoder" {stage = model}
dims N: 1..=5, R: 0..=4, B: 1..=2, T: 1..=12
weight @embed : f32[16, 8] from "embed"
weight @q[2] : f32[8, 8] from "{layer}.qkv"[0..8]
weight @kv[2] : bf16[8, 8] from "{layer}.qkv"[8..12], "{layer}.qkv"[12..16]
weight @o[2] : f32[8, 8] from "{layer}.o" transposed
weight @norm : f32[8] from "norm"
state @cache[2] : kv_cache<f16, heads = 1, k_dim = 4, v_dim = 4, window = 6>

func @layer(%x: f32[N, 8], %angles: f32[N, 4], %step: step) {
  %q = linear %x, @q
  %kv = linear %x, @kv
  %k, %v = split %kv {sizes = [4, 4]}
  %qh = split_heads %q {heads = 2}
  %kh = split_heads %k {heads = 1}
  %vh = split_heads %v {heads = 1}
  %qr = rope %qh, %angles {style = neox}
  %kr = rope %kh, %angles {style = neox}
  %c = kv_append @cache, %kr, %vh, %step
  %a = attention %qr, %c, %step {kv_group = 2, mask = causal & window(6), scale = 0.5}
  %m = merge_heads %a
  %y = linear %m, @o
  %z = add %y, %x
  return x = %z
}

func @forward(%ids: i32[N], %pos: i32[N], %step: step) {
  %e = gather %ids, @embed
  %angles = rope_angles %pos {theta = 100, dim = 4}
  %y = repeat %e, %angles, %step {layers = [(@layer, 0), (@layer, 1)]}
  %h = rms_norm %y, @norm {eps = 1e-5}
  %r = rows %h, %step
  %logits = linear %r, @embed
  return last_hidden_state = %h, logits = %logits
}
"#;

const ENCODER: &str = r#"
module "encoder" {stage = model}
dims N: 1..=6, R: 0..=0, B: 1..=4, T: 1..=6
weight @embed : f32[16, 8] from "embed"
weight @types : f32[2, 8] from "types"

func @layer(%x: f32[N, 8], %step: step) {
  %h = split_heads %x {heads = 2}
  %a = attention %h, %h, %h, %step {kv_group = 1, mask = bidirectional, scale = 0.5}
  %m = merge_heads %a
  %z = add %m, %x
  return x = %z
}

func @forward(%ids: i32[N], %types: i32[N], %step: step) {
  %e = gather %ids, @embed
  %t = gather %types, @types
  %x = add %e, %t
  %y = repeat %x, %step {layers = [(@layer, 0)]}
  %p = pool %y, %step {kind = mean}
  return last_hidden_state = %y, sentence_embedding = %p
}
"#;

fn module(text: &str) -> Module {
    parse(text).unwrap()
}

fn run(module: &Module, batch: &Batch, options: &InferOptions) -> InferOutput {
    let made = made();
    infer(&mut Evaluator::new(module, &made).unwrap(), batch, options).unwrap()
}

fn hidden(generate: Option<usize>) -> InferOptions {
    InferOptions {
        hidden_states: true,
        generate,
        eos: vec![],
        pad: 15,
    }
}

/// Two rows, padded on the left or on the right.
fn padded(left: bool) -> (Batch, [Vec<i32>; 2]) {
    let rows = [vec![1, 2, 3, 4, 5, 6, 7], vec![8, 9, 10]];
    let pad = vec![0; 4];
    let (ids, ones) = (rows[1].clone(), [true; 3]);
    let short = if left {
        [pad, ids].concat()
    } else {
        [ids, pad].concat()
    };
    let short_mask = if left {
        [&[false; 4][..], &ones].concat()
    } else {
        [&ones[..], &[false; 4]].concat()
    };
    let batch = Batch {
        rows: 2,
        len: 7,
        ids: [rows[0].clone(), short].concat(),
        mask: Some([vec![true; 7], short_mask].concat()),
        ..Batch::default()
    };
    (batch, rows)
}

#[test]
fn a_padded_batch_is_its_rows_alone() {
    let m = module(DECODER);
    for left in [true, false] {
        let (batch, rows) = padded(left);
        let both = run(&m, &batch, &hidden(Some(4)));
        assert_eq!(
            both.tensors
                .keys()
                .filter(|k| k.starts_with("hidden_states"))
                .count(),
            3
        );
        for (r, ids) in rows.iter().enumerate() {
            let alone = run(&m, &Batch::single(ids), &hidden(Some(4)));
            let skip = if left { 7 - ids.len() } else { 0 };
            for (name, t) in &both.tensors {
                let width = t.last();
                let row = &t.data[r * 7 * width..][..7 * width];
                let own = &row[skip * width..][..ids.len() * width];
                assert_eq!(own, alone.tensors[name].data, "{name}");
                let padding = row.iter().filter(|x| **x == 0.0).count();
                assert!(padding >= (7 - ids.len()) * width, "{name}");
            }
            let (a, b) = (alone.generated.unwrap(), both.generated.as_ref().unwrap());
            assert_eq!(a[0], b[r]);
        }
    }
}

#[test]
fn chunks_and_single_tokens_are_one_prefill() {
    // Five tokens a step, or one, or all of them.
    let (batch, _) = padded(true);
    let outputs: Vec<InferOutput> = [5, 1, 24]
        .into_iter()
        .map(|n| {
            let mut m = module(DECODER);
            (m.dims.n, m.dims.r) = (n, n);
            run(&m, &batch, &hidden(Some(3)))
        })
        .collect();
    assert_eq!(outputs[0], outputs[1]);
    assert_eq!(outputs[0], outputs[2]);
}

#[test]
fn rows_that_end_are_filled_with_the_pad_id() {
    let m = module(DECODER);
    let (batch, _) = padded(true);
    let free = run(&m, &batch, &hidden(Some(5))).generated.unwrap();
    let eos = free[0][1];
    let options = InferOptions {
        eos: vec![eos],
        ..hidden(Some(5))
    };
    let ended = run(&m, &batch, &options).generated.unwrap();
    for (row, free) in ended.iter().zip(&free) {
        let end = free
            .iter()
            .position(|id| *id == eos)
            .map_or(free.len(), |i| i + 1);
        let own = end.min(row.len());
        assert_eq!(row[..own], free[..own]);
        assert!(row[own..].iter().all(|id| *id == 15), "{row:?}");
    }
}

#[test]
fn generation_ends_where_the_context_is_full() {
    let m = module(DECODER);
    let out = run(
        &m,
        &Batch::single(&[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]),
        &hidden(Some(50)),
    );
    // Ten tokens and two more fill it; the last one's successor needs no place.
    assert_eq!(out.generated.unwrap()[0].len(), 3);
}

#[test]
fn encoders_pack_whole_sequences_and_pool_them() {
    let m = module(ENCODER);
    let batch = Batch {
        rows: 3,
        len: 4,
        ids: vec![1, 2, 3, 4, 5, 6, 0, 0, 7, 0, 0, 0],
        mask: Some(
            [[1, 1, 1, 1], [1, 1, 0, 0], [1, 0, 0, 0]]
                .concat()
                .iter()
                .map(|m| *m == 1)
                .collect(),
        ),
        types: Some(vec![0, 0, 1, 1, 0, 1, 0, 0, 1, 0, 0, 0]),
        ..Batch::default()
    };
    let all = run(&m, &batch, &hidden(None));
    let alone = Batch {
        types: Some(vec![0, 1]),
        ..Batch::single(&[5, 6])
    };
    let alone = run(&m, &alone, &hidden(None));
    let pooled = &all.tensors["sentence_embedding"];
    assert_eq!(pooled.dims, [3, 8]);
    assert_eq!(pooled.at(1), alone.tensors["sentence_embedding"].data);
    let states = &all.tensors["last_hidden_state"];
    assert_eq!(states.dims, [3, 4, 8]);
    assert_eq!(states.at(1)[..16], alone.tensors["last_hidden_state"].data);
    assert!(states.at(1)[16..].iter().all(|x| *x == 0.0));
    assert_eq!(all.tensors["hidden_states.1"], *states);
}

#[test]
fn wrong_inputs_are_refused() {
    let m = module(DECODER);
    let made = made();
    let mut e = Evaluator::new(&m, &made).unwrap();
    let seq = |id, past, new| SeqStep { id, past, new };
    let step = |ids: &[i32], seqs: &[SeqStep], rows: &[u32]| StepInput {
        ids: ids.to_vec(),
        pos: (0..ids.len() as i32).collect(),
        types: None,
        seqs: seqs.to_vec(),
        lengths: None,
        rows: rows.to_vec(),
        ..StepInput::default()
    };
    let cases = [
        (
            step(&[1, 2, 3, 4, 5, 6], &[seq(0, 0, 6)], &[]),
            "6 tokens in a step, at most 5",
        ),
        (
            step(&[1], &[seq(0, 0, 1), seq(1, 0, 0)], &[]),
            "sequence 1 comes twice, or without tokens",
        ),
        (
            step(&[1, 2], &[seq(3, 0, 1), seq(3, 0, 1)], &[]),
            "sequence 3 comes twice, or without tokens",
        ),
        (
            step(&[1], &[seq(0, 12, 1)], &[]),
            "13 tokens in a sequence, at most 12",
        ),
        (
            step(&[1], &[seq(0, 0, 1)], &[1]),
            "row 1 of 1 tokens is wanted",
        ),
        (
            step(&[1, 2], &[seq(0, 0, 1)], &[]),
            "1 tokens with 2 ids, 2 positions and 1 types",
        ),
        (
            step(&[], &[], &[]),
            "0 tokens with 0 ids, 0 positions and 0 types",
        ),
        (
            step(&[16], &[seq(0, 0, 1)], &[]),
            "id 16 is outside of a table of 16 rows",
        ),
        (
            step(&[-1], &[seq(0, 0, 1)], &[]),
            "id -1 is outside of a table of 16 rows",
        ),
        (
            step(&[1], &[seq(0, 4, 1)], &[]),
            "sequence 0 has 0 past tokens, not 4",
        ),
    ];
    for (input, message) in cases {
        let error = e.step(&input).unwrap_err().to_string();
        assert!(error.ends_with(message), "{error}, expected {message}");
    }
    let long = Batch::single(&[1; 13]);
    let error = infer(&mut e, &long, &InferOptions::default())
        .unwrap_err()
        .to_string();
    assert_eq!(error, "row 0 has 13 tokens, at most 12 fit");
    let m = module(ENCODER);
    let mut e = Evaluator::new(&m, &made).unwrap();
    let error = infer(&mut e, &Batch::single(&[1]), &hidden(Some(1)))
        .unwrap_err()
        .to_string();
    assert_eq!(error, "the model does not generate");
}

#[test]
fn a_checkpoint_that_does_not_fit_is_told() {
    let mut m = module(ENCODER);
    for (source, message) in [
        ("nothing", "weight @embed: the checkpoint has no `nothing`"),
        (
            "norm",
            "weight @embed: `norm` is [8], expected rows of [16, 8]",
        ),
        (
            "wide",
            "weight @embed: `wide` is [8, 16], expected rows of [16, 8]",
        ),
        (
            "0.o",
            "weight @embed: the parts have 8 rows, expected f32[16, 8]",
        ),
    ] {
        m.weights[0].source = llmc_ir::Source::tensor(source);
        let made = made();
        let mut e = Evaluator::new(&m, &made).unwrap();
        let error = infer(&mut e, &Batch::single(&[1]), &InferOptions::default()).unwrap_err();
        assert_eq!(error.to_string(), message);
    }
}

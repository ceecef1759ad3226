//! A model whose step is a small Rust function, and what it must compute, told plainly.
//!
//! Each token's id (plus its type) is written into the KV pages of both slots. A token's value is
//! a hash of all keys that it sees, read back through the block table, so that a wrong page,
//! position, window or fork changes every answer. Logits peak at the value modulo the vocabulary.

use llmc_abi::*;
use llmc_runtime::engine::{Compiled, Engine, EngineOptions};
use llmc_runtime::kv_cache::KvPlan;
use llmc_runtime::session::Session;
use std::collections::BTreeMap;

pub const VOCAB: usize = 50;
pub const WIDTH: usize = 3;
pub const SLOTS: usize = 2;
/// One f32 key for each token of a page.
const PAGE_BYTES: u64 = 64 * 4;

const ROWS: u64 = 0;
const TOKENS: u64 = 64 << 10;
const SEQUENCES: u64 = 128 << 10;
const ARENA: u64 = 192 << 10;

pub fn limits() -> Limits {
    Limits {
        max_tokens: 100,
        max_seqs: 3,
        max_rows: 7,
        max_context: 400,
    }
}

fn output(name: &str, per: Per, width: usize, offset: u64) -> Output {
    Output {
        name: name.into(),
        per,
        width: width as u32,
        offset,
        stride: 64,
    }
}

fn class(name: &str, window: Option<u32>, scratch: bool) -> KvClass {
    KvClass {
        name: name.into(),
        dtype: "f32".into(),
        slots: SLOTS as u32,
        kv_heads: 1,
        k_width: 1,
        v_width: 0,
        page_bytes: PAGE_BYTES,
        window,
        scratch,
        source: false,
    }
}

/// A decoder with a full and a sliding class.
pub fn decoder() -> Manifest {
    Manifest {
        abi: ABI_VERSION,
        producer: "llmc 0.0.0".into(),
        name: "fake".into(),
        family: "fake".into(),
        architecture: "FakeForCausalLM".into(),
        kind: Kind::Decoder,
        levels: vec![LevelInfo {
            name: "any".into(),
            features: vec![],
        }],
        limits: limits(),
        vocab_size: VOCAB as u32,
        type_vocab_size: 2,
        arena_bytes: ARENA,
        scratch_bytes: 64,
        outputs: vec![
            output("logits", Per::Row, VOCAB, ROWS),
            output("last_hidden_state", Per::Token, WIDTH, TOKENS),
        ],
        taps: Taps {
            count: 2,
            width: WIDTH as u32,
            stride: 16,
        },
        kv: vec![
            class("full", None, false),
            class("sliding", Some(70), false),
        ],
        phases: vec![Phase {
            name: "fake.all".into(),
            work: vec![Work::Attention {
                class: 0,
                causal: true,
                window: None,
                operations: 2,
            }],
        }],
        best: true,
        tokens: SpecialTokens {
            bos: Some(1),
            eos: vec![2],
            pad: 9,
            decoder_start: None,
        },
        ..Manifest::default()
    }
}

/// An encoder that pools.
pub fn encoder() -> Manifest {
    let mut outputs = decoder().outputs;
    outputs.push(output(
        "sentence_embedding",
        Per::Sequence,
        WIDTH,
        SEQUENCES,
    ));
    Manifest {
        kind: Kind::Encoder,
        architecture: "FakeForMaskedLM".into(),
        outputs,
        kv: vec![class("scratch", None, true)],
        embeds: true,
        ..decoder()
    }
}

pub fn compiled(manifest: &Manifest) -> Compiled<'_> {
    const STEPS: [StepFn; 3] = [step, step_of_switch, step_of_growth];
    let at = match (manifest.rope_switch, manifest.rope_growth) {
        (None, None) => 0,
        (Some(_), _) => 1,
        (None, Some(_)) => 2,
    };
    Compiled {
        manifest,
        steps: &STEPS[at..at + 1],
        weights: &[],
    }
}

pub fn engine(manifest: &Manifest, threads: u32, sequences: usize, tokens: usize) -> Engine<'_> {
    let plan = KvPlan {
        sequences,
        tokens,
        source: 0,
    };
    Engine::new(
        compiled(manifest),
        EngineOptions {
            threads,
            plan,
            taps: true,
        },
    )
    .unwrap()
}

pub fn session<'a>(manifest: &'a Manifest, tokenizer: &'a [u8]) -> Session<'a> {
    let weights = &[];
    Session {
        manifest,
        tokenizer,
        weights,
        steps: compiled(manifest).steps,
        level: 0,
        threads: 2,
        quiet: true,
        timings: Box::leak(Box::default()),
        tell_timings: false,
    }
}

fn mix(hash: u64, x: u64) -> u64 {
    (hash ^ x)
        .wrapping_mul(0x9e37_79b9_7f4a_7c15)
        .rotate_left(23)
}

/// What a token sees: keys in order, from the window's first on.
fn hash(keys: impl Iterator<Item = f32>) -> u64 {
    keys.fold(1, |h, k| mix(h, u64::from(k.to_bits())))
}

/// Logits of a token with this value.
pub fn logits(value: u64) -> Vec<f32> {
    (0..VOCAB)
        .map(|v| (mix(value, v as u64) % 1000) as f32 / 100.0 - 5.0)
        .collect()
}

pub fn hidden(value: u64) -> [f32; WIDTH] {
    [
        (value % 251) as f32,
        (value % 17) as f32,
        (value % 5) as f32 + 1.0,
    ]
}

/// Tokens up to which a sequence's length changes nothing in the steps of `rope_switch` and
/// `rope_growth`.
pub const ORIGINAL: u32 = 130;

/// The value of each token of a sequence that is alone.
pub fn values(manifest: &Manifest, ids: &[i32], types: &[i32], long: bool) -> Vec<u64> {
    values_with(manifest, ids, types, |_| if long { 77 } else { 0 })
}

/// The same, where the length of the sequence adds something to each position.
pub fn values_with(
    manifest: &Manifest,
    ids: &[i32],
    types: &[i32],
    of_length: impl Fn(usize) -> u64,
) -> Vec<u64> {
    let key = |i: usize| (ids[i] + 1000 * types.get(i).copied().unwrap_or(0)) as f32;
    let n = ids.len();
    let all = |i: usize| {
        if manifest.kind == Kind::Encoder {
            n
        } else {
            i + 1
        }
    };
    (0..n)
        .map(|i| {
            let classes = manifest.kv.iter().map(|c| {
                let first = c.window.map_or(0, |w| (i + 1).saturating_sub(w as usize));
                hash((first..all(i)).map(key))
            });
            classes.fold(of_length(i) + i as u64, mix)
        })
        .collect()
}

/// Greedy continuation of a sequence that is alone.
pub fn greedy(manifest: &Manifest, prompt: &[i32], new: usize, eos: &[i32]) -> Vec<i64> {
    let mut ids = prompt.to_vec();
    let mut out = Vec::new();
    while out.len() < new {
        let long = manifest.rope_switch.is_some_and(|s| ids.len() > s as usize);
        let row = logits(*values(manifest, &ids, &[], long).last().unwrap());
        let best = row.iter().copied().fold(f32::MIN, f32::max);
        let next = row.iter().position(|l| *l == best).unwrap() as i32;
        out.push(i64::from(next));
        ids.push(next);
        if eos.contains(&next) {
            break;
        }
    }
    out
}

/// What the length that a sequence's rope goes by adds to the token at a position.
type OfLength = fn(length: u32, position: u32) -> u64;

pub unsafe extern "C" fn step(ctx: *const StepCtx, thread: u64, threads: u64) {
    // SAFETY: as below.
    unsafe { step_with(ctx, thread, threads, |_, _| 0) }
}

/// A longrope's.
unsafe extern "C" fn step_of_switch(ctx: *const StepCtx, thread: u64, threads: u64) {
    let of_length = |length, _| if length > ORIGINAL { 77 } else { 0 };
    // SAFETY: as below.
    unsafe { step_with(ctx, thread, threads, of_length) }
}

/// A growing rope's.
unsafe extern "C" fn step_of_growth(ctx: *const StepCtx, thread: u64, threads: u64) {
    // SAFETY: as below.
    unsafe { step_with(ctx, thread, threads, grown) }
}

/// What growth adds.
pub fn grown(length: u32, position: u32) -> u64 {
    match length.max(position + 1) {
        length if length > ORIGINAL => 1000 * u64::from(length),
        _ => 0,
    }
}

/// The step: thread 0 does it all but for the greedy choice, between barriers.
unsafe fn step_with(ctx: *const StepCtx, thread: u64, threads: u64, of_length: OfLength) {
    // SAFETY: the engine keeps the contract, which is what the tests are about.
    unsafe {
        let ctx = &*ctx;
        *ctx.scratch.add(thread as usize * 64) = 1;
        (ctx.barrier)(ctx.barrier_state);
        if thread == 0 {
            assert!((0..threads).all(|t| *ctx.scratch.add(t as usize * 64) == 1));
            compute(ctx, of_length);
        }
        if !ctx.best.is_null() {
            best(ctx, thread as usize, threads as usize);
        }
        let mark = |event| {
            if let Some(told) = ctx.mark {
                told(ctx.mark_state, thread, 0, event);
            }
        };
        mark(MARK_WORKED);
        (ctx.barrier)(ctx.barrier_state);
        mark(MARK_PASSED);
    }
}

/// Thread 0 wrote the logits before: each thread tells the best of its part.
unsafe fn best(ctx: &StepCtx, thread: usize, threads: usize) {
    // SAFETY: as above.
    unsafe {
        (ctx.barrier)(ctx.barrier_state);
        for r in 0..(*ctx.batch).r as usize {
            let row = ctx.arena.add(ROWS as usize).cast::<f32>().add(r * 64);
            let mut best = Best {
                logit: f32::NEG_INFINITY,
                token: -1,
            };
            for v in thread * VOCAB / threads..(thread + 1) * VOCAB / threads {
                if *row.add(v) > best.logit {
                    best = Best {
                        logit: *row.add(v),
                        token: v as i32,
                    };
                }
            }
            *ctx.best.add(thread * limits().max_rows as usize + r) = best;
        }
    }
}

unsafe fn compute(ctx: &StepCtx, of_length: OfLength) {
    // SAFETY: as above.
    unsafe {
        let b = &*ctx.batch;
        let kv_len = std::slice::from_raw_parts(b.kv_len, b.b as usize);
        let scratch = (*ctx.kv).slot_stride == 0;
        let classes: &[Option<usize>] = if scratch { &[None] } else { &[None, Some(70)] };
        let cell = |c: usize, slot: u64, s: usize, position: usize| {
            let kv = &*ctx.kv.add(c);
            let page = *kv.table.add(s * kv.table_stride as usize + position / 64);
            let at = slot * kv.slot_stride + page as u64 * PAGE_BYTES;
            kv.base.add(at as usize).cast::<f32>().add(position % 64)
        };
        for t in 0..b.n as usize {
            let (s, p) = (*b.seq.add(t) as usize, *b.pos.add(t) as usize);
            assert!((*b.q_start.add(s)..*b.q_start.add(s + 1)).contains(&(t as i32)));
            for c in 0..classes.len() {
                for slot in 0..SLOTS as u64 {
                    *cell(c, slot, s, p) = (*b.ids.add(t) + 1000 * *b.types.add(t)) as f32;
                }
            }
        }
        let arena =
            |offset: u64, row: usize| ctx.arena.add(offset as usize).cast::<f32>().add(row * 64);
        let mut of_token = Vec::new();
        for t in 0..b.n as usize {
            let (s, p) = (*b.seq.add(t) as usize, *b.pos.add(t) as usize);
            let end = if scratch { kv_len[s] as usize } else { p + 1 };
            let slot = (t % SLOTS) as u64;
            let seen = classes.iter().enumerate().map(|(c, window)| {
                let first = window.map_or(0, |w| (p + 1).saturating_sub(w));
                hash((first..end).map(|j| *cell(c, slot, s, j)))
            });
            let more = of_length(*b.rope_length.add(s) as u32, p as u32);
            let value = seen.fold(more + p as u64, mix);
            of_token.push(value);
            for (i, h) in hidden(value).into_iter().enumerate() {
                *arena(TOKENS, t).add(i) = h;
                if !ctx.taps.is_null() {
                    for tap in 0..2 {
                        *ctx.taps.add((tap * ctx.tap_rows as usize + t) * 16 + i) = h + tap as f32;
                    }
                }
            }
        }
        for r in 0..b.r as usize {
            let row = logits(of_token[*b.rows.add(r) as usize]);
            std::ptr::copy_nonoverlapping(row.as_ptr(), arena(ROWS, r), VOCAB);
        }
        for s in 0..b.b as usize {
            let last = of_token[*b.q_start.add(s + 1) as usize - 1];
            for (i, h) in hidden(last).into_iter().enumerate() {
                *arena(SEQUENCES, s).add(i) = h;
            }
        }
    }
}

/// The compiled form of [`tokenizer_json`].
pub fn tokenizer() -> Vec<u8> {
    llmc_runtime::tokenizer::compile(&tokenizer_json()).unwrap()
}

/// A byte-level tokenizer whose tokens are single letters: enough to generate text.
fn tokenizer_json() -> Vec<u8> {
    let letters = ('a'..='z').chain('A'..='U').map(String::from);
    let vocab: BTreeMap<String, usize> = ["<pad>", "<s>", "</s>"]
        .into_iter()
        .map(String::from)
        .chain(letters)
        .enumerate()
        .map(|(i, t)| (t, i))
        .collect();
    let special = |id: usize, content: &str| {
        serde_json::json!({"id": id, "content": content, "single_word": false, "lstrip": false,
            "rstrip": false, "normalized": false, "special": true})
    };
    serde_json::json!({
        "version": "1.0",
        "truncation": {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0},
        "padding": {"strategy": {"Fixed": 9}, "direction": "Right", "pad_to_multiple_of": null,
            "pad_id": 0, "pad_type_id": 0, "pad_token": "<pad>"},
        "added_tokens": [special(0, "<pad>"), special(1, "<s>"), special(2, "</s>")],
        "normalizer": null,
        "pre_tokenizer": {"type": "Split", "pattern": {"Regex": "[a-zA-U]"}, "behavior": "Isolated", "invert": false},
        "post_processor": {"type": "BertProcessing", "sep": ["</s>", 2], "cls": ["<s>", 1]},
        "decoder": {"type": "Fuse"},
        "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "z"},
    })
    .to_string()
    .into_bytes()
}

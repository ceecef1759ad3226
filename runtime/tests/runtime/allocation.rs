//! Steps and samplers allocate nothing.

use crate::fake;
use llmc_runtime::engine::{Rows, Work};
use llmc_runtime::kv_cache::SeqId;
use llmc_runtime::sampler::Sampler;
use llmc_runtime::sampling_params::{GREEDY, SamplingParams};
use llmc_runtime::tokenizer::Tokenizer;
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// Counts the allocations of each thread.
struct Counting;

thread_local! {
    static COUNT: Cell<usize> = const { Cell::new(0) };
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn count() {
    let _ = COUNT.try_with(|c| c.set(c.get() + 1));
}

// SAFETY: everything is handed on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(at, layout) }
    }
    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: the caller's promise.
        unsafe { System.realloc(at, layout, size) }
    }
}

fn allocations(run: impl FnOnce()) -> usize {
    let before = COUNT.with(Cell::get);
    run();
    COUNT.with(Cell::get) - before
}

/// Writes each token's id as its logits' peak; allocates nothing itself.
unsafe extern "C" fn quiet_step(ctx: *const llmc_abi::StepCtx, thread: u64, _threads: u64) {
    // SAFETY: the engine keeps the contract.
    unsafe {
        let ctx = &*ctx;
        (ctx.barrier)(ctx.barrier_state);
        let batch = &*ctx.batch;
        for r in 0..batch.r as usize {
            if thread == 0 {
                let id = *batch.ids.add(*batch.rows.add(r) as usize) as usize;
                *ctx.arena.cast::<f32>().add(r * 64 + id) += 1.0;
            }
        }
    }
}

#[test]
fn the_counter_counts() {
    assert_eq!(allocations(|| drop(std::hint::black_box(Box::new(1)))), 1);
}

#[test]
fn steps_allocate_nothing() {
    let manifest = fake::decoder();
    let mut model = fake::compiled(&manifest);
    model.steps = &[quiet_step];
    let options = llmc_runtime::engine::EngineOptions {
        threads: 2,
        plan: llmc_runtime::kv_cache::KvPlan {
            sequences: 3,
            tokens: 400,
            source: 0,
        },
        taps: true,
    };
    let mut engine = llmc_runtime::engine::Engine::new(model, options).unwrap();
    let seqs: Vec<_> = (0..3).map(|_| engine.open().unwrap()).collect();
    let prompt = vec![5; 300];
    let params = SamplingParams {
        temperature: 0.8,
        top_k: 40,
        top_p: 0.9,
        ..GREEDY
    };
    let mut sampler = Sampler::new(params, fake::VOCAB, &[], 0);
    let logits = engine.output("logits").unwrap();
    fn work<'a>(seq: SeqId, ids: &'a [i32]) -> Work<'a> {
        Work {
            seq: Some(seq),
            ids,
            types: &[],
            rows: Rows::Last,
        }
    }
    let n = allocations(|| {
        let prefill = [
            work(seqs[0], &prompt[..]),
            work(seqs[1], &prompt[..150]),
            work(seqs[2], &prompt[..1]),
        ];
        engine.run(&prefill, &mut |_| Ok(())).unwrap();
        for token in 0..90 {
            let ids = [token % 50];
            let decode = [
                work(seqs[0], &ids),
                work(seqs[1], &ids),
                work(seqs[2], &ids),
            ];
            engine
                .run(&decode, &mut |view| {
                    for span in view.spans {
                        sampler.sample(view.row(logits, span.row))?;
                    }
                    Ok(())
                })
                .unwrap();
        }
    });
    assert_eq!(n, 0);
}

#[test]
fn samplers_allocate_nothing() {
    let vocab = 5000;
    let logits: Vec<f32> = (0..vocab)
        .map(|i| ((i * 7919) % 1000) as f32 / 100.0)
        .collect();
    for params in [
        GREEDY,
        SamplingParams {
            repeat_penalty: 1.3,
            ..GREEDY
        },
        SamplingParams {
            temperature: 1.0,
            ..GREEDY
        },
        SamplingParams {
            temperature: 0.7,
            top_k: 50,
            top_p: 0.9,
            min_p: 0.05,
            repeat_penalty: 1.1,
            presence_penalty: 0.5,
            frequency_penalty: 0.25,
            no_repeat_ngram: 3,
            min_new_tokens: 5,
            typical: 0.9,
            seed: 3,
        },
        SamplingParams {
            temperature: 2.0,
            top_p: 0.99,
            ..GREEDY
        },
    ] {
        let mut sampler = Sampler::new(params, vocab, &[3], 20);
        let n = allocations(|| {
            for _ in 0..20 {
                sampler.sample(&logits).unwrap();
            }
        });
        assert_eq!(n, 0, "{params:?}");
    }
}

/// Opening a tokenizer costs the same for a large vocabulary as for a small one.
#[test]
fn tokenizers_are_used_in_place() {
    let opened = |words: usize| {
        let vocab: serde_json::Map<String, serde_json::Value> =
            (0..words).map(|i| (format!("w{i}"), i.into())).collect();
        let added = |i: usize| {
            serde_json::json!({"id": words + i, "content": format!("<a{i}>"), "single_word": false,
                "lstrip": false, "rstrip": false, "normalized": false, "special": true})
        };
        let json = serde_json::json!({
            "version": "1.0", "truncation": null, "padding": null, "normalizer": null,
            "added_tokens": (0..words / 10).map(added).collect::<Vec<_>>(),
            "pre_tokenizer": {"type": "Whitespace"}, "post_processor": null, "decoder": null,
            "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "w0"},
        });
        let section = llmc_runtime::tokenizer::compile(json.to_string().as_bytes()).unwrap();
        // What is made once for all tokenizers is made by the first.
        let open_and_encode = || {
            let tokenizer = Tokenizer::open(&section).unwrap();
            let ids = tokenizer.encode("w3<a1>w7", true).unwrap().ids;
            assert_eq!(ids, [3, words as u32 + 1, 7]);
        };
        open_and_encode();
        allocations(open_and_encode)
    };
    assert_eq!(opened(20), opened(20_000));
}

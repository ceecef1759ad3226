//! The engine: chunks, mixed steps, row budgets, windows, forks, longrope.

use crate::fake;
use llmc_abi::Manifest;
use llmc_runtime::Result;
use llmc_runtime::engine::{Engine, Rows, Work};
use llmc_runtime::kv_cache::SeqId;

fn ids(n: usize, salt: i32) -> Vec<i32> {
    (0..n as i32)
        .map(|i| (i * 31 + salt * 7) % fake::VOCAB as i32)
        .collect()
}

/// Logits and hidden states of one item, by token.
#[derive(Default)]
struct Got {
    logits: Vec<Option<Vec<f32>>>,
    hidden: Vec<Option<Vec<f32>>>,
}

fn run(engine: &mut Engine<'_>, works: &[Work<'_>]) -> Result<Vec<Got>> {
    let empty = |w: &Work<'_>| Got {
        logits: vec![None; w.ids.len()],
        hidden: vec![None; w.ids.len()],
    };
    let mut got: Vec<Got> = works.iter().map(empty).collect();
    let (logits, hidden) = (engine.output("logits"), engine.output("last_hidden_state"));
    engine.run(works, &mut |view| {
        for span in view.spans {
            let g = &mut got[span.work];
            for k in 0..span.rows {
                let row = view.row(logits.unwrap(), span.row + k).to_vec();
                let at = match works[span.work].rows {
                    Rows::At(list) => list[span.row_first + k],
                    Rows::None | Rows::Last | Rows::All => span.row_first + k,
                };
                assert!(g.logits[at].replace(row).is_none(), "a row came twice");
            }
            for k in 0..span.len {
                let row = view.row(hidden.unwrap(), span.token + k).to_vec();
                let tap = view.tap(1, span.token + k).unwrap();
                assert_eq!(tap[0], row[0] + 1.0);
                g.hidden[span.first + k] = Some(row);
            }
        }
        Ok(())
    })?;
    Ok(got)
}

fn check(got: &Got, values: &[u64], rows: Rows<'_>) {
    for (i, value) in values.iter().enumerate() {
        assert_eq!(
            got.hidden[i].as_deref(),
            Some(&fake::hidden(*value)[..]),
            "token {i}"
        );
        let wanted = match rows {
            Rows::All => true,
            Rows::Last => i + 1 == values.len(),
            Rows::None => false,
            Rows::At(list) => list.contains(&i),
        };
        assert_eq!(
            got.logits[i],
            wanted.then(|| fake::logits(*value)),
            "token {i}"
        );
    }
}

fn expected(manifest: &Manifest, ids: &[i32]) -> Vec<u64> {
    let long = manifest.rope_switch.is_some_and(|s| ids.len() > s as usize);
    fake::values(manifest, ids, &[], long)
}

#[test]
fn batches_are_their_sequences_alone() {
    let manifest = fake::decoder();
    for threads in [1, 3] {
        for lens in [
            &[1][..],
            &[7],
            &[99, 1],
            &[100, 100, 3],
            &[250, 1, 64, 65, 399, 2],
        ] {
            for rows in [Rows::All, Rows::Last, Rows::None] {
                let mut engine = fake::engine(&manifest, threads, lens.len(), 400);
                let texts: Vec<Vec<i32>> = lens
                    .iter()
                    .enumerate()
                    .map(|(i, &n)| ids(n, i as i32))
                    .collect();
                let seqs: Vec<SeqId> = lens.iter().map(|_| engine.open().unwrap()).collect();
                let works: Vec<Work<'_>> = texts
                    .iter()
                    .zip(&seqs)
                    .map(|(ids, &seq)| Work {
                        seq: Some(seq),
                        ids,
                        types: &[],
                        rows,
                    })
                    .collect();
                let got = run(&mut engine, &works).unwrap();
                for (g, text) in got.iter().zip(&texts) {
                    check(g, &expected(&manifest, text), rows);
                }
            }
        }
    }
}

#[test]
fn prefill_equals_single_steps_mixed_with_others() {
    let manifest = fake::decoder();
    let mut engine = fake::engine(&manifest, 2, 2, 400);
    let text = ids(300, 3);
    let other = ids(350, 5);
    let (a, b) = (engine.open().unwrap(), engine.open().unwrap());
    let (va, vb) = (expected(&manifest, &text), expected(&manifest, &other));
    // One grows by a token at a time while the other is prefilled in pieces.
    let mut fed = 0;
    for i in 0..300 {
        let piece = if i % 50 == 0 && fed < 350 {
            fed..(fed + 70).min(350)
        } else {
            fed..fed
        };
        let works = [
            Work {
                seq: Some(b),
                ids: &other[piece.clone()],
                types: &[],
                rows: Rows::All,
            },
            Work {
                seq: Some(a),
                ids: &text[i..i + 1],
                types: &[],
                rows: Rows::Last,
            },
        ];
        let got = run(&mut engine, &works).unwrap();
        check(&got[0], &vb[piece.clone()], Rows::All);
        check(&got[1], &va[i..i + 1], Rows::Last);
        fed = piece.end;
    }
    assert_eq!((engine.len(a), engine.len(b)), (300, 350));
}

#[test]
fn forks_and_truncation_do_not_disturb_each_other() {
    let manifest = fake::decoder();
    let mut engine = fake::engine(&manifest, 1, 3, 400);
    let text = ids(200, 1);
    let a = engine.open().unwrap();
    let work = |seq, ids, rows| {
        [Work {
            seq: Some(seq),
            ids,
            types: &[],
            rows,
        }]
    };
    run(&mut engine, &work(a, &text[..90], Rows::None)).unwrap();
    let b = engine.fork(a).unwrap();
    let tail_b = ids(40, 9);
    let got_b = run(&mut engine, &work(b, &tail_b, Rows::All)).unwrap();
    let got_a = run(&mut engine, &work(a, &text[90..], Rows::All)).unwrap();
    let mut whole_b = text[..90].to_vec();
    whole_b.extend(&tail_b);
    check(&got_b[0], &expected(&manifest, &whole_b)[90..], Rows::All);
    check(&got_a[0], &expected(&manifest, &text)[90..], Rows::All);
    // Back within the window that is still there, and on with something else.
    assert!(engine.truncate(b, 120));
    let other = ids(30, 4);
    let got = run(&mut engine, &work(b, &other, Rows::All)).unwrap();
    whole_b.truncate(120);
    whole_b.extend(&other);
    check(&got[0], &expected(&manifest, &whole_b)[120..], Rows::All);
    engine.close(a);
    engine.close(b);
    let c = engine.open().unwrap();
    let got = run(&mut engine, &work(c, &text, Rows::Last)).unwrap();
    check(&got[0], &expected(&manifest, &text), Rows::Last);
}

#[test]
fn encoders_keep_sequences_whole() {
    let manifest = fake::encoder();
    let mut engine = fake::engine(&manifest, 2, 0, 0);
    let texts: Vec<Vec<i32>> = [5, 90, 10, 100, 1, 1, 1, 1, 0, 33]
        .iter()
        .enumerate()
        .map(|(i, &n)| ids(n, i as i32))
        .collect();
    for rows in [Rows::All, Rows::None, Rows::Last] {
        let works: Vec<Work<'_>> = texts
            .iter()
            .map(|ids| Work {
                seq: None,
                ids,
                types: &[],
                rows,
            })
            .collect();
        for (g, text) in run(&mut engine, &works).unwrap().iter().zip(&texts) {
            check(g, &expected(&manifest, text), rows);
        }
    }
    // Rows of a list, more of them than a step gives.
    let lists: Vec<Vec<usize>> = texts
        .iter()
        .map(|t| (0..t.len()).rev().step_by(2).collect())
        .collect();
    let works: Vec<Work<'_>> = texts
        .iter()
        .zip(&lists)
        .map(|(ids, list)| Work {
            seq: None,
            ids,
            types: &[],
            rows: Rows::At(list),
        })
        .collect();
    let got = run(&mut engine, &works).unwrap();
    for ((g, text), list) in got.iter().zip(&texts).zip(&lists) {
        check(g, &expected(&manifest, text), Rows::At(list));
    }
    let wrong = Work {
        seq: None,
        ids: &texts[0],
        types: &[],
        rows: Rows::At(&[5]),
    };
    assert!(run(&mut engine, &[wrong]).is_err());
    let long = ids(101, 1);
    let work = Work {
        seq: None,
        ids: &long,
        types: &[],
        rows: Rows::None,
    };
    assert_eq!(run(&mut engine, &[work]).err().unwrap().exit_code(), 2);
}

#[test]
fn longrope_recomputes_what_crosses_the_switch() {
    let manifest = Manifest {
        rope_switch: Some(fake::ORIGINAL),
        ..fake::decoder()
    };
    let mut engine = fake::engine(&manifest, 1, 2, 400);
    let text = ids(200, 2);
    // A fresh prefill past the switch uses the long factors from its first chunk on.
    let a = engine.open().unwrap();
    let got = run(
        &mut engine,
        &[Work {
            seq: Some(a),
            ids: &text,
            types: &[],
            rows: Rows::All,
        }],
    );
    check(&got.unwrap()[0], &expected(&manifest, &text), Rows::All);
    // Growing across it gives for each token what a fresh prefill up to there gives.
    let b = engine.open().unwrap();
    for i in 0..200 {
        let work = Work {
            seq: Some(b),
            ids: &text[i..i + 1],
            types: &[],
            rows: Rows::Last,
        };
        let got = run(&mut engine, &[work]).unwrap();
        check(
            &got[0],
            &expected(&manifest, &text[..i + 1])[i..],
            Rows::Last,
        );
    }
    // And back.
    assert!(engine.truncate(b, 0));
    let work = Work {
        seq: Some(b),
        ids: &text[..20],
        types: &[],
        rows: Rows::All,
    };
    check(
        &run(&mut engine, &[work]).unwrap()[0],
        &expected(&manifest, &text[..20]),
        Rows::All,
    );
}

/// Tokens of a prompt go by its length, later ones by their own; a fork and a batch change nothing.
#[test]
fn growing_ropes_go_by_the_prompt() {
    let manifest = Manifest {
        rope_growth: Some(fake::ORIGINAL),
        ..fake::decoder()
    };
    let mut engine = fake::engine(&manifest, 1, 3, 400);
    for prompt in [120, 128, 150, 230] {
        let text = ids(prompt + 20, 2);
        let of_length = |i| fake::grown(prompt as u32, i as u32);
        let wanted = fake::values_with(&manifest, &text, &[], of_length);
        let work = |seq, from: usize, to: usize| Work {
            seq: Some(seq),
            ids: &text[from..to],
            types: &[],
            rows: Rows::All,
        };
        let a = engine.open().unwrap();
        let got = run(&mut engine, &[work(a, 0, prompt)]).unwrap();
        check(&got[0], &wanted[..prompt], Rows::All);
        let b = engine.fork(a).unwrap();
        for i in prompt..prompt + 20 {
            let got = run(&mut engine, &[work(a, i, i + 1)]).unwrap();
            check(&got[0], &wanted[i..i + 1], Rows::All);
        }
        let got = run(&mut engine, &[work(b, prompt, prompt + 20)]).unwrap();
        check(&got[0], &wanted[prompt..], Rows::All);
        engine.close(a);
        engine.close(b);
    }
}

#[test]
fn limits_are_errors() {
    let manifest = fake::decoder();
    let mut engine = fake::engine(&manifest, 1, 1, 100);
    let a = engine.open().unwrap();
    assert!(engine.open().is_err());
    let text = ids(401, 1);
    let mut try_len = |n: usize| {
        let work = Work {
            seq: Some(a),
            ids: &text[..n],
            types: &[],
            rows: Rows::Last,
        };
        run(&mut engine, &[work]).err().map(|e| e.exit_code())
    };
    assert_eq!(try_len(401), Some(2), "past the context");
    assert_eq!(try_len(200), Some(1), "past the planned cache");
    let mut broken = fake::decoder();
    broken.outputs[0].offset = broken.arena_bytes;
    let options = llmc_runtime::engine::EngineOptions {
        threads: 1,
        plan: llmc_runtime::kv_cache::KvPlan {
            sequences: 1,
            tokens: 1,
            source: 0,
        },
        taps: false,
    };
    assert!(Engine::new(fake::compiled(&broken), options).is_err());
}

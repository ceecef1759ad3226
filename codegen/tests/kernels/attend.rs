//! `kv_append` and `attend` together, against attention in f64 over the whole sequence.

use crate::attend_world::{Case, Part, SEQUENCES, World, case};
use crate::buffer::{assert_bits, assert_close};
use crate::harness::{Loaded, load_all, same_bits};
use llmc_codegen::kernels::{Attend, Bias, KvElem, Mask, RelativeBias};
use llmc_ir::Mask as Pattern;

fn compare(world: &World<'_>, parts: &[Part], found: &[f32]) {
    let stride = world.c.attend.out_stride as usize;
    let mut rows = found.chunks(stride);
    for (s, from, count) in parts {
        for i in *from..from + count {
            let expected = world.naive(*s, i, from + count);
            let row = rows.next().expect("a row per token");
            for (x, e) in row.iter().zip(&expected) {
                assert_close(*x, *e, 2e-5, &world.c.attend.symbol());
            }
        }
    }
}

/// A prefill of three sequences at once, against the reference; then, for causal masks, each
/// sequence alone, in pieces, and its tail token by token, and all of them in steps that mix
/// prefill and decode: bitwise the same.
pub fn check(c: &Case, length: usize) {
    let loaded = load_all(|b| {
        c.append.emit(b);
        c.attend.emit(b);
    });
    let world = World::new(c, length);
    let lengths = [length, length / 2 + 1, 1];
    let whole: Vec<Part> = (0..SEQUENCES).map(|s| (s, 0, lengths[s])).collect();
    let all = same_bits(&loaded, |lib, threads| {
        world.step(lib, threads, &mut world.cache(), &whole)
    });
    compare(&world, &whole, &all);
    let stride = c.attend.out_stride as usize;
    let lib = &loaded[loaded.len() - 1];
    let mut first = 0;
    for (s, length) in lengths.into_iter().enumerate() {
        let expected = &all[first * stride..(first + length) * stride];
        first += length;
        let alone = world.step(lib, 2, &mut world.cache(), &[(s, 0, length)]);
        assert_bits(&alone, expected, "a sequence alone");
        if c.attend.mask == Mask::Bidirectional {
            continue;
        }
        let mut cache = world.cache();
        let tail = length.min(5);
        let head = length - tail;
        let mut pieces = Vec::new();
        if head > 1 {
            pieces.extend(world.step(lib, 1, &mut cache, &[(s, 0, head / 3)]));
            pieces.extend(world.step(lib, 3, &mut cache, &[(s, head / 3, head - head / 3)]));
        } else if head == 1 {
            pieces.extend(world.step(lib, 1, &mut cache, &[(s, 0, 1)]));
        }
        for i in head..length {
            pieces.extend(world.step(lib, 1, &mut cache, &[(s, i, 1)]));
        }
        assert_bits(&pieces, expected, "a sequence in pieces");
    }
    if c.attend.mask != Mask::Bidirectional && length > 1 {
        mixed_steps(&world, lib, lengths, &all);
    }
}

/// The first sequence but for its last token; then that token, the whole third sequence and the
/// second one in two parts, in another order than they lie in the cache.
fn mixed_steps(world: &World<'_>, lib: &Loaded, lengths: [usize; SEQUENCES], all: &[f32]) {
    let stride = world.c.attend.out_stride as usize;
    let starts = [0, lengths[0], lengths[0] + lengths[1]];
    let half = lengths[1] / 2;
    let steps: [&[Part]; 2] = [
        &[(1, 0, half), (0, 0, lengths[0] - 1)],
        &[
            (2, 0, lengths[2]),
            (0, lengths[0] - 1, 1),
            (1, half, lengths[1] - half),
        ],
    ];
    let mut cache = world.cache();
    for parts in steps {
        let found = world.step(lib, 2, &mut cache, parts);
        let mut rows = found.as_slice();
        for (s, from, count) in parts {
            let (part, rest) = rows.split_at(count * stride);
            let first = (starts[*s] + from) * stride;
            assert_bits(part, &all[first..first + count * stride], "a mixed step");
            rows = rest;
        }
    }
}

#[test]
fn head_widths() {
    for width in [6, 24, 40, 64, 72, 80, 128, 256] {
        check(&case(width, width, 2, 1, KvElem::F32), 70);
    }
    check(&case(40, 24, 1, 2, KvElem::F32), 70);
    for (width, elem) in [
        (6, KvElem::F16),
        (40, KvElem::BF16),
        (80, KvElem::F16),
        (256, KvElem::BF16),
        (64, KvElem::Q8_0),
        (96, KvElem::Q8_0),
        (128, KvElem::Q8_0),
        (256, KvElem::Q8_0),
    ] {
        check(&case(width, width, 1, 3, elem), 70);
    }
    check(&case(24, 72, 2, 1, KvElem::F16), 70);
    check(&case(32, 96, 2, 1, KvElem::Q8_0), 70);
}

#[test]
fn lengths() {
    let c = case(32, 32, 2, 1, KvElem::F32);
    for length in [1, 2, 5, 6, 7, 16, 48, 50, 64, 65, 130, 300] {
        check(&c, length);
    }
}

#[test]
fn groups_and_types() {
    for elem in [KvElem::F32, KvElem::F16, KvElem::BF16, KvElem::Q8_0] {
        for (heads, group) in [(1, 4), (2, 7), (3, 2)] {
            check(&case(32, 32, heads, group, elem), 100);
        }
        // A token's rows fill more than one item.
        check(&case(32, 32, 1, 32, elem), 66);
    }
}

#[test]
fn masks() {
    let mut c = case(32, 48, 2, 2, KvElem::F32);
    for window in [1, 16, 64, 100] {
        c.attend.mask = Mask::Causal {
            window: Some(window),
        };
        check(&c, 200);
    }
    for (width, elem) in [(40, KvElem::F16), (40, KvElem::BF16), (64, KvElem::Q8_0)] {
        let mut c = case(width, width, 1, 4, elem);
        c.attend.mask = Mask::Causal { window: Some(70) };
        check(&c, 200);
        c.attend.mask = Mask::Bidirectional;
        check(&c, 130);
    }
    c.attend.mask = Mask::Bidirectional;
    // Within one softmax step, up to the end of one, and over several.
    for length in [1, 63, 64, 130, 256, 600] {
        check(&c, length);
    }
}

#[test]
fn score_options() {
    let mut c = case(32, 32, 2, 2, KvElem::F32);
    c.attend.softcap = Some(2.0);
    check(&c, 100);
    c.attend.sinks = true;
    check(&c, 100);
    c.attend.bias = Some(Bias::Relative(RelativeBias {
        stride: 2 * 100 + 64,
        zero: 100,
    }));
    check(&c, 100);
    let mut windowed = case(24, 24, 1, 3, KvElem::BF16);
    windowed.attend.mask = Mask::Causal { window: Some(30) };
    windowed.attend.bias = c.attend.bias;
    windowed.attend.softcap = Some(5.0);
    check(&windowed, 100);
    c.attend.mask = Mask::Bidirectional;
    check(&c, 100);
}

#[test]
fn slopes() {
    for (heads, group) in [(2, 3), (3, 1)] {
        let mut c = case(32, 32, heads, group, KvElem::F32);
        c.attend.bias = Some(Bias::Slopes);
        check(&c, 150);
        c.attend.mask = Mask::Bidirectional;
        check(&c, 100);
    }
    let mut c = case(40, 40, 1, 4, KvElem::F16);
    c.attend.bias = Some(Bias::Slopes);
    c.attend.mask = Mask::Causal { window: Some(70) };
    check_long(&mut c, &[0, 130, 700]);
}

/// The patterns of the sparse transformer, at their own sizes and at odd ones.
fn patterns() -> Vec<Pattern> {
    let causal = |m| Pattern::And(vec![Pattern::Causal, m]);
    let stride = |every, block| Pattern::Stride { every, block };
    let fixed = |span, last| Pattern::Fixed { span, last };
    vec![
        causal(Pattern::Window(100)),
        causal(Pattern::Band(70)),
        causal(stride(3, 64)),
        causal(stride(200, 1)),
        causal(Pattern::Or(vec![Pattern::Band(40), stride(128, 1)])),
        causal(fixed(128, 8)),
        causal(fixed(192, 70)),
        causal(Pattern::And(vec![fixed(100, 7), stride(2, 50)])),
    ]
}

#[test]
fn sparse_masks() {
    for pattern in patterns() {
        let mut c = case(32, 32, 2, 2, KvElem::F32);
        c.attend.pattern = Some(pattern.clone());
        check(&c, 300);
        let mut c = case(64, 64, 1, 4, KvElem::Q8_0);
        c.attend.pattern = Some(pattern);
        check_long(&mut c, &[0, 130, 700]);
    }
    // An encoder's window, which looks both ways.
    let mut c = case(32, 32, 2, 1, KvElem::F32);
    c.attend.mask = Mask::Bidirectional;
    for pattern in [Pattern::Band(70), Pattern::Window(33)] {
        c.attend.pattern = Some(pattern);
        check(&c, 200);
    }
}

/// Which pages the kernel reads: those that the mask shows to one of an item's queries, and no other.
/// A page of NaN turns every row of an item that reads it into NaN.
#[test]
fn sparse_masks_read_what_they_show() {
    const LENGTH: usize = 640;
    const PAGES: usize = LENGTH / 64;
    // Tokens of an item: 24 rows in groups of 2.
    const TILE: usize = 12;
    let mut read = Vec::new();
    for pattern in patterns() {
        let mut c = case(16, 16, 1, 2, KvElem::F32);
        c.attend.pattern = Some(pattern.clone());
        let loaded = load_all(|b| {
            c.append.emit(b);
            c.attend.emit(b);
        });
        let world = World::new(&c, LENGTH);
        let lib = &loaded[0];
        let whole: [Part; 1] = [(0, 0, LENGTH)];
        let mut clean = world.cache();
        world.append(lib, 1, &mut clean, &whole);
        let stride = c.attend.out_stride as usize;
        let mut pages = 0;
        for page in 0..PAGES {
            let mut cache = clean.clone();
            world.poison(&mut cache, 0, page);
            let keys = 64 * page as u32..64 * (page as u32 + 1);
            // A prefill, item by item, and single tokens.
            let out = world.attend(lib, 2, &mut cache, &whole);
            for (item, rows) in out.chunks(TILE * stride).enumerate() {
                let first = (item * TILE) as u32;
                let queries = first..(first + TILE as u32).min(LENGTH as u32);
                let expected = pattern.any_visible(queries, keys.clone());
                let what = format!("{pattern}: item {item}, page {page}");
                assert_eq!(rows.iter().any(|x| x.is_nan()), expected, "{what}");
                pages += u32::from(expected);
            }
            for token in [0, 100, 127, 128, 400, LENGTH - 1] {
                let out = world.attend(lib, 2, &mut cache, &[(0, token, 1)]);
                let query = token as u32;
                let expected = pattern.any_visible(query..query + 1, keys.clone());
                let what = format!("{pattern}: token {token}, page {page}");
                assert_eq!(out.iter().any(|x| x.is_nan()), expected, "{what}");
            }
        }
        let counted = (0..LENGTH).step_by(TILE).map(|first| {
            let end = (first + TILE).min(LENGTH);
            pattern.visible_blocks(first as u32..end as u32, LENGTH as u32, 64)
        });
        assert_eq!(pages, counted.sum::<u32>(), "{pattern}");
        read.push(pages);
    }
    let dense = (0..LENGTH).step_by(TILE);
    let dense: u32 = dense
        .map(|t| ((t + TILE).min(LENGTH) as u32).div_ceil(64))
        .sum();
    for (pages, pattern) in read.iter().zip(patterns()) {
        assert!(*pages < dense, "{pattern} reads {pages} of {dense} pages");
    }
}

/// Long contexts, whose chunks several threads share: one token at each of `positions`, alone, behind
/// others in one step (a prefill), and with another sequence's, against the reference.
fn check_long(c: &mut Case, positions: &[usize]) {
    let length = positions.iter().max().map_or(1, |p| p + 1);
    let a = &mut c.attend;
    a.split = 2 * Attend::split_for(&a.kv, a.group, length as i64);
    let c = &*c;
    let loaded = load_all(|b| {
        c.append.emit(b);
        c.attend.emit(b);
    });
    let world = World::new(c, length);
    let stride = c.attend.out_stride as usize;
    let all: Vec<Part> = (0..2).map(|s| (s, 0, length)).collect();
    let mut caches: Vec<_> = loaded
        .iter()
        .map(|lib| {
            let mut cache = world.cache();
            world.append(lib, 2, &mut cache, &all);
            (lib.level.name, cache)
        })
        .collect();
    let mut attend = |parts: &[Part]| {
        same_bits(&loaded, |lib, threads| {
            let cache = caches.iter_mut().find(|c| c.0 == lib.level.name);
            let (_, cache) = cache.expect("a cache for each level");
            world.attend(lib, threads, cache, parts)
        })
    };
    for (i, &p) in positions.iter().enumerate() {
        let alone = attend(&[(0, p, 1)]);
        compare(&world, &[(0, p, 1)], &alone);
        let others = p.min(40);
        let prefill = attend(&[(0, p - others, others + 1)]);
        assert_bits(&prefill[others * stride..], &alone, "the end of a prefill");
        let other = (1, positions[positions.len() - 1 - i], 1);
        let both = attend(&[other, (0, p, 1)]);
        assert_bits(&both[stride..], &alone, "beside another sequence");
        assert_bits(&both[..stride], &attend(&[other]), "the other sequence");
    }
}

#[test]
fn long_contexts() {
    let ends = [0, 62, 63, 64, 127, 128, 255, 256, 300, 511, 512, 1000, 2999];
    check_long(&mut case(64, 64, 2, 7, KvElem::F32), &ends);
    for (width, heads, group, elem) in [
        (256, 1, 4, KvElem::F16),
        (256, 1, 4, KvElem::Q8_0),
        (64, 2, 7, KvElem::Q8_0),
        (80, 1, 3, KvElem::BF16),
        (96, 3, 1, KvElem::Q8_0),
        (128, 1, 14, KvElem::BF16),
        (128, 2, 2, KvElem::Q8_0),
        // Two items for one token and head.
        (32, 1, 32, KvElem::F16),
    ] {
        check_long(&mut case(width, width, heads, group, elem), &[0, 130, 700]);
    }
}

#[test]
fn long_contexts_with_windows_and_sinks() {
    for (window, elem) in [(1, KvElem::F32), (100, KvElem::Q8_0), (512, KvElem::F16)] {
        let mut c = case(64, 64, 1, 4, elem);
        c.attend.mask = Mask::Causal {
            window: Some(window),
        };
        check_long(&mut c, &[0, 99, 100, 511, 512, 640, 1500]);
        c.attend.sinks = true;
        c.attend.softcap = Some(3.0);
        check_long(&mut c, &[0, 100, 640, 1000]);
    }
}

/// Partials that do not hold a step's chunks change nothing but who computes.
#[test]
fn too_few_partials() {
    let whole = case(64, 64, 1, 4, KvElem::F16);
    let mut none = case(64, 64, 1, 4, KvElem::F16);
    none.attend.split = 0;
    let mut few = case(64, 64, 1, 4, KvElem::F16);
    few.attend.split = 5;
    let row = |c: &Case| {
        let loaded = load_all(|b| {
            c.append.emit(b);
            c.attend.emit(b);
        });
        let world = World::new(c, 400);
        let mut cache = world.cache();
        world.append(&loaded[0], 1, &mut cache, &[(0, 0, 400)]);
        same_bits(&loaded, |lib, threads| {
            world.attend(lib, threads, &mut cache, &[(0, 399, 1)])
        })
    };
    let expected = row(&whole);
    assert_bits(&row(&none), &expected, "without partials");
    assert_bits(&row(&few), &expected, "with too few partials");
}

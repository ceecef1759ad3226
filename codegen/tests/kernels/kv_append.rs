//! What `kv_append` leaves in the pages: the bits of every key and value, and nothing else.

use crate::attend_world::AppendFn;
use crate::buffer::{Buffer, Random, q8_0};
use crate::harness::load_all;
use half::{bf16, f16};
use llmc_codegen::kernels::{KvAppend, KvElem, KvLayout};

const PAGES: usize = 5;
const TABLE: [i32; 6] = [3, 1, -1, 4, 0, -1];

/// The bits of a stored element.
fn stored(v: f32, elem: KvElem) -> Vec<u8> {
    match elem {
        KvElem::F16 => f16::from_f32(v).to_le_bytes().into(),
        KvElem::BF16 => bf16::from_f32(v).to_le_bytes().into(),
        _ => v.to_le_bytes().into(),
    }
}

/// Puts `width` values of a head into its part of a page: element `i` of token `t` is the
/// `at(i, t)`th, of `64 · width`; the scales of q8_0 lie behind its codes alike.
fn put(part: &mut [u8], values: &[f32], elem: KvElem, at: impl Fn(usize, usize) -> usize) {
    let size = elem.row_bytes(32) as usize / 32;
    if elem != KvElem::Q8_0 {
        for (i, v) in values.iter().enumerate() {
            let to = at(i, values.len()) * size;
            part[to..to + size].copy_from_slice(&stored(*v, elem));
        }
        return;
    }
    let blocks = values.len() / 32;
    let scales = 64 * values.len();
    for (block, values) in values.chunks(32).enumerate() {
        let (scale, codes) = q8_0(values);
        for (i, code) in codes.into_iter().enumerate() {
            part[at(block * 32 + i, blocks * 32)] = code as u8;
        }
        let to = scales + at(block, blocks) * 2;
        part[to..to + 2].copy_from_slice(&scale.to_le_bytes());
    }
}

/// Numbers of every size, among them ties, subnormals and what overflows f16.
fn value(random: &mut Random, elem: KvElem) -> f32 {
    let tie = if elem == KvElem::F16 { 0x1000 } else { 0x8000 };
    let exponents = [100, 104, 110, 112, 113, 120, 127, 130, 142, 143, 200];
    // A scale of q8_0 beyond f16 would be infinite.
    let known = exponents.len() - usize::from(elem == KvElem::Q8_0);
    let exponent: u32 = exponents[random.next() as usize % known];
    let bits = random.next() as u32;
    let mantissa = match bits >> 28 & 3 {
        0 => bits & 0x7f_ffff & !(2 * tie - 1) | tie,
        1 => 0x7f_ffff,
        _ => bits & 0x7f_ffff,
    };
    f32::from_bits((bits & 0x4000_0000) << 1 | exponent << 23 | mantissa)
}

fn check(kv: KvLayout) {
    let append = KvAppend {
        kv,
        k_stride: kv.heads * kv.k_width + 16,
        v_stride: kv.heads * kv.v_width + 32,
        by_heads: false,
    };
    let both = [false, true].map(|by_heads| KvAppend { by_heads, ..append });
    let loaded = load_all(|b| {
        for append in &both {
            append.emit(b);
        }
    });
    let (heads, kw, vw) = (kv.heads as usize, kv.k_width as usize, kv.v_width as usize);
    let (ks, vs) = (append.k_stride as usize, append.v_stride as usize);
    // Two sequences: the first goes from one page into the next, over whole and part squares of 16;
    // the second goes on at the position where the first ends, amid a square.
    let pos: Vec<i32> = (41..99).collect();
    let seq: Vec<i32> = pos.iter().map(|p| i32::from(*p >= 88)).collect();
    let n = pos.len();
    let mut random = Random::new(kw as u64);
    let k: Vec<f32> = (0..n * ks).map(|_| value(&mut random, kv.elem)).collect();
    let v: Vec<f32> = (0..n * vs).map(|_| value(&mut random, kv.elem)).collect();

    let page = kv.page_bytes() as usize;
    let mut stale = Buffer::bytes(PAGES * kv.page_bytes() as usize);
    stale.fill_stale(kv.elem, &mut random);
    let mut expected = stale.u8()[..PAGES * page].to_vec();
    let (key, value) = (
        64 * kv.elem.row_bytes(kv.k_width) as usize,
        64 * kv.elem.row_bytes(kv.v_width) as usize,
    );
    for token in 0..n {
        let (index, column) = (pos[token] as usize / 64, pos[token] as usize % 64);
        let start = TABLE[seq[token] as usize * 3 + index] as usize * page;
        for h in 0..heads {
            let part = &mut expected[start + h * key..][..key];
            let values = &k[token * ks + h * kw..][..kw];
            put(part, values, kv.elem, |i, _| i * 64 + column);
            let part = &mut expected[start + heads * key + h * value..][..value];
            let values = &v[token * vs + h * vw..][..vw];
            put(part, values, kv.elem, |i, width| column * width + i);
        }
    }

    let [mut k, mut v] = [k, v].map(|x| Buffer::from_f32(&x));
    let mut table = Buffer::from_i32(&TABLE);
    let [mut pos, mut seq] = [pos, seq].map(|x| Buffer::from_i32(&x));
    for lib in &loaded {
        for (append, threads) in both.into_iter().flat_map(|a| [1, 2, 3, 7].map(|t| (a, t))) {
            let mut cache = stale.clone();
            for t in 0..threads {
                // SAFETY: the documented signature and sizes.
                unsafe {
                    let f: AppendFn = lib.get(&append.symbol());
                    let [k, v, pos, seq] = [&mut k, &mut v, &mut pos, &mut seq].map(|x| x.ptr());
                    let (slot, table) = (cache.ptr(), table.ptr());
                    f(t, threads, n as u64, k, v, pos, seq, slot, table, 3);
                }
            }
            for (i, (found, e)) in cache.u8().iter().zip(&expected).enumerate() {
                assert!(
                    found == e,
                    "{} on {}, {threads} threads: byte {i} is {found:x}, not {e:x}",
                    append.symbol(),
                    lib.level.name
                );
            }
        }
    }
}

#[test]
fn bits_of_pages() {
    for elem in [KvElem::F32, KvElem::F16, KvElem::BF16] {
        for (heads, k_width, v_width) in [(1, 16, 16), (2, 48, 32), (3, 80, 128)] {
            check(KvLayout {
                heads,
                k_width,
                v_width,
                elem,
            });
        }
    }
    for (heads, k_width, v_width) in [(1, 32, 32), (2, 64, 96), (3, 128, 32)] {
        check(KvLayout {
            heads,
            k_width,
            v_width,
            elem: KvElem::Q8_0,
        });
    }
}

//! What `kv_append` leaves in the pages: the bits of every key and value, and nothing else.

use crate::attend_world::AppendFn;
use crate::buffer::{Buffer, Random};
use crate::harness::load_all;
use half::{bf16, f16};
use llmc_codegen::kernel::Elem;
use llmc_codegen::kernels::{KvAppend, KvLayout};

const PAGES: usize = 5;
const TABLE: [i32; 6] = [3, 1, -1, 4, 0, -1];

/// The bits of a stored element.
fn stored(v: f32, elem: Elem) -> u32 {
    match elem {
        Elem::F16 => u32::from(f16::from_f32(v).to_bits()),
        Elem::BF16 => u32::from(bf16::from_f32(v).to_bits()),
        _ => v.to_bits(),
    }
}

/// Element `i` of a cache.
fn element(cache: &Buffer, i: usize, elem: Elem) -> u32 {
    match elem {
        Elem::F32 => cache.f32()[i].to_bits(),
        _ => u32::from(cache.u16()[i]),
    }
}

/// Numbers of every size, among them ties, subnormals and what overflows f16.
fn value(random: &mut Random, elem: Elem) -> f32 {
    let tie = if elem == Elem::F16 { 0x1000 } else { 0x8000 };
    let exponents = [100, 104, 110, 112, 113, 120, 127, 130, 142, 143, 200];
    let exponent: u32 = exponents[random.next() as usize % exponents.len()];
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
    };
    let loaded = load_all(|b| {
        append.emit(b);
    });
    let (heads, kw, vw) = (kv.heads as usize, kv.k_width as usize, kv.v_width as usize);
    let (ks, vs) = (append.k_stride as usize, append.v_stride as usize);
    // Two sequences: the second starts a page, the first goes from one page into the next.
    let pos: Vec<i32> = (60..70).chain(64..67).collect();
    let seq: Vec<i32> = [[0; 10].as_slice(), &[1; 3]].concat();
    let n = pos.len();
    let mut random = Random::new(kw as u64);
    let k: Vec<f32> = (0..n * ks).map(|_| value(&mut random, kv.elem)).collect();
    let v: Vec<f32> = (0..n * vs).map(|_| value(&mut random, kv.elem)).collect();

    let page = heads * 64 * (kw + vw);
    let mut stale = Buffer::bytes(PAGES * kv.page_bytes() as usize);
    stale.fill_stale(kv.elem, &mut random);
    let mut expected: Vec<u32> = (0..PAGES * page)
        .map(|i| element(&stale, i, kv.elem))
        .collect();
    for token in 0..n {
        let (index, column) = (pos[token] as usize / 64, pos[token] as usize % 64);
        let start = TABLE[seq[token] as usize * 3 + index] as usize * page;
        for h in 0..heads {
            for i in 0..kw {
                let at = start + (h * kw + i) * 64 + column;
                expected[at] = stored(k[token * ks + h * kw + i], kv.elem);
            }
            for i in 0..vw {
                let at = start + heads * kw * 64 + (h * 64 + column) * vw + i;
                expected[at] = stored(v[token * vs + h * vw + i], kv.elem);
            }
        }
    }

    let [mut k, mut v] = [k, v].map(|x| Buffer::from_f32(&x));
    let mut table = Buffer::from_i32(&TABLE);
    let [mut pos, mut seq] = [pos, seq].map(|x| Buffer::from_i32(&x));
    for lib in &loaded {
        for threads in [1, 2, 3] {
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
            for (i, e) in expected.iter().enumerate() {
                let found = element(&cache, i, kv.elem);
                assert!(
                    found == *e,
                    "{} on {}: element {i} is {found:x}, not {e:x}",
                    append.symbol(),
                    lib.level.name
                );
            }
        }
    }
}

#[test]
fn bits_of_pages() {
    for elem in [Elem::F32, Elem::F16, Elem::BF16] {
        for (heads, k_width, v_width) in [(1, 16, 16), (2, 48, 32), (3, 80, 128)] {
            check(KvLayout {
                heads,
                k_width,
                v_width,
                elem,
            });
        }
    }
}

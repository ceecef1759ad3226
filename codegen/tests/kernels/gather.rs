use crate::buffer::{Buffer, Random, pad, rounded};
use crate::harness::{load_all, same_bits};
use llmc_codegen::kernel::Elem;
use llmc_codegen::kernels::{Gather, TableLayout};

type GatherFn = unsafe extern "C" fn(u64, u64, u64, *const u8, *const u8, *mut u8);

fn check(gather: &Gather, width: usize) {
    let loaded = load_all(|b| {
        gather.emit(b);
    });
    let (physical, ys) = (gather.width as usize, gather.y_stride as usize);
    let vocab = 150;
    let mut random = Random::new(width as u64);
    let table = random.rows(vocab, width, physical);
    let stored = match gather.layout {
        TableLayout::Rows { stride } => {
            let stride = stride as usize;
            let mut v = vec![0.0; vocab * stride];
            for row in 0..vocab {
                v[row * stride..][..physical].copy_from_slice(&table[row * physical..][..physical]);
            }
            v
        }
        TableLayout::Panels => {
            let mut v = vec![0.0; pad(vocab, 64) * physical];
            for row in 0..vocab {
                for i in 0..physical {
                    v[(row / 64 * physical + i) * 64 + row % 64] = table[row * physical + i];
                }
            }
            v
        }
    };
    let mut stored = Buffer::from_elems(&stored, gather.elem);
    for n in [1usize, 2, 5, 50] {
        let ids: Vec<i32> = (0..n)
            .map(|_| (random.next() % vocab as u64) as i32)
            .collect();
        let mut ids_buffer = Buffer::from_i32(&ids);
        let old = random.rows(n, width, ys);
        let y = same_bits(&loaded, |lib, threads| {
            // SAFETY: the documented signature and sizes.
            unsafe {
                let f: GatherFn = lib.get(&gather.symbol());
                let mut y = Buffer::from_f32(&old);
                for t in 0..threads {
                    f(
                        t,
                        threads,
                        n as u64,
                        ids_buffer.ptr(),
                        stored.ptr(),
                        y.ptr(),
                    );
                }
                y.f32()[..n * ys].to_vec()
            }
        });
        for (row, id) in ids.iter().enumerate() {
            for lane in 0..physical {
                let mut v = rounded(table[*id as usize * physical + lane], gather.elem);
                v *= gather.scale.unwrap_or(1.0);
                if gather.accumulate {
                    v += old[row * ys + lane];
                }
                assert_eq!(y[row * ys + lane], v, "{}", gather.symbol());
            }
            for lane in physical..ys {
                assert_eq!(y[row * ys + lane], old[row * ys + lane], "behind a row");
            }
        }
    }
}

#[test]
fn rows_and_panels() {
    for elem in [Elem::F32, Elem::F16, Elem::BF16] {
        for layout in [TableLayout::Rows { stride: 64 }, TableLayout::Panels] {
            for (scale, accumulate) in [(None, false), (Some(11.3), true)] {
                let gather = Gather {
                    elem,
                    layout,
                    width: 48,
                    y_stride: if accumulate { 80 } else { 48 },
                    scale,
                    accumulate,
                };
                check(&gather, 40);
            }
        }
    }
}

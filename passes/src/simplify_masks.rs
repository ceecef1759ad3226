//! `simplify-masks`: every mask in canonical form, which is one range of keys around the query.
//!
//! ```text
//! mask = causal & (window(4096) & bidirectional)   →   mask = causal & window(4096)
//! mask = causal & window(8192), T ≤ 4096           →   mask = causal
//! mask = causal | (causal & window(4))             →   mask = causal
//! ```
//!
//! Attention visits exactly the keys of the range, so a block outside of it costs nothing. A mask that
//! is not one range stays, with a remark; one that shows no key at all is refused: the model's
//! configuration cannot mean it.

use llmc_ir::{Mask, Module, Op, mask::KeyRange};

use crate::{Pass, PassError, Remarks, Stats, edit};

/// Brings masks into canonical form.
pub struct SimplifyMasks;

impl Pass for SimplifyMasks {
    fn name(&self) -> &'static str {
        "simplify-masks"
    }

    fn run(&self, module: &mut Module, remarks: &mut Remarks) -> Result<Stats, PassError> {
        let mut rewrites = 0;
        let keys = module.dims.t;
        for func in &mut module.funcs {
            for i in 0..func.body.len() {
                let inst = &mut func.body[i];
                let mask = match &mut inst.op {
                    Op::Attention(a) => &mut a.mask,
                    Op::MaskScores(m) => &mut m.mask,
                    _ => continue,
                };
                if bounds(mask).is_some_and(Bounds::is_empty) {
                    return Err(PassError::refused(
                        &func.name,
                        format!("the mask `{mask}` shows no key to any query"),
                    ));
                }
                match canonical(mask, keys) {
                    Some(simple) if simple != *mask => {
                        *mask = simple;
                        rewrites += 1;
                    }
                    Some(_) => {}
                    None => {
                        let why = format!("the mask `{mask}` is not one range of keys");
                        let at = inst.results.first().copied();
                        let at = at.map_or(String::new(), |v| edit::name(func, v).to_string());
                        remarks.missed(&func.name, &at, why);
                    }
                }
            }
        }
        Ok(Stats::of(rewrites))
    }
}

/// The canonical form for sequences of at most `keys`; None where the mask is not one range.
fn canonical(mask: &Mask, keys: u32) -> Option<Mask> {
    let range = match mask.range() {
        Some(range) => range,
        None => bounds(mask)?.range()?,
    };
    let behind = range.behind.filter(|&b| b < keys.saturating_sub(1));
    let range = KeyRange { behind, ..range };
    range.to_mask()
}

/// The keys that a mask shows, as bounds of key − query; None: no bound.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Bounds {
    low: Option<i64>,
    high: Option<i64>,
}

impl Bounds {
    const ALL: Bounds = Bounds {
        low: None,
        high: None,
    };
    const NONE: Bounds = Bounds {
        low: Some(1),
        high: Some(0),
    };

    fn is_empty(self) -> bool {
        matches!((self.low, self.high), (Some(l), Some(h)) if l > h)
    }

    /// The keys of both, where there is no gap between them.
    fn union(self, other: Bounds) -> Option<Bounds> {
        let gap = |a: Bounds, b: Bounds| matches!((a.high, b.low), (Some(h), Some(l)) if h + 1 < l);
        let low = self.low.zip(other.low).map(|(a, b)| a.min(b));
        let high = self.high.zip(other.high).map(|(a, b)| a.max(b));
        (!gap(self, other) && !gap(other, self)).then_some(Bounds { low, high })
    }

    fn range(self) -> Option<KeyRange> {
        let u32_of = |x: Option<i64>| x.map(u32::try_from).transpose().ok();
        Some(KeyRange {
            behind: u32_of(self.low.map(|l| -l))?,
            ahead: u32_of(self.high)?,
        })
    }
}

/// The bounds of a mask; a union has them where there is no gap between its masks.
fn bounds(mask: &Mask) -> Option<Bounds> {
    match mask {
        Mask::Bidirectional => Some(Bounds::ALL),
        Mask::Causal => Some(Bounds {
            low: None,
            high: Some(0),
        }),
        Mask::Window(w) => Some(Bounds {
            low: Some(1 - i64::from(*w)),
            high: None,
        }),
        Mask::And(masks) => masks.iter().try_fold(Bounds::ALL, |a, m| {
            let b = bounds(m)?;
            Some(Bounds {
                low: a.low.max(b.low),
                high: match (a.high, b.high) {
                    (Some(x), Some(y)) => Some(x.min(y)),
                    (x, y) => x.or(y),
                },
            })
        }),
        Mask::Or(masks) => {
            let all = masks.iter().map(bounds).collect::<Option<Vec<_>>>()?;
            let shown: Vec<Bounds> = all.into_iter().filter(|b| !b.is_empty()).collect();
            let (first, others) = match shown.split_first() {
                Some(split) => split,
                None => return Some(Bounds::NONE),
            };
            others.iter().try_fold(*first, |a, b| a.union(*b))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(mask: Mask, keys: u32, expected: Option<&str>) {
        let found = canonical(&mask, keys).map(|m| m.to_string());
        assert_eq!(found.as_deref(), expected, "{mask}");
        let Some(simple) = canonical(&mask, keys) else {
            return;
        };
        let keys = i64::from(keys.min(40));
        for (i, j) in (0..keys).flat_map(|i| (0..keys).map(move |j| (i, j))) {
            assert_eq!(
                mask.visible(i, j),
                simple.visible(i, j),
                "{mask} at {i}, {j}"
            );
        }
    }

    #[test]
    fn finds_the_canonical_form() {
        use Mask::*;
        check(Causal, 64, Some("causal"));
        check(And(vec![]), 64, Some("bidirectional"));
        check(And(vec![Window(4), Bidirectional]), 64, Some("window(4)"));
        let nested = And(vec![Window(9), And(vec![Causal, Window(4)])]);
        check(nested, 64, Some("causal & window(4)"));
        check(
            Or(vec![Causal, And(vec![Causal, Window(4)])]),
            64,
            Some("causal"),
        );
        check(Or(vec![Causal, Window(4)]), 64, Some("bidirectional"));
        check(
            Or(vec![Mask::causal(Some(4)), Window(2)]),
            64,
            Some("window(4)"),
        );
        check(
            Or(vec![And(vec![Causal, Window(0)]), Causal]),
            64,
            Some("causal"),
        );
        check(Window(0), 64, None);
    }

    #[test]
    fn drops_windows_that_hide_nothing() {
        check(Mask::causal(Some(40)), 40, Some("causal"));
        check(Mask::causal(Some(39)), 40, Some("causal & window(39)"));
        check(Mask::Window(99), 40, Some("bidirectional"));
    }

    #[test]
    fn knows_masks_that_show_nothing() {
        let empty = |m: Mask| bounds(&m).is_some_and(Bounds::is_empty);
        assert!(empty(Mask::causal(Some(0))));
        assert!(empty(Mask::Or(vec![])));
        assert!(!empty(Mask::Window(0)));
        assert!(!empty(Mask::causal(Some(1))));
    }
}

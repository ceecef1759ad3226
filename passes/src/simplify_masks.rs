//! `simplify-masks`: every mask in canonical form: one range of keys around the query where it is
//! that, else as few ranges and patterns as there are.
//!
//! ```text
//! mask = causal & (window(4096) & bidirectional)   →   mask = causal & window(4096)
//! mask = causal & window(8192), T ≤ 4096           →   mask = causal
//! mask = causal | (causal & window(4))             →   mask = causal
//! mask = causal & (band(9) | band(5) | stride(4))  →   mask = causal & (band(9) | stride(4))
//! ```
//!
//! Attention visits exactly the blocks of keys that hold a visible one: those of the range, and of
//! patterns those that the mask shows to one of the queries taken together. So what the mask hides
//! costs nothing. A mask that shows no key at all is refused: the model's configuration cannot mean
//! it.

use llmc_ir::{Mask, Module, Op, mask::KeyRange};

use crate::{Pass, PassError, Remarks, Stats};

/// Brings masks into canonical form.
pub struct SimplifyMasks;

impl Pass for SimplifyMasks {
    fn name(&self) -> &'static str {
        "simplify-masks"
    }

    fn run(&self, module: &mut Module, _: &mut Remarks) -> Result<Stats, PassError> {
        let mut rewrites = 0;
        let keys: Vec<u32> = module.funcs.iter().map(|f| module.dims_of(f).t).collect();
        for (func, keys) in module.funcs.iter_mut().zip(keys) {
            for i in 0..func.body.len() {
                let inst = &mut func.body[i];
                let mask = match &mut inst.op {
                    Op::Attention(a) => &mut a.mask,
                    Op::MaskScores(m) => &mut m.mask,
                    _ => continue,
                };
                if shows_nothing(mask) {
                    return Err(PassError::refused(
                        &func.name,
                        format!("the mask `{mask}` shows no key to any query"),
                    ));
                }
                let simple = canonical(mask, keys);
                if simple != *mask {
                    *mask = simple;
                    rewrites += 1;
                }
            }
        }
        Ok(Stats::of(rewrites))
    }
}

/// Whether no query sees a key.
fn shows_nothing(mask: &Mask) -> bool {
    match mask {
        Mask::And(masks) if masks.iter().any(shows_nothing) => true,
        Mask::Or(masks) => masks.iter().all(shows_nothing),
        Mask::And(masks) => {
            let ranges: Vec<Mask> = masks
                .iter()
                .filter(|m| bounds(m).is_some())
                .cloned()
                .collect();
            bounds(&Mask::And(ranges)).is_some_and(Bounds::is_empty)
        }
        _ => bounds(mask).is_some_and(Bounds::is_empty),
    }
}

/// The canonical form for sequences of at most `keys`.
fn canonical(mask: &Mask, keys: u32) -> Mask {
    if let Some(range) = one_range(mask, keys) {
        return range;
    }
    let (masks, all) = match mask {
        Mask::And(masks) => (masks, true),
        Mask::Or(masks) => (masks, false),
        Mask::Stride { every: 1, .. } => return Mask::Bidirectional,
        Mask::Fixed { span, last } if *span >= keys || last == span => return Mask::Bidirectional,
        _ => return mask.clone(),
    };
    let join = |masks| match all {
        true => Mask::And(masks),
        false => Mask::Or(masks),
    };
    let mut parts: Vec<Mask> = Vec::new();
    for part in masks.iter().filter(|m| all || !shows_nothing(m)) {
        let inner = match (canonical(part, keys), all) {
            (Mask::And(inner), true) | (Mask::Or(inner), false) => inner,
            (other, _) => vec![other],
        };
        for part in inner {
            // What one range can be with another one, it is.
            let joined = parts
                .iter()
                .position(|p| one_range(&join(vec![p.clone(), part.clone()]), keys).is_some());
            match joined {
                Some(at) => {
                    let both = join(vec![parts[at].clone(), part]);
                    parts[at] = one_range(&both, keys).unwrap_or(both);
                }
                None if !parts.contains(&part) => parts.push(part),
                None => {}
            }
        }
    }
    match (all, parts.iter().position(|p| *p == Mask::Bidirectional)) {
        (true, Some(at)) if parts.len() > 1 => {
            parts.remove(at);
        }
        (false, Some(_)) => return Mask::Bidirectional,
        _ => {}
    }
    if parts.len() == 1 {
        return parts.remove(0);
    }
    let flat = parts.into_iter().flat_map(|part| match (part, all) {
        (Mask::And(inner), true) | (Mask::Or(inner), false) => inner,
        (other, _) => vec![other],
    });
    join(flat.collect())
}

/// The mask as one range, in canonical form.
fn one_range(mask: &Mask, keys: u32) -> Option<Mask> {
    let range = match mask.range() {
        Some(range) => range,
        None => bounds(mask)?.range()?,
    };
    let reaches = |reach: &u32| *reach < keys.saturating_sub(1);
    let behind = range.behind.filter(reaches);
    let ahead = range.ahead.filter(|&a| a == 0 || reaches(&a));
    let range = KeyRange { behind, ahead };
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
        Mask::Band(w) => Some(Bounds {
            low: Some(1 - i64::from(*w)),
            high: Some(i64::from(*w) - 1),
        }),
        Mask::Stride { .. } | Mask::Fixed { .. } => None,
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

    fn check(mask: Mask, keys: u32, expected: &str) {
        let simple = canonical(&mask, keys);
        assert_eq!(simple.to_string(), expected, "{mask}");
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
        check(Causal, 64, "causal");
        check(And(vec![]), 64, "bidirectional");
        check(And(vec![Window(4), Bidirectional]), 64, "window(4)");
        let nested = And(vec![Window(9), And(vec![Causal, Window(4)])]);
        check(nested, 64, "causal & window(4)");
        check(Or(vec![Causal, And(vec![Causal, Window(4)])]), 64, "causal");
        check(Or(vec![Causal, Window(4)]), 64, "bidirectional");
        check(Or(vec![Mask::causal(Some(4)), Window(2)]), 64, "window(4)");
        check(Or(vec![And(vec![Causal, Window(0)]), Causal]), 64, "causal");
        check(Window(0), 64, "window(0)");
    }

    #[test]
    fn drops_windows_that_hide_nothing() {
        check(Mask::causal(Some(40)), 40, "causal");
        check(Mask::causal(Some(39)), 40, "causal & window(39)");
        check(Mask::Window(99), 40, "bidirectional");
    }

    #[test]
    fn keeps_what_patterns_there_are() {
        use Mask::*;
        let stride = || Stride { every: 4, block: 1 };
        let fixed = || Fixed { span: 8, last: 2 };
        let causal = |m| And(vec![Causal, m]);
        check(causal(stride()), 40, "causal & stride(4)");
        check(
            causal(Or(vec![
                Band(9),
                And(vec![Band(5), Bidirectional]),
                stride(),
            ])),
            40,
            "causal & (band(9) | stride(4))",
        );
        check(
            And(vec![Window(12), And(vec![fixed(), Causal]), fixed()]),
            40,
            "causal & window(12) & fixed(8, 2)",
        );
        check(causal(Or(vec![stride(), Bidirectional])), 40, "causal");
        check(causal(Fixed { span: 64, last: 1 }), 40, "causal");
        check(causal(Stride { every: 1, block: 3 }), 40, "causal");
        check(
            Or(vec![And(vec![Causal, Window(0)]), stride()]),
            40,
            "stride(4)",
        );
        check(Band(50), 40, "bidirectional");
        check(And(vec![Causal, Band(7)]), 40, "causal & window(7)");
    }

    #[test]
    fn knows_masks_that_show_nothing() {
        let empty = |m: Mask| shows_nothing(&m);
        assert!(empty(Mask::causal(Some(0))));
        assert!(empty(Mask::Or(vec![])));
        assert!(!empty(Mask::Window(0)));
        assert!(!empty(Mask::causal(Some(1))));
        let stride = Mask::Stride { every: 4, block: 1 };
        assert!(empty(Mask::And(vec![
            stride.clone(),
            Mask::causal(Some(0))
        ])));
        assert!(!empty(Mask::Or(vec![stride, Mask::causal(Some(0))])));
    }
}

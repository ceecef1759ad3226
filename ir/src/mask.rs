//! Mask algebra: which keys a query sees.
//!
//! A mask is a predicate over the query's and the key's position within their sequence. Masks
//! combine with `&` and `|`. Keys of other sequences and keys not yet written are never visible,
//! whatever the mask.
//!
//! Sparse patterns (Child et al., *Generating Long Sequences with Sparse Transformers*,
//! arXiv:1904.10509) are unions of the terms: its strided attention is
//! `causal & (band(l) | stride(l))`, its fixed attention `causal & fixed(l, c)`.

use std::{fmt, ops::Range};

/// A mask expression.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Mask {
    /// Every key.
    Bidirectional,
    /// Keys up to the query's own position.
    Causal,
    /// Keys fewer than `w` positions behind the query: i − j < w.
    Window(u32),
    /// Keys fewer than `w` positions away, on either side: |i − j| < w.
    Band(u32),
    /// Keys of every `every`th block of `block` positions, counted from the query's own, on either
    /// side: (i / block − j / block) mod every = 0. Both are at least 1.
    Stride { every: u32, block: u32 },
    /// Keys of the query's own span of `span` positions, and the last `last` of every span:
    /// i / span = j / span, or j mod span ≥ span − last. 0 < last ≤ span.
    Fixed { span: u32, last: u32 },
    /// Keys that all of the masks show.
    And(Vec<Mask>),
    /// Keys that one of the masks shows.
    Or(Vec<Mask>),
}

/// Keys `query − behind ..= query + ahead`; None: no bound on that side.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct KeyRange {
    pub behind: Option<u32>,
    pub ahead: Option<u32>,
}

impl Mask {
    /// `causal & window(w)` where there is a window.
    pub fn causal(window: Option<u32>) -> Mask {
        match window {
            None => Mask::Causal,
            Some(w) => Mask::And(vec![Mask::Causal, Mask::Window(w)]),
        }
    }

    /// Whether the key at position `j` is visible to the query at position `i`.
    pub fn visible(&self, i: i64, j: i64) -> bool {
        match self {
            Mask::Bidirectional => true,
            Mask::Causal => j <= i,
            Mask::Window(w) => i - j < i64::from(*w),
            Mask::Band(w) => (i - j).abs() < i64::from(*w),
            Mask::Stride { every, block } => {
                let block = i64::from(*block).max(1);
                let blocks = i.div_euclid(block) - j.div_euclid(block);
                blocks.rem_euclid(i64::from(*every).max(1)) == 0
            }
            Mask::Fixed { span, last } => {
                let span = i64::from(*span).max(1);
                let summary = j.rem_euclid(span) >= span - i64::from(*last);
                i.div_euclid(span) == j.div_euclid(span) || summary
            }
            Mask::And(m) => m.iter().all(|m| m.visible(i, j)),
            Mask::Or(m) => m.iter().any(|m| m.visible(i, j)),
        }
    }

    /// Whether a query of `queries` sees a key of `keys`.
    pub fn any_visible(&self, queries: Range<u32>, keys: Range<u32>) -> bool {
        let sees = |i: u32| {
            keys.clone()
                .any(|j| self.visible(i64::from(i), i64::from(j)))
        };
        queries.into_iter().any(sees)
    }

    /// How many of the blocks of `block` keys among the first `keys` hold a key that a query of
    /// `queries` sees: what a kernel that takes these queries together has to read.
    pub fn visible_blocks(&self, queries: Range<u32>, keys: u32, block: u32) -> u32 {
        let block = block.max(1);
        let first = (0..keys).step_by(block as usize);
        let seen = first
            .filter(|&k| self.any_visible(queries.clone(), k..k.saturating_add(block).min(keys)));
        seen.count() as u32
    }

    /// What is wrong with the numbers of a term.
    pub fn check(&self) -> Result<(), String> {
        match self {
            Mask::Stride { every: 0, .. } | Mask::Stride { block: 0, .. } => Err(format!(
                "{self}: a stride is of at least 1 block of at least 1 position"
            )),
            Mask::Fixed { span, last } if *last == 0 || last > span => {
                Err(format!("{self}: the last 1 to {span} positions of a span"))
            }
            Mask::And(masks) | Mask::Or(masks) => masks.iter().try_for_each(Mask::check),
            Mask::Bidirectional
            | Mask::Causal
            | Mask::Window(_)
            | Mask::Band(_)
            | Mask::Stride { .. }
            | Mask::Fixed { .. } => Ok(()),
        }
    }

    /// A range of keys around the query that holds all that the mask shows.
    pub fn hull(&self) -> KeyRange {
        match self {
            Mask::Bidirectional | Mask::Stride { .. } | Mask::Fixed { .. } => KeyRange::default(),
            Mask::Causal | Mask::Window(_) | Mask::Band(_) => {
                // A window of nothing has no range.
                self.range().unwrap_or(KeyRange {
                    behind: Some(0),
                    ahead: Some(0),
                })
            }
            Mask::And(masks) => masks
                .iter()
                .fold(KeyRange::default(), |a, m| a.both(m.hull())),
            Mask::Or(masks) => {
                let mut hulls = masks.iter().map(Mask::hull);
                let first = hulls.next().unwrap_or_default();
                hulls.fold(first, |a, b| KeyRange {
                    behind: a.behind.zip(b.behind).map(|(a, b)| a.max(b)),
                    ahead: a.ahead.zip(b.ahead).map(|(a, b)| a.max(b)),
                })
            }
        }
    }

    /// The mask as one range of keys around the query; None where it is not one.
    pub fn range(&self) -> Option<KeyRange> {
        match self {
            Mask::Bidirectional => Some(KeyRange::default()),
            Mask::Causal => Some(KeyRange {
                behind: None,
                ahead: Some(0),
            }),
            Mask::Window(w) => Some(KeyRange {
                behind: Some(w.checked_sub(1)?),
                ahead: None,
            }),
            Mask::Band(w) => {
                let reach = w.checked_sub(1)?;
                Some(KeyRange {
                    behind: Some(reach),
                    ahead: Some(reach),
                })
            }
            Mask::And(masks) => masks
                .iter()
                .try_fold(KeyRange::default(), |a, m| Some(a.both(m.range()?))),
            Mask::Stride { .. } | Mask::Fixed { .. } | Mask::Or(_) => None,
        }
    }
}

impl KeyRange {
    /// The keys of both.
    fn both(self, other: KeyRange) -> KeyRange {
        let tighter = |x: Option<u32>, y: Option<u32>| match (x, y) {
            (Some(x), Some(y)) => Some(x.min(y)),
            (x, y) => x.or(y),
        };
        KeyRange {
            behind: tighter(self.behind, other.behind),
            ahead: tighter(self.ahead, other.ahead),
        }
    }

    /// The range as a mask in canonical form.
    pub fn to_mask(self) -> Option<Mask> {
        match (self.behind, self.ahead) {
            (None, None) => Some(Mask::Bidirectional),
            (None, Some(0)) => Some(Mask::Causal),
            (Some(b), None) => Some(Mask::Window(b.checked_add(1)?)),
            (Some(b), Some(0)) => Some(Mask::causal(Some(b.checked_add(1)?))),
            (Some(b), Some(a)) if a == b => Some(Mask::Band(b.checked_add(1)?)),
            (_, Some(_)) => None,
        }
    }
}

impl fmt::Display for Mask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |f: &mut fmt::Formatter<'_>, masks: &[Mask], sep: &str| {
            for (i, m) in masks.iter().enumerate() {
                if i > 0 {
                    f.write_str(sep)?;
                }
                match m {
                    Mask::And(_) | Mask::Or(_) => write!(f, "({m})")?,
                    _ => write!(f, "{m}")?,
                }
            }
            Ok(())
        };
        match self {
            Mask::Bidirectional => f.write_str("bidirectional"),
            Mask::Causal => f.write_str("causal"),
            Mask::Window(w) => write!(f, "window({w})"),
            Mask::Band(w) => write!(f, "band({w})"),
            Mask::Stride { every, block: 1 } => write!(f, "stride({every})"),
            Mask::Stride { every, block } => write!(f, "stride({every}, {block})"),
            Mask::Fixed { span, last } => write!(f, "fixed({span}, {last})"),
            Mask::And(m) => list(f, m, " & "),
            Mask::Or(m) => list(f, m, " | "),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The keys that each of eight queries sees, a row each.
    fn picture(mask: &Mask) -> String {
        let row = |i| (0..8).map(move |j| if mask.visible(i, j) { 'x' } else { '.' });
        let rows = (0..8).map(|i| row(i).collect::<String>());
        rows.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn terms_show_what_they_say() {
        let check = |mask: Mask, expected: &str| assert_eq!(picture(&mask), expected, "{mask}");
        check(
            Mask::Band(2),
            "xx...... xxx..... .xxx.... ..xxx... ...xxx.. ....xxx. .....xxx ......xx",
        );
        check(
            Mask::Stride { every: 3, block: 1 },
            "x..x..x. .x..x..x ..x..x.. x..x..x. .x..x..x ..x..x.. x..x..x. .x..x..x",
        );
        check(
            Mask::And(vec![Mask::Causal, Mask::Stride { every: 2, block: 2 }]),
            "x....... xx...... ..x..... ..xx.... xx..x... xx..xx.. ..xx..x. ..xx..xx",
        );
        check(
            Mask::And(vec![Mask::Causal, Mask::Fixed { span: 4, last: 1 }]),
            "x....... xx...... xxx..... xxxx.... ...xx... ...xxx.. ...xxxx. ...xxxxx",
        );
    }

    #[test]
    fn hulls_hold_what_is_visible() {
        let masks = [
            Mask::Band(3),
            Mask::Or(vec![Mask::causal(Some(2)), Mask::Band(1)]),
            Mask::And(vec![Mask::Causal, Mask::Stride { every: 2, block: 1 }]),
            Mask::And(vec![Mask::Window(3), Mask::Fixed { span: 4, last: 1 }]),
        ];
        for mask in &masks {
            let hull = mask.hull();
            for (i, j) in (0..8i64).flat_map(|i| (0..8).map(move |j| (i, j))) {
                let inside = hull.behind.is_none_or(|b| i - j <= i64::from(b))
                    && hull.ahead.is_none_or(|a| j - i <= i64::from(a));
                assert!(inside || !mask.visible(i, j), "{mask} at {i}, {j}");
            }
        }
        assert_eq!(
            masks[2].hull(),
            KeyRange {
                behind: None,
                ahead: Some(0)
            }
        );
    }

    #[test]
    fn counts_blocks() {
        let causal = |m| Mask::And(vec![Mask::Causal, m]);
        assert_eq!(Mask::Causal.visible_blocks(130..131, 131, 64), 3);
        assert_eq!(
            causal(Mask::Window(64)).visible_blocks(191..192, 192, 64),
            1
        );
        assert_eq!(
            causal(Mask::Stride {
                every: 4,
                block: 64
            })
            .visible_blocks(600..601, 601, 64),
            3
        );
        assert_eq!(
            causal(Mask::Fixed { span: 256, last: 8 }).visible_blocks(600..601, 601, 64),
            4
        );
    }
}

//! Mask algebra: which keys a query sees.
//!
//! A mask is a predicate over the query's and the key's position within their sequence. Masks
//! combine with `&` and `|`. Keys of other sequences and keys not yet written are never visible,
//! whatever the mask.

use std::fmt;

/// A mask expression.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Mask {
    /// Every key.
    Bidirectional,
    /// Keys up to the query's own position.
    Causal,
    /// Keys fewer than `w` positions behind the query: i − j < w.
    Window(u32),
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
            Mask::Window(w) => i - j < *w as i64,
            Mask::And(m) => m.iter().all(|m| m.visible(i, j)),
            Mask::Or(m) => m.iter().any(|m| m.visible(i, j)),
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
            Mask::And(masks) => masks.iter().try_fold(KeyRange::default(), |a, m| {
                let b = m.range()?;
                let tighter = |x: Option<u32>, y: Option<u32>| match (x, y) {
                    (Some(x), Some(y)) => Some(x.min(y)),
                    (x, y) => x.or(y),
                };
                Some(KeyRange {
                    behind: tighter(a.behind, b.behind),
                    ahead: tighter(a.ahead, b.ahead),
                })
            }),
            Mask::Or(_) => None,
        }
    }
}

impl KeyRange {
    /// The range as a mask in canonical form.
    pub fn to_mask(self) -> Option<Mask> {
        match (self.behind, self.ahead) {
            (None, None) => Some(Mask::Bidirectional),
            (None, Some(0)) => Some(Mask::Causal),
            (Some(b), None) => Some(Mask::Window(b.checked_add(1)?)),
            (Some(b), Some(0)) => Some(Mask::causal(Some(b.checked_add(1)?))),
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
            Mask::And(m) => list(f, m, " & "),
            Mask::Or(m) => list(f, m, " | "),
        }
    }
}

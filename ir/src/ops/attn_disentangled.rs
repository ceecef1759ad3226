//! `attn_disentangled %s, %q, %k, [@pos_key,] [@pos_query,] %step {scale, …}`: adds DeBERTa's
//! position terms to scores. `[N, H, T], [N, H, D], [B, T, H, D], [2·span, H·D] twice → [N, H, T]`.
//!
//! With r = bucket(i − j): s\[i, h, j\] += scale · (q\[i, h\] · pos_key\[r, h\] + k\[j, h\] · pos_query\[r, h\]),
//! each term where its table is. He et al., *DeBERTa* (arXiv:2006.03654); buckets as in HF's
//! `make_log_bucket_position`.

use crate::{
    DType, OpDef, OperandType, Type,
    attr::{AttrReader, Attrs},
    eval::{Args, EvalError, Frame, Step, Tensor, Val, dot},
    op::Operands,
};

/// Which terms there are, and how distances become rows of the tables.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Disentangled {
    /// Content to position: queries with a table of keys.
    pub c2p: bool,
    /// Position to content: keys with a table of queries.
    pub p2c: bool,
    /// Half the rows of a table: distance 0 is row `span`.
    pub span: u32,
    /// Distances of span / 2 and more are bucketed by their logarithm, so that this one less 1 comes
    /// to the edge; None: every distance has a row of its own. What is beyond the table takes its last row.
    pub max_distance: Option<u32>,
}

impl Disentangled {
    /// The row for `distance` = query position − key position.
    pub fn row(&self, distance: i64) -> u32 {
        let bucket = match self.max_distance {
            Some(max) => log_bucket(distance, self.span, max),
            None => distance,
        };
        let span = i64::from(self.span);
        bucket.saturating_add(span).clamp(0, 2 * span - 1) as u32
    }

    /// The rows of each table that there is, and its operands' names.
    fn tables(&self) -> impl Iterator<Item = &'static str> {
        let all = [(self.c2p, "pos_key"), (self.p2c, "pos_query")];
        all.into_iter().filter(|(there, _)| *there).map(|(_, name)| name)
    }

    /// Reads the tables of heads `[heads, dim]` from the operands' types.
    pub(super) fn infer(&self, o: &mut Operands, heads: u32, dim: u32) -> Result<(), String> {
        let columns = heads.checked_mul(dim).ok_or("heads overflow")?;
        self.tables().try_for_each(|name| o.weight(name, &[2 * self.span, columns]).map(|_| ()))
    }

    /// Reads the tables, of keys and of queries.
    pub(super) fn read(&self, args: &mut Args) -> Result<Tables, String> {
        let mut table = |there: bool| there.then(|| args.weight()).transpose();
        Ok([table(self.c2p)?, table(self.p2c)?])
    }

    pub(super) fn attrs(&self) -> Attrs {
        let attrs = Attrs::new().flag("c2p", self.c2p).flag("p2c", self.p2c);
        let attrs = attrs.int("span", self.span);
        match self.max_distance {
            Some(max) => attrs.int("max_distance", max),
            None => attrs,
        }
    }

    pub(super) fn from_attrs(attrs: &mut AttrReader) -> Result<Self, String> {
        let d = Disentangled {
            c2p: attrs.flag("c2p")?,
            p2c: attrs.flag("p2c")?,
            span: attrs.u32("span")?,
            max_distance: attrs.opt_u32("max_distance")?,
        };
        if !d.c2p && !d.p2c {
            return Err("neither c2p nor p2c: no term is disentangled".into());
        }
        if d.span == 0 || d.span > Self::MAX_SPAN {
            return Err(format!("span {}, expected 1 to {}", d.span, Self::MAX_SPAN));
        }
        match d.max_distance {
            Some(max) if !d.buckets_to(max) => Err(format!(
                "buckets of {} up to a distance of {max}, expected at least 2, and more than half as far",
                d.span
            )),
            _ => Ok(d),
        }
    }

    /// The greatest span.
    pub const MAX_SPAN: u32 = 1 << 16;

    /// Whether the logarithmic buckets are defined for this greatest distance.
    pub fn buckets_to(&self, max_distance: u32) -> bool {
        self.span >= 2 && max_distance > self.span / 2 + 1 && max_distance <= 1 << 24
    }
}

/// The table of keys, and that of queries.
pub(super) type Tables = [Option<std::sync::Arc<Tensor>>; 2];

/// Distances up to half of `buckets` as they are, further ones by their logarithm.
fn log_bucket(distance: i64, buckets: u32, max_distance: u32) -> i64 {
    let mid = i64::from(buckets / 2);
    let far = distance.abs();
    if far <= mid {
        return distance;
    }
    // In f32, as HF computes it: the boundaries of the buckets depend on it.
    let full = ((f64::from(max_distance) - 1.0) / mid as f64) as f32;
    let ratio = (far as f32 / mid as f32).ln() / full.ln() * (mid - 1) as f32;
    (ratio.ceil() as i64 + mid) * distance.signum()
}

#[derive(Clone, PartialEq, Debug)]
pub struct AttnDisentangled {
    pub terms: Disentangled,
    pub scale: f32,
}

impl OpDef for AttnDisentangled {
    const NAME: &'static str = "attn_disentangled";

    fn attrs(&self) -> Attrs {
        let mut attrs = self.terms.attrs();
        attrs.0.extend(Attrs::new().float("scale", self.scale).0);
        attrs
    }

    fn from_attrs(attrs: &mut AttrReader) -> Result<Self, String> {
        let terms = Disentangled::from_attrs(attrs)?;
        Ok(AttnDisentangled { terms, scale: attrs.float("scale")? })
    }

    fn infer(&self, operands: &[OperandType]) -> Result<Vec<Type>, String> {
        let mut o = Operands::new(operands);
        let s = o.f32("scores", 3)?;
        let q = o.f32("q", 3)?;
        let k = o.tensor("k", DType::F32)?;
        let (Some(heads), Some(dim)) = (q.dims[1].fixed(), q.dims[2].fixed()) else {
            return Err(format!("q is {q}, heads unknown"));
        };
        if s.dims[..2] != q.dims[..2] {
            return Err(format!("scores are {s}, expected the heads of q: {q}"));
        }
        if !matches!(k.dims.len(), 3 | 4) || k.dims[k.dims.len() - 2..] != q.dims[1..] {
            return Err(format!("k is {k}, expected the heads of q: {q}"));
        }
        self.terms.infer(&mut o, heads, dim)?;
        o.step()?;
        o.end()?;
        Ok(vec![Type::Tensor(s.clone())])
    }

    fn eval(&self, frame: &mut Frame<'_, '_>, mut args: Args) -> Result<Vec<Val>, EvalError> {
        let (mut s, q, k) = (args.scores()?, args.tensor()?, args.value()?);
        let keys = frame.per_sequence(&k)?;
        let tables = self.terms.read(&mut args)?;
        let content = Content { q: &q, keys: &keys, group: 1, scale: self.scale };
        add_disentangled(frame.step, &self.terms, &tables, content, &mut s);
        Ok(vec![Val::PerToken(s)])
    }
}

/// What the scores were made of.
pub(super) struct Content<'a> {
    /// `[N, H, D]`.
    pub q: &'a Tensor,
    /// `[T, H / group, D]` of every sequence.
    pub keys: &'a [Tensor],
    pub group: u32,
    pub scale: f32,
}

/// Adds the terms to scores `[H, T]` of every token.
pub(super) fn add_disentangled(
    step: &Step,
    terms: &Disentangled,
    [pos_key, pos_query]: &Tables,
    of: Content<'_>,
    scores: &mut [Tensor],
) {
    let d = of.q.last();
    for (n, (&(seq, offset), s)) in step.tokens.iter().zip(scores).enumerate() {
        let keys = s.last();
        // The query's place among the keys, which end with this step's tokens.
        let i = (keys + offset) as i64 - step.seqs[seq].new as i64;
        for (h, row) in s.data.chunks_exact_mut(keys.max(1)).enumerate() {
            let head = h * d..(h + 1) * d;
            let kv_head = h / of.group as usize * d;
            for (j, x) in row.iter_mut().enumerate() {
                let r = terms.row(i - j as i64) as usize;
                let mut sum = 0.0;
                if let Some(table) = pos_key {
                    sum += dot(&of.q.at(n)[head.clone()], &table.at(r)[head.clone()]);
                }
                if let Some(table) = pos_query {
                    let key = &of.keys[seq].at(j)[kv_head..kv_head + d];
                    sum += dot(key, &table.at(r)[head.clone()]);
                }
                *x += (sum * f64::from(of.scale)) as f32;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(span: u32, max_distance: Option<u32>, expected: &[(i64, u32)]) {
        let terms = Disentangled { c2p: true, p2c: false, span, max_distance };
        for (distance, row) in expected {
            assert_eq!(terms.row(*distance), *row, "span {span}, distance {distance}");
        }
        let rows: Vec<u32> = (-600..600).map(|r| terms.row(r)).collect();
        assert!(rows.is_sorted(), "rows rise with the distance");
    }

    /// Values of transformers' `build_relative_position`, clamped as its attention does.
    #[test]
    fn distances_become_rows() {
        check(8, None, &[(0, 8), (3, 11), (7, 15), (8, 15), (-8, 0), (-9, 0)]);
        // mid = 4: ceil(ln(r / 4) / ln(63 / 4) · 3) + 4.
        let log = [(4, 12), (5, 13), (10, 13), (11, 14), (25, 14), (26, 15), (63, 15), (64, 15)];
        check(8, Some(64), &log);
        check(8, Some(64), &[(-4, 4), (-5, 3), (-10, 3), (-11, 2), (-63, 1), (-64, 0)]);
        check(256, Some(512), &[(128, 384), (129, 385), (511, 511), (-511, 1), (-512, 0)]);
    }
}

//! `attention %q, %view, [weights,] %step {…}` or `attention %q, %k, %v, [weights,] %step {…}`: scores,
//! bias or alibi, position terms, softcap, mask, softmax (with `sinks`) and mix as one op.
//! `[N, H, D], kv_view<H / g, D, Dv> → [N, H, Dv]`. Weights, where the attributes say so and in this
//! order: `@bias`, `@pos_key`, `@pos_query`, `@sinks`.
//!
//! Query head h reads key and value head h / kv_group. With `%k, %v` of `[N, H, D]` the keys are
//! those of this step alone, each sequence its own (encoders); with `[B, T, H, D]` they are what
//! `kv_read` gave (`share-kv-heads` turns that into the view).

use crate::{
    Mask, OpDef, OperandType, Type,
    attr::{AttrReader, AttrValue, Attrs, short},
    eval::{Args, EvalError, Frame, Val},
    op::Operands,
};

use super::{
    alibi::{Alibi, add_alibi},
    attn_bias::add_relative_bias,
    attn_disentangled::{Content, Disentangled, add_disentangled},
    attn_mix::mix,
    attn_scores::scores,
    mask::hide,
    softcap::softcap,
    softmax::softmax,
};

/// T5's relative position buckets (HF `T5Attention._relative_position_bucket`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RelativeBias {
    pub buckets: u32,
    pub max_distance: u32,
    pub bidirectional: bool,
}

impl RelativeBias {
    /// The bucket of `relative` = key position − query position.
    pub fn bucket(&self, relative: i64) -> u32 {
        let mut buckets = self.buckets;
        let mut first = 0;
        let distance = if self.bidirectional {
            buckets /= 2;
            if relative > 0 {
                first = buckets;
            }
            relative.unsigned_abs()
        } else {
            (-relative).max(0) as u64
        };
        let exact = buckets / 2;
        if distance < u64::from(exact) {
            return first + distance as u32;
        }
        // In f32, as HF computes it: the boundaries of the buckets depend on it.
        let ratio = (distance as f32 / exact as f32).ln()
            / (self.max_distance as f64 / exact as f64).ln() as f32;
        let far = exact + (ratio * (buckets - exact) as f32) as u32;
        first + far.min(buckets - 1)
    }

    pub(super) fn attrs(&self) -> Attrs {
        Attrs::new()
            .int("buckets", self.buckets)
            .int("max_distance", self.max_distance)
            .flag("bidirectional", self.bidirectional)
    }

    pub(super) fn from_attrs(attrs: &mut AttrReader) -> Result<Self, String> {
        let bias = RelativeBias {
            buckets: attrs.u32("buckets")?,
            max_distance: attrs.u32("max_distance")?,
            bidirectional: attrs.flag("bidirectional")?,
        };
        if bias.buckets < 4 || bias.buckets > 1 << 16 || bias.max_distance <= bias.buckets / 2 {
            return Err(format!(
                "{} buckets up to a distance of {} are no bucketing",
                bias.buckets, bias.max_distance
            ));
        }
        Ok(bias)
    }
}

/// Tiles of flash attention.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Flash {
    pub block_q: u32,
    pub block_kv: u32,
}

#[derive(Clone, PartialEq, Debug)]
pub struct Attention {
    /// Query heads that share a key and value head: 1 is MHA, all of them MQA, else GQA.
    pub kv_group: u32,
    pub mask: Mask,
    pub scale: f32,
    /// cap · tanh(s / cap) on the scores, before the mask.
    pub softcap: Option<f32>,
    pub bias: Option<RelativeBias>,
    /// A bias that falls with the distance, where there is no other.
    pub alibi: Option<Alibi>,
    /// Position terms of queries and keys with tables.
    pub disentangled: Option<Disentangled>,
    /// A logit for each head that takes part in the softmax and mixes nothing in.
    pub sinks: bool,
    /// Tiling, once chosen.
    pub schedule: Option<Flash>,
}

impl OpDef for Attention {
    const NAME: &'static str = "attention";

    fn attrs(&self) -> Attrs {
        let schedule = self.schedule.map(|s| {
            let a = Attrs::new().int("block_q", s.block_q).int("block_kv", s.block_kv);
            AttrValue::Struct("flash".into(), a)
        });
        let relative = self.bias.map(|b| AttrValue::Struct("relative".into(), b.attrs()));
        let alibi = self.alibi.map(|a| AttrValue::Struct("alibi".into(), a.attrs()));
        let terms = self.disentangled.map(|d| AttrValue::Struct("terms".into(), d.attrs()));
        Attrs::new()
            .int("kv_group", self.kv_group)
            .with("mask", AttrValue::Mask(self.mask.clone()))
            .float("scale", self.scale)
            .with_some("softcap", self.softcap.map(|c| AttrValue::Float(short(c))))
            .with_some("bias", relative.or(alibi))
            .with_some("disentangled", terms)
            .flag("sinks", self.sinks)
            .with_some("schedule", schedule)
    }

    fn from_attrs(attrs: &mut AttrReader) -> Result<Self, String> {
        let schedule = match attrs.opt_struct("schedule")? {
            None => None,
            Some((name, mut a)) if name == "flash" => {
                let s = Flash { block_q: a.u32("block_q")?, block_kv: a.u32("block_kv")? };
                a.finish()?;
                Some(s)
            }
            Some((name, _)) => return Err(format!("unknown schedule `{name}`")),
        };
        let (mut bias, mut alibi) = (None, None);
        if let Some((name, mut a)) = attrs.opt_struct("bias")? {
            match name.as_str() {
                "relative" => bias = Some(RelativeBias::from_attrs(&mut a)?),
                "alibi" => alibi = Some(Alibi::from_attrs(&mut a)?),
                _ => return Err(format!("unknown bias `{name}`")),
            }
            a.finish()?;
        }
        let disentangled = match attrs.opt_struct("disentangled")? {
            None => None,
            Some((name, mut a)) if name == "terms" => {
                let d = Disentangled::from_attrs(&mut a)?;
                a.finish()?;
                Some(d)
            }
            Some((name, _)) => return Err(format!("unknown position terms `{name}`")),
        };
        Ok(Attention {
            kv_group: attrs.u32("kv_group")?,
            mask: attrs.mask("mask")?,
            scale: attrs.float("scale")?,
            softcap: attrs.opt_float("softcap")?,
            bias,
            alibi,
            disentangled,
            sinks: attrs.flag("sinks")?,
            schedule,
        })
    }

    fn infer(&self, operands: &[OperandType]) -> Result<Vec<Type>, String> {
        let mut o = Operands::new(operands);
        let q = o.f32("q", 3)?;
        let heads = q.dims[1].fixed().ok_or_else(|| format!("q is {q}, heads unknown"))?;
        let (kv_heads, k_dim, v_dim) = match o.value("keys")? {
            Type::KvView { heads, k_dim, v_dim } => (*heads, *k_dim, *v_dim),
            k => {
                let dims = |t: &Type| match t.tensor().map(|t| t.dims.as_slice()) {
                    Some(&[n, h, d]) if n == q.dims[0] => h.fixed().zip(d.fixed()),
                    Some(&[_, _, h, d]) => h.fixed().zip(d.fixed()),
                    _ => None,
                };
                let v = o.value("v")?;
                match dims(k).zip(dims(v)) {
                    Some(((hk, dk), (hv, dv))) if hk == hv => (hk, dk, dv),
                    _ => return Err(format!("k is {k} and v is {v}, expected heads of {q}")),
                }
            }
        };
        if self.bias.is_some() {
            o.weight("bias", &[self.bias.map_or(0, |b| b.buckets), heads])?;
        }
        if let Some(terms) = &self.disentangled {
            terms.infer(&mut o, heads, k_dim)?;
        }
        if self.sinks {
            o.weight("sinks", &[heads])?;
        }
        o.step()?;
        o.end()?;
        if q.dims[2].fixed() != Some(k_dim) {
            return Err(format!("q is {q}, keys have {k_dim} elements"));
        }
        if kv_heads.checked_mul(self.kv_group) != Some(heads) {
            return Err(format!(
                "{heads} query heads, expected kv_group {} × {kv_heads} key heads",
                self.kv_group
            ));
        }
        Ok(vec![Type::f32(&[q.dims[0], q.dims[1], v_dim.into()])])
    }

    fn eval(&self, frame: &mut Frame<'_, '_>, mut args: Args) -> Result<Vec<Val>, EvalError> {
        let (q, keys) = (args.tensor()?, args.value()?);
        let (keys, values) = match *keys {
            Val::View { .. } => frame.read(&keys)?,
            _ => {
                let values = args.value()?;
                (frame.per_sequence(&keys)?, frame.per_sequence(&values)?)
            }
        };
        let mut s = scores(frame.step, &q, &keys, self.kv_group, self.scale);
        if let Some(bias) = &self.bias {
            let table = args.weight()?;
            add_relative_bias(frame.step, bias, &table, &mut s);
        }
        if let Some(alibi) = &self.alibi {
            add_alibi(frame.step, alibi, &mut s);
        }
        if let Some(terms) = &self.disentangled {
            let tables = terms.read(&mut args)?;
            let content =
                Content { q: &q, keys: &keys, group: self.kv_group, scale: self.scale };
            add_disentangled(frame.step, terms, &tables, content, &mut s);
        }
        if let Some(cap) = self.softcap {
            s = s.iter().map(|s| s.map(|x| softcap(x, cap))).collect();
        }
        hide(frame.step, &self.mask, &mut s);
        let sinks = if self.sinks { Some(args.weight()?) } else { None };
        let p: Vec<_> = s.iter().map(|s| softmax(s, sinks.as_deref())).collect();
        Ok(vec![Val::F32(mix(frame.step, &p, &values, self.kv_group))])
    }
}

//! Random small models for tests: decoders and encoders at stage `model`.
//!
//! in: a [`Spec`] → out: a module as families write them. Sizes are odd on purpose: rows and heads that
//! are no multiple of a SIMD group, bounds that no page divides.

mod weights;

pub use weights::Weights;

use llmc_ir::{ops::*, rope::RopeScaling, *};
use proptest::prelude::*;

/// What a model is made of.
#[derive(Clone, Debug)]
pub struct Spec {
    pub encoder: bool,
    pub kv_heads: u32,
    pub kv_group: u32,
    pub head_dim: u32,
    /// Rotated elements of a head; 0: no rotary positions.
    pub rope: u32,
    pub width: u32,
    pub inner: u32,
    pub window: Option<u32>,
    pub softcap: bool,
    pub relative: bool,
    /// Position terms of attention among this step's tokens.
    pub terms: Option<Disentangled>,
    pub sinks: bool,
    pub qkv_bias: (bool, bool, bool),
    pub biases: bool,
    pub head_norms: bool,
    pub layer_norm: bool,
    /// Norm behind a block, before the sum; encoders: behind the sum.
    pub post_norm: bool,
    /// Attention and MLP read one norm.
    pub parallel: bool,
    pub gated: bool,
    /// Gate and up in one tensor.
    pub packed_gate: bool,
    pub act: ActKind,
    /// Experts, and how many of them a row goes to, in the place of the MLP.
    pub experts: Option<(u32, u32)>,
    pub tied: bool,
    pub v_type: DType,
    /// The classes of the layers.
    pub layers: Vec<bool>,
    pub embed_scale: bool,
}

/// Any spec.
pub fn spec() -> impl Strategy<Value = Spec> {
    let sizes = (1u32..4, 1u32..4, 1u32..7, 0u32..3, 1u32..4, 1u32..4);
    let attention = (
        prop::option::of(1u32..40),
        any::<[bool; 5]>(),
        any::<(bool, bool, bool)>(),
    );
    let block = (
        any::<[bool; 8]>(),
        prop::sample::select(ActKind::ALL.to_vec()),
        prop::option::weighted(0.3, (1u32..6, 1u32..4)),
    );
    let layers = prop::collection::vec(any::<bool>(), 1..4);
    (sizes, attention, block, layers, terms()).prop_map(|(s, a, b, layers, terms)| {
        let (window, [softcap, relative, sinks, head_norms, same_bias], bias) = a;
        let (
            [
                encoder,
                biases,
                layer_norm,
                post_norm,
                parallel,
                gated,
                packed_gate,
                tied,
            ],
            act,
            experts,
        ) = b;
        let head_dim = s.2 * 4;
        Spec {
            encoder,
            kv_heads: s.0,
            kv_group: if encoder { 1 } else { s.1 },
            head_dim,
            rope: [0, head_dim, head_dim / 4 * 2][s.3 as usize],
            width: s.4 * 12,
            inner: s.5 * 20,
            window,
            softcap,
            relative,
            terms: terms.filter(|_| encoder),
            sinks,
            qkv_bias: if same_bias {
                (bias.0, bias.0, bias.0)
            } else {
                bias
            },
            biases,
            head_norms,
            layer_norm,
            post_norm,
            parallel: parallel && !encoder,
            gated,
            packed_gate,
            act,
            experts: experts.map(|(all, chosen)| (all, chosen.min(all))),
            tied,
            v_type: if bias.1 { DType::BF16 } else { DType::F32 },
            layers,
            embed_scale: bias.2,
        }
    })
}

/// Some position terms, or none.
fn terms() -> impl Strategy<Value = Option<Disentangled>> {
    let terms = (1u32..4, 2u32..9, prop::option::of(9u32..40)).prop_map(|(which, span, max)| {
        Disentangled {
            c2p: which & 1 != 0,
            p2c: which & 2 != 0,
            span,
            max_distance: max,
        }
    });
    prop::option::of(terms)
}

/// Tokens that a step may have, and a sequence.
pub const DIMS: Dims = Dims {
    n: 40,
    r: 5,
    b: 3,
    t: 33,
};
const VOCAB: u32 = 50;

/// Builds functions of one module.
struct Build<'m> {
    b: FuncBuilder<'m>,
    class: String,
    slots: Option<u32>,
}

impl Build<'_> {
    /// A weight of this class, by its short name.
    fn weight(&mut self, name: &str, dims: &[u32], dtype: DType) -> Operand {
        let prefix = match self.slots {
            Some(_) => format!("{}.", self.class),
            None => String::new(),
        };
        let layer = if self.slots.is_some() {
            "layers.{layer}."
        } else {
            ""
        };
        let id = self.b.module.add_weight(Weight {
            name: format!("{prefix}{name}"),
            slots: self.slots,
            ty: TensorType::weight(dtype, dims),
            source: Source::tensor(format!("{layer}{prefix}{name}")),
            pack: None,
        });
        id.into()
    }

    fn op(&mut self, hint: &str, op: impl Into<Op>, operands: &[Operand]) -> ValueId {
        self.b.push1(hint, op, operands).unwrap()
    }

    fn linear(
        &mut self,
        name: &str,
        x: ValueId,
        dims: [u32; 2],
        bias: bool,
        dtype: DType,
    ) -> ValueId {
        let w = self.weight(&format!("w{name}"), &dims, dtype);
        let mut operands = vec![x.into(), w];
        if bias {
            operands.push(self.weight(&format!("b{name}"), &dims[..1], DType::F32));
        }
        let op = Linear {
            bias,
            ..Linear::default()
        };
        self.op(name, op, &operands)
    }

    fn norm(&mut self, name: &str, x: ValueId, width: u32, layer: bool) -> ValueId {
        let w = self.weight(&format!("{name}_norm"), &[width], DType::F32);
        if layer {
            let b = self.weight(&format!("{name}_norm_b"), &[width], DType::F32);
            return self.op(name, LayerNorm { eps: 1e-5 }, &[x.into(), w, b]);
        }
        let op = RmsNorm {
            eps: 1e-6,
            offset: 1.0,
        };
        self.op(name, op, &[x.into(), w])
    }

    fn attention(
        &mut self,
        s: &Spec,
        h: ValueId,
        angles: Option<ValueId>,
        step: ValueId,
        full: bool,
        table: Option<WeightId>,
    ) -> ValueId {
        let (kv, heads) = (s.kv_heads, s.kv_heads * s.kv_group);
        let (q_bias, k_bias, v_bias) = s.qkv_bias;
        let rows = |n: u32| [n * s.head_dim, s.width];
        let q = self.linear("q", h, rows(heads), q_bias, DType::F32);
        let mut q = self.op("qh", SplitHeads { heads }, &[q.into()]);
        let k = self.linear("k", h, rows(kv), k_bias, DType::F32);
        let mut k = self.op("kh", SplitHeads { heads: kv }, &[k.into()]);
        if s.head_norms {
            q = self.norm("qn", q, s.head_dim, s.layer_norm);
            k = self.norm("kn", k, s.head_dim, s.layer_norm);
        }
        if let Some(angles) = angles {
            let rope = || Rope {
                style: RopeStyle::Neox,
            };
            q = self.op("qr", rope(), &[q.into(), angles.into()]);
            k = self.op("kr", rope(), &[k.into(), angles.into()]);
        }
        let v = self.linear("v", h, rows(kv), v_bias, s.v_type);
        let v = self.op("vh", SplitHeads { heads: kv }, &[v.into()]);
        let (mut kk, mut vv) = (k, v);
        if !s.encoder {
            let state = self.b.module.add_state(State {
                name: format!("{}.kv", self.class),
                slots: self.slots,
                dtype: DType::F32,
                heads: kv,
                k_dim: s.head_dim,
                v_dim: s.head_dim,
                window: s.window.filter(|_| !full),
            });
            let c = self.op(
                "c",
                KvAppend,
                &[state.into(), k.into(), v.into(), step.into()],
            );
            let read = KvRead { n_rep: s.kv_group };
            let pair = self.b.push("kk", read, &[c.into(), step.into()]).unwrap();
            (kk, vv) = (pair[0], pair[1]);
        }
        let scale = 1.0 / (s.head_dim as f32).sqrt();
        let mut p = self.op(
            "s",
            AttnScores { scale },
            &[q.into(), kk.into(), step.into()],
        );
        if let Some(table) = table {
            let bias = RelativeBias {
                buckets: 8,
                max_distance: 16,
                bidirectional: s.encoder,
            };
            p = self.op(
                "sb",
                AttnBias { bias },
                &[p.into(), table.into(), step.into()],
            );
        }
        if let Some(terms) = s.terms {
            let dims = [2 * terms.span, heads * s.head_dim];
            let mut operands: Vec<Operand> = vec![p.into(), q.into(), kk.into()];
            for (name, there) in [("pos_key", terms.c2p), ("pos_query", terms.p2c)] {
                if there {
                    operands.push(self.weight(name, &dims, DType::F32));
                }
            }
            operands.push(step.into());
            p = self.op("st", AttnDisentangled { terms, scale }, &operands);
        }
        if s.softcap {
            p = self.op("sc", Softcap { cap: 5.0 }, &[p.into()]);
        }
        let window = s.window.filter(|_| !full);
        let mask = match (s.encoder, window) {
            (true, None) => Mask::Bidirectional,
            (true, Some(w)) => Mask::And(vec![Mask::Window(w), Mask::Bidirectional]),
            (false, w) => Mask::causal(w),
        };
        p = self.op("m", MaskScores { mask }, &[p.into(), step.into()]);
        let sinks = s.sinks.then(|| self.weight("sinks", &[heads], DType::F32));
        let operands: Vec<Operand> = [p.into()].into_iter().chain(sinks).collect();
        p = self.op("p", Softmax { sinks: s.sinks }, &operands);
        let o = self.op("o", AttnMix, &[p.into(), vv.into(), step.into()]);
        let o = self.op("om", MergeHeads, &[o.into()]);
        self.linear("o", o, [s.width, heads * s.head_dim], s.biases, DType::BF16)
    }

    fn mlp(&mut self, s: &Spec, h: ValueId) -> ValueId {
        if let Some(experts) = s.experts {
            return self.experts(s, h, experts);
        }
        let kind = s.act;
        let inner = match (s.gated, s.packed_gate) {
            (true, true) => {
                let y = self.linear("gu", h, [2 * s.inner, s.width], s.biases, DType::BF16);
                self.op("g", Glu { kind }, &[y.into()])
            }
            (true, false) => {
                let g = self.linear("g", h, [s.inner, s.width], s.biases, DType::BF16);
                let g = self.op("ga", Activation { kind }, &[g.into()]);
                let u = self.linear("u", h, [s.inner, s.width], s.biases, DType::BF16);
                self.op("gu", Mul, &[u.into(), g.into()])
            }
            (false, _) => {
                let y = self.linear("up", h, [s.inner, s.width], s.biases, DType::BF16);
                self.op("a", Activation { kind }, &[y.into()])
            }
        };
        self.linear("d", inner, [s.width, s.inner], s.biases, DType::BF16)
    }

    fn experts(&mut self, s: &Spec, h: ValueId, (all, top_k): (u32, u32)) -> ValueId {
        let logits = self.linear("r", h, [all, s.width], s.biases, DType::F32);
        let route = Route {
            top_k,
            renormalize: s.gated,
        };
        let weights = self.op("route", route, &[logits.into()]);
        let gate = Gate {
            act: s.act,
            limit: s.packed_gate.then_some(0.75),
            shift: if s.gated { 1.0 } else { 0.0 },
        };
        let mut operands: Vec<Operand> = vec![h.into(), weights.into()];
        for (name, dims) in [
            ("in", [2 * all * s.inner, s.width]),
            ("out", [all * s.width, s.inner]),
        ] {
            operands.push(self.weight(&format!("w_{name}"), &dims, DType::BF16));
            if s.biases {
                operands.push(self.weight(&format!("b_{name}"), &dims[..1], DType::F32));
            }
        }
        let op = Experts {
            bias: s.biases,
            gate,
            inner: None,
        };
        self.op("experts", op, &operands)
    }

    fn add(&mut self, a: ValueId, b: ValueId) -> ValueId {
        self.op("x", Add, &[a.into(), b.into()])
    }
}

/// The module of a spec.
pub fn module(s: &Spec) -> Module {
    let mut m = Module::new("random", DIMS);
    let heads = s.kv_heads * s.kv_group;
    let table = s.relative.then(|| {
        m.add_weight(Weight {
            name: "relative".into(),
            slots: None,
            ty: TensorType::weight(DType::F32, &[8, heads]),
            source: Source::tensor("relative"),
            pack: None,
        })
    });
    for full in [false, true] {
        let slots = s.layers.iter().filter(|l| **l == full).count() as u32;
        if slots > 0 {
            layer(&mut m, s, full, slots, table);
        }
    }
    let mut f = Build {
        b: FuncBuilder::new(&mut m, ENTRY),
        class: String::new(),
        slots: None,
    };
    let ids = f.b.param("ids", Type::ids());
    let pos = f.b.param("pos", Type::ids());
    let step = f.b.param("step", Type::Step);
    let embed = f.weight("embed", &[VOCAB, s.width], DType::F32);
    let scale = if s.embed_scale { 3.0 } else { 1.0 };
    let mut x = f.op("e", Gather { scale }, &[ids.into(), embed]);
    if s.rope == 0 {
        let positions = f.weight("positions", &[DIMS.t + 2, s.width], DType::BF16);
        let pos = match s.encoder {
            true => f.op("p", PositionIds { pad: 1 }, &[ids.into(), step.into()]),
            false => pos,
        };
        let p = f.op("pe", Gather { scale: 1.0 }, &[pos.into(), positions]);
        x = f.add(x, p);
    }
    if s.encoder {
        let class = f.weight("class", &[s.width], DType::F32);
        let first = Substitute { id: 0 };
        x = f.op("first", first, &[x.into(), class, pos.into()]);
    }
    let mut operands = vec![x.into()];
    if s.rope > 0 {
        let op = RopeAngles {
            theta: 100.0,
            dim: s.rope,
            scaling: RopeScaling::Default,
        };
        operands.push(f.op("angles", op, &[pos.into()]).into());
    }
    operands.push(step.into());
    let mut next = [0, 0];
    let layers = s.layers.iter().map(|&full| {
        let slot = next[usize::from(full)];
        next[usize::from(full)] += 1;
        (class(full).to_string(), slot)
    });
    let layers = layers.collect();
    let y = f.op("y", Repeat { layers }, &operands);
    if s.encoder {
        let pooled = f.op(
            "c",
            Pool {
                kind: PoolKind::Mean,
            },
            &[y.into(), step.into()],
        );
        let p = f.linear("pooler", pooled, [s.width, s.width], true, DType::F32);
        let p = f.op(
            "pa",
            Activation {
                kind: ActKind::Tanh,
            },
            &[p.into()],
        );
        let n = f.op("n", L2Normalize { eps: 1e-12 }, &[pooled.into()]);
        f.b.finish(&[
            ("last_hidden_state", y),
            ("pooler_output", p),
            ("sentence_embedding", n),
        ]);
        return m;
    }
    let h = f.norm("out", y, s.width, s.layer_norm);
    let r = f.op("r", Rows, &[h.into(), step.into()]);
    let logits = match s.tied {
        true => f.op("logits", Linear::default(), &[r.into(), embed]),
        false => f.linear("head", r, [VOCAB, s.width], false, DType::F32),
    };
    f.b.finish(&[("last_hidden_state", h), ("logits", logits)]);
    m
}

fn class(full: bool) -> &'static str {
    if full { "layer.full" } else { "layer" }
}

fn layer(m: &mut Module, s: &Spec, full: bool, slots: u32, table: Option<WeightId>) {
    let mut l = Build {
        b: FuncBuilder::new(m, class(full)),
        class: class(full).to_string(),
        slots: Some(slots),
    };
    let x = l.b.param("x", Type::f32(&[Sym::N.into(), s.width.into()]));
    let angles = Type::f32(&[Sym::N.into(), s.rope.into()]);
    let angles = (s.rope > 0).then(|| l.b.param("angles", angles));
    let step = l.b.param("step", Type::Step);
    let norm = |l: &mut Build, name: &str, v| l.norm(name, v, s.width, s.layer_norm);
    let result = if s.encoder && s.post_norm {
        let a = l.attention(s, x, angles, step, full, table);
        let x = l.add(a, x);
        let x = norm(&mut l, "n1", x);
        let d = l.mlp(s, x);
        let x = l.add(d, x);
        norm(&mut l, "n2", x)
    } else {
        let h = norm(&mut l, "h", x);
        let mut a = l.attention(s, h, angles, step, full, table);
        if s.post_norm {
            a = norm(&mut l, "an", a);
        }
        if s.parallel {
            let d = l.mlp(s, h);
            let a = l.add(a, d);
            l.add(x, a)
        } else {
            let x = l.add(x, a);
            let h = norm(&mut l, "h2", x);
            let mut d = l.mlp(s, h);
            if s.post_norm {
                d = norm(&mut l, "dn", d);
            }
            l.add(x, d)
        }
    };
    l.b.finish(&[("x", result)]);
}

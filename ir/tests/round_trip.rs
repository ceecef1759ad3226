//! Print → parse → print is the identity on generated modules, and hostile text never panics.
//!
//! The modules are whole in form (every op, weird names, all stages' fields) but not legal: the text
//! form does not ask for legality.

use llmc_ir::{ops::*, rope::RopeScaling, *};
use proptest::{collection::vec, option, prelude::*, sample::select};

fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        6 => "[a-z][a-z0-9_.]{0,6}",
        1 => "[0-9.-]{1,3}",
        1 => "\\PC{0,5}",
        1 => Just("a\"\\\n\u{7f}".to_string()),
    ]
}

fn dim() -> impl Strategy<Value = Dim> {
    prop_oneof![
        (0u32..5000).prop_map(Dim::Fixed),
        Just(Dim::Fixed(u32::MAX)),
        select(Sym::ALL.to_vec()).prop_map(Dim::Sym)
    ]
}

fn tensor() -> impl Strategy<Value = TensorType> {
    (select(DType::all().collect::<Vec<_>>()), vec(dim(), 0..4))
        .prop_map(|(dtype, dims)| TensorType { dtype, dims })
}

fn ty() -> impl Strategy<Value = Type> {
    prop_oneof![
        4 => tensor().prop_map(Type::Tensor),
        1 => (any::<u32>(), 0u32..9, 0u32..9).prop_map(|(heads, k_dim, v_dim)| Type::KvView { heads, k_dim, v_dim }),
        1 => Just(Type::Step),
    ]
}

fn layout() -> impl Strategy<Value = Layout> {
    let segment =
        (0u32..20, vec(0u32..99, 0..3)).prop_map(|(count, parts)| Segment { count, parts });
    vec(segment, 0..3).prop_map(Layout)
}

fn place() -> impl Strategy<Value = Option<Place>> {
    option::of(
        (any::<u64>(), any::<u32>(), layout()).prop_map(|(at, stride, layout)| Place {
            at,
            stride,
            layout,
        }),
    )
}

fn mask() -> impl Strategy<Value = Mask> {
    let leaf = prop_oneof![
        Just(Mask::Causal),
        Just(Mask::Bidirectional),
        any::<u32>().prop_map(Mask::Window),
        any::<u32>().prop_map(Mask::Band),
        (any::<u32>(), any::<u32>()).prop_map(|(every, block)| Mask::Stride { every, block }),
        (any::<u32>(), any::<u32>()).prop_map(|(span, last)| Mask::Fixed { span, last }),
    ];
    leaf.prop_recursive(3, 8, 3, |inner| {
        prop_oneof![
            vec(inner.clone(), 2..4).prop_map(Mask::And),
            vec(inner, 2..4).prop_map(Mask::Or)
        ]
    })
}

fn float() -> impl Strategy<Value = f32> {
    prop_oneof![
        any::<f32>().prop_filter("NaN differs from itself", |x| !x.is_nan()),
        select(vec![1e-5f32, 0.0883, 1.0, 1e6, -0.5])
    ]
}

fn scaling() -> impl Strategy<Value = RopeScaling> {
    let f = float;
    prop_oneof![
        Just(RopeScaling::Default),
        f().prop_map(|factor| RopeScaling::Linear { factor }),
        (f(), any::<u32>()).prop_map(|(factor, original_context)| RopeScaling::Dynamic {
            factor,
            original_context,
        }),
        (vec(f(), 0..4), vec(f(), 0..4), any::<u32>(), f()).prop_map(
            |(short, long, original_context, attention_factor)| RopeScaling::LongRope {
                short,
                long,
                original_context,
                attention_factor,
            }
        ),
        (f(), f(), f(), any::<u32>()).prop_map(
            |(factor, low_freq_factor, high_freq_factor, original_context)| {
                RopeScaling::Llama3 {
                    factor,
                    low_freq_factor,
                    high_freq_factor,
                    original_context,
                }
            }
        ),
        (f(), f(), f(), any::<u32>(), any::<bool>(), f()).prop_map(
            |(factor, a, b, n, truncate, attention_factor)| {
                RopeScaling::Yarn {
                    factor,
                    beta_fast: a,
                    beta_slow: b,
                    original_context: n,
                    truncate,
                    attention_factor,
                }
            }
        ),
    ]
}

fn bias() -> impl Strategy<Value = RelativeBias> {
    (4u32..64, 64u32..999, any::<bool>()).prop_map(|(buckets, max_distance, bidirectional)| {
        RelativeBias {
            buckets,
            max_distance,
            bidirectional,
        }
    })
}

fn alibi() -> impl Strategy<Value = Alibi> {
    (0.5f32..32.0).prop_map(|max_bias| Alibi { max_bias })
}

fn disentangled() -> impl Strategy<Value = Disentangled> {
    (1u32..3, 2u32..99, option::of(99u32..999)).prop_map(|(terms, span, max_distance)| {
        let (c2p, p2c) = (terms & 1 != 0, terms & 2 != 0);
        Disentangled {
            c2p,
            p2c,
            span,
            max_distance,
        }
    })
}

fn norm() -> impl Strategy<Value = Norm> {
    prop_oneof![
        (float(), float()).prop_map(|(eps, offset)| Norm::Rms { eps, offset }),
        float().prop_map(|eps| Norm::Layer { eps })
    ]
}

fn linear() -> impl Strategy<Value = Linear> {
    let act = || select(ActKind::ALL.to_vec());
    (
        any::<bool>(),
        option::of(norm()),
        option::of(act()),
        option::of(act()),
        any::<bool>(),
    )
        .prop_map(|(bias, norm, act, glu, residual)| Linear {
            bias,
            norm,
            act,
            glu: if act.is_some() { None } else { glu },
            residual,
        })
}

fn attention() -> impl Strategy<Value = Attention> {
    let flash =
        (any::<u32>(), any::<u32>()).prop_map(|(block_q, block_kv)| Flash { block_q, block_kv });
    (
        any::<u32>(),
        mask(),
        float(),
        option::of(float()),
        option::of(bias()),
        option::of(alibi()),
        option::of(disentangled()),
        any::<bool>(),
        option::of(flash),
    )
        .prop_map(
            |(kv_group, mask, scale, softcap, bias, alibi, disentangled, sinks, schedule)| {
                Attention {
                    kv_group,
                    mask,
                    scale,
                    softcap,
                    alibi: alibi.filter(|_| bias.is_none()),
                    bias,
                    disentangled,
                    sinks,
                    schedule,
                }
            },
        )
}

fn op() -> impl Strategy<Value = Op> {
    let act = || select(ActKind::ALL.to_vec());
    let plain: Vec<Op> = vec![
        Add.into(),
        AttnMix.into(),
        KvAppend.into(),
        MaskScores { mask: Mask::Causal }.into(),
        MergeHeads.into(),
        Mul.into(),
        Rope {
            style: RopeStyle::Neox,
        }
        .into(),
        Rows.into(),
        Softmax { sinks: false }.into(),
        Softmax { sinks: true }.into(),
    ];
    prop_oneof![
        4 => select(plain),
        1 => act().prop_map(|kind| Activation { kind }.into()),
        1 => alibi().prop_map(Op::from),
        2 => attention().prop_map(Op::from),
        1 => bias().prop_map(|bias| AttnBias { bias }.into()),
        1 => (disentangled(), float())
            .prop_map(|(terms, scale)| AttnDisentangled { terms, scale }.into()),
        1 => float().prop_map(|scale| AttnScores { scale }.into()),
        1 => (any::<bool>(), act(), option::of(1e-3f32..1e3), float(), select(vec![
            None,
            Some(DType::BF16),
            Some(DType::Q8(llmc_ir::Group::Block)),
            Some(DType::Q8(llmc_ir::Group::Pair)),
        ]))
            .prop_map(|(bias, act, limit, shift, inner)| {
                let gate = Gate { act, limit, shift };
                Experts { bias, gate, inner }.into()
            }),
        1 => (any::<u32>(), any::<bool>())
            .prop_map(|(top_k, renormalize)| Route { top_k, renormalize }.into()),
        1 => float().prop_map(|scale| Gather { scale }.into()),
        1 => act().prop_map(|kind| Glu { kind }.into()),
        1 => any::<u32>().prop_map(|n_rep| KvRead { n_rep }.into()),
        1 => float().prop_map(|eps| L2Normalize { eps }.into()),
        1 => float().prop_map(|eps| LayerNorm { eps }.into()),
        3 => linear().prop_map(Op::from),
        1 => mask().prop_map(|mask| MaskScores { mask }.into()),
        1 => select(PoolKind::ALL.to_vec()).prop_map(|kind| Pool { kind }.into()),
        1 => any::<u32>().prop_map(|pad| PositionIds { pad }.into()),
        1 => (select(DType::all().collect::<Vec<_>>()), option::of(norm()))
            .prop_map(|(to, norm)| Quantize { to, norm }.into()),
        1 => vec((name(), any::<u32>()), 0..4).prop_map(|layers| Repeat { layers }.into()),
        1 => (float(), float()).prop_map(|(eps, offset)| RmsNorm { eps, offset }.into()),
        1 => (any::<f64>().prop_filter("NaN", |x| !x.is_nan()), any::<u32>(), scaling())
            .prop_map(|(theta, dim, scaling)| RopeAngles { theta, dim, scaling }.into()),
        1 => float().prop_map(|factor| Scale { factor }.into()),
        1 => float().prop_map(|cap| Softcap { cap }.into()),
        1 => vec(any::<u32>(), 0..4).prop_map(|sizes| Split { sizes }.into()),
        1 => any::<u32>().prop_map(|heads| SplitHeads { heads }.into()),
        1 => any::<u32>().prop_map(|id| Substitute { id }.into()),
        1 => (0u32..128).prop_map(|reach| Unfold { width: 2 * reach + 1 }.into()),
    ]
}

fn source() -> impl Strategy<Value = Source> {
    let part = || {
        (
            name(),
            option::of((any::<u32>(), any::<u32>())),
            any::<bool>(),
            1u32..4,
            option::of(any::<u32>()),
        )
            .prop_map(|(name, rows, transposed, every, experts)| SourcePart {
                name: name.replace('\n', ""),
                every: if rows.is_some() { every } else { 1 },
                rows,
                transposed,
                experts,
            })
    };
    let parts = || vec(part(), 0..3);
    let norm = (name(), name(), float()).prop_map(|(weight, bias, eps)| SourceNorm {
        weight: weight.replace('\n', ""),
        bias: bias.replace('\n', ""),
        eps,
    });
    let projected = (option::of(norm), parts(), parts())
        .prop_map(|(norm, matrix, bias)| Projected { norm, matrix, bias });
    (parts(), option::of(projected)).prop_map(|(parts, projected)| Source { parts, projected })
}

fn pack() -> impl Strategy<Value = Pack> {
    prop_oneof![
        (layout(), layout(), any::<bool>()).prop_map(|(rows, cols, glu)| Pack::Panels {
            rows,
            cols,
            glu
        }),
        (any::<u32>(), layout(), layout(), any::<bool>()).prop_map(|(count, rows, cols, glu)| {
            Pack::Experts {
                count,
                rows,
                cols,
                glu,
            }
        }),
        layout().prop_map(|cols| Pack::Rows { cols }),
        layout().prop_map(|layout| Pack::Vector { layout }),
    ]
}

fn weight() -> impl Strategy<Value = Weight> {
    (
        name(),
        option::of(any::<u32>()),
        tensor(),
        source(),
        option::of(pack()),
    )
        .prop_map(|(name, slots, ty, source, pack)| Weight {
            name,
            slots,
            ty,
            source,
            pack,
        })
}

fn state() -> impl Strategy<Value = State> {
    (
        name(),
        option::of(any::<u32>()),
        select(DType::all().collect::<Vec<_>>()),
        any::<[u32; 3]>(),
        option::of(any::<u32>()),
    )
        .prop_map(
            |(name, slots, dtype, [heads, k_dim, v_dim], window)| State {
                name,
                slots,
                dtype,
                heads,
                k_dim,
                v_dim,
                window,
            },
        )
}

/// One instruction: its op, what its operands are picked by, and its results.
type InstSeed = (Op, Vec<u32>, Vec<(String, Type, Option<Place>)>);

#[derive(Clone, Debug)]
struct FuncSeed {
    name: String,
    params: Vec<(String, Type, Option<Place>)>,
    insts: Vec<InstSeed>,
    results: Vec<(String, u32)>,
    kernels: Vec<(String, u32)>,
}

fn func() -> impl Strategy<Value = FuncSeed> {
    let value = || (name(), ty(), place());
    let inst = (op(), vec(any::<u32>(), 1..4), vec(value(), 0..3));
    (
        name(),
        vec(value(), 1..3),
        vec(inst, 0..6),
        vec((name(), any::<u32>()), 0..3),
        vec((name(), 0u32..4), 0..3),
    )
        .prop_map(|(name, params, insts, results, kernels)| FuncSeed {
            name,
            params,
            insts,
            results,
            kernels,
        })
}

fn build_func(seed: FuncSeed, module: &Module) -> Func {
    let mut f = Func {
        name: seed.name,
        ..Func::default()
    };
    let define = |f: &mut Func, (name, ty, place): (String, Type, Option<Place>)| {
        let id = f.new_value(&name, ty);
        f.values[id.index()].place = place;
        id
    };
    for p in seed.params {
        let id = define(&mut f, p);
        f.params.push(id);
    }
    for (op, picks, results) in seed.insts {
        let (v, w, s) = (f.values.len(), module.weights.len(), module.states.len());
        let operands = picks
            .into_iter()
            .map(|p| match p as usize % (v + w + s) {
                i if i < v => Operand::Value(ValueId(i as u32)),
                i if i < v + w => Operand::Weight(WeightId((i - v) as u32)),
                i => Operand::State(StateId((i - v - w) as u32)),
            })
            .collect();
        let results = results.into_iter().map(|r| define(&mut f, r)).collect();
        f.body.push(Inst {
            op,
            operands,
            results,
        });
    }
    let values = f.values.len() as u32;
    f.results = seed
        .results
        .into_iter()
        .map(|(n, p)| (n, ValueId(p % values)))
        .collect();
    let mut left = f.body.len() as u32;
    for (name, len) in seed.kernels {
        let len = len.min(left);
        left -= len;
        f.kernels.push(Kernel { name, len });
    }
    f
}

fn unique<T>(items: &mut [T], name: impl Fn(&mut T) -> &mut String, prefix: &str) {
    for (i, item) in items.iter_mut().enumerate() {
        *name(item) += &format!("{prefix}{i}");
    }
}

fn module() -> impl Strategy<Value = Module> {
    (
        (
            name(),
            select(Stage::ALL.to_vec()),
            any::<[u32; 4]>(),
            option::of(any::<u64>()),
        ),
        vec(weight(), 0..4),
        vec(state(), 0..3),
        vec(func(), 0..3),
    )
        .prop_map(
            |((name, stage, [n, r, b, t], arena_bytes), weights, states, funcs)| {
                let mut m = Module::new(name, Dims { n, r, b, t });
                (m.stage, m.arena_bytes, m.weights, m.states) =
                    (stage, arena_bytes, weights, states);
                unique(&mut m.weights, |w| &mut w.name, "w");
                unique(&mut m.states, |s| &mut s.name, "s");
                m.funcs = funcs.into_iter().map(|f| build_func(f, &m)).collect();
                unique(&mut m.funcs, |f| &mut f.name, "f");
                m
            },
        )
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(400) })]

    #[test]
    fn print_parse_print_is_the_identity(m in module()) {
        let text = m.to_string();
        match parse(&text) {
            Ok(back) => {
                prop_assert_eq!(back.to_string(), text.clone());
                prop_assert_eq!(back, m, "{}", text);
            }
            Err(e) => prop_assert!(false, "{}\n{}", e, text),
        }
    }

    #[test]
    fn altered_text_never_panics(m in module(), at in any::<usize>(), insert in "\\PC{0,3}", cut in 0usize..8) {
        let mut chars: Vec<char> = m.to_string().chars().collect();
        let at = at % (chars.len() + 1);
        let end = (at + cut).min(chars.len());
        chars.splice(at..end, insert.chars());
        let text: String = chars.into_iter().collect();
        if let Ok(m) = parse(&text) {
            let _ = m.to_string();
        }
    }

    #[test]
    fn the_verifier_never_panics(m in module(), at in any::<usize>(), id in 0u32..12) {
        let mut m = m;
        let _ = (verify(&m), stage::fresh(&m));
        // Ids that lie elsewhere, or nowhere.
        if let Some(f) = m.funcs.first_mut() {
            let id = if id == 11 { u32::MAX } else { id };
            let body = f.body.len().max(1);
            if let Some(inst) = f.body.get_mut(at % body) {
                inst.operands.push(Operand::Value(ValueId(id)));
                inst.operands.push(Operand::Weight(WeightId(id)));
                inst.results.push(ValueId(id));
            }
            f.results.push(("r".into(), ValueId(id)));
            f.name = ENTRY.into();
        }
        let _ = (verify(&m), stage::fresh(&m), m.to_string());
    }
}

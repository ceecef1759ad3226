//! Quantised modules as the evaluator sees them: with exact products they are the modules of the
//! dequantised weights, to the bit; with 8-bit products they are near. And one layer of two real models in
//! two mixes, as fused and as planned.

use std::{borrow::Cow, collections::BTreeMap, ops::Range};

use llmc_frontend::{BuildOptions, Input, Model, ModelDir, Overrides};
use llmc_ir::{
    DType, Module, TensorSource,
    eval::{
        Evaluator,
        batch::Batch,
        infer::{InferOptions, InferOutput, infer},
    },
    print::func_text,
    quant::rows::{row_values, store_rows},
    source::{TensorInfo, tensor_name},
};
use llmc_passes::{Activations, Kv, Manager, Precision, Quant, TileFacts, pipeline};
use serde_json::json;

/// A small decoder whose rows are blocks of 256, with made-up weights.
fn model() -> Model {
    let config = json!({
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        "hidden_size": 256,
        "intermediate_size": 512,
        "num_attention_heads": 8,
        "num_key_value_heads": 2,
        "num_hidden_layers": 5,
        "vocab_size": 192,
        "max_position_embeddings": 64,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
        "tie_word_embeddings": true,
        "initializer_range": 0.05
    });
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("config.json");
    std::fs::write(&file, config.to_string()).unwrap();
    build(&file)
}

fn build(config: &std::path::Path) -> Model {
    let input = Input::resolve(config.to_str().unwrap()).unwrap();
    let dir = ModelDir::open(&input, &Overrides::default()).unwrap();
    let options = BuildOptions {
        random_weights: Some(5),
        ..BuildOptions::default()
    };
    Model::build(&dir, &options).unwrap()
}

fn fused(module: &Module, precision: Precision) -> Module {
    let mut module = module.clone();
    Manager::new()
        .run(&pipeline::fused_in(precision), &mut module)
        .unwrap();
    module
}

fn precision(quant: Quant, activations: Activations) -> Precision {
    Precision {
        quant,
        activations,
        kv: Kv::F32,
    }
}

fn evaluate(module: &Module, source: &dyn TensorSource) -> InferOutput {
    let ids: Vec<i32> = (0..24).map(|i| (i * i * 7 + i * 13) % 192).collect();
    let options = InferOptions {
        hidden_states: true,
        ..InferOptions::default()
    };
    let mut evaluator = Evaluator::new(module, source).unwrap();
    infer(&mut evaluator, &Batch::single(&ids), &options).unwrap()
}

/// A checkpoint of f32 that holds what a module's weights stand for.
struct Dequantised(BTreeMap<String, (Vec<u32>, Vec<f32>)>);

impl Dequantised {
    fn of(module: &Module, source: &dyn TensorSource) -> Dequantised {
        let mut tensors = BTreeMap::new();
        for (w, weight) in module.weights.iter().enumerate() {
            let class = module.class_of_weight(llmc_ir::WeightId(w as u32));
            for slot in 0..weight.slots.unwrap_or(1) {
                let layer = class.and_then(|c| module.layer_of(c, slot));
                for part in &weight.source.parts {
                    let name = tensor_name(&part.name, layer).into_owned();
                    let info = source.info(&name).unwrap();
                    let cols = *info.dims.last().unwrap() as usize;
                    let rows: u64 = info
                        .dims
                        .iter()
                        .rev()
                        .skip(1)
                        .map(|d| u64::from(*d))
                        .product();
                    let bytes = source.read(&name, 0..rows * info.dtype.row_bytes(cols as u64));
                    let to = weight.ty.dtype;
                    let stored = store_rows(info.dtype, to, cols, bytes.unwrap()).unwrap();
                    let values = row_values(to, cols, &stored);
                    tensors.insert(name, (info.dims, values));
                }
            }
        }
        Dequantised(tensors)
    }
}

impl TensorSource for Dequantised {
    fn info(&self, name: &str) -> Option<TensorInfo> {
        let (dims, _) = self.0.get(name)?;
        Some(TensorInfo {
            dtype: DType::F32,
            dims: dims.clone(),
        })
    }

    fn read(&self, name: &str, range: Range<u64>) -> Result<Cow<'_, [u8]>, String> {
        let (_, values) = self.0.get(name).ok_or("no such tensor")?;
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        Ok(bytes[range.start as usize..range.end as usize]
            .to_vec()
            .into())
    }

    fn release(&self, _: &str, _: Range<u64>) {}
}

const QUANTS: [Quant; 6] = [
    Quant::Bf16,
    Quant::F16,
    Quant::Q8_0,
    Quant::Q4_0,
    Quant::Q4KM,
    Quant::Int8,
];

#[test]
fn exact_products_see_the_dequantised_weights_to_the_bit() {
    let model = model();
    let original = evaluate(&model.module, &model.weights);
    for quant in QUANTS {
        let module = fused(&model.module, precision(quant, Activations::F32));
        let found = evaluate(&module, &model.weights);
        let mut plain = module.clone();
        let dequantised = Dequantised::of(&module, &model.weights);
        plain
            .weights
            .iter_mut()
            .for_each(|w| w.ty.dtype = DType::F32);
        let expected = evaluate(&plain, &dequantised);
        assert_eq!(found.tensors, expected.tensors, "{}", quant.name());
        assert_ne!(found.tensors, original.tensors, "{}", quant.name());
    }
}

/// Σ (a − b)² / Σ b² over the logits, its root.
fn distance(a: &InferOutput, b: &InferOutput) -> f64 {
    let (a, b) = (&a.tensors["logits"].data, &b.tensors["logits"].data);
    let square = |x: f32| f64::from(x) * f64::from(x);
    let off: f64 = a.iter().zip(b).map(|(a, b)| square(a - b)).sum();
    (off / b.iter().map(|b| square(*b)).sum::<f64>()).sqrt()
}

#[test]
fn products_in_fewer_bits_are_near() {
    let model = model();
    for quant in [
        Quant::Bf16,
        Quant::Q8_0,
        Quant::Q4_0,
        Quant::Q4KM,
        Quant::Int8,
    ] {
        let exact = fused(&model.module, precision(quant, Activations::F32));
        let auto = fused(&model.module, precision(quant, Activations::Auto));
        assert!(auto.to_string().contains("= quantize %"), "{auto}");
        let (exact, auto) = (
            evaluate(&exact, &model.weights),
            evaluate(&auto, &model.weights),
        );
        let off = distance(&auto, &exact);
        assert!((1e-5..0.03).contains(&off), "{}: {off}", quant.name());
    }
}

/// More bits are nearer to the weights that were quantised.
#[test]
fn weights_in_more_bits_are_nearer() {
    let model = model();
    let original = evaluate(&model.module, &model.weights);
    let off = |quant| {
        let module = fused(&model.module, precision(quant, Activations::F32));
        distance(&evaluate(&module, &model.weights), &original)
    };
    let [bf16, f16, q8_0, q4_0, q4_k_m, int8] = QUANTS.map(off);
    assert!(
        f16 < bf16 && bf16 < q8_0 && q8_0 < q4_k_m && q4_k_m < q4_0,
        "{f16} {bf16} {q8_0} {q4_k_m} {q4_0}"
    );
    assert!(
        q8_0 < int8 && int8 < q4_0 && q4_0 < 0.35,
        "{q8_0} {int8} {q4_0}"
    );
}

/// The classes of a model's layers and their weights, as fused and as planned.
fn snapshot(config: &str, quant: Quant) {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/configs");
    let model = build(&std::path::Path::new(folder).join(config));
    let precision = Precision {
        quant,
        ..Precision::default()
    };
    let mut module = fused(&model.module, precision);
    let layers = |module: &Module| {
        let classes = module
            .funcs
            .iter()
            .filter(|f| f.name != llmc_ir::module::ENTRY);
        classes
            .map(|f| func_text(module, f))
            .collect::<Vec<_>>()
            .join("\n")
    };
    let fused = layers(&module);
    Manager::new()
        .run(&pipeline::planned(TileFacts::default()), &mut module)
        .unwrap();
    let lines = |what: &str| {
        let all = module.to_string();
        let kept: Vec<String> = all
            .lines()
            .filter(|l| l.starts_with(what))
            .map(str::to_string)
            .collect();
        kept.join("\n")
    };
    let (weights, states) = (lines("weight "), lines("state "));
    let name = format!("{}_{}", config.trim_end_matches(".json"), quant.name());
    let planned = layers(&module);
    insta::assert_snapshot!(
        name,
        format!("{weights}\n{states}\n\n// fused\n{fused}\n// planned\n{planned}")
    );
}

#[test]
fn gemma3_layers_in_q4_k_m() {
    snapshot("gemma3-270m.json", Quant::Q4KM);
}

#[test]
fn gemma3_layers_in_q8_0() {
    snapshot("gemma3-270m.json", Quant::Q8_0);
}

#[test]
fn qwen2_layers_in_q4_k_m() {
    snapshot("qwen2.5-0.5b.json", Quant::Q4KM);
}

#[test]
fn qwen2_layers_in_q8_0() {
    snapshot("qwen2.5-0.5b.json", Quant::Q8_0);
}

//! `llmc inspect` as a process: golden models, well-known configurations, the table.

use std::path::Path;

use llmc_frontend::{BuildOptions, Input, Model, ModelDir, Overrides};
use llmc_ir::stage;
use llmc_passes::{Manager, Precision, TileFacts, pipeline};
use llmc_tests::{
    binaries::{llmc, ok, run},
    golden, model_copy,
};
use serde_json::{Value, json};

fn inspect(input: &Path) -> Value {
    let text = ok(&llmc(), &["inspect", input.to_str().unwrap(), "--json"]);
    assert_eq!(text.lines().count(), 1);
    serde_json::from_str(&text).unwrap()
}

fn model(name: &str) -> Value {
    inspect(&golden::root().join("models").join(name))
}

#[test]
fn a_decoder() {
    let facts = model("llama2_gqa");
    assert_eq!(facts["family"], "llama");
    assert_eq!(facts["architecture"], "LlamaForCausalLM");
    assert_eq!(facts["kind"], "decoder");
    assert_eq!(facts["parameters"], 29304);
    assert_eq!(facts["max_context"], 192);
    let class = json!([{"name": "layer", "layers": [0, 1], "heads": 4, "mask": "causal"}]);
    assert_eq!(facts["layer_classes"], class);
    assert_eq!(facts["kv_cache"][0]["kv_heads"], 2);
    assert_eq!(facts["kv_cache"][0]["k_dim"], 12);
    assert_eq!(facts["weight_types"], json!({"f32": 29304 * 4}));
    assert_eq!(facts["tokenizer"]["kind"], "SentencePiece BPE");
    assert_eq!(facts["tokenizer"]["chat_templates"], json!(["default"]));
    assert_eq!(facts["tokens"], json!({"bos": 1, "eos": [2], "pad": null}));
    assert_eq!(facts["weights_found"], true);
    assert_eq!(facts["unused"], json!([]));
    let table = facts["weights"].as_array().unwrap();
    let wq = table
        .iter()
        .find(|w| w["from"] == json!(["model.layers.{layer}.self_attn.q_proj.weight"]));
    assert_eq!(wq.unwrap()["shape"], json!([48, 24]));
}

#[test]
fn layer_classes() {
    let facts = model("gemma3_text");
    let classes = facts["layer_classes"].as_array().unwrap();
    let class = |name: &str| classes.iter().find(|c| c["name"] == name).unwrap();
    assert_eq!(class("layer.sliding")["layers"], json!([0, 1]));
    assert_eq!(class("layer.sliding")["mask"], "causal & window(8)");
    assert_eq!(class("layer.full")["layers"], json!([2]));
}

#[test]
fn a_sentence_transformer() {
    let folder = model_copy::of("bert_base");
    model_copy::add_sentence_modules(folder.path(), 24);
    let facts = inspect(folder.path());
    assert_eq!(facts["kind"], "encoder");
    assert_eq!(
        facts["sentence"],
        json!({"pooling": "mean", "normalize": true, "max_tokens": 64})
    );
    let outputs: Vec<_> = facts["outputs"]
        .as_array()
        .unwrap()
        .iter()
        .map(|o| &o["name"])
        .collect();
    assert!(
        outputs.contains(&&json!("sentence_embedding")),
        "{outputs:?}"
    );
}

/// Parameters as published, from the configuration alone.
#[test]
fn well_known_configurations() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/configs");
    for (name, family, parameters) in [
        ("blip2-flan-t5-xl", "blip-2", 3_942_446_592u64),
        ("blip2-opt-2.7b", "blip-2", 3_744_761_856),
        ("bloom-560m", "bloom", 559_214_592),
        ("falcon-7b", "falcon", 6_921_720_704),
        ("gemma2-2b", "gemma2", 2_614_341_888),
        ("gpt1", "openai-gpt", 116_534_784),
        ("gpt2", "gpt2", 124_439_808),
        ("gpt2-xl", "gpt2", 1_557_611_200),
        ("gpt3-6.7b-shape", "gpt3", 6_658_404_352),
        ("opt-1.3b", "opt", 1_315_758_080),
        ("phi3-mini-4k", "phi3", 3_821_079_552),
        ("phi3-mini-128k", "phi3", 3_821_079_552),
        ("qwen3-8b", "qwen3", 8_190_735_360),
        ("stablelm-3b", "stablelm", 2_795_443_200),
        ("llama2-7b", "llama", 6_738_415_616),
        ("llama2-70b", "llama", 68_976_648_192),
        ("llama3-8b", "llama", 8_030_261_248),
        ("mistral-7b", "mistral", 7_241_732_096),
        ("mixtral-8x7b", "mixtral", 46_702_792_704),
        ("gpt-oss-20b", "gpt_oss", 20_914_757_184),
        ("qwen3-30b-a3b", "qwen3_moe", 30_532_122_624),
        ("qwen2.5-0.5b", "qwen2", 494_032_768),
        ("gemma3-270m", "gemma3_text", 268_098_176),
        ("gemma3-1b", "gemma3_text", 999_885_952),
        ("minilm-l6", "bert", 22_713_216),
        ("deberta-base", "deberta", 138_601_728),
        ("deberta-v3-base", "deberta-v2", 183_831_552),
        ("t5-base", "t5", 222_903_552),
        ("flan-t5-base", "t5", 247_577_856),
        ("flan-t5-xl", "t5", 2_849_757_184),
    ] {
        let facts = inspect(&folder.join(format!("{name}.json")));
        assert_eq!(facts["family"], family, "{name}");
        assert_eq!(facts["parameters"], parameters, "{name}");
        assert_eq!(facts["weights_found"], false, "{name}");
    }
}

/// Every configuration builds a module that verifies, as the family writes it and as it is planned.
#[test]
fn all_configurations_build() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/configs");
    let mut count = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let input = Input::resolve(path.to_str().unwrap()).unwrap();
        let dir = ModelDir::open(&input, &Overrides::default()).unwrap();
        let options = BuildOptions {
            random_weights: Some(1),
            ..BuildOptions::default()
        };
        let model =
            Model::build(&dir, &options).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let mut module = model.module;
        let fresh = stage::fresh(&module);
        assert!(fresh.is_empty(), "{}: {}", path.display(), fresh[0]);
        let passes = pipeline::all_in(Precision::default(), TileFacts::default());
        Manager::new()
            .run(&passes, &mut module)
            .unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        count += 1;
    }
    assert!(count >= 20, "{count} configurations");
}

#[test]
fn the_table() {
    let folder = golden::root().join("models/llama2_gqa");
    let text = ok(&llmc(), &["inspect", folder.to_str().unwrap()]);
    for words in [
        "     model  llama2_gqa (llama, LlamaForCausalLM), decoder\n",
        "29304 parameters, 2 layers of width 24, vocabulary 356\n",
        "layer × 2 (0-1): 4 heads, mask causal\n",
        "2 heads, keys of 12 and values of 12, in 2 layers\n",
        "f32[48, 24]",
        "model.layers.{layer}.self_attn.q_proj.weight\n",
    ] {
        assert!(text.contains(words), "{words:?} in:\n{text}");
    }
}

#[test]
fn what_is_no_model_is_refused() {
    let folder = model_copy::of("llama2_gqa");
    model_copy::edit(
        &folder.path().join("config.json"),
        json!({"hidden_size": 0}),
    );
    for (input, words) in [
        (
            folder.path().to_str().unwrap(),
            "config.json: `hidden_size`: found 0",
        ),
        ("/nowhere", "/nowhere"),
    ] {
        let out = run(&llmc(), &["inspect", input, "--json"]);
        let said = String::from_utf8_lossy(&out.stderr);
        assert_eq!(out.status.code(), Some(2), "{said}");
        assert!(out.stdout.is_empty() && said.contains(words), "{said}");
    }
}

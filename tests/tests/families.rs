//! One layer of each family, as the family writes it and as the pipeline leaves it: attention
//! raised, heads shared, masks carried, norms, residuals, QKV and gate/up fused.

use llmc_frontend::{BuildOptions, Input, Model, ModelDir, Overrides};
use llmc_ir::{Module, print::func_text};
use llmc_passes::{Manager, TileFacts, pipeline};
use llmc_tests::golden;

/// The layer classes of a module, as text.
fn layers(module: &Module) -> String {
    let classes = module.funcs.iter().filter(|f| f.entry().is_none());
    classes
        .map(|f| func_text(module, f))
        .collect::<Vec<_>>()
        .join("\n")
}

fn snapshot(case: &str) {
    let dir = golden::folders().map(|folder| folder.join(case));
    let dir = dir.into_iter().find(|dir| dir.exists()).unwrap();
    let input = Input::resolve(dir.to_str().unwrap()).unwrap();
    let dir = ModelDir::open(&input, &Overrides::default()).unwrap();
    let mut module = Model::build(&dir, &BuildOptions::default()).unwrap().module;
    let before = layers(&module);
    Manager::new().run(&pipeline::fused(), &mut module).unwrap();
    let fused = layers(&module);
    Manager::new()
        .run(&pipeline::planned(TileFacts::default()), &mut module)
        .unwrap();
    let planned = layers(&module);
    insta::assert_snapshot!(
        case,
        format!("// model\n{before}\n// fused\n{fused}\n// planned\n{planned}")
    );
}

#[test]
fn albert() {
    snapshot("albert_mlm");
}

#[test]
fn bert() {
    snapshot("bert_base");
}

/// A picture's layers, what leaves its keys and values, the queries' layers with a look at it and without, OPT's.
#[test]
fn blip2() {
    snapshot("blip2_opt");
}

#[test]
fn bloom() {
    snapshot("bloom_heads6");
}

#[test]
fn deberta_v3() {
    snapshot("deberta_v3_base");
}

#[test]
fn falcon() {
    snapshot("falcon_new_arch");
}

#[test]
fn gemma2() {
    snapshot("gemma2");
}

#[test]
fn gemma3() {
    snapshot("gemma3_text");
}

#[test]
fn gpt_oss() {
    snapshot("gpt_oss");
}

#[test]
fn gpt3() {
    snapshot("gpt3_sparse");
}

#[test]
fn gpt2() {
    snapshot("gpt2");
}

#[test]
fn llama() {
    snapshot("llama2_gqa");
}

#[test]
fn mistral() {
    snapshot("mistral_swa");
}

#[test]
fn mixtral() {
    snapshot("mixtral");
}

#[test]
fn mpnet() {
    snapshot("mpnet_base");
}

#[test]
fn qwen2() {
    snapshot("qwen2");
}

#[test]
fn opt_behind() {
    snapshot("opt_postln");
}

#[test]
fn phi3() {
    snapshot("phi3_partial_gqa");
}

#[test]
fn phi3_longrope() {
    snapshot("phi3_longrope");
}

#[test]
fn stablelm() {
    snapshot("stablelm_parallel");
}

#[test]
fn qwen3_moe() {
    snapshot("qwen3_moe");
}

#[test]
fn qwen3() {
    snapshot("qwen3");
}

/// Encoder, what writes the source's keys and values, decoder.
#[test]
fn t5() {
    snapshot("flan_t5");
}

//! Golden models by the reference evaluator: as the family writes them, and after every pass of the
//! pipeline. The evaluator is the semantics, so that this checks families and passes alone.

use llmc_frontend::{BuildOptions, Input, Model, ModelDir, Overrides};
use llmc_ir::{
    Module, TensorSource,
    eval::{
        Evaluator,
        batch::Batch,
        encoder_decoder,
        infer::{InferOptions, InferOutput, infer},
    },
    stage, verify,
};
use llmc_passes::{Activations, Precision, Remarks, TileFacts, pipeline};
use llmc_tests::golden::{self, Case, Data, Tensor};

/// A golden case's inputs as the evaluator takes them.
fn batch(case: &Case, scenario: &str) -> Batch {
    let inputs = case.inputs(scenario);
    let ints = |name: &str| Some(inputs.get(name)?.ints().to_vec());
    let narrow = |ids: Vec<i64>| ids.into_iter().map(|i| i as i32).collect();
    let shape = &inputs["input_ids"].shape;
    Batch {
        rows: shape[0],
        len: shape[1],
        ids: ints("input_ids").map(narrow).unwrap_or_default(),
        mask: ints("attention_mask").map(|m| m.into_iter().map(|m| m != 0).collect()),
        types: ints("token_type_ids").map(narrow),
        ..Batch::default()
    }
}

/// An encoder-decoder's texts.
fn text(case: &Case, scenario: &str) -> Option<Batch> {
    let ids = case.inputs(scenario).remove("decoder_input_ids")?;
    Some(Batch {
        rows: ids.shape[0],
        len: ids.shape[1],
        ids: ids.ints().iter().map(|&id| id as i32).collect(),
        ..Batch::default()
    })
}

/// The evaluator's outputs under HF's names.
fn found(output: &InferOutput, name: &str) -> Option<Tensor> {
    if name == "generated_ids" {
        let rows = output.generated.as_ref()?;
        let shape = [rows.len(), rows.first().map_or(0, Vec::len)];
        return Some(Tensor::i64(
            &shape,
            rows.concat().into_iter().map(i64::from).collect(),
        ));
    }
    let t = output.tensors.get(name)?;
    Some(Tensor {
        shape: t.dims.clone(),
        data: Data::F32(t.data.clone()),
    })
}

/// Compares every output that the golden has, and those of generation where `generate`.
fn check(case: &Case, module: &Module, source: &dyn TensorSource, at: &str, generate: bool) {
    let violations: Vec<String> = verify(module).iter().map(ToString::to_string).collect();
    assert!(
        violations.is_empty(),
        "{} {at}:\n{}\n{module}",
        case.name,
        violations.join("\n")
    );
    let mut evaluator = Evaluator::new(module, source).unwrap();
    let pad = case.scalar("pad_token_id").unwrap_or(0) as i32;
    let scenarios = ["single", "cross", "short", "batch", "eos_test"];
    let scenarios = scenarios.into_iter().filter(|s| case.has(s));
    for scenario in scenarios {
        let new = case.outputs(scenario).find(|(n, _)| *n == "generated_ids");
        // Texts about a source begin with the start token.
        let start = usize::from(text(case, "single").is_some());
        let new = new.map(|(_, t)| t.shape[1] - start).filter(|_| generate);
        let eos_test = scenario == "eos_test";
        if eos_test && new.is_none() {
            continue;
        }
        let eos = case.scalar("eos_test.eos_token_id").filter(|_| eos_test);
        let input = if eos_test { "batch" } else { scenario };
        let options = InferOptions {
            hidden_states: true,
            generate: new,
            eos: eos.map(|e| e as i32).into_iter().collect(),
            pad,
        };
        let source = batch(case, input);
        let output = match text(case, input) {
            Some(text) => encoder_decoder::infer(&mut evaluator, &source, Some(&text), 0, &options),
            None => infer(&mut evaluator, &source, &options),
        };
        let output = output.unwrap_or_else(|e| panic!("{} {at}: {e}", case.name));
        for (name, want) in case.outputs(scenario) {
            let what = format!("{} {at} {scenario}.{name}", case.name);
            let skipped = match name {
                "generated_margin" | "generated_max_logit" => true,
                "generated_ids" => !generate || case.is_padded_longrope(scenario),
                // Only a directory with `modules.json` says how to pool.
                "sentence_embedding" => !case.dir.join("modules.json").exists(),
                _ => false,
            };
            if skipped {
                continue;
            }
            let have = found(&output, name).unwrap_or_else(|| panic!("{what} is missing"));
            let inputs = case.inputs(input);
            let mask = inputs.get("attention_mask");
            let mask = mask.filter(|_| case.is_masked(name));
            let compared = case.compare(&what, want, &have, mask);
            compared.unwrap_or_else(|e| panic!("{e}"));
        }
    }
}

/// A case at stage `model`, and after every pass.
fn run(prefix: &str) {
    let cases = golden::cases(&[prefix]);
    assert!(!cases.is_empty(), "no golden case `{prefix}…`");
    for case in cases {
        let input = Input::resolve(case.dir.to_str().unwrap()).unwrap();
        let dir = ModelDir::open(&input, &Overrides::default()).unwrap();
        let model = Model::build(&dir, &BuildOptions::default())
            .unwrap_or_else(|e| panic!("{}: {e}", case.name));
        let fresh: Vec<String> = stage::fresh(&model.module)
            .iter()
            .map(|v| v.to_string())
            .collect();
        assert!(fresh.is_empty(), "{}: {}", case.name, fresh.join("\n"));
        check(&case, &model.module, &model.weights, "model", true);
        let mut module = model.module.clone();
        // Exact, for weights in blocks too.
        let precision = Precision {
            activations: Activations::F32,
            ..Precision::default()
        };
        let passes = pipeline::all_in(precision, TileFacts::default());
        for (i, pass) in passes.iter().enumerate() {
            pass.run(&mut module, &mut Remarks::new())
                .unwrap_or_else(|e| panic!("{} {}: {e}", case.name, pass.name()));
            // Generation takes long: once a stage, which a pass enters.
            let entered = pass.name().starts_with("enter-") || i + 1 == passes.len();
            let at = format!("after {}", pass.name());
            check(&case, &module, &model.weights, &at, entered);
        }
    }
}

#[test]
fn albert() {
    run("albert");
}

#[test]
fn bert() {
    run("bert");
}

#[test]
fn distilbert() {
    run("distilbert");
}

#[test]
fn bloom() {
    run("bloom");
}

#[test]
fn deberta() {
    run("deberta");
}

#[test]
fn falcon() {
    run("falcon");
}

#[test]
fn gemma2() {
    run("gemma2");
}

#[test]
fn gemma3() {
    run("gemma3_text");
}

#[test]
fn gpt1() {
    run("gpt1");
}

#[test]
fn gpt2() {
    run("gpt2");
}

#[test]
fn gpt3() {
    run("gpt3");
}

#[test]
fn gpt_bigcode() {
    run("gptbigcode");
}

#[test]
fn gpt_neo() {
    run("gptneo");
}

#[test]
fn gpt_oss() {
    run("gpt_oss");
}

#[test]
fn llama() {
    run("llama");
}

#[test]
fn dynamic_rope() {
    run("dynamic_rope");
}

#[test]
fn mistral() {
    run("mistral_swa");
}

#[test]
fn mixtral() {
    run("mixtral");
}

#[test]
fn mpnet() {
    run("mpnet");
}

#[test]
fn opt() {
    run("opt");
}

#[test]
fn phi3_longrope() {
    run("phi3_longrope");
}

#[test]
fn phi3_partial() {
    run("phi3_partial");
}

#[test]
fn phi3_window() {
    run("phi3_swa");
}

#[test]
fn qwen2() {
    run("qwen2");
}

#[test]
fn qwen3() {
    run("qwen3");
}

#[test]
fn roberta() {
    run("roberta");
}

#[test]
fn stablelm() {
    run("stablelm");
}

#[test]
fn t5() {
    run("t5_v1_0");
    run("flan_t5");
}

#[test]
fn t5_encoder() {
    run("t5_encoder");
}

#[test]
fn xlm_roberta() {
    run("xlm_roberta");
}

//! What a family means: its module, run by the reference evaluator, gives what transformers gives.

mod common;
#[allow(dead_code)]
#[path = "../../tests/src/gguf/mod.rs"]
mod gguf;

use common::golden;
use llmc_frontend::weights::safetensors::SafetensorsFile;
use llmc_frontend::{BuildOptions, Input, Model, ModelDir, Overrides};
use llmc_ir::eval::batch::Batch;
use llmc_ir::eval::infer::{InferOptions, InferOutput, infer};
use llmc_ir::eval::{Evaluator, Tensor};
use std::path::Path;

/// Tensors of a golden file.
struct Expected(SafetensorsFile);

impl Expected {
    fn ids(&self, name: &str) -> Option<(Vec<u64>, Vec<i32>)> {
        let (info, data) = (self.0.info(name)?, self.0.data(name)?);
        let ids = data
            .chunks_exact(8)
            .map(|b| i64::from_le_bytes(b.try_into().unwrap()) as i32);
        Some((info.shape.clone(), ids.collect()))
    }

    fn floats(&self, name: &str) -> Option<(Vec<usize>, Vec<f32>)> {
        let (info, data) = (self.0.info(name)?, self.0.data(name)?);
        let floats = data
            .chunks_exact(4)
            .map(|b| f32::from_le_bytes(b.try_into().unwrap()));
        Some((
            info.shape.iter().map(|d| *d as usize).collect(),
            floats.collect(),
        ))
    }
}

/// Runs `folder` on the inputs of `case` and compares every output that the golden file has.
#[track_caller]
fn check(case: &str, folder: &Path) -> usize {
    let input = Input::resolve(folder.to_str().unwrap()).unwrap();
    let dir = ModelDir::open(&input, &Overrides::default()).unwrap();
    let model =
        Model::build(&dir, &BuildOptions::default()).unwrap_or_else(|e| panic!("{case}: {e}"));
    let mut evaluator =
        Evaluator::new(&model.module, &model.weights).unwrap_or_else(|e| panic!("{case}: {e}"));
    let expected = Expected(
        SafetensorsFile::open(&golden("models").join(case).join("golden.safetensors")).unwrap(),
    );
    let mut compared = 0;
    for set in ["single", "batch"] {
        let (shape, ids) = expected.ids(&format!("in.{set}.input_ids")).unwrap();
        let (rows, len) = (shape[0] as usize, shape[1] as usize);
        let optional = |name: &str| {
            expected
                .ids(&format!("in.{set}.{name}"))
                .map(|(_, ids)| ids)
        };
        let mask =
            optional("attention_mask").map(|mask| mask.iter().map(|m| *m != 0).collect::<Vec<_>>());
        let generated = expected.ids(&format!("out.{set}.generated_ids"));
        let batch = Batch {
            rows,
            len,
            ids,
            mask: mask.clone(),
            types: optional("token_type_ids"),
            ..Batch::default()
        };
        let generate = generated.as_ref().map(|(shape, _)| shape[1] as usize);
        let options = InferOptions {
            hidden_states: true,
            generate,
            ..InferOptions::default()
        };
        let found =
            infer(&mut evaluator, &batch, &options).unwrap_or_else(|e| panic!("{case}: {e}"));
        for (name, tensor) in &found.tensors {
            if let Some((dims, values)) = expected.floats(&format!("out.{set}.{name}")) {
                compare(
                    &format!("{case} {set} {name}"),
                    tensor,
                    &dims,
                    &values,
                    mask.as_deref(),
                );
                compared += 1;
            }
        }
        compared += check_generated(case, &found, generated);
    }
    compared
}

fn check_generated(
    case: &str,
    found: &InferOutput,
    expected: Option<(Vec<u64>, Vec<i32>)>,
) -> usize {
    let Some((_, expected)) = expected else {
        return 0;
    };
    let found = found.generated.as_ref().unwrap().concat();
    assert_eq!(found, expected, "{case}");
    1
}

/// Golden tensors over tokens hold the last positions only; masked positions are not compared.
#[track_caller]
fn compare(what: &str, found: &Tensor, dims: &[usize], expected: &[f32], mask: Option<&[bool]>) {
    let width = found.last();
    assert_eq!(dims.last(), Some(&width), "{what}");
    let (len, kept) = match dims.len() {
        3 => (found.dims[1], dims[1]),
        _ => (1, 1),
    };
    for row in 0..dims[0] {
        for at in 0..kept {
            let position = len - kept + at;
            if dims.len() == 3 && mask.is_some_and(|mask| !mask[row * len + position]) {
                continue;
            }
            let found = &found.data[(row * len + position) * width..][..width];
            let expected = &expected[(row * kept + at) * width..][..width];
            for (f, e) in found.iter().zip(expected) {
                assert!(
                    (f - e).abs() <= 2e-4 + 1e-3 * e.abs(),
                    "{what}[{row}, {position}]: found {f}, expected {e}"
                );
            }
        }
    }
}

#[test]
fn decoders() {
    for case in [
        "falcon_mqa",
        "falcon_new_arch",
        "gemma2",
        "gemma3_text",
        "gpt1",
        "gpt2",
        "gpt2_hub_layout",
        "gptbigcode_mqa",
        "gptneo_local",
        "llama2_bf16_sharded",
        "llama2_gqa",
        "llama2_mha",
        "llama3_rope",
        "llama_linear_rope",
        "llama_yarn_rope",
        "mistral_swa",
        "opt",
        "opt_postln",
        "phi3_partial_gqa",
        "phi3_swa",
        "qwen2",
        "qwen3",
    ] {
        let compared = check(case, &golden("models").join(case));
        assert!(compared >= 7, "{case}: {compared} outputs compared");
    }
}

#[test]
fn encoders() {
    for case in ["bert_base", "mpnet_base"] {
        let compared = check(case, &golden("models").join(case));
        assert!(compared >= 7, "{case}: {compared} outputs compared");
    }
}

#[test]
fn gguf_files() {
    let folder = tempfile::tempdir().unwrap();
    for case in [
        "bert_base",
        "gemma3_text",
        "llama2_gqa",
        "llama3_rope",
        "llama_linear_rope",
        "llama_yarn_rope",
        "mistral_swa",
        "qwen2",
    ] {
        let path = folder.path().join(format!("{case}.gguf"));
        let model = golden("models").join(case);
        gguf::Gguf::of_golden(&model, gguf::Elements::F32).write(&path);
        let compared = check(case, &path);
        // The converter drops BERT's pooler.
        let expected = if case == "bert_base" { 5 } else { 7 };
        assert!(compared >= expected, "{case}: {compared} outputs compared");
    }
}

#[test]
fn gguf_files_pool_sentences() {
    let folder = common::copy_of("bert_base");
    common::add_sentence_modules(folder.path(), 24);
    let path = folder.path().join("model.gguf");
    let mut file = gguf::Gguf::of_golden(folder.path(), gguf::Elements::F32);
    file.set("bert.pooling_type", gguf::Value::U32(1));
    file.write(&path);
    let outputs = [folder.path(), &path].map(|input| {
        let input = Input::resolve(input.to_str().unwrap()).unwrap();
        let dir = ModelDir::open(&input, &Overrides::default()).unwrap();
        let model = Model::build(&dir, &BuildOptions::default()).unwrap();
        let mut evaluator = Evaluator::new(&model.module, &model.weights).unwrap();
        let batch = Batch {
            rows: 1,
            len: 4,
            ids: vec![2, 17, 30, 3],
            ..Batch::default()
        };
        let found = infer(&mut evaluator, &batch, &InferOptions::default()).unwrap();
        found.tensors["sentence_embedding"].data.clone()
    });
    assert_eq!(outputs[0], outputs[1]);
}

#[test]
fn sentence_transformers() {
    let folder = common::copy_of("mpnet_base");
    common::add_sentence_modules(folder.path(), 24);
    assert!(check("mpnet_base", folder.path()) >= 9);
}

#[test]
fn sentence_transformers_take_the_base_model_of_any_class() {
    // Saved from BertForMaskedLM: `bert.` before the names, `gamma` and `beta` for norms, no pooler.
    let folder = common::copy_of("bert_mlm");
    common::add_sentence_modules(folder.path(), 24);
    let input = Input::resolve(folder.path().to_str().unwrap()).unwrap();
    let dir = ModelDir::open(&input, &Overrides::default()).unwrap();
    let model = Model::build(&dir, &BuildOptions::default()).unwrap();
    let results: Vec<_> = model
        .module
        .entry(llmc_ir::Entry::Forward)
        .unwrap()
        .results
        .iter()
        .map(|(name, _)| name.as_str())
        .collect();
    assert_eq!(results, ["last_hidden_state", "sentence_embedding"]);
    assert!(
        model
            .weights
            .unused
            .iter()
            .all(|name| name.starts_with("cls.")),
        "{:?}",
        model.weights.unused
    );
    assert!(llmc_ir::verify(&model.module).is_empty());
    let (_, stored) = model.weights.stored("embeddings.LayerNorm.weight").unwrap();
    assert_eq!(stored, "bert.embeddings.LayerNorm.gamma");
}

#[test]
fn a_tied_head_that_differs_is_kept() {
    // The configuration says tied, the checkpoint has a head of its own.
    let folder = common::copy_of("llama2_mha");
    let path = folder.path().join("config.json");
    let mut config = common::read_json(&path);
    config["tie_word_embeddings"] = true.into();
    common::write_json(&path, &config);
    assert!(check("llama2_mha", folder.path()) >= 7);
}

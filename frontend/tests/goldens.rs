//! Every golden model directory and tokenizer is read without a complaint.

use std::path::{Path, PathBuf};

use llmc_frontend::tokenizer::{Kind, Tokenizer};
use llmc_frontend::{BuildOptions, FrontendError, Input, Model, ModelDir, Overrides};
use llmc_ir::TensorSource as _;

fn golden(part: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../tests/golden")
        .join(part);
    let mut folders: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    folders.sort();
    folders
}

fn name(path: &Path) -> &str {
    path.file_name().unwrap().to_str().unwrap()
}

#[test]
fn model_directories_load() {
    for folder in golden("models") {
        let input = Input::resolve(folder.to_str().unwrap()).unwrap();
        let model = ModelDir::open(&input, &Overrides::default()).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(
            model.tokenizer.is_some(),
            folder.join("tokenizer.json").exists(),
            "{}",
            name(&folder)
        );
        let weights = model.weights().unwrap_or_else(|e| panic!("{e}"));
        let mut bytes = 0;
        for tensor in weights.names() {
            let info = weights.info(tensor).unwrap();
            let data = weights.read(tensor, 0..info.bytes()).unwrap();
            assert_eq!(data.len() as u64, info.bytes());
            weights.release(tensor, 0..info.bytes());
            bytes += info.bytes();
        }
        assert!(bytes > 0, "{}", name(&folder));
    }
}

#[test]
fn tokenizers_load() {
    for folder in golden("tokenizers") {
        let tokenizer = Tokenizer::open(&folder, None).unwrap_or_else(|e| panic!("{e}"));
        let kind = match name(&folder).trim_end_matches("_1k") {
            "albert" | "deberta_v3" | "t5" | "t5_image" => Kind::Unigram,
            "bert" | "distilbert" | "mpnet" => Kind::WordPiece,
            "gemma" | "llama" | "mistral" | "phi3" => Kind::SentencePieceBpe,
            "gpt1" => Kind::CharacterBpe,
            _ => Kind::ByteLevelBpe,
        };
        assert_eq!(tokenizer.kind, kind, "{}", name(&folder));
        for special in &tokenizer.special {
            assert!(special.id.is_some(), "{}: {special:?}", name(&folder));
        }
    }
}

const IN_SCOPE: [&str; 36] = [
    "bert_base",
    "blip2_opt",
    "blip2_t5",
    "deberta_v1_mlm",
    "deberta_v1_seqcls",
    "deberta_v2_conv",
    "deberta_v2_noshare",
    "deberta_v3_base",
    "deberta_v3_seqcls",
    "falcon_mqa",
    "falcon_new_arch",
    "gemma2",
    "gemma3_text",
    "gpt1",
    "gpt2",
    "gpt2_hub_layout",
    "gpt_oss",
    "gpt_oss_mxfp4",
    "gptbigcode_mqa",
    "gptneo_local",
    "llama2_bf16_sharded",
    "llama2_gqa",
    "llama2_mha",
    "llama3_rope",
    "llama_linear_rope",
    "llama_yarn_rope",
    "mistral_swa",
    "mixtral",
    "mpnet_base",
    "opt",
    "opt_postln",
    "phi3_partial_gqa",
    "phi3_swa",
    "qwen2",
    "qwen3",
    "qwen3_moe",
];

fn build(case: &str, options: &BuildOptions) -> Result<Model, FrontendError> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../tests/golden/models")
        .join(case);
    let dir = ModelDir::open(
        &Input::resolve(folder.to_str().unwrap())?,
        &Overrides::default(),
    )?;
    Model::build(&dir, options)
}

#[test]
fn models_build() {
    for case in IN_SCOPE {
        let model = build(case, &BuildOptions::default()).unwrap_or_else(|e| panic!("{case}: {e}"));
        check_module(case, &model);
        // Mask buffers of old checkpoints.
        let buffer = |name: &String| name.ends_with(".attn.bias");
        assert!(
            model.weights.unused.iter().all(buffer),
            "{case}: {:?}",
            model.weights.unused
        );
        let random = BuildOptions {
            random_weights: Some(1),
            ..BuildOptions::default()
        };
        let random = build(case, &random).unwrap_or_else(|e| panic!("{case}: {e}"));
        assert_eq!(
            random.weights.parameters, model.weights.parameters,
            "{case}"
        );
    }
}

/// The text comes back, and every weight of every layer can be read.
fn check_module(case: &str, model: &Model) {
    let text = model.module.to_string();
    let parsed = llmc_ir::parse(&text).unwrap_or_else(|e| panic!("{case}: {e:?}\n{text}"));
    assert_eq!(parsed, model.module, "{case}");
    let mut wanted = std::collections::BTreeMap::new();
    let repeats = model.module.funcs.iter().flat_map(llmc_ir::Func::repeats);
    let layers = repeats.flat_map(|r| r.layers.iter().map(|(c, s)| (Some(c), *s)));
    for (class, slot) in std::iter::once((None, 0)).chain(layers) {
        let layer = class.and_then(|class| model.module.layer_of(class, slot));
        for (i, weight) in model.module.weights.iter().enumerate() {
            let stacked = weight
                .slots
                .and(model.module.class_of_weight(llmc_ir::WeightId(i as u32)));
            if stacked != class.map(String::as_str) {
                continue;
            }
            let dims = weight.ty.fixed_dims().unwrap();
            if weight.source.projected.is_some() {
                for pattern in weight.source.patterns() {
                    let name = llmc_ir::source::tensor_name(pattern, layer).into_owned();
                    let info = model.weights.info(&name);
                    let info = info.unwrap_or_else(|| panic!("{case}: no {name}"));
                    wanted.insert(name, info.dims.iter().map(|dim| u64::from(*dim)).product());
                }
                continue;
            }
            let mut rows = 0;
            let parts = weight.source.parts.iter();
            for (part, name) in parts.flat_map(|p| p.tensors(layer).map(move |name| (p, name))) {
                let info = model
                    .weights
                    .info(&name)
                    .unwrap_or_else(|| panic!("{case}: no {name}"));
                let mut stored = info.dims.clone();
                let last = stored.len().saturating_sub(2);
                if part.transposed {
                    stored[last..].reverse();
                }
                // Rows of several extents, or matrices over one another in one tensor.
                if dims.len() == 2 && stored[1..].iter().product::<u32>() == dims[1] {
                    stored = vec![stored[0], dims[1]];
                } else if stored.len() == dims.len() + 1 {
                    let matrices = stored.remove(0);
                    stored[0] *= matrices;
                }
                assert_eq!(dims[1..], stored[1..], "{case}: {name}");
                assert_eq!(weight.ty.dtype, info.dtype, "{case}: {name}");
                let (start, end) = part.rows.unwrap_or((0, stored[0]));
                assert!(start < end && end <= stored[0], "{case}: {name}");
                rows += part.count().unwrap_or(end - start);
                let count: u64 = info.dims.iter().map(|dim| u64::from(*dim)).product();
                let bytes = info.dtype.row_bytes(count);
                assert_eq!(
                    model.weights.read(&name, 0..bytes).unwrap().len() as u64,
                    bytes
                );
                wanted.insert(name, count);
            }
            assert_eq!(rows, dims[0], "{case}: @{}", weight.name);
        }
    }
    let elements: u64 = wanted.values().sum();
    assert_eq!(elements, model.weights.parameters, "{case}");
}

#[test]
fn gemma3_alternates_classes() {
    let model = build("gemma3_text", &BuildOptions::default()).unwrap();
    let layers: Vec<_> = model
        .module
        .layers()
        .iter()
        .map(|(c, s)| format!("{c} {s}"))
        .collect();
    assert_eq!(
        layers,
        ["layer.sliding 0", "layer.sliding 1", "layer.full 0"]
    );
    let text = model.module.to_string();
    for expected in [
        "scaling = linear<factor = 8",
        "causal & window(8)",
        "offset = 1",
    ] {
        assert!(text.contains(expected), "{expected}:\n{text}");
    }
}

#[test]
fn heads_of_other_tasks_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("config.json");
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden");
    let text = std::fs::read_to_string(golden.join("models/bert_seqcls/config.json")).unwrap();
    let class = "BertForNextSentencePrediction";
    std::fs::write(
        &config,
        text.replace("BertForSequenceClassification", class),
    )
    .unwrap();
    let input = Input::resolve(config.to_str().unwrap()).unwrap();
    let dir = ModelDir::open(&input, &Overrides::default()).unwrap();
    let error = Model::build(&dir, &BuildOptions::default())
        .err()
        .unwrap()
        .to_string();
    let expected = format!("`architectures`: found {class}, supported are BertModel, ");
    let expected = expected.as_str();
    assert!(
        error.starts_with("not supported yet: ") && error.contains(expected),
        "{error}"
    );
}

#[test]
fn a_configuration_alone_builds_with_random_weights() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("tiny.json");
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden");
    let text = std::fs::read_to_string(golden.join("models/llama3_rope/config.json")).unwrap();
    std::fs::write(
        &config,
        text.replacen('{', "{\"llmc\": {\"quant\": \"none\"},", 1),
    )
    .unwrap();
    let overrides = Overrides {
        tokenizer: Some(golden.join("tokenizers/llama3")),
        weights: None,
    };
    let dir = ModelDir::open(
        &Input::resolve(config.to_str().unwrap()).unwrap(),
        &overrides,
    )
    .unwrap();
    assert_eq!(dir.name, "tiny");
    assert_eq!(dir.options.as_ref().unwrap().text("quant").unwrap(), "none");
    assert_eq!(dir.tokenizer.as_ref().unwrap().kind, Kind::ByteLevelBpe);
    let random = BuildOptions {
        random_weights: Some(3),
        ..BuildOptions::default()
    };
    let model = Model::build(&dir, &random).unwrap();
    assert_eq!(
        model.module.to_string(),
        Model::build(&dir, &random).unwrap().module.to_string()
    );
    let error = Model::build(&dir, &BuildOptions::default())
        .err()
        .unwrap()
        .to_string();
    assert!(error.contains("no weights"), "{error}");
    // With weights from elsewhere it is the golden model.
    let overrides = Overrides {
        weights: Some(golden.join("models/llama3_rope")),
        ..overrides
    };
    let dir = ModelDir::open(&Input::Config(config), &overrides).unwrap();
    Model::build(&dir, &BuildOptions::default()).unwrap();
}

#[test]
fn layers_of_other_types_are_other_classes() {
    // Qwen2 with a window on the last layer alone.
    let folder = tempfile::tempdir().unwrap();
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/models/qwen2");
    let text = std::fs::read_to_string(golden.join("config.json")).unwrap();
    let text = text.replace(
        "\"use_sliding_window\": false",
        "\"use_sliding_window\": true",
    );
    let text = text.replace("\"max_window_layers\": 28", "\"max_window_layers\": 1");
    let text = text.replace("\"sliding_window\": null", "\"sliding_window\": 4");
    std::fs::write(folder.path().join("config.json"), text).unwrap();
    let overrides = Overrides {
        weights: Some(golden),
        tokenizer: None,
    };
    let dir = ModelDir::open(&Input::Directory(folder.path().into()), &overrides).unwrap();
    let model = Model::build(&dir, &BuildOptions::default()).unwrap();
    let layers: Vec<_> = model
        .module
        .layers()
        .iter()
        .map(|(c, s)| format!("{c} {s}"))
        .collect();
    assert_eq!(layers, ["layer.full 0", "layer.sliding 0"]);
    check_module("qwen2", &model);
}

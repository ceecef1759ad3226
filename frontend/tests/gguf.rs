//! GGUF files: the golden models as llama.cpp would write them mean what their directories mean.

mod common;
#[allow(dead_code)]
#[path = "../../tests/src/gguf/mod.rs"]
mod gguf;

use std::path::{Path, PathBuf};

use common::golden;
use gguf::{Elements, Gguf};
use llmc_frontend::tokenizer::Tokenizer;
use llmc_frontend::{BuildOptions, Input, Model, ModelDir, Overrides};
use llmc_ir::TensorSource;

const CASES: [&str; 11] = [
    "bert_base",
    "flan_t5",
    "gemma3_text",
    "llama2_gqa",
    "llama3_rope",
    "llama_linear_rope",
    "llama_yarn_rope",
    "mistral_swa",
    "qwen2",
    "t5_encoder",
    "t5_v1_0",
];

fn open(path: &Path) -> (ModelDir, Model) {
    let input = Input::resolve(path.to_str().unwrap()).unwrap();
    let dir = ModelDir::open(&input, &Overrides::default()).unwrap_or_else(|e| panic!("{e}"));
    let model = Model::build(&dir, &BuildOptions::default()).unwrap_or_else(|e| panic!("{e}"));
    (dir, model)
}

fn written(case: &str, elements: Elements) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    Gguf::of_golden(&golden("models").join(case), elements).write(&path);
    (folder, path)
}

/// The module without its name and without the pooler, which the converter drops.
fn text(model: &Model) -> String {
    let text = model.module.to_string();
    let lines = text.lines().skip(1).filter(|line| !line.contains("pool"));
    lines
        .collect::<Vec<_>>()
        .join("\n")
        .replace(", offset = 1.0", "")
        .replace(", offset = 1", "")
}

fn whole_tensor(model: &Model, tensor: &str) -> Vec<u8> {
    let info = model.weights.info(tensor).unwrap();
    let (columns, rows) = info.dims.split_last().unwrap();
    let rows: u64 = rows.iter().map(|dim| u64::from(*dim)).product();
    let bytes = rows * info.dtype.row_bytes((*columns).into());
    model.weights.read(tensor, 0..bytes).unwrap().into_owned()
}

#[test]
fn golden_models() {
    for case in CASES {
        let (_folder, path) = written(case, Elements::F32);
        let (dir, model) = open(&path);
        let (own_dir, own) = open(&golden("models").join(case));
        assert!(llmc_ir::verify(&model.module).is_empty(), "{case}");
        if case != "bert_base" {
            assert_eq!(text(&model), text(&own), "{case}");
        }
        assert_eq!((model.kind, model.family), (own.kind, own.family), "{case}");
        assert_eq!(model.max_context, own.max_context, "{case}");
        for tensor in model.weights.names() {
            let is_norm = case == "gemma3_text" && tensor.ends_with("norm.weight");
            let (found, expected) = (whole_tensor(&model, tensor), whole_tensor(&own, tensor));
            if is_norm {
                let floats = |bytes: &[u8]| llmc_ir::source::to_f32(llmc_ir::DType::F32, bytes);
                let expected: Vec<f32> = floats(&expected).iter().map(|x| x + 1.0).collect();
                assert_eq!(floats(&found), expected, "{case}: {tensor}");
            } else {
                assert_eq!(found, expected, "{case}: {tensor}");
            }
        }
        let left_out = own
            .weights
            .names()
            .filter(|name| !name.starts_with("pooler."));
        assert_eq!(model.weights.names().count(), left_out.count(), "{case}");
        assert_eq!(
            dir.generation.bos,
            dir.tokenizer
                .as_ref()
                .unwrap()
                .special("bos")
                .and_then(|s| s.id)
        );
        let eos = own_dir.generation.eos;
        assert!(
            eos.iter().all(|id| dir.generation.eos.contains(id)),
            "{case}: {eos:?}"
        );
    }
}

#[test]
fn rows_are_read_piece_by_piece() {
    let (_folder, path) = written("llama2_gqa", Elements::F16);
    let (_, model) = open(&path);
    let tensor = "model.layers.1.self_attn.k_proj.weight";
    let bytes = whole_tensor(&model, tensor);
    for size in [1, 7, 48, 100] {
        let mut pieces = Vec::new();
        for start in (0..bytes.len()).step_by(size) {
            let range = start as u64..(start + size).min(bytes.len()) as u64;
            pieces.extend_from_slice(&model.weights.read(tensor, range.clone()).unwrap());
            model.weights.release(tensor, range);
        }
        assert_eq!(pieces, bytes);
    }
    let end = bytes.len() as u64;
    assert!(model.weights.read(tensor, end..end + 1).is_err());
}

/// A model that `examples/get_models.sh` fetched.
fn real(name: &str) -> Option<PathBuf> {
    let folder = match std::env::var_os("LLMC_MODELS") {
        Some(folder) => PathBuf::from(folder),
        None => PathBuf::from(std::env::var_os("HOME")?).join(".cache/llmc/models"),
    };
    let files = std::fs::read_dir(folder.join(name)).into_iter().flatten();
    let mut files = files.flatten().map(|entry| entry.path());
    let found = files.find(|path| path.extension().is_some_and(|e| e == "gguf"));
    if found.is_none() {
        eprintln!("SKIPPED: {name} is not there; examples/get_models.sh {name} fetches it");
    }
    found
}

/// Texts get the ids that Hugging Face's own tokenizer gives them.
fn check_real(name: &str, types: &[&str], eos: &[u32]) {
    let Some(path) = real(name) else { return };
    let (dir, model) = open(&path);
    assert!(llmc_ir::verify(&model.module).is_empty());
    assert!(
        model.weights.unused.is_empty(),
        "{:?}",
        model.weights.unused
    );
    let mut found: Vec<&str> = model
        .module
        .weights
        .iter()
        .map(|w| w.ty.dtype.name())
        .collect();
    found.sort();
    found.dedup();
    assert_eq!(found, types);
    assert_eq!(dir.generation.eos, eos);
    let tokenizer = tokenizers::Tokenizer::from_bytes(&dir.tokenizer.unwrap().json).unwrap();
    let ids = |text: &str| tokenizer.encode(text, true).unwrap().get_ids().to_vec();

    let info = common::read_json(&golden("real").join(format!("{name}.json")));
    for prompt in info["prompts"].as_array().unwrap() {
        let text = prompt["text"].as_str().unwrap();
        let expected = prompt["ids"].as_array().unwrap().iter();
        let expected: Vec<u32> = expected.map(|id| id.as_u64().unwrap() as u32).collect();
        assert_eq!(ids(text), expected, "{name}: {text:?}");
        assert!(tokenizer.decode(&expected, true).unwrap().trim_start() == text.trim_start());
    }
    let file = golden("real").join(format!("{name}.safetensors"));
    let file = llmc_frontend::weights::safetensors::SafetensorsFile::open(&file).unwrap();
    let expected = file.data("text.input_ids").unwrap().chunks_exact(8);
    let expected: Vec<u32> = expected
        .map(|b| i64::from_le_bytes(b.try_into().unwrap()) as u32)
        .collect();
    assert_eq!(ids(info["text"].as_str().unwrap()), expected, "{name}");
}

#[test]
fn gemma3_270m() {
    check_real(
        "gemma3-270m",
        &["f32", "q4_k", "q5_0", "q6_k", "q8_0"],
        &[1, 106],
    );
}

#[test]
fn qwen2_5_coder_0_5b() {
    let eos = [151_645, 151_643, 151_662, 151_663, 151_664];
    let types = ["f32", "q4_k", "q5_0", "q6_k", "q8_0"];
    check_real("qwen2.5-coder-0.5b", &types, &eos);
}

#[test]
fn qwen2_5_coder_1_5b() {
    let eos = [151_645, 151_643, 151_662, 151_663, 151_664];
    check_real("qwen2.5-coder-1.5b", &["f32", "q4_k", "q6_k"], &eos);
}

#[test]
fn tokenizers_of_golden_texts() {
    for name in [
        "bert",
        "bert_1k",
        "gemma",
        "gemma_1k",
        "gpt2",
        "gpt2_1k",
        "llama",
        "llama_1k",
        "llama3",
        "llama3_1k",
        "mistral",
        "qwen",
        "starcoder",
        "t5",
        "t5_1k",
    ] {
        let folder = golden("tokenizers").join(name);
        let own = common::read_json(&folder.join("tokenizer.json"));
        let settings = common::read_json(&folder.join("tokenizer_config.json"));
        let cases = common::read_json(&folder.join("tokenizer_cases.json"));
        let mut file = Gguf::default();
        file.set("general.architecture", "llama");
        file.tokenizer_of(
            &own,
            &settings,
            cases["vocab_size"].as_u64().unwrap() as usize,
        );
        let path = tempfile::NamedTempFile::new().unwrap();
        file.write(path.path());
        let found = Tokenizer::open(path.path(), None).unwrap_or_else(|e| panic!("{name}: {e}"));
        let own = Tokenizer::open(&folder, None).unwrap();
        assert_eq!(found.kind, own.kind, "{name}");
        assert_eq!(found.templates, own.templates, "{name}");
        let (found, own) = (
            tokenizers::Tokenizer::from_bytes(&found.json).unwrap(),
            tokenizers::Tokenizer::from_bytes(&own.json).unwrap(),
        );
        let pairs = cases["pairs"].as_array().into_iter().flatten();
        for case in pairs.filter(|_| name.starts_with("t5")) {
            let text = |key: &str| case[key].as_str().unwrap().to_owned();
            let encode =
                |t: &tokenizers::Tokenizer| t.encode((text("text"), text("pair")), true).unwrap();
            let (found, own) = (encode(&found), encode(&own));
            assert_eq!(found.get_ids(), own.get_ids(), "{name}: {case}");
            assert_eq!(found.get_type_ids(), own.get_type_ids(), "{name}: {case}");
        }
        let texts = cases["cases"].as_array().unwrap().iter();
        for text in texts.map(|case| case["text"].as_str().unwrap()) {
            // These tokenizers have tokens for runs of spaces that no merge makes, which SentencePiece cannot have.
            if name.starts_with("gemma") && text.replace('▁', " ").contains("  ") {
                continue;
            }
            for special in [true, false] {
                let encode = |t: &tokenizers::Tokenizer| t.encode(text, special).unwrap();
                let (found_ids, own_ids) = (encode(&found), encode(&own));
                assert_eq!(found_ids.get_ids(), own_ids.get_ids(), "{name}: {text:?}");
                let decode = |t: &tokenizers::Tokenizer| t.decode(own_ids.get_ids(), true).unwrap();
                assert_eq!(decode(&found), decode(&own), "{name}: {text:?}");
            }
        }
    }
}

/// A T5 tokenizer, `change`d, and the golden one.
fn t5_tokenizers(
    change: impl FnOnce(&mut Vec<String>, &mut Vec<f32>, &mut Vec<i32>, &mut Gguf),
) -> [tokenizers::Tokenizer; 2] {
    let folder = golden("tokenizers").join("t5");
    let own = common::read_json(&folder.join("tokenizer.json"));
    let settings = common::read_json(&folder.join("tokenizer_config.json"));
    let mut file = Gguf::default();
    file.set("general.architecture", "t5");
    file.tokenizer_of(&own, &settings, 206);
    let key = |name: &str| {
        let name = format!("tokenizer.ggml.{name}");
        let found = file.keys.iter().find(|(key, _)| key == name.as_bytes());
        found.unwrap().1.clone()
    };
    let (
        gguf::Value::Texts(mut tokens),
        gguf::Value::F32s(mut scores),
        gguf::Value::I32s(mut types),
    ) = (key("tokens"), key("scores"), key("token_type"))
    else {
        panic!();
    };
    change(&mut tokens, &mut scores, &mut types, &mut file);
    file.set("tokenizer.ggml.tokens", gguf::Value::Texts(tokens));
    file.set("tokenizer.ggml.scores", gguf::Value::F32s(scores));
    file.set("tokenizer.ggml.token_type", gguf::Value::I32s(types));
    let path = tempfile::NamedTempFile::new().unwrap();
    file.write(path.path());
    let found = Tokenizer::open(path.path(), None).unwrap_or_else(|e| panic!("{e}"));
    let own = Tokenizer::open(&folder, None).unwrap();
    [found, own].map(|t| tokenizers::Tokenizer::from_bytes(&t.json).unwrap())
}

/// The converter knows the pieces of the SentencePiece model alone, and added tokens behind them.
#[test]
fn sentinels_of_t5_are_named_where_their_rows_are_unused() {
    const ADDED: &str = "<added>";
    let [found, own] = t5_tokenizers(|tokens, scores, types, _| {
        for id in 200..206 {
            (tokens[id], scores[id], types[id]) = (format!("[PAD{id}]"), -10000.0, 5);
        }
        tokens.push(ADDED.into());
        scores.push(-1000.0);
        types.push(4);
    });
    let ids =
        |t: &tokenizers::Tokenizer, text: &str| t.encode(text, true).unwrap().get_ids().to_vec();
    // Among them a character that is not in the vocabulary.
    for text in [
        "a<extra_id_0> cat <extra_id_5>",
        "the \u{10348} cat",
        "[PAD203]",
        "<extra_id_6>",
    ] {
        assert_eq!(ids(&found, text), ids(&own, text), "{text}");
    }
    assert_eq!(ids(&found, ADDED), [206, 1]);
    let decode = |special: bool| found.decode(&[205, 206], special).unwrap();
    assert_eq!(
        (decode(true).trim(), decode(false).trim()),
        (ADDED, "<extra_id_0><added>")
    );

    // A row between tokens that nobody uses is no piece, and has no say in what an unknown character costs.
    let [found, own] = t5_tokenizers(|tokens, scores, types, _| {
        (tokens[205], scores[205], types[205]) = ("[PAD205]".into(), -10000.0, 5);
        tokens.push(ADDED.into());
        scores.push(-1000.0);
        types.push(4);
    });
    for text in ["the \u{10348} cat 205", "[PAD205]"] {
        assert_eq!(ids(&found, text), ids(&own, text), "{text}");
    }
    assert_eq!(ids(&found, ADDED), [206, 1]);
}

/// mT5 has its sentinels among the pieces: rows that are unused behind them get no names.
#[test]
fn sentinels_that_are_pieces_stay_the_only_ones() {
    let [found, own] = t5_tokenizers(|tokens, scores, types, _| {
        (tokens[205], scores[205], types[205]) = ("▁<extra_id_0>".into(), -20.0, 1);
        for id in 200..205 {
            (tokens[id], scores[id], types[id]) = (format!("piece{id}"), -20.0, 1);
        }
        for id in 206..210 {
            tokens.push(format!("[PAD{id}]"));
            scores.push(-10000.0);
            types.push(5);
        }
    });
    let id = |text: &str| found.token_to_id(text);
    assert_eq!((id("▁<extra_id_0>"), id("<extra_id_0>")), (Some(205), None));
    assert_eq!(found.get_vocab_size(true), own.get_vocab_size(true));
}

#[test]
fn extra_spaces_are_removed_where_the_file_says_so() {
    let squeeze = "tokenizer.ggml.remove_extra_whitespaces";
    let [found, own] = t5_tokenizers(|_, _, _, file| file.set(squeeze, gguf::Value::Bool(true)));
    let ids =
        |t: &tokenizers::Tokenizer, text: &str| t.encode(text, true).unwrap().get_ids().to_vec();
    assert_eq!(ids(&found, "  the \t  cat  "), ids(&own, "the cat"));
    assert_ne!(ids(&own, "  the \t  cat  "), ids(&own, "the cat"));
}

#[test]
fn models_in_parts() {
    let folder = tempfile::tempdir().unwrap();
    let file = Gguf::of_golden(&golden("models").join("qwen2"), Elements::F32);
    let whole = folder.path().join("whole.gguf");
    file.write(&whole);
    let (_, whole) = open(&whole);
    for path in file.write_parts(folder.path(), "m", 4) {
        let (dir, model) = open(&path);
        assert_eq!(dir.name, "m");
        assert_eq!(text(&model), text(&whole));
        for tensor in model.weights.names() {
            assert_eq!(
                whole_tensor(&model, tensor),
                whole_tensor(&whole, tensor),
                "{tensor}"
            );
        }
    }
}

#[test]
fn weights_and_tokenizer_of_a_file_beside_a_configuration() {
    for case in ["gemma3_text", "llama2_gqa"] {
        let (_folder, path) = written(case, Elements::F32);
        let overrides = Overrides {
            weights: Some(path.clone()),
            tokenizer: Some(path.clone()),
        };
        let config = Input::Config(golden("models").join(case).join("config.json"));
        let dir = ModelDir::open(&config, &overrides).unwrap();
        let model = Model::build(&dir, &BuildOptions::default()).unwrap();
        let (_, of_file) = open(&path);
        assert_eq!(text(&model), text(&of_file), "{case}");
        assert_eq!(dir.tokenizer.unwrap().file, path);
    }
}

#[test]
fn a_head_that_is_a_copy_of_the_token_table_is_the_table() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    let mut file = Gguf::tiny("qwen2", (1, 1, 2));
    let mut head = file.tensor("token_embd.weight").clone();
    head.name = b"output.weight".into();
    file.tensors.push(head);
    let heads = |path: &Path| {
        let (_, model) = open(path);
        model
            .weights
            .names()
            .filter(|name| *name == "lm_head.weight")
            .count()
    };
    file.write(&path);
    assert_eq!(heads(&path), 0);
    file.tensor("output.weight").data[3] = 1;
    file.write(&path);
    assert_eq!(heads(&path), 1);
}

/// What the converter keeps of old checkpoints of T5: a table that nobody reads, and a head that is the token table,
/// before which states are divided as without it.
#[test]
fn leftovers_of_t5_change_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    let mut file = Gguf::of_golden(&golden("models").join("t5_v1_0"), Elements::F32);
    file.write(&path);
    let plain = text(&open(&path).1);
    let copy = |file: &mut Gguf, from: &str, to: &str| {
        let mut tensor = file.tensor(from).clone();
        tensor.name = to.into();
        file.tensors.push(tensor);
    };
    copy(
        &mut file,
        "dec.blk.0.attn_rel_b.weight",
        "dec.blk.0.cross_attn_rel_b.weight",
    );
    copy(&mut file, "token_embd.weight", "output.weight");
    file.write(&path);
    assert_eq!(text(&open(&path).1), plain);
    file.tensor("output.weight").data[3] ^= 1;
    file.write(&path);
    let own = text(&open(&path).1);
    assert!(own.contains("lm_head") && !plain.contains("lm_head"));
    assert_eq!(
        own.matches("scale").count() + 1,
        plain.matches("scale").count(),
        "{own}"
    );
}

#[test]
fn magic_tells_where_the_name_does_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sha256-0123");
    Gguf::tiny("llama", (1, 1, 2)).write(&path);
    assert_eq!(open(&path).0.name, "sha256-0123");
}

#[test]
fn random_weights_need_no_data() {
    let (_folder, path) = written("gemma3_text", Elements::F32);
    let input = Input::resolve(path.to_str().unwrap()).unwrap();
    let dir = ModelDir::open(&input, &Overrides::default()).unwrap();
    let options = BuildOptions {
        random_weights: Some(1),
        ..BuildOptions::default()
    };
    // Made-up norms are those of the family, whatever the file holds.
    let module = Model::build(&dir, &options).unwrap().module.to_string();
    assert!(module.contains("offset = 1"), "{module}");
}

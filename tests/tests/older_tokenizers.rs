//! Tokenizers without their `tokenizer.json`: the files of before give the same ids.
//!
//! SentencePiece models lie beside some golden tokenizers; the other files are made here out of the golden
//! `tokenizer.json`, as the libraries that wrote them would have: a vocabulary, merges, ranks, pieces with scores.

use std::{collections::HashMap, path::Path};

use llmc_tests::{golden, tokenizer_cases};
use serde_json::{Value, json};
use tempfile::TempDir;

fn golden_json(name: &str) -> Value {
    let file = golden::root()
        .join("tokenizers")
        .join(name)
        .join("tokenizer.json");
    serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap()
}

/// A folder with a golden tokenizer's settings, without its `tokenizer.json`. The added tokens stand in
/// `added_tokens_decoder`, as transformers saves them.
fn folder(name: &str, class: Option<&str>, with_added: bool) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let from = golden::root().join("tokenizers").join(name);
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if entry.file_name() != "tokenizer.json" {
            let bytes = std::fs::read(entry.path()).unwrap();
            std::fs::write(folder.path().join(entry.file_name()), bytes).unwrap();
        }
    }
    let settings = folder.path().join("tokenizer_config.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(&settings).unwrap()).unwrap();
    if let Some(class) = class {
        config["tokenizer_class"] = class.into();
    }
    if with_added {
        let added = golden_json(name)["added_tokens"]
            .as_array()
            .unwrap()
            .clone();
        let added = added.into_iter().map(|mut token| {
            let id = token.as_object_mut().unwrap().shift_remove("id").unwrap();
            (id.to_string(), token)
        });
        config["added_tokens_decoder"] = Value::Object(added.collect());
    }
    std::fs::write(&settings, config.to_string()).unwrap();
    folder
}

fn check(name: &str, folder: &TempDir) {
    let cases = tokenizer_cases::read(&golden::root().join("tokenizers").join(name));
    tokenizer_cases::check(folder.path(), &cases);
}

/// Tokens by id.
fn by_id(json: &Value) -> Vec<(String, u64)> {
    let vocab = json["model"]["vocab"].as_object().unwrap();
    let mut all: Vec<_> = vocab
        .iter()
        .map(|(t, id)| (t.clone(), id.as_u64().unwrap()))
        .collect();
    all.sort_by_key(|(_, id)| *id);
    all
}

fn merges(json: &Value) -> Vec<(String, String)> {
    let merges = json["model"]["merges"].as_array().unwrap().iter();
    let text = |v: &Value| v.as_str().unwrap().to_string();
    merges
        .map(|merge| match merge {
            Value::String(line) => {
                let (left, right) = line.split_once(' ').unwrap();
                (left.into(), right.into())
            }
            pair => (text(&pair[0]), text(&pair[1])),
        })
        .collect()
}

fn write_vocab_txt(name: &str, folder: &Path) {
    let tokens = by_id(&golden_json(name));
    assert!(tokens.iter().zip(0..).all(|((_, id), line)| *id == line));
    let lines: String = tokens
        .iter()
        .map(|(token, _)| format!("{token}\n"))
        .collect();
    std::fs::write(folder.join("vocab.txt"), lines).unwrap();
}

fn write_vocab_json(name: &str, folder: &Path) {
    let json = golden_json(name);
    std::fs::write(
        folder.join("vocab.json"),
        json["model"]["vocab"].to_string(),
    )
    .unwrap();
    let merges = merges(&json)
        .into_iter()
        .map(|(left, right)| format!("{left} {right}\n"));
    let lines = format!("#version: 0.2\n{}", merges.collect::<String>());
    std::fs::write(folder.join("merges.txt"), lines).unwrap();
}

/// The byte that each letter of a byte-level vocabulary stands for.
fn bytes_of_letters() -> HashMap<char, u8> {
    let mut next = 0x100;
    let letter = |byte: u8| match byte {
        33..=126 | 161..=172 | 174..=255 => (char::from(byte), byte),
        _ => {
            next += 1;
            (char::from_u32(next - 1).unwrap(), byte)
        }
    };
    (0..=255).map(letter).collect()
}

fn write_ranks(name: &str, file: &Path) {
    let bytes = bytes_of_letters();
    let line = |(token, id): (String, u64)| {
        let token: Vec<u8> = token.chars().map(|c| bytes[&c]).collect();
        format!("{} {id}\n", base64::encode(token))
    };
    let lines: String = by_id(&golden_json(name)).into_iter().map(line).collect();
    std::fs::write(file, lines).unwrap();
}

/// Fields of a protocol buffer.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn number(mut self, field: u64, value: u64) -> Self {
        self.varint(field << 3);
        self.varint(value);
        self
    }

    fn float(mut self, field: u64, value: f32) -> Self {
        self.varint(field << 3 | 5);
        self.0.extend(value.to_le_bytes());
        self
    }

    fn bytes(mut self, field: u64, bytes: &[u8]) -> Self {
        self.varint(field << 3 | 2);
        self.varint(bytes.len() as u64);
        self.0.extend(bytes);
        self
    }
}

const CONTROL: u64 = 3;
const USER_DEFINED: u64 = 4;

fn piece(text: &str, score: f32, ty: u64) -> Message {
    Message::default()
        .bytes(1, text.as_bytes())
        .float(2, score)
        .number(3, ty)
}

fn is_spaces(token: &str) -> bool {
    token.chars().all(|c| c == '▁')
}

/// A SentencePiece model of a golden `tokenizer.json`. Scores of BPE fall with the rank of the first merge that makes
/// the token. `prefix`: whether texts get a space before them.
fn sentence_piece(json: &Value, prefix: bool) -> Vec<u8> {
    let model = &json["model"];
    let is_unigram = model["type"] == "Unigram";
    let tokens: Vec<(String, f32)> = if is_unigram {
        let pieces = model["vocab"].as_array().unwrap().iter();
        pieces
            .map(|p| (p[0].as_str().unwrap().into(), p[1].as_f64().unwrap() as f32))
            .collect()
    } else {
        let merges = merges(json);
        let mut ranks: HashMap<String, usize> = HashMap::new();
        for (rank, (left, right)) in merges.iter().enumerate() {
            ranks.entry(format!("{left}{right}")).or_insert(rank);
        }
        let score = |token: &String| ranks.get(token).copied().unwrap_or(merges.len());
        by_id(json)
            .into_iter()
            .map(|(t, _)| (t.clone(), -(score(&t) as f32)))
            .collect()
    };
    let added = json["added_tokens"].as_array().unwrap();
    let unk = match is_unigram {
        true => model["unk_id"].as_u64().unwrap(),
        false => {
            let unk = model["unk_token"].as_str().unwrap();
            model["vocab"][unk].as_u64().unwrap()
        }
    };
    let mut file = Message::default();
    for ((text, score), id) in tokens.iter().zip(0u64..) {
        let added = added.iter().find(|token| token["id"] == id);
        let is_byte = text.len() == 6 && text.starts_with("<0x") && text.ends_with('>');
        let ty = match added {
            _ if id == unk => 2,
            Some(token) if token["special"] == true => CONTROL,
            // Runs of spaces: the golden file has no merge that makes them of a text, as a model's user-defined
            // piece would.
            Some(token) if is_spaces(token["content"].as_str().unwrap()) => CONTROL,
            Some(_) => USER_DEFINED,
            None if is_byte => 6,
            None => 1,
        };
        file = file.bytes(1, &piece(text, *score, ty).0);
    }
    let trainer = Message::default()
        .number(3, if is_unigram { 1 } else { 2 })
        .number(35, u64::from(!is_unigram))
        .number(40, unk);
    let normalizer = &json["normalizer"];
    let steps = normalizer["normalizers"].as_array().cloned();
    let steps = steps.unwrap_or_else(|| vec![normalizer.clone()]);
    let map = steps
        .iter()
        .find_map(|step| step["precompiled_charsmap"].as_str());
    let map = base64::decode(map.unwrap_or_default()).unwrap();
    let normalizer = Message::default()
        .bytes(1, b"made up")
        .bytes(2, &map)
        .number(3, u64::from(prefix));
    file.bytes(2, &trainer.0).bytes(3, &normalizer.0).0
}

#[test]
fn vocab_txt() {
    for name in ["bert", "bert_1k", "distilbert", "mpnet"] {
        let folder = folder(name, None, true);
        write_vocab_txt(name, folder.path());
        check(name, &folder);
    }
    // BERT's, where nothing says more than the roles.
    let folder = folder("bert", Some("PreTrainedTokenizerFast"), false);
    write_vocab_txt("bert", folder.path());
    check("bert", &folder);
}

#[test]
fn vocab_json_and_merges() {
    for name in [
        "deberta_v1",
        "gpt1",
        "gpt1_1k",
        "gpt2",
        "gpt2_1k",
        "opt",
        "qwen",
        "roberta",
    ] {
        let folder = folder(name, None, true);
        write_vocab_json(name, folder.path());
        check(name, &folder);
    }
    // Without added_tokens_decoder: the roles, and `added_tokens.json` for what has none.
    for (name, added) in [
        ("roberta", json!({})),
        ("gpt2", json!({})),
        ("deberta_v1", json!({})),
        (
            "qwen",
            json!({"<|endoftext|>": 297, "<|im_start|>": 298, "<|im_end|>": 299}),
        ),
    ] {
        let folder = folder(name, None, false);
        write_vocab_json(name, folder.path());
        std::fs::write(folder.path().join("added_tokens.json"), added.to_string()).unwrap();
        check(name, &folder);
    }
    // The model's type says the kind where no class does.
    let folder = folder("gpt2", Some("PreTrainedTokenizerFast"), true);
    write_vocab_json("gpt2", folder.path());
    std::fs::write(
        folder.path().join("config.json"),
        r#"{"model_type": "gpt_neo"}"#,
    )
    .unwrap();
    check("gpt2", &folder);
}

#[test]
fn sentence_piece_models() {
    // The golden files, as they are: the model says what it is; and by class.
    for (name, class) in [
        ("albert", "AlbertTokenizer"),
        ("llama", "LlamaTokenizer"),
        ("llama_1k", "LlamaTokenizerFast"),
        ("t5", "T5Tokenizer"),
    ] {
        for class in [None, Some(class)] {
            check(name, &folder(name, class, true));
        }
    }
    for name in ["albert", "llama", "llama_1k"] {
        check(name, &folder(name, None, false));
    }
    // T5's sentinels are counted where the folder does not list them.
    let sentinels = folder("t5", None, false);
    let settings = sentinels.path().join("tokenizer_config.json");
    llmc_tests::model_copy::edit(&settings, json!({"extra_ids": 6}));
    check("t5", &sentinels);

    for (name, class, file, prefix) in [
        ("deberta_v3", "DebertaV2Tokenizer", "spm.model", true),
        ("gemma", "GemmaTokenizer", "tokenizer.model", false),
        ("gemma_1k", "GemmaTokenizer", "tokenizer.model", false),
        ("mistral", "LlamaTokenizer", "tokenizer.model", true),
        ("phi3", "LlamaTokenizer", "tokenizer.model", true),
        ("t5_1k", "T5Tokenizer", "spiece.model", true),
    ] {
        let folder = folder(name, Some(class), true);
        let model = sentence_piece(&golden_json(name), prefix);
        std::fs::write(folder.path().join(file), model).unwrap();
        check(name, &folder);
    }
}

#[test]
fn ranks() {
    for (name, file) in [
        ("cl100k_fim", "cl100k_base.tiktoken"),
        ("llama3", "tokenizer.model"),
        ("llama3_1k", "llama3.tiktoken"),
        ("o200k_harmony", "o200k_base.tiktoken"),
        ("o200k_harmony_1k", "o200k_harmony.tiktoken"),
        ("qwen", "qwen.tiktoken"),
    ] {
        let folder = folder(name, None, true);
        write_ranks(name, &folder.path().join(file));
        check(name, &folder);
    }
    // The fill-in-the-middle tokens are the encoding's own.
    let folder = folder("cl100k_fim", None, false);
    write_ranks("cl100k_fim", &folder.path().join("cl100k_base.tiktoken"));
    check("cl100k_fim", &folder);
}

/// Refused with one clear error: exit code 2, and a message that says what.
#[test]
fn broken_files_are_refused() {
    let refuse = |class: Option<&str>, files: &[(&str, &[u8])], words: &str| {
        let folder = tempfile::tempdir().unwrap();
        if let Some(class) = class {
            let config = json!({"tokenizer_class": class}).to_string();
            std::fs::write(folder.path().join("tokenizer_config.json"), config).unwrap();
        }
        for (name, bytes) in files {
            std::fs::write(folder.path().join(name), bytes).unwrap();
        }
        let out = tokenizer_cases::tokenize(folder.path(), &["--ids", "hello"], "");
        let said = String::from_utf8_lossy(&out.stderr);
        assert_eq!(out.status.code(), Some(2), "{words}: {said}");
        assert!(
            said.starts_with("error: ") && said.contains(words),
            "expected `{words}` in: {said}"
        );
    };
    let gpt2 = Some("GPT2Tokenizer");
    let vocab = br#"{"a": 0, "b": 1, "ab": 2, "<|endoftext|>": 3}"#;
    refuse(
        None,
        &[("vocab.json", vocab), ("merges.txt", b"a b\n")],
        "what kind",
    );
    refuse(
        Some("BloomTokenizer"),
        &[("vocab.json", vocab)],
        "\"BloomTokenizer\"",
    );
    refuse(
        Some("T5Tokenizer"),
        &[("vocab.json", vocab)],
        "no such file",
    );
    refuse(gpt2, &[("vocab.json", vocab)], "merges.txt");
    refuse(
        gpt2,
        &[("vocab.json", vocab), ("merges.txt", b"a b\nb a\n")],
        "line 2",
    );
    refuse(
        gpt2,
        &[("vocab.json", vocab), ("merges.txt", b"a\n")],
        "line 1",
    );
    refuse(
        gpt2,
        &[("vocab.json", vocab), ("merges.txt", b"\xff b\n")],
        "UTF-8",
    );
    refuse(
        gpt2,
        &[("vocab.json", b"{}"), ("merges.txt", b"")],
        "no tokens",
    );
    refuse(
        gpt2,
        &[("vocab.json", b"[1]"), ("merges.txt", b"")],
        "expected an object",
    );
    refuse(
        gpt2,
        &[("vocab.json", b"{\"a\": 0"), ("merges.txt", b"")],
        "not valid JSON",
    );
    for id in ["-1", "1.5", "\"0\"", "99999999999999999999", "4294967296"] {
        let vocab = format!("{{\"a\": {id}}}");
        refuse(
            gpt2,
            &[("vocab.json", vocab.as_bytes()), ("merges.txt", b"")],
            "expected an id",
        );
    }
    let far = br#"{"a": 4294967295}"#;
    refuse(
        gpt2,
        &[("vocab.json", far), ("merges.txt", b"")],
        "expected one below",
    );
    let same = br#"{"a": 0, "b": 0}"#;
    refuse(
        gpt2,
        &[("vocab.json", same), ("merges.txt", b"")],
        "another token has too",
    );
    let added = br#"{"x": 0}"#;
    let files: [(&str, &[u8]); 3] = [
        ("vocab.json", vocab),
        ("merges.txt", b""),
        ("added_tokens.json", added),
    ];
    refuse(gpt2, &files, "another token has too");

    refuse(None, &[("vocab.txt", b"")], "0 bytes");
    refuse(
        None,
        &[("vocab.txt", b"[UNK]\n[CLS]\n[SEP]\n[UNK]\n")],
        "occurs twice",
    );
    refuse(None, &[("vocab.txt", b"[UNK]\n\n[CLS]\n[SEP]\n")], "line 2");
    refuse(None, &[("vocab.txt", b"a\nb\n")], "no token `[UNK]`");
    refuse(None, &[("vocab.txt", b"\xff\xfe\n")], "UTF-8");
    refuse(
        Some("GPT2Tokenizer"),
        &[("vocab.txt", b"a\n")],
        "no such file",
    );

    let ranks = |text: &str, words: &str| {
        refuse(None, &[("cl100k_base.tiktoken", text.as_bytes())], words);
    };
    ranks("", "no tokens");
    ranks("YQ==\n", "line 1");
    ranks("YQ== 0\n!!! 1\n", "line 2");
    ranks("YQ== 0\nYQ== 1\n", "occurs twice");
    ranks("YQ== 0\nYg== 0\n", "two tokens have the rank 0");
    ranks("YQ== -1\n", "line 1");
    ranks("YQ== 4294967295\n", "expected one below");
    ranks("YQ== 99999999999999999999\n", "line 1");
    ranks(" 1\n", "line 1");
    ranks(&format!("{} 0\n", base64::encode([b'a'; 5000])), "1024");
    refuse(None, &[("x.tiktoken", b"YQ== 0\n")], "which encoding");

    let whole = std::fs::read(golden::root().join("tokenizers/t5/spiece.model")).unwrap();
    let pieces = |pieces: &[Message], trainer: Message| {
        let mut file = Message::default();
        for piece in pieces {
            file = file.bytes(1, &piece.0);
        }
        file.bytes(2, &trainer.0).0
    };
    let unigram = || Message::default().number(3, 1).number(40, 0);
    let unk = || piece("<unk>", 0.0, 2);
    let t5 = Some("T5Tokenizer");
    for (bytes, words) in [
        (Vec::new(), "no pieces"),
        (
            whole[..whole.len() / 2].to_vec(),
            "not a SentencePiece model",
        ),
        (whole[..100].to_vec(), "not a SentencePiece model"),
        (b"nonsense".to_vec(), "not a SentencePiece model"),
        (vec![0x0a, 0xff, 0xff, 0xff, 0xff, 0x7f], "where 0 are left"),
        (vec![0x0a; 1000], "not a SentencePiece model"),
        (vec![0xff; 20], "more than 64 bits"),
        (
            pieces(&[unk()], Message::default().number(3, 3)),
            "model type 3",
        ),
        (
            pieces(&[unk()], unigram().number(40, 5)),
            "unknown token's id",
        ),
        (
            pieces(&[unk()], unigram().number(40, u64::MAX)),
            "unknown token's id",
        ),
        (pieces(&[unk(), unk()], unigram()), "occurs twice"),
        (
            pieces(&[unk(), piece("a", f32::NAN, 1)], unigram()),
            "score is NaN",
        ),
        (
            pieces(&[unk(), piece("a", f32::INFINITY, 1)], unigram()),
            "score is inf",
        ),
        (pieces(&[unk(), piece("a", 0.0, 9)], unigram()), "type is 9"),
        (
            pieces(&[unk(), piece("", 0.0, 1)], unigram()),
            "has no text",
        ),
        (
            pieces(&[unk(), Message::default().bytes(1, b"\xff")], unigram()),
            "UTF-8",
        ),
        (
            pieces(&[unk(), piece(&"a".repeat(9000), 0.0, 1)], unigram()),
            "9000 bytes",
        ),
        (
            pieces(&[unk()], unigram().number(24, 1)),
            "treat_whitespace_as_suffix",
        ),
        (
            pieces(&[unk()], Message::default().number(3, 2)),
            "no such file",
        ),
        (pieces(&[unk()], unigram()), "no token `</s>`"),
    ] {
        refuse(t5, &[("spiece.model", &bytes)], words);
    }
    refuse(
        None,
        &[("spiece.model", &pieces(&[unk()], unigram()))],
        "what kind",
    );
    let config = br#"{"tokenizer_class": "T5Tokenizer", "added_tokens_decoder": {"x": "a"}}"#;
    refuse(
        None,
        &[("spiece.model", &whole), ("tokenizer_config.json", config)],
        "not an id",
    );
    let config = br#"{"tokenizer_class": "T5Tokenizer", "added_tokens_decoder": {"900": "a"}}"#;
    refuse(
        None,
        &[("spiece.model", &whole), ("tokenizer_config.json", config)],
        "900",
    );
}

//! Every tokenizer under `tests/golden/tokenizers`: encoding, pairs, decoding, decoding token by
//! token, chats, and the `tokenize --jsonl` face over all of them.

use llmc_runtime::text_stream::TextStream;
use llmc_runtime::text_tools::{DetokenizeArgs, TextTools, TokenizeArgs};
use llmc_runtime::tokenizer::compile;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What it borrows lives as long as the tests.
struct Case {
    name: String,
    tools: TextTools<'static>,
    cases: Value,
}

fn load(dir: &Path) -> Case {
    let read = |name: &str| std::fs::read(dir.join(name)).unwrap();
    let config: Value = serde_json::from_slice(&read("tokenizer_config.json")).unwrap();
    let special: BTreeMap<String, String> = config
        .as_object()
        .unwrap()
        .iter()
        .filter(|(k, _)| k.ends_with("_token"))
        .filter_map(|(k, v)| Some((k.clone(), v.as_str()?.to_owned())))
        .collect();
    let template = config["chat_template"].as_str();
    let template = template.map(|t| &*t.to_owned().leak());
    let section = compile(&read("tokenizer.json")).unwrap().leak();
    Case {
        name: dir.file_name().unwrap().to_string_lossy().into_owned(),
        tools: TextTools::new(section, Box::leak(Box::new(special)), template).unwrap(),
        cases: serde_json::from_slice(&read("tokenizer_cases.json")).unwrap(),
    }
}

fn all() -> Vec<Case> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/tokenizers");
    let mut dirs: Vec<PathBuf> = std::fs::read_dir(root)
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    dirs.sort();
    assert!(dirs.len() >= 30);
    dirs.iter().map(|d| load(d)).collect()
}

fn ids(value: &Value) -> Vec<u32> {
    value
        .as_array()
        .unwrap()
        .iter()
        .map(|v| v.as_u64().unwrap() as u32)
        .collect()
}

fn list<'a>(case: &'a Case, key: &str) -> &'a [Value] {
    case.cases[key].as_array().map_or(&[], Vec::as_slice)
}

#[test]
fn texts_and_pairs() {
    let mut offsets = 0;
    for case in all() {
        let t = &case.tools.tokenizer;
        for c in list(&case, "cases") {
            let text = c["text"].as_str().unwrap();
            let at = format!("{} {text:?}", case.name);
            let encoded = t.encode(text, true).unwrap();
            assert_eq!(encoded.ids, ids(&c["ids"]), "{at}");
            assert_eq!(encoded.type_ids, ids(&c["type_ids"]), "{at}");
            assert_eq!(
                t.encode(text, false).unwrap().ids,
                ids(&c["ids_no_special"]),
                "{at}"
            );
            // The golden ones are the text that was taken: white space beside an added token
            // too, and what is unknown as it stands.
            let tokens = c["tokens"].as_array().unwrap();
            assert_eq!(tokens.len(), encoded.ids.len(), "{at}");
            for (&id, taken) in encoded.ids.iter().zip(tokens) {
                let (token, taken) = (t.token(id).unwrap(), taken.as_str().unwrap());
                let is_unknown = ["<unk>", "[UNK]"].contains(&token);
                assert!(
                    token == taken.trim() || token == taken || is_unknown,
                    "{at} {token:?}"
                );
            }
            if let Some(expected) = c["offsets"].as_array() {
                offsets += 1;
                // The golden ones count characters.
                let count = |byte: usize| text[..byte].chars().count();
                let found = encoded
                    .offsets
                    .iter()
                    .map(|&(a, b)| json!([count(a), count(b)]));
                assert_eq!(found.collect::<Vec<_>>(), *expected, "{at}");
            }
            assert_eq!(t.decode(&encoded.ids, false).unwrap(), c["decoded"], "{at}");
            assert_eq!(
                t.decode(&encoded.ids, true).unwrap(),
                c["decoded_skip_special"],
                "{at}"
            );
        }
        for c in list(&case, "pairs") {
            let (text, pair) = (c["text"].as_str().unwrap(), c["pair"].as_str().unwrap());
            let encoded = t.encode_pair(text, pair, true).unwrap();
            assert_eq!(encoded.ids, ids(&c["ids"]), "{}", case.name);
            assert_eq!(encoded.type_ids, ids(&c["type_ids"]), "{}", case.name);
        }
    }
    assert!(offsets > 100, "{offsets} texts with offsets");
}

#[test]
fn decoding_token_by_token_gives_the_same_text() {
    for case in all() {
        let t = &case.tools.tokenizer;
        for c in list(&case, "cases") {
            let all = ids(&c["ids"]);
            for start in [0, all.len() / 3] {
                let mut stream = TextStream::new(t, &all[..start], true).unwrap();
                let mut text = String::new();
                for &id in &all[start..] {
                    text.push_str(&stream.push(id).unwrap());
                }
                text.push_str(&stream.finish().unwrap());
                let whole = t.decode(&all, true).unwrap();
                if start == 0 {
                    assert_eq!(text, whole, "{} {:?}", case.name, c["text"]);
                } else {
                    // A prompt may end within a character or before a combining byte.
                    let tail = text.trim_start_matches('\u{fffd}');
                    assert!(
                        whole.ends_with(tail),
                        "{} {:?}: {text:?}",
                        case.name,
                        c["text"]
                    );
                }
            }
        }
    }
}

#[test]
fn truncation_keeps_the_special_tokens() {
    for case in all() {
        let t = &case.tools.tokenizer;
        let text = "The quick brown fox jumps over the lazy dog again and again";
        let whole = t.encode(text, true).unwrap().ids;
        let bare = t.encode(text, false).unwrap().ids;
        let added = whole.len() - bare.len();
        let (cut, was_cut) = t.encode_within(text, 10).unwrap();
        assert!(
            was_cut && cut.ids.len() == 10 && cut.type_ids.len() == 10,
            "{}",
            case.name
        );
        assert_eq!(cut.ids[0], whole[0], "{}", case.name);
        if added > 0 && whole.last() != bare.last() {
            assert_eq!(cut.ids.last(), whole.last(), "{}", case.name);
        }
        assert_eq!(
            t.encode_within(text, whole.len()).unwrap(),
            (t.encode(text, true).unwrap(), false)
        );
    }
}

/// The face: one JSON line in, one out; a chat that the template refuses is an error of its line.
#[test]
fn json_lines_and_chats() {
    let args = TokenizeArgs {
        jsonl: true,
        ..TokenizeArgs::default()
    };
    for case in all() {
        let check = |line: Value, expected: Result<(&Value, Option<&Value>), &str>| {
            let mut out = Vec::new();
            let input = format!("{line}\n");
            let result = case.tools.tokenize(&args, &mut input.as_bytes(), &mut out);
            match expected {
                Ok((ids, rendered)) => {
                    result.unwrap();
                    let out: Value = serde_json::from_slice(&out).unwrap();
                    assert_eq!(&out["ids"], ids, "{} {line}", case.name);
                    assert_eq!(out.get("rendered"), rendered, "{} {line}", case.name);
                }
                Err(message) => {
                    let e = result.unwrap_err();
                    assert_eq!(e.exit_code(), 2);
                    assert!(e.to_string().contains(message), "{}: {e}", case.name);
                }
            }
        };
        for c in list(&case, "cases") {
            check(json!({"text": c["text"]}), Ok((&c["ids"], None)));
        }
        for c in list(&case, "pairs") {
            check(
                json!({"text": c["text"], "pair": c["pair"]}),
                Ok((&c["ids"], None)),
            );
        }
        for c in list(&case, "chat_cases") {
            let line = json!({"messages": c["messages"], "add_generation_prompt": c["add_generation_prompt"]});
            match c["error"].as_str() {
                Some(message) => check(line, Err(message)),
                None => check(line, Ok((&c["ids"], Some(&c["rendered"])))),
            }
        }
        if list(&case, "chat_cases").is_empty() {
            check(json!({"messages": []}), Err("no chat template"));
        }
        check(json!({"text": "a", "messages": []}), Err("give {"));
        check(json!({"txt": "a"}), Err("line 1"));
    }
}

#[test]
fn ids_there_and_back() {
    for case in all() {
        let c = &list(&case, "cases")[0];
        let mut out = Vec::new();
        let args = TokenizeArgs {
            ids: true,
            text: Some("-".into()),
            ..TokenizeArgs::default()
        };
        case.tools
            .tokenize(&args, &mut c["text"].as_str().unwrap().as_bytes(), &mut out)
            .unwrap();
        let words = String::from_utf8(out).unwrap();
        assert_eq!(
            words
                .split_whitespace()
                .map(|w| w.parse().unwrap())
                .collect::<Vec<u32>>(),
            ids(&c["ids"])
        );
        for (skip, key) in [(false, "decoded"), (true, "decoded_skip_special")] {
            let mut out = Vec::new();
            let args = DetokenizeArgs {
                ids: vec![words.clone()],
                skip_special: skip,
            };
            case.tools
                .detokenize(&args, &mut &b""[..], &mut out)
                .unwrap();
            assert_eq!(
                String::from_utf8(out).unwrap(),
                format!("{}\n", c[key].as_str().unwrap())
            );
        }
        for bad in ["x", "-1", "99999999", "99999999999"] {
            let args = DetokenizeArgs {
                ids: vec![bad.into()],
                ..DetokenizeArgs::default()
            };
            let e = case
                .tools
                .detokenize(&args, &mut &b""[..], &mut Vec::new())
                .unwrap_err();
            assert_eq!(e.exit_code(), 2);
        }
    }
}

/// Bytes that never become a character, and special tokens without end, neither stall the stream
/// nor make it slow.
#[test]
fn streams_do_not_wait_for_ever() {
    let case = all().into_iter().find(|c| c.name == "llama").unwrap();
    let t = &case.tools.tokenizer;
    let mut stream = TextStream::new(t, &[], true).unwrap();
    let byte = t.id("<0xE3>").unwrap();
    let text: String = (0..5000).map(|_| stream.push(byte).unwrap()).collect();
    assert!(text.chars().count() > 4900 && text.chars().all(|c| c == '\u{fffd}'));
    let eos = t.id("</s>").unwrap();
    assert!((0..5000).all(|_| stream.push(eos).unwrap().chars().all(|c| c == '\u{fffd}')));
}

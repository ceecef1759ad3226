//! Broken tokenizers.

use super::*;

const TOKENIZER: &str = "tokenizer.json";

#[test]
fn tokenizers() {
    let edits: [(&str, Value, Kind, &str); 17] = [
        (
            "llama2_mha",
            json!({"model": null}),
            Wrong,
            "`model`: missing",
        ),
        (
            "llama2_mha",
            json!({"model": 1}),
            Wrong,
            "`model`: found 1, expected an object",
        ),
        (
            "llama2_mha",
            json!({"model": {"type": "WordLevel"}}),
            Unsupported,
            "`model.type`: found \"WordLevel\"",
        ),
        (
            "llama2_mha",
            json!({"model": {"type": 1}}),
            Wrong,
            "`model.type`: found 1",
        ),
        (
            "llama2_mha",
            json!({"model": {"vocab": null}}),
            Wrong,
            "`model.vocab`: missing",
        ),
        (
            "llama2_mha",
            json!({"model": {"vocab": []}}),
            Wrong,
            "`model.vocab`: found an array of 0",
        ),
        (
            "llama2_mha",
            json!({"model": {"vocab": {"x": 356}}}),
            Wrong,
            "`x` has id 356, expected one below vocab_size (356)",
        ),
        (
            "llama2_mha",
            json!({"model": {"vocab": {"x": -1}}}),
            Wrong,
            "`x` has id -1",
        ),
        (
            "llama2_mha",
            json!({"model": {"vocab": {"x": 4_294_967_295u64}}}),
            Wrong,
            "`x` has id 4294967295",
        ),
        (
            "llama2_mha",
            json!({"model": {"vocab": {"x": 5}}}),
            Wrong,
            "which another token has too",
        ),
        (
            "llama2_mha",
            json!({"model": {"merges": 1}}),
            Wrong,
            "`model.merges`: found 1",
        ),
        (
            "llama2_mha",
            json!({"model": {"merges": [["a"]]}}),
            Wrong,
            "`model.merges[0]`: found an array of 1",
        ),
        (
            "llama2_mha",
            json!({"model": {"merges": [["q", "§§"]]}}),
            Wrong,
            "not a usable tokenizer",
        ),
        (
            "llama2_mha",
            json!({"added_tokens": 1}),
            Wrong,
            "`added_tokens`: found 1",
        ),
        (
            "llama2_mha",
            json!({"added_tokens": [{"id": 0}]}),
            Wrong,
            "`added_tokens[0].content`",
        ),
        (
            "llama2_mha",
            json!({"pre_tokenizer": {"type": "Unheard"}}),
            Wrong,
            "not a usable tokenizer",
        ),
        (
            "llama2_mha",
            json!({"version": "9.9"}),
            Wrong,
            "not a usable tokenizer: Unknown tokenizer version",
        ),
    ];
    for (case, change, kind, expected) in edits {
        check(case, kind, &[TOKENIZER, expected], |folder| {
            edit(folder, TOKENIZER, change)
        });
    }
    check(
        "llama2_mha",
        Wrong,
        &[TOKENIZER, "is the download complete?"],
        |folder| {
            let bytes = std::fs::read(folder.join(TOKENIZER)).unwrap();
            write(folder, TOKENIZER, &bytes[..bytes.len() / 2]);
        },
    );
    check(
        "llama2_mha",
        Wrong,
        &[TOKENIZER, "`normalizer`: nested deeper than"],
        |folder| {
            let mut nested = json!({"type": "NFC"});
            for _ in 0..30 {
                nested = json!({"type": "Sequence", "normalizers": [nested, {"type": "Nope"}]});
            }
            edit(folder, TOKENIZER, json!({ "normalizer": nested }));
        },
    );
    check(
        "llama2_mha",
        Wrong,
        &[TOKENIZER, "gets id ", "added_tokens"],
        |folder| {
            let mut tokenizer = read_json(&folder.join(TOKENIZER));
            let extra = json!({"id": 355, "content": "<new>", "special": true, "single_word": false, "lstrip": false,
            "rstrip": false, "normalized": false});
            tokenizer["added_tokens"]
                .as_array_mut()
                .unwrap()
                .push(extra);
            write_json(&folder.join(TOKENIZER), &tokenizer);
        },
    );
    check(
        "bert_base",
        Wrong,
        &[TOKENIZER, "`post_processor`: ", "has id 9999"],
        |folder| {
            let processor =
                json!({"type": "BertProcessing", "sep": ["[SEP]", 9999], "cls": ["[CLS]", 2]});
            edit(folder, TOKENIZER, json!({"post_processor": null}));
            edit(folder, TOKENIZER, json!({ "post_processor": processor }));
        },
    );
    check(
        "llama2_mha",
        Wrong,
        &[TOKENIZER, "expected one below vocab_size (100)"],
        |folder| {
            edit(folder, "config.json", json!({"vocab_size": 100}));
        },
    );
    check(
        "llama2_mha",
        Wrong,
        &["tokenizer.model: not a SentencePiece model"],
        |folder| {
            std::fs::rename(folder.join(TOKENIZER), folder.join("tokenizer.model")).unwrap();
        },
    );
    check(
        "llama2_mha",
        Wrong,
        &["tokenizer_config.json: `chat_template`: found 1"],
        |folder| {
            edit(folder, "tokenizer_config.json", json!({"chat_template": 1}));
        },
    );
    check(
        "llama2_mha",
        Wrong,
        &["tokenizer_config.json: `bos_token`: found an object of 1"],
        |folder| {
            edit(folder, "tokenizer_config.json", json!({"bos_token": null}));
            edit(
                folder,
                "tokenizer_config.json",
                json!({"bos_token": {"id": 1}}),
            );
        },
    );
    check(
        "llama2_mha",
        Wrong,
        &["chat_template.jinja: not valid UTF-8"],
        |folder| {
            write(folder, "chat_template.jinja", b"\xff\xfe\xfd");
        },
    );
}

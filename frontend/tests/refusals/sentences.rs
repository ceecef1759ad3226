//! Broken modules of sentence-transformers.

use super::*;

#[test]
fn sentence_modules() {
    let with = |kind: Kind, expected: &[&str], break_it: &dyn Fn(&Path)| {
        check("bert_base", kind, expected, |folder| {
            add_sentence_modules(folder, 24);
            break_it(folder);
        });
    };
    let set = |i: usize, field: &'static str, value: Value| {
        move |folder: &Path| {
            let mut modules = read_json(&folder.join("modules.json"));
            modules[i][field] = value.clone();
            write_json(&folder.join("modules.json"), &modules);
        }
    };
    let dense = json!("sentence_transformers.models.Dense");
    with(
        Unsupported,
        &["modules.json: `[2].type`: found \"sentence_transformers.models.Dense\""],
        &set(2, "type", dense),
    );
    with(
        Wrong,
        &["modules.json: `[1].path`", "expected a folder inside"],
        &set(1, "path", json!("../1_Pooling")),
    );
    with(
        Wrong,
        &["modules.json: `[1].path`: found 7"],
        &set(1, "path", json!(7)),
    );
    let pooling_first = json!("sentence_transformers.models.Pooling");
    with(
        Wrong,
        &["modules.json: found the modules Pooling, Pooling, Normalize"],
        &set(0, "type", pooling_first),
    );
    with(
        Io,
        &["cannot open ", "2_Gone/config.json"],
        &set(1, "path", json!("2_Gone")),
    );
    with(
        Wrong,
        &["modules.json: found an object of 0, expected an array"],
        &|folder| {
            write(folder, "modules.json", b"{}");
        },
    );
    let pooling =
        |change: Value| move |folder: &Path| edit(folder, "1_Pooling/config.json", change.clone());
    let none = pooling(json!({"pooling_mode_mean_tokens": false}));
    with(
        Wrong,
        &["1_Pooling/config.json: `pooling_mode_*`: no mode is on"],
        &none,
    );
    let two = pooling(json!({"pooling_mode_cls_token": true}));
    with(
        Unsupported,
        &["1_Pooling/config.json: `pooling_mode_", "2 modes are on"],
        &two,
    );
    let sqrt = pooling(
        json!({"pooling_mode_mean_tokens": false, "pooling_mode_mean_sqrt_len_tokens": true}),
    );
    with(
        Unsupported,
        &["`pooling_mode_mean_sqrt_len_tokens`: found true, supported is mean_tokens"],
        &sqrt,
    );
    let weighted = pooling(
        json!({"pooling_mode_mean_tokens": false, "pooling_mode_weightedmean_tokens": true}),
    );
    with(
        Unsupported,
        &["`pooling_mode_weightedmean_tokens`"],
        &weighted,
    );
    let text = pooling(json!({"pooling_mode_mean_tokens": "yes"}));
    with(
        Wrong,
        &["`pooling_mode_mean_tokens`: found \"yes\", expected true or false"],
        &text,
    );
    let width = pooling(json!({"word_embedding_dimension": 384}));
    with(
        Wrong,
        &["`word_embedding_dimension`: found 384, expected the model's hidden size (24)"],
        &width,
    );
    with(
        Wrong,
        &["sentence_bert_config.json: `max_seq_length`: found 0"],
        &|folder| {
            edit(
                folder,
                "sentence_bert_config.json",
                json!({"max_seq_length": 0}),
            );
        },
    );
    check(
        "llama2_mha",
        Unsupported,
        &["config.json: sentence-transformers over the decoder family `llama`"],
        |folder| {
            add_sentence_modules(folder, 24);
        },
    );
    check(
        "llama2_mha",
        Unsupported,
        &["config.json: `model_type`"],
        |folder| {
            edit(folder, "config.json", json!({"model_type": "rwkv"}));
            add_sentence_modules(folder, 24);
        },
    );
}

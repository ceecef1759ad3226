//! Models in several files.

use super::*;

/// Writes the last part of three anew, with some of the model's tensors.
fn last_part(folder: &Path, choose: impl Fn(&mut Vec<Tensor>)) {
    let mut part = Gguf::tiny("llama", F16);
    part.keys.clear();
    part.set("split.no", Value::U16(2));
    part.set("split.count", Value::U16(3));
    choose(&mut part.tensors);
    part.write(&folder.join("m-00003-of-00003.gguf"));
}

#[test]
fn parts() {
    let parts = |change: fn(&Path), expected: &[&str]| {
        let refusal = refusal("", expected).broken_by(move |folder| {
            Gguf::tiny("llama", F16).write_parts(folder, "m", 3);
            change(folder);
        });
        refusal.of("m-00002-of-00003.gguf")
    };
    let count = |count: Value, found: &'static str| key("split.count", count, found);
    check_all(vec![
        count(
            Value::U16(3),
            "expected a file name that ends in -00001-of-00003.gguf",
        ),
        count(Value::U16(u16::MAX), "found 65535"),
        count(Value::I32(-1), "found -1"),
        parts(
            |folder| std::fs::remove_file(folder.join("m-00003-of-00003.gguf")).unwrap(),
            &[
                "split.count",
                "parts of the model are missing",
                "m-00003-of-00003.gguf",
            ],
        ),
        parts(
            |folder| {
                let from = folder.join("m-00002-of-00003.gguf");
                std::fs::copy(from, folder.join("m-00003-of-00003.gguf")).unwrap();
            },
            &["m-00003-of-00003.gguf", "split.no", "found 1, expected 2"],
        ),
        parts(
            |folder| Gguf::tiny("llama", F16).write(&folder.join("m-00003-of-00003.gguf")),
            &["m-00003-of-00003.gguf", "split.no", "missing, expected 2"],
        ),
        parts(
            |folder| last_part(folder, |tensors| tensors.truncate(1)),
            &[
                "m-00001-of-00003.gguf",
                "split.tensors.count",
                "found 11, expected",
            ],
        ),
        parts(
            |folder| last_part(folder, |tensors| drop(tensors.drain(5..))),
            &[
                "m-00003-of-00003.gguf",
                "`token_embd.weight`: is in",
                "m-00002-of-00003.gguf too",
            ],
        ),
        parts(
            |folder| std::fs::write(folder.join("m-00001-of-00003.gguf"), b"GGUF").unwrap(),
            &["m-00001-of-00003.gguf", "version: found 0 bytes"],
        ),
    ]);
}

//! The text faces over the fake model, and start-up through a real payload.

use crate::fake;
use clap::Parser;
use llmc_abi::payload::{FOOTER_BYTES, Footer, Region, WEIGHTS_ALIGN};
use llmc_abi::{ABI_VERSION, Level, LevelInfo, Manifest, Program};
use llmc_runtime::bench::{BenchArgs, bench};
use llmc_runtime::chat::{ChatArgs, chat};
use llmc_runtime::embed::{EmbedArgs, embed};
use llmc_runtime::generate::{GenerateArgs, generate};
use llmc_runtime::info::{InfoArgs, info};
use llmc_runtime::payload::digest_of;
use llmc_runtime::perplexity::{PerplexityArgs, perplexity};
use llmc_runtime::profile::{ProfileArgs, profile};
use llmc_runtime::{Result, entry};
use serde_json::{Value, json};
use std::ffi::OsString;
use std::path::Path;

#[derive(Parser)]
enum Line {
    Generate(Box<GenerateArgs>),
    Chat(Box<ChatArgs>),
    Embed(EmbedArgs),
    Bench(BenchArgs),
    Info(InfoArgs),
    Perplexity(PerplexityArgs),
    Profile(ProfileArgs),
}

/// Runs a command line; what it prints.
fn run(manifest: &Manifest, line: &str, input: &str) -> Result<String> {
    let tokenizer = fake::tokenizer();
    let session = fake::session(manifest, &tokenizer);
    let mut out = Vec::new();
    let mut input = input.as_bytes();
    let line = ["m"].into_iter().chain(line.split_whitespace());
    match Line::parse_from(line) {
        Line::Generate(args) => generate(&session, &args, &mut input, &mut out)?,
        Line::Chat(args) => chat(&session, &args, &mut input, &mut out)?,
        Line::Embed(args) => embed(&session, &args, &mut input, &mut out)?,
        Line::Bench(args) => bench(&session, &args, &mut out)?,
        Line::Info(args) => info(&session, &args, &mut out)?,
        Line::Perplexity(args) => perplexity(&session, &args, &mut input, &mut out)?,
        Line::Profile(args) => profile(&session, &args, &mut out)?,
    }
    Ok(String::from_utf8(out).unwrap())
}

fn decoder() -> Manifest {
    let mut m = Manifest {
        has_tokenizer: true,
        ..fake::decoder()
    };
    m.chat_template =
        Some("{% for m in messages %}{{ m.content }}{% endfor %}{% if add_generation_prompt %}G{% endif %}".into());
    m
}

fn encoder() -> Manifest {
    Manifest {
        has_tokenizer: true,
        ..fake::encoder()
    }
}

/// What `<s> text </s>` continues as.
fn continuation(m: &Manifest, text: &str, new: usize, eos: &[i32]) -> Vec<i64> {
    let letters = text.chars().map(|c| match c {
        'a'..='z' => c as i32 - 'a' as i32 + 3,
        c => c as i32 - 'A' as i32 + 29,
    });
    let prompt: Vec<i32> = [1].into_iter().chain(letters).chain([2]).collect();
    fake::greedy(m, &prompt, new, eos)
}

fn letters(ids: &[i64]) -> String {
    let letter = |&id: &i64| match id {
        0..3 => None,
        3..29 => char::from_u32('a' as u32 + id as u32 - 3),
        _ => char::from_u32('A' as u32 + id as u32 - 29),
    };
    ids.iter().filter_map(letter).collect()
}

#[test]
fn generate_prints_the_continuation_alone() {
    let m = decoder();
    let ids = continuation(&m, "hello", 40, &[2]);
    let text = letters(&ids);
    assert_eq!(
        run(&m, "generate hello -n 40", "").unwrap(),
        format!("{text}\n")
    );
    assert_eq!(
        run(&m, "generate - -n 40", "hello").unwrap(),
        format!("{text}\n")
    );
    let printed = run(&m, "generate hello -n 40 --ids", "").unwrap();
    let words: Vec<String> = ids.iter().map(i64::to_string).collect();
    assert_eq!(printed, format!("{}\n", words.join(" ")));
    let all = continuation(&m, "hello", 60, &[]);
    let printed = run(&m, "generate hello -n 60 --ignore-eos", "").unwrap();
    assert_eq!(printed, format!("{}\n", letters(&all)));
    // A stop string over two tokens.
    let stop: String = text.chars().skip(4).take(2).collect();
    let expected = &text[..text.find(&stop).unwrap()];
    let printed = run(&m, &format!("generate hello -n 40 --stop {stop}"), "").unwrap();
    assert_eq!(printed, format!("{expected}\n"));
    let json: Value =
        serde_json::from_str(&run(&m, "generate hello -n 5 --json --ids", "").unwrap()).unwrap();
    assert_eq!(json["ids"], serde_json::json!(ids[..5]));
    assert_eq!(
        (&json["finish_reason"], &json["prompt_tokens"]),
        (&"length".into(), &7.into())
    );
    assert_eq!(run(&m, "generate hello -n 0", "").unwrap(), "\n");
}

#[test]
fn beams_print_the_best_texts() {
    let m = decoder();
    let line = "generate hello -n 12 --ignore-eos --beams 3 --num-return 2";
    let json: Value =
        serde_json::from_str(&run(&m, &format!("{line} --json --ids"), "").unwrap()).unwrap();
    let found = json["sequences"].as_array().unwrap();
    assert_eq!((found.len(), &json["beams"]), (2, &3.into()));
    let score = |i: usize| found[i]["score"].as_f64().unwrap();
    assert!(score(0) >= score(1));
    let text = |i: usize| found[i]["text"].as_str().unwrap();
    for entry in found {
        let ids: Vec<i64> = serde_json::from_value(entry["ids"].clone()).unwrap();
        assert_eq!(
            (ids.len(), entry["finish_reason"].as_str()),
            (12, Some("length"))
        );
        assert_eq!(letters(&ids), entry["text"].as_str().unwrap());
    }
    let printed = run(&m, line, "").unwrap();
    assert_eq!(printed, format!("{}\n\n{}\n", text(0), text(1)));
    // One beam more than greedy needs, and a score no worse.
    let greedy = continuation(&m, "hello", 12, &[]);
    assert_ne!(
        json!(greedy),
        found[0]["ids"],
        "beams find another text here"
    );
    // A stop string ends a beam and is not printed.
    let stop: String = text(0).chars().skip(3).take(2).collect();
    let line = format!("generate hello -n 12 --ignore-eos --beams 3 --stop {stop} --json");
    let json: Value = serde_json::from_str(&run(&m, &line, "").unwrap()).unwrap();
    let best = &json["sequences"][0];
    assert!(!best["text"].as_str().unwrap().contains(&stop));
}

#[test]
fn guesses_are_counted() {
    let m = decoder();
    let ids = |line: &str| -> Value {
        serde_json::from_str(&run(&m, &format!("generate {line} --json --ids"), "").unwrap())
            .unwrap()
    };
    let flags = "hello -n 60 --ignore-eos --logit-bias 5:100";
    let (plain, guessed) = (ids(flags), ids(&format!("{flags} --prompt-lookup 4")));
    assert_eq!(plain["ids"], guessed["ids"]);
    let count = |name: &str| guessed[name].as_u64().unwrap();
    assert!(count("guessed_right") > 40 && count("guessed") >= count("guessed_right"));
    let flags = "hello -n 60 --ignore-eos";
    let (plain, guessed) = (ids(flags), ids(&format!("{flags} --prompt-lookup 4")));
    assert_eq!(plain["ids"], guessed["ids"]);
    assert_eq!(plain["text"], guessed["text"]);
}

#[test]
fn a_full_context_ends_the_text() {
    let mut m = decoder();
    m.limits.max_context = 20;
    let json: Value = serde_json::from_str(
        &run(&m, "generate hello -n 100 --ignore-eos --json --ids", "").unwrap(),
    )
    .unwrap();
    assert_eq!(json["finish_reason"], "length");
    // Twenty tokens are in the context, and one more follows from them.
    assert_eq!(json["tokens"], 20 - 7 + 1);
    let e = run(&m, &format!("generate {}", "a".repeat(30)), "").unwrap_err();
    assert_eq!(e.exit_code(), 2);
}

#[test]
fn seeds_repeat_and_wrong_flags_are_refused() {
    let m = decoder();
    let sample = |seed: u32| {
        run(
            &m,
            &format!("generate hello -n 30 --ignore-eos --temperature 1.5 --seed {seed}"),
            "",
        )
        .unwrap()
    };
    assert_eq!(sample(1), sample(1));
    assert_ne!(sample(1), sample(2));
    for line in [
        "generate x --beams 0",
        "generate x --beams 4 --prompt-lookup 2",
        "generate x --num-return 2",
        "generate x --logit-bias 1",
        "chat --beams 4",
        "generate x --top-p 7",
        "generate x --temperature nan",
    ] {
        assert_eq!(run(&m, line, "").unwrap_err().exit_code(), 2, "{line}");
    }
    let e = run(&encoder(), "generate x", "").unwrap_err();
    assert!(e.to_string().contains("no task `generate`"), "{e}");
    let bare = Manifest {
        has_tokenizer: false,
        ..decoder()
    };
    assert!(
        run(&bare, "generate x", "")
            .unwrap_err()
            .to_string()
            .contains("without a tokenizer")
    );
}

/// Turns share the cache, and say what they would say without it.
#[test]
fn chat_answers_line_by_line() {
    let m = decoder();
    let mut history = String::new();
    let mut expected = String::new();
    for turn in ["hey", "you", "there"] {
        history.push_str(turn);
        // The chat is encoded without special tokens.
        let prompt: Vec<i32> = continuation_prompt(&format!("{history}G"));
        let answer = letters(&fake::greedy(&m, &prompt, 6, &[2]));
        expected.push_str(&answer);
        expected.push('\n');
        history.push_str(&answer);
    }
    assert_eq!(
        run(&m, "chat -n 6", "hey\nyou\n\nthere\n").unwrap(),
        expected
    );
    let bare = Manifest {
        chat_template: None,
        ..decoder()
    };
    assert_eq!(run(&bare, "chat", "x").unwrap_err().exit_code(), 2);
}

fn continuation_prompt(text: &str) -> Vec<i32> {
    text.chars()
        .map(|c| {
            if c.is_lowercase() {
                c as i32 - 'a' as i32 + 3
            } else {
                c as i32 - 'A' as i32 + 29
            }
        })
        .collect()
}

#[test]
fn embed_keeps_the_order() {
    let m = encoder();
    let texts: Vec<String> = (0..40).map(|i| "abcdefgh".repeat(1 + i * 7 % 20)).collect();
    let out = run(&m, "embed -", &texts.join("\n")).unwrap();
    let lines: Vec<Value> = out
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect();
    assert_eq!(lines.len(), 40);
    for (text, line) in texts.iter().zip(lines) {
        let mut ids = vec![1];
        ids.extend(continuation_prompt(text));
        // Cut at the limit of 100 with the special tokens kept.
        ids.truncate(99);
        ids.push(2);
        let value = *fake::values(&m, &ids, &[], false).last().unwrap();
        assert_eq!(line["embedding"], serde_json::json!(fake::hidden(value)));
    }
    assert_eq!(run(&m, "embed abc abc", "").unwrap().lines().count(), 2);
    assert_eq!(run(&m, "embed -", "").unwrap(), "");
    assert_eq!(
        run(&m, "embed -", "\n").unwrap().lines().count(),
        1,
        "an empty text is a text"
    );
    assert_eq!(run(&decoder(), "embed x", "").unwrap_err().exit_code(), 2);
}

#[test]
fn profile_tells_of_every_phase() {
    let lines = |m: &Manifest, line: &str| -> Vec<Value> {
        let text = run(m, line, "").unwrap();
        let lines = text.lines().map(serde_json::from_str);
        lines.collect::<std::result::Result<_, _>>().unwrap()
    };
    let found = lines(&decoder(), "profile --json -p 120 -n 3");
    assert!(found[0]["peaks"]["read_gb_s"].as_f64().unwrap() > 0.0);
    let row = |test: &str, phase: Option<&str>| {
        let of = |l: &&Value| l["test"] == test && l["phase"] == json!(phase);
        found.iter().find(of).unwrap()
    };
    // The prompt takes two steps; a token sees the keys up to its own.
    let prompt = row("pp120", Some("fake.all"));
    assert_eq!(prompt["calls"], 2);
    assert_eq!(prompt["operations"], 2 * 120 * 121 / 2);
    assert_eq!(prompt["bytes"], (100 + 120) * 4);
    let new = row("tg3", Some("fake.all"));
    assert_eq!(
        (&new["calls"], &new["arithmetic"]),
        (&json!(3), &json!("f32"))
    );
    assert_eq!(new["operations"], 2 * (121 + 122 + 123));
    for test in ["pp120", "tg3"] {
        let total = row(test, None)["ms"].as_f64().unwrap();
        let parts = ["fake.all", "outside"].map(|p| row(test, Some(p))["ms"].as_f64().unwrap());
        let sum: f64 = parts.iter().sum();
        assert!((sum - total).abs() <= 1e-6 * total, "{sum} of {total} ms");
    }
    let text = run(&decoder(), "profile -p 0 -n 2", "").unwrap();
    assert!(text.contains("fake.all") && text.contains("tg2"), "{text}");
    let found = lines(&encoder(), "profile --json");
    assert_eq!(found[1]["test"], "pp100");
    for (m, line) in [
        (decoder(), "profile -p 399 -n 2"),
        (decoder(), "profile -p 0 -n 0"),
        (encoder(), "profile -n 1"),
    ] {
        assert_eq!(run(&m, line, "").unwrap_err().exit_code(), 2, "{line}");
    }
}

#[test]
fn bench_and_info_print_json() {
    let names = |m: &Manifest, line: &str| -> Vec<String> {
        let out = run(m, line, "").unwrap();
        out.lines()
            .map(|l| serde_json::from_str::<Value>(l).unwrap())
            .inspect(|v| assert_eq!(v["threads"], 2))
            .map(|v| {
                assert!(v["tok_s"].as_f64().or(v["sent_s"].as_f64()).unwrap() > 0.0);
                v["test"].as_str().unwrap().to_owned()
            })
            .collect()
    };
    assert_eq!(names(&decoder(), "bench --json -r 1"), ["pp272", "tg128"]);
    assert_eq!(
        names(&decoder(), "bench --json -r 1 -p 390"),
        ["pp390", "tg10"]
    );
    assert_eq!(
        names(&decoder(), "bench --json -r 1 -p 0 -n 3 -b 2"),
        ["tg3 b2"]
    );
    assert_eq!(
        names(&encoder(), "bench --json -r 1 -b 4 -s 9"),
        ["embed b4 s9"]
    );
    assert_eq!(
        names(&encoder(), "bench --json -r 1 -b 3 -s 9,2"),
        ["embed b3 s9,2"]
    );
    assert_eq!(names(&encoder(), "bench --json -r 1"), ["embed b32 s100"]);
    let depths = run(&decoder(), "bench --json -r 1 -p 7 -n 2", "").unwrap();
    let depths = depths
        .lines()
        .map(|l| serde_json::from_str::<Value>(l).unwrap()["depth"].clone());
    assert_eq!(depths.collect::<Vec<_>>(), [0, 7]);
    for bad in [
        "bench -p 401",
        "bench -p 300 -n 101",
        "bench -p 0 -n 0",
        "bench -n 18446744073709551615",
    ] {
        assert_eq!(run(&decoder(), bad, "").unwrap_err().exit_code(), 2);
    }
    assert_eq!(
        run(&encoder(), "bench -s 401", "").unwrap_err().exit_code(),
        2
    );
    for m in [decoder(), encoder()] {
        let v: Value = serde_json::from_str(&run(&m, "info --json", "").unwrap()).unwrap();
        assert_eq!((&v["name"], &v["level"]), (&"fake".into(), &"any".into()));
        assert!(v["memory"]["total"].as_u64().unwrap() > 0);
        assert!(run(&m, "info", "").unwrap().contains("chosen"));
    }
}

/// Windows begin afresh, and each token counts in the first window that has it.
#[test]
fn perplexity_is_that_of_the_windows() {
    let m = decoder();
    let text: String = ('a'..='z')
        .chain('A'..='U')
        .cycle()
        .step_by(3)
        .take(61)
        .collect();
    let mut ids = vec![1];
    ids.extend(continuation_prompt(&text).iter());
    ids.push(2);
    let nll = |start: usize, first: usize, end: usize| -> Vec<f64> {
        let values = fake::values(&m, &ids[start..end], &[], false);
        let told = |i: usize| {
            let row = fake::logits(values[i - 1 - start]);
            let sum: f64 = row.iter().map(|&l| f64::from(l).exp()).sum();
            sum.ln() - f64::from(row[ids[i] as usize])
        };
        (first..end).map(told).collect()
    };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("text");
    let tensors = folder.path().join("nll.safetensors");
    std::fs::write(&file, &text).unwrap();
    let check = |line: String, windows: &[(usize, usize, usize)]| {
        let expected: Vec<f64> = windows.iter().flat_map(|&(s, f, e)| nll(s, f, e)).collect();
        let found: Value = serde_json::from_str(&run(&m, &line, &text).unwrap()).unwrap();
        let mean = expected.iter().sum::<f64>() / expected.len() as f64;
        assert_eq!(found["tokens"], 62);
        assert!(
            (found["mean_nll"].as_f64().unwrap() - mean).abs() < 1e-5,
            "{found} {mean}"
        );
        assert!((found["perplexity"].as_f64().unwrap() / mean.exp() - 1.0).abs() < 1e-5);
        expected
    };
    let expected = check("perplexity --json -".into(), &[(0, 1, 63)]);
    let windows = [
        (0, 1, 20),
        (10, 20, 30),
        (20, 30, 40),
        (30, 40, 50),
        (40, 50, 60),
        (50, 60, 63),
    ];
    check("perplexity --json - --window 20".into(), &windows);
    let windows = [(0, 1, 40), (30, 40, 63)];
    check(
        format!(
            "perplexity --json --window 40 --stride 30 {}",
            file.display()
        ),
        &windows,
    );
    check(
        format!("perplexity --json --nll {} -", tensors.display()),
        &[(0, 1, 63)],
    );
    let bytes = std::fs::read(&tensors).unwrap();
    let written = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let floats = written.tensor("nll").unwrap();
    assert_eq!(floats.shape(), [62]);
    for (found, expected) in floats.data().as_chunks::<4>().0.iter().zip(&expected) {
        assert!((f64::from(f32::from_le_bytes(*found)) - expected).abs() < 1e-5);
    }
    assert_eq!(written.tensor("input_ids").unwrap().shape(), [1, 63]);

    let wrong = |m: &Manifest, line: &str, input: &str, what: &str| {
        let e = run(m, line, input).unwrap_err();
        assert_eq!(e.exit_code(), 2, "{line}");
        assert!(e.to_string().contains(what), "{e}");
    };
    wrong(
        &m,
        "perplexity - --window 401",
        "a",
        "--window 401: give 2 to 400 tokens",
    );
    wrong(
        &m,
        "perplexity - --window 8 --stride 8",
        "a",
        "--stride 8: give 1 to 7 tokens",
    );
    wrong(&m, "perplexity /nothing/there", "", "/nothing/there");
    wrong(&encoder(), "perplexity -", "a", "no task `perplexity`");
}

/// A file with a payload, as the compiler writes it.
fn executable(path: &Path, manifest: &Manifest) {
    append_payload(path, Vec::new(), manifest);
}

/// Writes `elf` with a payload behind it.
pub fn append_payload(path: &Path, elf: Vec<u8>, manifest: &Manifest) {
    let mut file = elf;
    file.resize(
        file.len()
            .next_multiple_of(WEIGHTS_ALIGN as usize)
            .max(WEIGHTS_ALIGN as usize),
        0,
    );
    let mut append = |bytes: &[u8]| {
        let offset = file.len() as u64;
        file.extend_from_slice(bytes);
        Region {
            offset,
            len: bytes.len() as u64,
            digest: digest_of(bytes),
        }
    };
    let mut footer = Footer {
        weights: append(&[5; 64]),
        tokenizer: append(&fake::tokenizer()),
        manifest: append(&serde_json::to_vec(manifest).unwrap()),
        file_len: 0,
    };
    footer.file_len = (file.len() + FOOTER_BYTES) as u64;
    file.extend_from_slice(&footer.encode(digest_of));
    std::fs::write(path, file).unwrap();
}

#[test]
fn start_up_gives_exit_codes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m");
    let steps: [llmc_abi::StepFn; 1] = [fake::step];
    let levels = [Level {
        name: c"any".as_ptr(),
        steps: steps.as_ptr(),
    }];
    let program = Program {
        version: ABI_VERSION.into(),
        level_count: 1,
        levels: levels.as_ptr(),
        entry_count: 1,
    };
    let check = |manifest: &Manifest, line: &str, expected: i32| {
        executable(&path, manifest);
        let args: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
        let code = entry::run(&program, &path, &OsString::from("/bin/m"), &args);
        assert_eq!(code, expected, "{line}");
    };
    check(&decoder(), "info", 0);
    check(&decoder(), "--version", 0);
    check(&decoder(), "--help", 0);
    check(&decoder(), "", 0);
    check(&decoder(), "verify", 0);
    check(&decoder(), "generate hello -n 3 --quiet -t 1 --verify", 0);
    check(&decoder(), "detokenize 5 6", 0);
    check(&decoder(), "tokenize hello --ids", 0);
    check(&decoder(), "nonsense", 2);
    check(&decoder(), "embed x", 2);
    check(&decoder(), "classify x", 2);
    check(&decoder(), "fill-mask x", 2);
    check(&decoder(), "serve --port 1", 2);
    check(&decoder(), "info --level other", 2);
    check(&encoder(), "generate x", 2);
    let level = |name: &str, feature: &str| LevelInfo {
        name: name.into(),
        features: vec![feature.into()],
    };
    let too_new = Manifest {
        levels: vec![level("any", "avx1024")],
        ..decoder()
    };
    check(&too_new, "info", 1);
    let lacking = Manifest {
        levels: vec![LevelInfo {
            name: "v9".into(),
            features: vec![],
        }],
        ..decoder()
    };
    check(&lacking, "info", 1);
    check(
        &Manifest {
            abi: ABI_VERSION + 1,
            ..decoder()
        },
        "info",
        1,
    );

    executable(&path, &decoder());
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[WEIGHTS_ALIGN as usize + 3] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    let code = |args: &[&str]| {
        let args: Vec<OsString> = args.iter().map(OsString::from).collect();
        entry::run(&program, &path, &OsString::from("m"), &args)
    };
    assert_eq!(code(&["info"]), 0, "weights are not read at start");
    assert_eq!((code(&["verify"]), code(&["info", "--verify"])), (1, 1));
    bytes.truncate(bytes.len() - 10);
    std::fs::write(&path, &bytes).unwrap();
    assert_eq!(code(&["info"]), 1);
}

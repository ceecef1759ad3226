//! The compiled tokenizer against the `tokenizers` crate, which reads the same tokenizer.json: every
//! golden tokenizer, and small ones for what those lack, over texts put together at random.
//! And altered sections: refused, or used without a panic.

use llmc_runtime::text_stream::TextStream;
use llmc_runtime::tokenizer::{Tokenizer, compile};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::LazyLock;

/// A tokenizer.json, read by the crate and compiled by us.
struct Pair {
    name: String,
    oracle: tokenizers::Tokenizer,
    section: &'static [u8],
    ours: Tokenizer<'static>,
    /// Ids up to a little beyond the last one.
    ids: u32,
}

impl Pair {
    fn new(name: &str, json: &[u8]) -> Pair {
        let mut oracle = tokenizers::Tokenizer::from_bytes(json).unwrap();
        oracle.with_truncation(None).unwrap();
        oracle.with_padding(None);
        let section = compile(json).unwrap().leak();
        let last = oracle.get_vocab(true).into_values().max().unwrap_or(0);
        Pair {
            name: name.into(),
            ours: Tokenizer::open(section).unwrap(),
            section,
            oracle,
            ids: last + 3,
        }
    }

    fn encode(&self, text: &str) {
        for special in [true, false] {
            let at = format!("{} {text:?}, special {special}", self.name);
            let expected = self.oracle.encode(text, special);
            let found = self.ours.encode(text, special);
            self.compare(&at, expected, found);
        }
    }

    fn encode_pair(&self, text: &str, pair: &str) {
        let at = format!("{} {text:?} and {pair:?}", self.name);
        let expected = self.oracle.encode((text, pair), true);
        let found = self.ours.encode_pair(text, pair, true);
        self.compare(&at, expected, found);
    }

    fn compare(
        &self,
        at: &str,
        expected: tokenizers::Result<tokenizers::Encoding>,
        found: llmc_runtime::Result<llmc_runtime::tokenizer::Encoded>,
    ) {
        let (expected, found) = match (expected, found) {
            (Ok(expected), Ok(found)) => (expected, found),
            (Err(_), Err(_)) => return,
            (expected, found) => panic!("{at}: {found:?} is not {expected:?}"),
        };
        assert_eq!(found.ids, expected.get_ids(), "{at}");
        assert_eq!(found.type_ids, expected.get_type_ids(), "{at}");
        assert_eq!(found.offsets, expected.get_offsets(), "{at}");
    }

    fn decode(&self, ids: &[u32]) {
        for skip in [true, false] {
            let at = format!("{} {ids:?}, skip {skip}", self.name);
            // Some of the crate's decoders need a token.
            let expected = catch_unwind(AssertUnwindSafe(|| self.oracle.decode(ids, skip)));
            let shown = ids.iter().any(|&id| {
                let text = self.oracle.id_to_token(id);
                let special = |t: &str| self.oracle.get_added_vocabulary().is_special_token(t);
                text.is_some_and(|t| !skip || !special(&t))
            });
            let found = self.ours.decode(ids, skip).unwrap();
            match expected {
                Ok(expected) if shown => assert_eq!(found, expected.unwrap(), "{at}"),
                _ => assert_eq!(found, "", "{at}"),
            }
        }
    }

    /// Every id and every text, there and back.
    fn vocabulary(&self) {
        for id in 0..self.ids {
            let token = self.oracle.id_to_token(id);
            assert_eq!(self.ours.token(id), token.as_deref(), "{} {id}", self.name);
            if let Some(token) = token {
                let expected = self.oracle.token_to_id(&token);
                assert_eq!(self.ours.id(&token), expected, "{} {token:?}", self.name);
            }
        }
        for (token, id) in self.oracle.get_added_vocabulary().get_vocab() {
            assert_eq!(self.ours.id(token), Some(*id), "{} {token:?}", self.name);
        }
    }
}

static GOLDEN: LazyLock<Vec<(Pair, Value)>> = LazyLock::new(|| {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/tokenizers");
    let dirs = std::fs::read_dir(root).unwrap();
    let mut pairs: Vec<(Pair, Value)> = dirs
        .map(|dir| {
            let dir = dir.unwrap().path();
            let read = |name: &str| std::fs::read(dir.join(name)).unwrap();
            let pair = Pair::new(
                dir.file_name().unwrap().to_str().unwrap(),
                &read("tokenizer.json"),
            );
            (
                pair,
                serde_json::from_slice(&read("tokenizer_cases.json")).unwrap(),
            )
        })
        .collect();
    pairs.sort_by(|(a, _), (b, _)| a.name.cmp(&b.name));
    assert!(pairs.len() >= 30);
    pairs
});

fn added(id: u32, content: &str, flags: &str) -> Value {
    let has = |flag| flags.contains(flag);
    json!({"id": id, "content": content, "single_word": has('w'), "lstrip": has('l'),
        "rstrip": has('r'), "normalized": has('n'), "special": has('s')})
}

fn file(model: Value, changes: Value) -> Value {
    let mut file = json!({"version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
        "normalizer": null, "pre_tokenizer": null, "post_processor": null, "decoder": null});
    file["model"] = model;
    for (name, value) in changes.as_object().unwrap() {
        file[name] = value.clone();
    }
    file
}

/// What the golden tokenizers do not have.
static SMALL: LazyLock<Vec<Pair>> = LazyLock::new(|| {
    let words = json!({"type": "Whitespace"});
    let vocab = json!({"<unk>": 0, "a": 1, "b": 2, "ab": 3, "c": 4, "abc": 5, "bc": 6, "é": 7,
        "##a": 8, "##b": 9, "##ab": 10, "##": 11, "a</w>": 12, "##b</w>": 13, "a##b</w>": 14,
        "ab</w>": 15, "hello": 16, "<0x61>": 17, "<0xE2>": 18, "<0x82>": 19, "<0xAC>": 20, "": 25});
    let merges = json!([["b", "c"], ["a", "bc"], ["a", "b"], ["ab", "c"]]);
    let bpe = |change: fn(&mut Value)| {
        let mut model = json!({"type": "BPE", "dropout": null, "unk_token": "<unk>",
            "continuing_subword_prefix": null, "end_of_word_suffix": null, "fuse_unk": false,
            "byte_fallback": false, "ignore_merges": false, "vocab": vocab, "merges": merges});
        change(&mut model);
        model
    };
    let flagged = json!([
        added(0, "<unk>", "s"),
        added(26, "[M]", "sl"),
        added(27, "[L]", "lrw"),
        added(28, "Hello World", "n"),
        added(29, "WORD", "nw"),
        added(30, " b", "nrs"),
        added(31, "hel", "w"),
        added(32, "[M][M]", ""),
        added(33, "É", "n"),
        added(34, "abc", "")
    ]);
    let pieces = json!([
        ["<unk>", 0.0],
        ["a", -1.5],
        ["b", -1.25],
        ["ab", -2.75],
        ["ba", -2.75],
        ["é", -3.0],
        ["<0xE2>", -9.0],
        ["<0x82>", -9.0],
        ["<0xAC>", -9.0],
        ["aba", -4.25],
        ["a", -0.5],
        ["xy", -30.0],
        ["▁", -2.0]
    ]);
    let files = [
        ("bpe, unknown ones apart", file(bpe(|_| ()), json!({}))),
        (
            "bpe, unknown ones fused",
            file(bpe(|m| m["fuse_unk"] = json!(true)), json!({})),
        ),
        (
            "bpe, unknown ones lost",
            file(bpe(|m| m["unk_token"] = Value::Null), json!({})),
        ),
        (
            "bpe, unknown ones impossible",
            file(bpe(|m| m["unk_token"] = json!("?")), json!({})),
        ),
        (
            "bpe, bytes",
            file(bpe(|m| m["byte_fallback"] = json!(true)), json!({})),
        ),
        (
            "bpe, whole words",
            file(
                bpe(|m| m["ignore_merges"] = json!(true)),
                json!({"pre_tokenizer": words}),
            ),
        ),
        (
            "bpe, suffix",
            file(
                bpe(|m| m["end_of_word_suffix"] = json!("</w>")),
                json!({"pre_tokenizer": words}),
            ),
        ),
        (
            "bpe, prefix and suffix",
            file(
                bpe(|m| {
                    m["continuing_subword_prefix"] = json!("##");
                    m["end_of_word_suffix"] = json!("</w>");
                    m["merges"] = json!(["a ##b", "#version: 0.2", "a ##b</w>"]);
                    m["vocab"]["ab</w>"] = json!(15);
                }),
                json!({"pre_tokenizer": words}),
            ),
        ),
        (
            "added tokens with flags, lower case",
            file(
                bpe(|_| ()),
                json!({"added_tokens": flagged, "normalizer": {"type": "Lowercase"}}),
            ),
        ),
        (
            "added tokens with flags",
            file(bpe(|_| ()), json!({"added_tokens": flagged})),
        ),
        (
            "added tokens, Strip and Prepend",
            file(
                bpe(|_| ()),
                json!({"added_tokens": flagged, "normalizer": {"type": "Sequence", "normalizers": [
                {"type": "Strip", "strip_left": true, "strip_right": true}, {"type": "Prepend", "prepend": "b"}]}}),
            ),
        ),
        (
            "word level",
            file(
                json!({"type": "WordLevel", "vocab": vocab, "unk_token": "<unk>"}),
                json!({"pre_tokenizer": words}),
            ),
        ),
        (
            "word level, no unknown",
            file(
                json!({"type": "WordLevel", "vocab": vocab, "unk_token": "?"}),
                json!({"pre_tokenizer": words}),
            ),
        ),
        (
            "word piece, short words",
            file(
                json!({"type": "WordPiece", "vocab": vocab, "unk_token": "<unk>", "continuing_subword_prefix": "##", "max_input_chars_per_word": 5}),
                json!({"pre_tokenizer": words}),
            ),
        ),
        (
            "unigram",
            file(
                json!({"type": "Unigram", "vocab": pieces, "unk_id": 0, "byte_fallback": false}),
                json!({}),
            ),
        ),
        (
            "unigram, bytes",
            file(
                json!({"type": "Unigram", "vocab": pieces, "unk_id": 0, "byte_fallback": true}),
                json!({"added_tokens": [added(1, "a", "s")]}),
            ),
        ),
        (
            "unigram, no unknown",
            file(
                json!({"type": "Unigram", "vocab": pieces, "unk_id": null, "byte_fallback": false}),
                json!({}),
            ),
        ),
    ];
    let pair = |(name, file): (&str, Value)| Pair::new(name, file.to_string().as_bytes());
    files.into_iter().map(pair).collect()
});

fn all() -> impl Iterator<Item = &'static Pair> {
    GOLDEN.iter().map(|(pair, _)| pair).chain(SMALL.iter())
}

/// A part of a text.
#[derive(Clone, Debug)]
enum Atom {
    Text(String),
    /// The token of this id, modulo their number.
    Token(u32),
}

fn atom() -> impl Strategy<Value = Atom> {
    let tricky = [
        " ",
        "  ",
        "   ",
        "\n",
        "\n\n",
        "\t",
        "\r\n",
        "\0",
        "a",
        "b",
        "ab",
        "abc",
        "é",
        "e\u{301}",
        "€",
        "日本",
        "한국어",
        "\u{1f600}",
        "\u{1f468}\u{200d}\u{1f469}",
        "ﬁ",
        "Ⅳ",
        "İ",
        "ß",
        "\u{a0}",
        "\u{2003}",
        "\u{200b}",
        "\u{fffd}",
        "▁",
        "▁▁",
        "'s",
        "'LL",
        "123",
        "4567",
        "_",
        "...",
        "!?",
        "<s>",
        "</s>",
        "[M]",
        "[M][M]",
        "[L]",
        "Hello World",
        "hello world",
        "WORD",
        "word",
        "hel",
        "hello",
        "<unk>",
        "<0xE2>",
        "É",
        "xy",
        "ज़्",
        "\u{5d0}\u{5b7}",
    ];
    prop_oneof![
        4 => proptest::sample::select(tricky.to_vec()).prop_map(|t| Atom::Text(t.into())),
        2 => any::<char>().prop_map(|c| Atom::Text(c.into())),
        2 => "[a-zA-Z]{1,9}".prop_map(Atom::Text),
        3 => any::<u32>().prop_map(Atom::Token),
    ]
}

fn text(pair: &Pair, atoms: &[Atom]) -> String {
    let spell = |atom: &Atom| match atom {
        Atom::Text(text) => text.clone(),
        Atom::Token(n) => pair.oracle.id_to_token(n % pair.ids).unwrap_or_default(),
    };
    atoms.iter().map(spell).collect()
}

#[test]
fn vocabularies_are_the_same() {
    all().for_each(Pair::vocabulary);
}

#[test]
fn golden_texts_have_the_same_offsets() {
    for (pair, cases) in GOLDEN.iter() {
        for case in cases["cases"].as_array().unwrap() {
            pair.encode(case["text"].as_str().unwrap());
        }
        for case in cases["pairs"].as_array().into_iter().flatten() {
            pair.encode_pair(
                case["text"].as_str().unwrap(),
                case["pair"].as_str().unwrap(),
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 250, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_texts_have_the_same_tokens(atoms in prop::collection::vec(atom(), 0..24), at in 0usize..24) {
        for pair in all() {
            let (first, second) = atoms.split_at(at.min(atoms.len()));
            pair.encode(&text(pair, &atoms));
            pair.encode_pair(&text(pair, first), &text(pair, second));
        }
    }

    #[test]
    fn random_ids_have_the_same_text(ids in prop::collection::vec(any::<u32>(), 0..24)) {
        for pair in all() {
            let ids: Vec<u32> = ids.iter().map(|id| id % pair.ids).collect();
            pair.decode(&ids);
        }
    }

    /// What a text was encoded to is given out token by token as the whole is.
    #[test]
    fn streams_give_the_whole_text(atoms in prop::collection::vec(atom(), 0..12)) {
        for (pair, _) in GOLDEN.iter() {
            let ids = pair.ours.encode(&text(pair, &atoms), true).unwrap().ids;
            let mut stream = TextStream::new(&pair.ours, &[], true).unwrap();
            let mut streamed = String::new();
            for &id in &ids {
                streamed.push_str(&stream.push(id).unwrap());
            }
            streamed.push_str(&stream.finish().unwrap());
            prop_assert_eq!(streamed, pair.ours.decode(&ids, true).unwrap(), "{} {:?}", pair.name, ids);
        }
    }

    /// Whatever the bytes are, opening and using them neither panics nor hangs.
    #[test]
    fn altered_sections_do_no_harm(
        which in any::<prop::sample::Index>(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0usize..12), 1..40),
        cut in prop::option::weighted(0.2, any::<prop::sample::Index>()),
        atoms in prop::collection::vec(atom(), 0..12),
        ids in prop::collection::vec(0u32..400, 0..12),
    ) {
        let pairs: Vec<&Pair> = all().collect();
        let pair = which.get(&pairs);
        let mut bytes = pair.section.to_vec();
        for (at, value, run) in edits {
            let at = at.index(bytes.len());
            let end = (at + run).min(bytes.len());
            bytes[at..end].fill(value);
        }
        bytes.truncate(cut.map_or(usize::MAX, |cut| cut.index(bytes.len())));
        use_section(&bytes, &text(pair, &atoms), &ids);
    }
}

/// Whether a section opens; if so, it is used.
fn use_section(bytes: &[u8], text: &str, ids: &[u32]) -> bool {
    match Tokenizer::open(bytes) {
        Ok(tokenizer) => {
            let _ = tokenizer.encode(text, true);
            let _ = tokenizer.encode_within(text, 5);
            let _ = tokenizer.decode(ids, true);
            true
        }
        Err(e) => {
            assert!(
                e.to_string().contains("compiled tokenizer is damaged"),
                "{e}"
            );
            assert_eq!(e.exit_code(), 1);
            false
        }
    }
}

#[test]
fn wrong_headers_are_refused() {
    let pair = &GOLDEN[0].0;
    let good = pair.section;
    assert!(use_section(good, "text", &[1, 2]));
    // The header is 288 bytes: magic, version, parts, digest, and 15 times offset and length.
    for len in (0..288).chain([good.len() / 2, good.len() - 1]) {
        let whole = use_section(&good[..len], "text", &[]);
        assert!(!whole || len > good.len() / 2, "cut to {len}");
    }
    let refused = |at: usize, value: &[u8]| {
        let mut bad = good.to_vec();
        bad[at..at + value.len()].copy_from_slice(value);
        !use_section(&bad, "text", &[1, 2])
    };
    assert!(refused(0, b"X"), "magic");
    assert!(refused(8, &2u32.to_le_bytes()), "version");
    assert!(refused(12, &14u32.to_le_bytes()), "parts");
    assert!(refused(20, &[1, 2, 3]), "digest");
    for part in 0..15 {
        for at in [48 + part * 16, 56 + part * 16] {
            assert!(
                refused(at, &u64::MAX.to_le_bytes()),
                "bounds of part {part}"
            );
        }
    }
}

#[test]
fn what_cannot_be_compiled_is_refused() {
    let check = |model: Value, expected: &str| {
        let e = compile(file(model, json!({})).to_string().as_bytes()).unwrap_err();
        assert_eq!(e.exit_code(), 2);
        assert!(e.to_string().contains(expected), "{e}");
    };
    let bpe = |vocab: Value, dropout: Value| json!({"type": "BPE", "dropout": dropout, "unk_token": null, "vocab": vocab, "merges": []});
    check(bpe(json!({"a": 0}), json!(0.5)), "model.dropout: found 0.5");
    check(
        bpe(json!({"a": 0, "b": 0}), json!(null)),
        "`a` and `b` have the same id 0",
    );
    check(
        bpe(json!({"a": 4_000_000_000u32}), json!(null)),
        "too large",
    );
    check(json!({"type": "Nonsense"}), "cannot be read");
    assert!(compile(b"{").is_err());
}

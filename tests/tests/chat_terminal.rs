//! Chat executables: prompts as the goldens format them, turns that share the cache, and a terminal.

use std::{
    ffi::CStr,
    fs::File,
    io::{Read, Write},
    os::{
        fd::FromRawFd,
        unix::{fs::OpenOptionsExt, process::CommandExt},
    },
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    time::{Duration, Instant},
};

use llmc_tests::{
    binaries::{self, Compiled, ok},
    golden::{self, Tensor, Tensors},
    golden_run::infer,
    model_copy, tokenizer_cases,
};
use serde_json::{Value, json};

/// Two kinds of templates: `[INST] …` without turns of their own, and marked turns.
const MODELS: [(&str, &str); 4] = [
    ("llama2_gqa", "llama"),
    ("gemma2", "gemma"),
    ("phi3_partial_gqa", "phi3"),
    ("qwen2", "qwen"),
];

/// Runs `chat` with lines on standard input: what it prints, and its figures.
fn chat(model: &Compiled, args: &[&str], input: &str) -> (String, String) {
    let mut child = Command::new(&model.exe)
        .args(["chat", "--temperature", "0"])
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(input.as_bytes())
        .unwrap();
    let done = child.wait_with_output().unwrap();
    let said = String::from_utf8(done.stderr).unwrap();
    assert!(done.status.success(), "{said}");
    (String::from_utf8(done.stdout).unwrap(), said)
}

/// Greedy tokens behind a prompt, by `infer`.
fn continued(model: &Compiled, prompt: &[i64], new: usize) -> Vec<i64> {
    let ids = Tensor::i64(&[1, prompt.len()], prompt.to_vec());
    let inputs = Tensors::from([("input_ids".to_string(), ids)]);
    let found = infer(model, &inputs, &["--generate", &new.to_string()]);
    found["generated_ids"].ints().to_vec()
}

/// Ids of a chat, rendered by the executable.
fn prompt(model: &Compiled, messages: &Value) -> (String, Vec<i64>) {
    let line = json!({"messages": messages, "add_generation_prompt": true});
    let out = ok(
        &model.exe,
        &["tokenize", "--jsonl", "--", &line.to_string()],
    );
    let out: Value = serde_json::from_str(&out).unwrap();
    let ids = serde_json::from_value(out["ids"].clone()).unwrap();
    (out["rendered"].as_str().unwrap().to_string(), ids)
}

/// What `chat` prints for tokens, read back by `detokenize`. Ids of an end token give nothing.
fn text(model: &Compiled, ids: &[i64]) -> String {
    let words: Vec<String> = ids.iter().map(i64::to_string).collect();
    let mut args = vec!["detokenize", "--skip-special"];
    args.extend(words.iter().map(String::as_str));
    let out = ok(&model.exe, &args);
    out.strip_suffix('\n').unwrap().to_string()
}

/// Every golden chat that ends with the user's turn, through the executable: the same prompt, and an answer that
/// continues it.
#[test]
fn answers_follow_the_golden_prompts() {
    for (case, tokenizer) in MODELS {
        let model = binaries::compile(&golden::root().join("models").join(case), &[]);
        let cases = tokenizer_cases::read(&golden::root().join("tokenizers").join(tokenizer));
        let mut answered = 0;
        for case in tokenizer_cases::list(&cases, "chat_cases") {
            let messages = case["messages"].as_array().unwrap();
            if case["add_generation_prompt"] != true || !case["error"].is_null() {
                continue;
            }
            let (rendered, ids) = prompt(&model, &case["messages"]);
            assert_eq!(Some(rendered.as_str()), case["rendered"].as_str());
            assert_eq!(json!(ids), case["ids"]);
            // What a terminal can say: a system's message and one of the user's, on one line.
            let content = |at: usize| messages[at]["content"].as_str().unwrap();
            let roles: Vec<&str> = messages
                .iter()
                .map(|m| m["role"].as_str().unwrap())
                .collect();
            let (args, said) = match roles[..] {
                ["user"] => (vec![], content(0)),
                ["system", "user"] => (vec!["--system", content(0)], content(1)),
                _ => continue,
            };
            let (printed, _) = chat(&model, &[&args[..], &["-n", "9"]].concat(), said);
            let expected = text(&model, &continued(&model, &ids, 9));
            // A text of its own begins without the space that belongs to the prompt.
            assert_eq!(printed.trim(), expected.trim(), "{tokenizer}: {rendered}");
            answered += 1;
        }
        assert!(answered > 0, "{tokenizer}");
    }
}

/// Tokens of the prompt that each turn has computed, by the figures.
fn computed(figures: &str) -> Vec<usize> {
    let lines = figures
        .lines()
        .filter_map(|line| line.strip_prefix("prompt: "));
    lines
        .map(|line| line.split(' ').next().unwrap().parse().unwrap())
        .collect()
}

/// What the model answers to each turn, every prompt computed from its start; and the prompts' lengths.
fn answers(model: &Compiled, turns: &[&str], new: usize) -> (Vec<String>, Vec<usize>) {
    let (mut messages, mut texts, mut lengths) = (Vec::new(), Vec::new(), Vec::new());
    for said in turns {
        messages.push(json!({"role": "user", "content": said}));
        let (_, ids) = prompt(model, &json!(messages));
        let answer = text(model, &continued(model, &ids, new));
        messages.push(json!({"role": "assistant", "content": answer.trim()}));
        texts.push(answer);
        lengths.push(ids.len());
    }
    (texts, lengths)
}

fn words(text: &str) -> Vec<&str> {
    text.split_whitespace().collect()
}

/// A later turn says what a fresh run says to the whole conversation, and computes what is new alone.
#[test]
fn turns_keep_what_the_cache_holds() {
    for (case, _) in [MODELS[0], MODELS[3]] {
        let copy = model_copy::of(case);
        model_copy::edit(
            &copy.path().join("config.json"),
            json!({"max_position_embeddings": 4096}),
        );
        let model = binaries::compile(copy.path(), &[]);
        let turns = [
            "Hello, how are you?",
            "The quick brown fox",
            "jumps over the dog",
        ];
        let (printed, figures) = chat(&model, &["-n", "8"], &turns.join("\n"));
        let (expected, lengths) = answers(&model, &turns, 8);
        assert_eq!(words(&printed), words(&expected.join("\n")), "{case}");
        let computed = computed(&figures);
        assert_eq!(
            (computed.len(), computed[0]),
            (turns.len(), lengths[0]),
            "{figures}"
        );
        // The answer's own tokens may be spelled anew, the turns before them are kept.
        for turn in 1..turns.len() {
            let new = lengths[turn] - lengths[turn - 1];
            assert!(computed[turn] <= new, "{case}: {} of {new}", computed[turn]);
        }
    }
}

/// A prompt of many chunks, a context that fills up, and one that is too long from the start.
#[test]
fn long_prompts_and_full_contexts() {
    let copy = model_copy::of("llama2_gqa");
    let config = copy.path().join("config.json");
    model_copy::edit(&config, json!({"max_position_embeddings": 4096}));
    let model = binaries::compile(copy.path(), &[]);
    let json_of = |args: &[&str]| -> Value {
        let all = [&["generate", "--json", "--ids", "--ignore-eos"], args].concat();
        serde_json::from_str(&ok(&model.exe, &all)).unwrap()
    };
    // `generate` reads it in large chunks, `infer` in small ones.
    let long = "The quick brown fox jumps over the lazy dog. ".repeat(40);
    let ids = ok(&model.exe, &["tokenize", "--ids", &long]);
    let ids: Vec<i64> = ids
        .split_whitespace()
        .map(|id| id.parse().unwrap())
        .collect();
    assert!(ids.len() > 1024, "{}", ids.len());
    let found = json_of(&[&long, "-n", "24"]);
    let inputs = Tensors::from([(
        "input_ids".to_string(),
        Tensor::i64(&[1, ids.len()], ids.clone()),
    )]);
    let expected = infer(&model, &inputs, &["--generate", "24", "--eos", "none"]);
    assert_eq!(found["ids"], json!(expected["generated_ids"].ints()));

    let done = json_of(&["Once upon a time", "-n", "100000"]);
    assert_eq!(done["finish_reason"], "length");
    let (prompt, new) = (done["prompt_tokens"].as_u64(), done["tokens"].as_u64());
    // The last token is never read back.
    assert_eq!(prompt.unwrap() + new.unwrap(), 4096 + 1);
    let search = json_of(&["Once upon a time", "-n", "9", "--beams", "3"]);
    assert_eq!(search["sequences"][0]["finish_reason"], "length");
    let out = binaries::run(&model.exe, &["generate", &"word ".repeat(9000)]);
    assert_eq!(out.status.code(), Some(2));
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(said.contains("this model's context is 4096"), "{said}");
}

/// A template that cannot be rendered is an error of the compiler.
#[test]
fn templates_are_checked_when_compiling() {
    for (template, words) in [
        ("{% if %}", "cannot be read"),
        ("{{ messages | no_such_filter }}", "no_such_filter"),
        ("{{ raise_exception('no chats here') }}", "no chats here"),
        (
            "{{ messages[0].content.no_such_method() }}",
            "no_such_method",
        ),
    ] {
        let copy = model_copy::of("llama2_gqa");
        std::fs::write(copy.path().join("chat_template.jinja"), template).unwrap();
        let exe = copy.path().join("model");
        let (input, output) = (copy.path().to_str().unwrap(), exe.to_str().unwrap());
        let out = binaries::run(&binaries::llmc(), &["compile", input, "-o", output]);
        let said = String::from_utf8_lossy(&out.stderr);
        assert_eq!(out.status.code(), Some(2), "{template}: {said}");
        assert!(
            said.contains("error: ") && said.contains(words),
            "{template}: {said}"
        );
        assert!(!exe.exists());
    }
}

/// A process on a terminal of its own.
struct Terminal {
    child: Child,
    keys: File,
    screen: Receiver<Vec<u8>>,
    seen: String,
}

impl Terminal {
    fn start(program: &Path, args: &[&str]) -> Terminal {
        // SAFETY: plain calls; the descriptors are ours.
        let (keys, name) = unsafe {
            let keys = libc::posix_openpt(libc::O_RDWR | libc::O_NOCTTY);
            assert!(keys >= 0 && libc::grantpt(keys) == 0 && libc::unlockpt(keys) == 0);
            let mut name = [0; 128];
            assert_eq!(libc::ptsname_r(keys, name.as_mut_ptr(), name.len()), 0);
            let name = CStr::from_ptr(name.as_ptr()).to_str().unwrap().to_string();
            (File::from_raw_fd(keys), name)
        };
        let open = || {
            let mut options = std::fs::OpenOptions::new();
            options.read(true).write(true).custom_flags(libc::O_NOCTTY);
            options.open(&name).unwrap()
        };
        let mut command = Command::new(program);
        command
            .args(args)
            .stdin(open())
            .stdout(open())
            .stderr(open());
        // SAFETY: only calls that may be made between fork and exec.
        unsafe {
            command.pre_exec(|| {
                if libc::setsid() < 0 || libc::ioctl(0, libc::TIOCSCTTY, 0) < 0 {
                    return Err(std::io::Error::last_os_error());
                }
                Ok(())
            });
        }
        let child = command.spawn().unwrap();
        drop(command);
        let (send, screen) = channel();
        let mut reader = keys.try_clone().unwrap();
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = reader.read(&mut bytes) {
                if send.send(bytes[..count].to_vec()).is_err() {
                    break;
                }
            }
        });
        Terminal {
            child,
            keys,
            screen,
            seen: String::new(),
        }
    }

    fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
    }

    /// Waits until the screen shows `text`; what came before it, which is then forgotten.
    fn until(&mut self, text: &str) -> String {
        let end = Instant::now() + Duration::from_secs(60);
        loop {
            if let Some(at) = self.seen.find(text) {
                let before = self.seen[..at].to_string();
                self.seen.drain(..at + text.len());
                return before;
            }
            let left = end.saturating_duration_since(Instant::now());
            match self.screen.recv_timeout(left) {
                Ok(bytes) => self.seen.push_str(&String::from_utf8_lossy(&bytes)),
                Err(e) => panic!("no `{text}` on the screen ({e}): {}", self.seen),
            }
        }
    }

    /// Waits until the screen shows anything new.
    fn more(&mut self) {
        while self.seen.is_empty() {
            let bytes = self.screen.recv_timeout(Duration::from_secs(60)).unwrap();
            self.seen.push_str(&String::from_utf8_lossy(&bytes));
        }
    }

    fn end(mut self) -> Option<i32> {
        let end = Instant::now() + Duration::from_secs(30);
        while Instant::now() < end {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        self.child.kill().unwrap();
        panic!("the process does not end: {}", self.seen);
    }
}

/// A talk in a terminal: two turns, Ctrl-C within an answer, another turn, Ctrl-D.
#[test]
fn a_talk_in_a_terminal() {
    for (case, _) in [MODELS[0], MODELS[3]] {
        let copy = model_copy::of(case);
        // Room for an answer that does not end before Ctrl-C is pressed.
        model_copy::edit(
            &copy.path().join("config.json"),
            json!({"max_position_embeddings": 200_000}),
        );
        let model = binaries::compile(copy.path(), &[]);
        let turns = ["Hello", "How are you?"];
        let (expected, _) = answers(&model, &turns, 8);
        let mut terminal = Terminal::start(&model.exe, &["chat", "--temperature", "0", "-n", "8"]);
        terminal.until("write a message; Ctrl-D ends, Ctrl-C cuts an answer short");
        for (said, answer) in turns.iter().zip(&expected) {
            terminal.until("> ");
            terminal.press(&format!("{said}\n"));
            terminal.until(&format!("{said}\r\n"));
            let shown = terminal.until("prompt: ");
            assert_eq!(words(&shown), words(answer), "{case}");
            terminal.until("ended by");
        }
        terminal.until("> ");
        terminal.press("\u{4}");
        assert_eq!(terminal.end(), Some(0));

        let long = ["chat", "--temperature", "0", "--min-new-tokens", "199000"];
        let mut terminal = Terminal::start(&model.exe, &long);
        for said in ["Hello", "Hello again"] {
            terminal.until("> ");
            terminal.press(&format!("{said}\n"));
            terminal.until(&format!("{said}\r\n"));
            // The answer has begun.
            terminal.more();
            terminal.press("\u{3}");
            terminal.until("ended by Ctrl-C");
        }
        terminal.until("> ");
        terminal.press("\u{4}");
        assert_eq!(terminal.end(), Some(0));
    }
}

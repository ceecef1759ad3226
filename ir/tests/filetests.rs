//! Runs `tests/filetests/{parse,errors,verify,run}/*.tir`. The first line tells what is done:
//!
//! - `// RUN: print`: the text is read and printed; the snapshot beside it holds what comes out.
//! - `// RUN: parse`: the text is no module; the snapshot holds the error.
//! - `// RUN: verify`: the snapshot holds every violation.
//! - `// RUN: run`: the evaluator runs the steps of the file and meets the expected numbers:
//!   `// TENSOR name [dims] = numbers` is in the checkpoint,
//!   `// STEP ids = …; pos = …; types = …; seqs = past+new …; rows = …` is a step, of another than the main
//!   entry with `entry = …`, over other sequences' sources with `sources = …`, `in = x:rows` are rows for `%x`,
//!   `// EXPECT result [dims] = numbers` is what it returns (`hidden.i`: what `repeat` carries).

use llmc_ir::{
    DType, Entry, Module, Op, TensorSource,
    eval::{Evaluator, SeqStep, StepInput, StepOutput, Tensor},
    parse,
    source::TensorInfo,
    verify,
};
use std::{borrow::Cow, collections::BTreeMap, fs, ops::Range, path::Path};

/// Tensors that stand in a file.
#[derive(Default)]
struct Tensors(BTreeMap<String, Tensor>);

impl TensorSource for Tensors {
    fn info(&self, name: &str) -> Option<TensorInfo> {
        let dims = self.0.get(name)?.dims.iter().map(|&d| d as u32).collect();
        Some(TensorInfo {
            dtype: DType::F32,
            dims,
        })
    }

    fn read(&self, name: &str, range: Range<u64>) -> Result<Cow<'_, [u8]>, String> {
        let data = &self.0.get(name).ok_or("no such tensor")?.data;
        let bytes: Vec<u8> = data.iter().flat_map(|x| x.to_le_bytes()).collect();
        Ok(bytes[range.start as usize..range.end as usize]
            .to_vec()
            .into())
    }

    fn release(&self, _: &str, _: Range<u64>) {}
}

fn numbers<T: std::str::FromStr>(text: &str) -> Vec<T> {
    let number = |w: &str| w.parse().unwrap_or_else(|_| panic!("`{w}` is no number"));
    text.split_whitespace().map(number).collect()
}

/// `name [dims] = numbers`.
fn named_tensor(text: &str) -> (String, Tensor) {
    let (head, data) = text.split_once('=').expect("name [dims] = numbers");
    let (name, dims) = head.split_once('[').expect("name [dims]");
    let dims: Vec<usize> = numbers(&dims.replace([',', ']'], " "));
    let tensor = Tensor::new(&dims, numbers(data)).expect("as many numbers as the extents say");
    (name.trim().to_string(), tensor)
}

fn step_input(text: &str, tensors: &Tensors) -> (Option<Entry>, StepInput) {
    let mut step = StepInput::default();
    let (mut pos, mut entry) = (None, None);
    for field in text.split(';') {
        let (key, value) = field.split_once('=').expect("key = values");
        match key.trim() {
            "ids" => step.ids = numbers(value),
            "pos" => pos = Some(numbers(value)),
            "types" => step.types = Some(numbers(value)),
            "rows" => step.rows = numbers(value),
            "lengths" => step.lengths = Some(numbers(value)),
            "sources" => step.sources = numbers(value),
            "entry" => entry = Entry::from_name(value.trim()),
            "in" => {
                let (name, tensor) = value.trim().split_once(':').expect("name:tensor");
                step.rows_in.insert(name.into(), tensors.0[tensor].clone());
            }
            "seqs" => {
                for (id, s) in value.split_whitespace().enumerate() {
                    let (past, new) = s.split_once('+').expect("past+new");
                    let (past, new) = (numbers(past)[0], numbers(new)[0]);
                    step.seqs.push(SeqStep {
                        id: id as u32,
                        past,
                        new,
                    });
                }
            }
            other => panic!("a step has no `{other}`"),
        }
    }
    if step.seqs.is_empty() {
        step.seqs = vec![SeqStep {
            id: 0,
            past: 0,
            new: step.ids.len() as u32,
        }];
    }
    let of = |s: &SeqStep| s.past as i32..(s.past + s.new) as i32;
    step.pos = pos.unwrap_or_else(|| step.seqs.iter().flat_map(of).collect());
    (entry, step)
}

fn expect(out: &StepOutput, name: &str, want: &Tensor, path: &Path) {
    let hidden = name
        .strip_prefix("hidden.")
        .and_then(|i| out.hidden.get(i.parse::<usize>().ok()?));
    let found = hidden.or(out.result(name));
    let found = found.unwrap_or_else(|| panic!("{}: no result {name}", path.display()));
    let near = |(a, b): (&f32, &f32)| (a - b).abs() <= 2e-6 * b.abs().max(1.0);
    let same = found.dims == want.dims && found.data.iter().zip(&want.data).all(near);
    assert!(
        same,
        "{}: {name} is\n{found:?}, expected\n{want:?}",
        path.display()
    );
}

fn legal(text: &str, path: &Path) -> Module {
    let module = parse(text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let violations: Vec<String> = verify(&module).iter().map(ToString::to_string).collect();
    assert!(
        violations.is_empty(),
        "{}:\n{}",
        path.display(),
        violations.join("\n")
    );
    module
}

fn run(text: &str, path: &Path) {
    let module = legal(text, path);
    let mut tensors = Tensors::default();
    for line in text.lines() {
        if let Some(tensor) = line.strip_prefix("// TENSOR ") {
            let (name, tensor) = named_tensor(tensor);
            tensors.0.insert(name, tensor);
        }
    }
    let mut evaluator = Evaluator::new(&module, &tensors).expect("a legal module");
    let mut out = StepOutput::default();
    let mut expected = 0;
    for line in text.lines() {
        if let Some(step) = line.strip_prefix("// STEP ") {
            let done = match step_input(step, &tensors) {
                (Some(entry), input) => evaluator.step_of(entry, &input),
                (None, input) => evaluator.step(&input),
            };
            out = done.unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        } else if let Some(want) = line.strip_prefix("// EXPECT ") {
            let (name, want) = named_tensor(want);
            expect(&out, &name, &want, path);
            expected += 1;
        }
    }
    assert!(expected > 0, "{}: nothing is expected", path.display());
}

fn snapshot(path: &Path, text: String) {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path(path.parent().expect("a folder"));
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.remove_snapshot_suffix();
    let name = path
        .file_stem()
        .expect("a name")
        .to_string_lossy()
        .to_string();
    settings.bind(|| insta::assert_snapshot!(name, text));
}

fn filetest(path: &Path) {
    let text = fs::read_to_string(path).expect("a file");
    match text.lines().next() {
        Some("// RUN: print") => {
            let module = legal(&text, path);
            let printed = module.to_string();
            assert_eq!(parse(&printed).as_ref(), Ok(&module), "{}", path.display());
            snapshot(path, printed);
        }
        Some("// RUN: parse") => match parse(&text) {
            Ok(module) => panic!("{}: it is a module:\n{module}", path.display()),
            Err(e) => snapshot(path, e.to_string()),
        },
        Some("// RUN: verify") => {
            let module = parse(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
            let list: Vec<String> = verify(&module).iter().map(ToString::to_string).collect();
            snapshot(path, list.join("\n"));
        }
        Some("// RUN: run") => run(&text, path),
        other => panic!("{}: the first line is {other:?}", path.display()),
    }
}

#[test]
fn filetests() {
    for folder in ["parse", "errors", "verify", "run"] {
        insta::glob!(
            "../../tests/filetests",
            &format!("{folder}/*.tir"),
            filetest
        );
    }
}

#[test]
fn every_op_has_its_run() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/filetests/run");
    let mut missing = Op::NAMES.to_vec();
    missing.retain(|op| !folder.join(format!("{op}.tir")).exists());
    assert!(
        missing.is_empty(),
        "no tests/filetests/run/<op>.tir for {missing:?}"
    );
}

#[test]
fn every_invariant_has_its_filetest_or_unit_test() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let header = fs::read_to_string(folder.join("src/verify/mod.rs")).expect("the verifier");
    let codes: Vec<&str> = header
        .lines()
        .filter_map(|l| l.strip_prefix("//! | V")?.split_once(' '))
        .map(|(number, _)| number)
        .collect();
    assert!(codes.len() >= 17, "{codes:?}");
    let units = fs::read_to_string(folder.join("src/verify/tests.rs")).expect("unit tests");
    for n in codes {
        let file = folder.join(format!("../tests/filetests/verify/v{n}.tir"));
        assert!(
            file.exists() || units.contains(&format!("\"V{n}\"")),
            "no test of V{n}"
        );
    }
}

//! A broken input, and what the command must say to it.

use std::path::Path;

use llmc_tests::{
    binaries,
    measured::{self, Bounds, Measured},
    model_copy,
};

/// The compiler maps its code generator, some hundred MB; the models here are of some hundred KB.
const BOUNDS: Bounds = Bounds {
    address_space: Some(4 << 30),
    seconds: 10.0,
};
/// Bytes of resident memory, mapped libraries included.
const RESIDENT: u64 = 300 << 20;

type Break = Box<dyn Fn(&Path) + Send + Sync>;

/// A broken input.
pub struct Refusal {
    case: &'static str,
    input: Option<&'static str>,
    flags: Vec<&'static str>,
    break_it: Break,
    expected: Vec<String>,
}

/// A copy of a golden model (none: files that are no model) to be broken, and words of the error.
pub fn refusal(case: &'static str, expected: &[&str]) -> Refusal {
    Refusal {
        case,
        input: None,
        flags: Vec::new(),
        break_it: Box::new(|_| ()),
        expected: expected.iter().map(|word| word.to_string()).collect(),
    }
}

impl Refusal {
    /// Breaks the copy.
    pub fn broken_by(mut self, break_it: impl Fn(&Path) + Send + Sync + 'static) -> Refusal {
        self.break_it = Box::new(break_it);
        self
    }

    /// Adds flags.
    #[allow(dead_code, reason = "not every test needs it")]
    pub fn with(mut self, flags: &[&'static str]) -> Refusal {
        self.flags = flags.to_vec();
        self
    }

    /// Compiles this instead of the copy.
    pub fn of(mut self, input: &'static str) -> Refusal {
        self.input = Some(input);
        self
    }

    /// What the command took, and what is wrong with its answer.
    fn run(&self) -> (Measured, Option<String>) {
        let model = match self.case {
            "" => files_that_are_no_model(),
            case => model_copy::of(case),
        };
        (self.break_it)(model.path());
        let out = tempfile::tempdir().unwrap();
        let exe = out.path().join("model");
        let whole = model.path().to_str().unwrap();
        let mut args = vec![
            "compile",
            self.input.unwrap_or(whole),
            "-o",
            exe.to_str().unwrap(),
        ];
        args.extend(&self.flags);
        let found = measured::run(&binaries::llmc(), &args, model.path(), BOUNDS);

        let mut wrong = Vec::new();
        let mut expect = |holds: bool, what: String| {
            if !holds {
                wrong.push(what);
            }
        };
        expect(
            found.code == Some(2),
            format!("exit code {:?}, signal {:?}", found.code, found.signal),
        );
        for word in &self.expected {
            expect(
                found.stderr.contains(word.as_str()),
                format!("`{word}` is not said"),
            );
        }
        let errors = found
            .stderr
            .lines()
            .filter(|line| line.starts_with("error"))
            .count();
        expect(errors == 1, format!("{errors} errors"));
        expect(
            found.stderr.len() < 8000,
            format!("{} bytes of error", found.stderr.len()),
        );
        expect(!found.stderr.contains("panicked"), "a panic".into());
        expect(
            found.stdout.is_empty(),
            "something on standard output".into(),
        );
        let left = std::fs::read_dir(out.path()).unwrap().count();
        expect(left == 0, format!("{left} files are left"));
        expect(
            found.seconds < BOUNDS.seconds,
            format!("{} s", found.seconds),
        );
        expect(
            found.peak_resident < RESIDENT,
            format!("{} MB", found.peak_resident >> 20),
        );
        let said = found.stderr.chars().take(1000).collect::<String>();
        let at = format!("{:?} {:?}", self.expected, self.flags);
        let problem = (!wrong.is_empty()).then(|| format!("{at}: {}\n{said}", wrong.join("; ")));
        (found, problem)
    }
}

fn files_that_are_no_model() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("model.gguf"), b"GGUF").unwrap();
    for name in ["model.bin", "model.txt", "model.safetensors"] {
        std::fs::write(folder.path().join(name), b"none").unwrap();
    }
    folder
}

/// Runs all, and tells of all that are wrong.
pub fn check_all(refusals: Vec<Refusal>) {
    let total = refusals.len();
    let (found, problems): (Vec<Measured>, Vec<Option<String>>) =
        refusals.iter().map(Refusal::run).unzip();
    let seconds = found.iter().map(|one| one.seconds).fold(0.0, f64::max);
    let resident = found.iter().map(|one| one.peak_resident).max().unwrap_or(0);
    eprintln!(
        "{total} refused, at most {seconds:.2} s and {} MB",
        resident >> 20
    );
    let problems: Vec<String> = problems.into_iter().flatten().collect();
    assert!(
        problems.is_empty(),
        "{} of {total}:\n{}",
        problems.len(),
        problems.join("\n\n")
    );
}

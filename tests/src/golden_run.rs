//! Golden cases through whatever takes the files of `infer`: an executable, or the evaluator behind
//! `llmc run`. Each function compares one kind of scenario and returns the differences.

use std::path::Path;

use llmc_runtime::{
    beam_search::{BeamParams, BeamSearch, EarlyStopping, Hypotheses, Move},
    sampler::Sampler,
    sampling_params::{GREEDY, SamplingParams},
};
use tempfile::TempDir;

use crate::{
    binaries::{self, Compiled},
    golden::{self, Case, Tensor, Tensors},
};

/// What runs a case.
pub enum Runner {
    Executable(Compiled),
    /// The reference evaluator, on a model's directory.
    Evaluator {
        model: String,
        scratch: TempDir,
    },
}

impl Runner {
    /// The evaluator on a model's directory.
    pub fn evaluator(model: &Path) -> Runner {
        Runner::Evaluator {
            model: model.to_str().unwrap().into(),
            scratch: tempfile::tempdir().unwrap(),
        }
    }

    /// Named tensors in, named tensors out.
    pub fn infer(&self, inputs: &Tensors, args: &[&str]) -> Tensors {
        match self {
            Runner::Executable(model) => infer(model, inputs, args),
            Runner::Evaluator { model, scratch } => {
                let start = ["run", model];
                through(&binaries::llmc(), &start, scratch.path(), inputs, args)
            }
        }
    }
}

/// Runs an executable's `infer`; what it wrote.
pub fn infer(model: &Compiled, inputs: &Tensors, args: &[&str]) -> Tensors {
    through(&model.exe, &["infer"], model.dir.path(), inputs, args)
}

fn through(
    program: &Path,
    start: &[&str],
    folder: &Path,
    inputs: &Tensors,
    args: &[&str],
) -> Tensors {
    let (input, output) = (folder.join("in.st"), folder.join("out.st"));
    golden::write(&input, inputs);
    let files = [input.to_str().unwrap(), output.to_str().unwrap()];
    binaries::ok(program, &[start, &files, args].concat());
    golden::read(&output)
}

fn generated(case: &Case, scenario: &str) -> Option<Tensor> {
    let mut outputs = case.outputs(scenario);
    outputs
        .find(|(n, _)| *n == "generated_ids")
        .map(|(_, t)| t.clone())
}

/// Start tokens of a text: one where it is about a source.
fn starts(case: &Case) -> usize {
    usize::from(case.has_source())
}

/// Compares a scenario's outputs and greedy tokens.
pub fn scenario(case: &Case, runner: &Runner, name: &str) -> Vec<String> {
    let inputs = case.inputs(name);
    let tokens = generated(case, name).map(|t| t.shape[1] - starts(case));
    let count = tokens.unwrap_or(0).to_string();
    let mut args = vec!["--hidden-states"];
    if tokens.is_some() {
        args.extend(["--generate", &count, "--eos", "none"]);
    }
    let found = runner.infer(&inputs, &args);
    let mut problems = Vec::new();
    for (what, expected) in case.outputs(name) {
        if what == "generated_margin" || what == "generated_max_logit" {
            continue;
        }
        if what == "generated_ids" && case.is_padded_longrope(name) {
            continue;
        }
        // The directory does not say how to pool: the golden's is computed from the last state.
        if what == "sentence_embedding" && !case.dir.join("modules.json").exists() {
            continue;
        }
        let label = format!("{} {name}.{what}", case.name);
        let result = match found.get(what) {
            Some(t) => {
                let mask = inputs.get("attention_mask");
                case.compare(&label, expected, t, mask.filter(|_| case.is_masked(what)))
            }
            None => Err(format!("{label} is missing")),
        };
        problems.extend(result.err());
    }
    problems
}

/// The batch whose rows meet an end token.
pub fn eos_test(case: &Case, runner: &Runner) -> Vec<String> {
    let expected = generated(case, "eos_test").filter(|_| !case.is_padded_longrope("eos_test"));
    let Some(expected) = expected else {
        return Vec::new();
    };
    let eos = case.scalar("eos_test.eos_token_id").unwrap().to_string();
    let count = (expected.shape[1] - starts(case)).to_string();
    let args = ["--generate", &count, "--eos", &eos];
    let found = runner.infer(&case.inputs("batch"), &args);
    let label = format!("{} eos_test.generated_ids", case.name);
    let result = case.compare(&label, &expected, &found["generated_ids"], None);
    result.err().into_iter().collect()
}

/// Names of a case's outputs that start so, without the part behind their last dot.
fn kinds(case: &Case, prefix: &str) -> Vec<String> {
    let prefix = format!("out.{prefix}");
    let names = case
        .tensors
        .keys()
        .filter_map(|name| name.strip_prefix(&prefix));
    let mut names: Vec<String> = names
        .filter_map(|name| Some(name.rsplit_once('.')?.0.to_string()))
        .collect();
    names.dedup();
    names
}

/// Beam searches of a case: their names' rest and the flags that it stands for.
pub fn searches(case: &Case) -> Vec<(String, Vec<String>)> {
    let flags = |name: &String| {
        let mut words = name.split('_');
        let beams = words.next().unwrap();
        let mut flags = vec!["--beams", beams, "--num-return", "2"];
        for word in words {
            flags.extend(match word {
                "lp06" => ["--length-penalty", "0.6"],
                "lp2" => ["--length-penalty", "2"],
                "early" => ["--early-stopping", "true"],
                "ngram3" => ["--no-repeat-ngram", "3"],
                other => panic!("{}: beam{name}: what is `{other}`?", case.name),
            });
        }
        let flags = flags.into_iter().map(String::from).collect();
        (name.clone(), flags)
    };
    kinds(case, "beam").iter().map(flags).collect()
}

/// Beam searches of the batch: tokens and scores.
pub fn beams(case: &Case, runner: &Runner) -> Vec<String> {
    let mut problems = Vec::new();
    for (name, flags) in searches(case) {
        let eos = case.scalar("beam.eos_token_id").unwrap().to_string();
        let mut args = vec!["--generate", "16", "--eos", &eos];
        args.extend(flags.iter().map(String::as_str));
        let found = runner.infer(&case.inputs("batch"), &args);
        problems.extend(compare_search(
            case,
            &name,
            &found["generated_ids"],
            found["sequences_scores"].floats(),
        ));
    }
    problems
}

/// Sequences that are computed from their start in every step: no cache, so that any model serves.
struct Recomputed<'a> {
    runner: &'a Runner,
    rows: Vec<Vec<i64>>,
}

impl Recomputed<'_> {
    /// The logits behind each row.
    fn logits(&self) -> Vec<Vec<f32>> {
        let longest = self.rows.iter().map(Vec::len).max().unwrap();
        let padded = |of: fn(i64) -> i64| {
            let row = |row: &Vec<i64>| {
                let mut padded: Vec<i64> = row.iter().map(|&id| of(id)).collect();
                padded.resize(longest, 0);
                padded
            };
            let ids = self.rows.iter().flat_map(row).collect();
            Tensor::i64(&[self.rows.len(), longest], ids)
        };
        let inputs = Tensors::from([
            ("input_ids".to_string(), padded(|id| id)),
            ("attention_mask".to_string(), padded(|_| 1)),
        ]);
        let found = self.runner.infer(&inputs, &[]);
        let width = found["logits"].shape[2];
        let logits = found["logits"].floats();
        let last = |(r, row): (usize, &Vec<i64>)| {
            logits[(r * longest + row.len() - 1) * width..][..width].to_vec()
        };
        self.rows.iter().enumerate().map(last).collect()
    }
}

impl Hypotheses for Recomputed<'_> {
    fn step(
        &mut self,
        moves: &[Move],
        take: &mut dyn FnMut(usize, &[f32]) -> llmc_runtime::Result<()>,
    ) -> llmc_runtime::Result<()> {
        let extend = |m: &Move| [&self.rows[m.from][..], &[i64::from(m.token)]].concat();
        self.rows = moves.iter().map(extend).collect();
        let logits = self.logits();
        logits
            .iter()
            .enumerate()
            .try_for_each(|(r, row)| take(r, row))
    }
}

/// The beam searches of a decoder's case without a cache: every step computes whole sequences.
pub fn recomputed_beams(case: &Case, runner: &Runner) -> Vec<String> {
    let inputs = case.inputs("batch");
    let (ids, mask) = (&inputs["input_ids"], &inputs["attention_mask"]);
    let columns = ids.shape[1];
    let prompts: Vec<Vec<i64>> = ids
        .ints()
        .chunks(columns)
        .zip(mask.ints().chunks(columns))
        .map(|(ids, mask)| {
            let kept = ids.iter().zip(mask).filter(|(_, m)| **m == 1);
            kept.map(|(id, _)| *id).collect()
        })
        .collect();
    let mut problems = Vec::new();
    for (name, flags) in searches(case) {
        let value = |flag: &str| {
            let at = flags.iter().position(|f| f == flag)?;
            Some(flags[at + 1].as_str())
        };
        let params = BeamParams {
            beams: value("--beams").unwrap().parse().unwrap(),
            returned: 2,
            length_penalty: value("--length-penalty").map_or(1.0, |p| p.parse().unwrap()),
            early_stopping: match value("--early-stopping") {
                Some("true") => EarlyStopping::First,
                _ => EarlyStopping::Heuristic,
            },
        };
        let sampling = SamplingParams {
            no_repeat_ngram: value("--no-repeat-ngram").map_or(0, |n| n.parse().unwrap()),
            ..GREEDY
        };
        let eos = case.scalar("beam.eos_token_id").unwrap() as u32;
        let mut model = Recomputed {
            runner,
            rows: prompts.clone(),
        };
        let first = model.logits();
        let sampler = Sampler::new(sampling, first[0].len(), &[eos], columns + 16);
        let tokens = |row: &Vec<i64>| row.iter().map(|&id| id as u32).collect();
        let prompts = prompts.iter().map(tokens).collect();
        let mut search = BeamSearch::new(params, sampler, &[eos], prompts, 16);
        for (item, logits) in first.iter().enumerate() {
            search.first(item, logits).unwrap();
        }
        search.run(&mut model).unwrap();
        let found: Vec<_> = search.results().into_iter().flatten().collect();
        let width = found.iter().map(|h| h.ids.len()).max().unwrap();
        let row = |h: &llmc_runtime::beam_search::Hypothesis| {
            let mut row: Vec<i64> = h.ids.iter().map(|&id| i64::from(id)).collect();
            row.resize(width, i64::from(eos));
            row
        };
        let ids = Tensor::i64(&[found.len(), width], found.iter().flat_map(row).collect());
        let scores: Vec<f32> = found.iter().map(|h| h.score).collect();
        problems.extend(compare_search(case, &name, &ids, &scores));
    }
    problems
}

/// Compares what a search found.
pub fn compare_search(case: &Case, name: &str, ids: &Tensor, scores: &[f32]) -> Vec<String> {
    let label = format!("{} beam{name}", case.name);
    let expected = |what: &str| &case.tensors[&format!("out.beam{name}.{what}")];
    let compared = case.compare(&label, expected("generated_ids"), ids, None);
    let mut problems: Vec<String> = compared.err().into_iter().collect();
    let atol = &case.info["tolerance"]["sequences_scores"]["atol"];
    let atol = atol.as_f64().unwrap() as f32;
    let wanted = expected("sequences_scores").floats();
    let near = |(a, b): (&f32, &f32)| (a - b).abs() <= atol;
    if scores.len() != wanted.len() || !scores.iter().zip(wanted).all(near) {
        problems.push(format!("{label}: scores {scores:?}, expected {wanted:?}"));
    }
    problems
}

/// Greedy texts under logits processors.
pub fn processors(case: &Case, runner: &Runner) -> Vec<String> {
    let mut problems = Vec::new();
    for name in kinds(case, "proc.") {
        let (kind, value) = name.rsplit_once('_').unwrap();
        let (flag, eos) = match kind {
            "rep_penalty" => ("--repeat-penalty", "none".into()),
            "no_repeat_ngram" => ("--no-repeat-ngram", "none".into()),
            "min_new_tokens" => (
                "--min-new-tokens",
                case.scalar("eos_test.eos_token_id").unwrap().to_string(),
            ),
            other => panic!("{}: what is the processor `{other}`?", case.name),
        };
        let args = ["--generate", "24", "--eos", &eos, flag, value];
        let found = runner.infer(&case.inputs("single"), &args);
        let expected = generated(case, &format!("proc.{name}")).unwrap();
        let label = format!("{} proc.{name}", case.name);
        let result = case.compare(&label, &expected, &found["generated_ids"], None);
        problems.extend(result.err());
    }
    problems
}

/// Distributions of the next token.
pub fn distributions(case: &Case, runner: &Runner) -> Vec<String> {
    let mut problems = Vec::new();
    for name in kinds(case, "warp.") {
        let mut args = vec!["--probs".to_string()];
        let spelled = name.replace("temperature_", "t").replace("minp_", "minp");
        for word in spelled.split('_') {
            let at = word.find(|c: char| c.is_ascii_digit()).unwrap();
            let flag = match &word[..at] {
                "t" => "--temperature",
                "topk" => "--top-k",
                "topp" => "--top-p",
                "minp" => "--min-p",
                "typical" => "--typical",
                other => panic!("{}: what is the warper `{other}`?", case.name),
            };
            args.extend([flag.to_string(), word[at..].to_string()]);
        }
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let found = runner.infer(&case.inputs("single"), &args);
        let expected = &case.tensors[&format!("out.warp.{name}.probs")];
        let label = format!("{} warp.{name}", case.name);
        let result = case.compare(&label, expected, &found["probs"], None);
        problems.extend(result.err());
        let kept = |t: &Tensor| t.floats().iter().map(|p| *p > 0.0).collect::<Vec<_>>();
        if kept(expected) != kept(&found["probs"]) {
            problems.push(format!("{label}: other tokens are left"));
        }
    }
    problems
}

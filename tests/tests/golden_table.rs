//! A table of the golden decoders: every kind of scenario that a case has, through executables and
//! through the reference evaluator.
//!
//! `cargo test --workspace --test golden_table -- --ignored --nocapture` prints it. Other tests run
//! the same scenarios one by one (`golden_exe`, `golden_eval`); this one is to be looked at. A case that the
//! compiler refuses as not supported is listed as such; anything else that is not right fails.

use llmc_tests::{
    binaries,
    golden::{self, Case},
    golden_run::{self, Runner},
};

const COLUMNS: [&str; 8] = [
    "single", "batch", "eos_test", "short", "cross", "beams", "proc", "warp",
];

/// A column of a case: nothing where the case has no such outputs.
fn cell(case: &Case, runner: &Runner, column: &str, problems: &mut Vec<String>) -> &'static str {
    let prefix = match column {
        "beams" => "out.beam".to_string(),
        column => format!("out.{column}."),
    };
    if !case.tensors.keys().any(|name| name.starts_with(&prefix)) {
        return "";
    }
    let is_evaluator = matches!(runner, Runner::Evaluator { .. });
    let found = match column {
        "eos_test" => golden_run::eos_test(case, runner),
        "beams" if is_evaluator => golden_run::recomputed_beams(case, runner),
        "beams" => golden_run::beams(case, runner),
        // The evaluator gives logits; what is made of them is the executable's.
        "proc" | "warp" if is_evaluator => return "",
        "proc" => golden_run::processors(case, runner),
        "warp" => golden_run::distributions(case, runner),
        name => golden_run::scenario(case, runner, name),
    };
    let cell = if found.is_empty() { "ok" } else { "WRONG" };
    problems.extend(found);
    cell
}

/// Compiles a case, or says why it is refused.
fn compile(case: &Case) -> Result<Runner, String> {
    let dir = tempfile::tempdir().unwrap();
    let exe = dir.path().join("model");
    let (input, output) = (case.dir.to_str().unwrap(), exe.to_str().unwrap());
    let mut args = vec!["compile", input, "-o", output, "--quiet"];
    if case.name.starts_with("gpt_oss") {
        // Products of MXFP4 weights are exact with f32 rows.
        args.extend(["--activations", "f32"]);
    }
    let out = binaries::run(&binaries::llmc(), &args);
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    match out.status.success() {
        true => Ok(Runner::Executable(binaries::Compiled { dir, exe })),
        false => Err(said.lines().next().unwrap_or_default().to_string()),
    }
}

#[test]
#[ignore = "a table to look at: cargo test --workspace --test golden_table -- --ignored --nocapture"]
fn table() {
    let mut problems = Vec::new();
    let (mut ran, mut refused) = (0, Vec::new());
    print!("{:24}{:12}", "case", "by");
    COLUMNS.iter().for_each(|column| print!("{column:10}"));
    println!();
    for case in golden::cases(&[""]) {
        if case.info["kind"] != "causal" {
            continue;
        }
        let executable = match compile(&case) {
            Ok(runner) => runner,
            Err(said) => {
                println!("{:24}refused: {said}", case.name);
                if !said.contains("not supported yet") {
                    problems.push(format!("{}: {said}", case.name));
                }
                refused.push(case.name);
                continue;
            }
        };
        ran += 1;
        for (by, runner) in [
            ("executable", executable),
            ("evaluator", Runner::evaluator(&case.dir)),
        ] {
            print!("{:24}{by:12}", case.name);
            for column in COLUMNS {
                print!("{:10}", cell(&case, &runner, column, &mut problems));
            }
            println!();
        }
    }
    println!(
        "{ran} cases, {} refused: {}",
        refused.len(),
        refused.join(" ")
    );
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

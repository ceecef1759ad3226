//! Runs every `tests/filetests/passes/<pass>/*.tir`: the first line names the passes, the snapshot
//! beside the file holds what comes out, remarks and errors included.
//!
//! A file without a pass of its folder, and a pass without a folder, fail.

use std::{fs, path::Path};

use llmc_ir::{parse::parse, verify::verify};
use llmc_passes::{Manager, PipelineError, Report, pipeline};

fn violations(module: &llmc_ir::Module) -> Vec<String> {
    verify(module).iter().map(ToString::to_string).collect()
}

/// What `llmc opt` says to a file.
fn run(text: &str) -> String {
    let passes = text
        .lines()
        .next()
        .and_then(|l| l.strip_prefix("// RUN: llmc opt --passes="))
        .expect("the first line is `// RUN: llmc opt --passes=…`");
    let mut module = parse(text).unwrap_or_else(|e| panic!("{e}"));
    let before = violations(&module);
    assert!(before.is_empty(), "{}", before.join("\n"));
    let passes = pipeline::passes_by_name(passes).unwrap();
    match Manager::new().verify(violations).run(&passes, &mut module) {
        Ok(report) => {
            let text = module.to_string();
            let back = parse(&text).unwrap_or_else(|e| panic!("{e} in\n{text}"));
            assert!(
                back == module,
                "not what it was when it is read back:\n{text}"
            );
            with_remarks(&text, &report)
        }
        Err(PipelineError::Invalid {
            pass,
            violations,
            module,
        }) => {
            panic!("invalid after {pass}:\n{}\n{module}", violations.join("\n"))
        }
        Err(error @ PipelineError::Pass { .. }) => format!("error: {error}\n"),
    }
}

fn with_remarks(text: &str, report: &Report) -> String {
    let mut out = text.to_string();
    for remark in &report.remarks {
        out.push_str(&format!("\n// {remark}"));
    }
    out
}

fn root() -> &'static Path {
    Path::new(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../tests/filetests/passes"
    ))
}

#[test]
fn filetests() {
    insta::glob!("../../tests/filetests/passes", "*/*.tir", |path| {
        let text = fs::read_to_string(path).unwrap();
        let folder = path.parent().unwrap();
        let mut settings = insta::Settings::clone_current();
        settings.set_snapshot_path(folder);
        settings.set_prepend_module_to_snapshot(false);
        settings.set_omit_expression(true);
        settings.remove_snapshot_suffix();
        let name = path.file_stem().unwrap().to_string_lossy().to_string();
        settings.bind(|| insta::assert_snapshot!(name, run(&text)));
    });
}

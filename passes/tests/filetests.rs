//! Runs every `tests/filetests/passes/<pass>/*.tir`: the first line names the passes, the snapshot
//! beside the file holds what comes out, remarks and errors included.
//!
//! Text that comes out is a valid input: it is read back and compared. A pass without a folder fails.

use std::{fs, path::Path};

use llmc_ir::{parse::parse, verify::verify};
use llmc_passes::{Manager, PipelineError, Report, pipeline};

/// What `llmc opt` says to a file.
fn run(text: &str) -> String {
    let passes = text
        .lines()
        .next()
        .and_then(|l| l.strip_prefix("// RUN: llmc opt --passes="))
        .expect("the first line is `// RUN: llmc opt --passes=…`");
    let mut module = parse(text).unwrap_or_else(|e| panic!("{e}"));
    let illegal = verify(&module);
    assert!(illegal.is_empty(), "{illegal:#?}");
    let passes = pipeline::passes_by_name(passes).unwrap();
    match Manager::new().run(&passes, &mut module) {
        Ok(report) => {
            let text = module.to_string();
            let back = parse(&text).unwrap_or_else(|e| panic!("{e} in\n{text}"));
            assert!(
                back == module,
                "not what it was when it is read back:\n{text}"
            );
            with_remarks(&text, &report)
        }
        Err(error @ PipelineError::Invalid { .. }) => panic!("{error}\n{module}"),
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

#[test]
fn filetests() {
    insta::glob!("../../tests/filetests/passes", "*/*.tir", |path| {
        let text = fs::read_to_string(path).unwrap();
        let mut settings = insta::Settings::clone_current();
        settings.set_snapshot_path(path.parent().unwrap());
        settings.set_prepend_module_to_snapshot(false);
        settings.set_omit_expression(true);
        settings.remove_snapshot_suffix();
        let name = path.file_stem().unwrap().to_string_lossy().to_string();
        settings.bind(|| insta::assert_snapshot!(name, run(&text)));
    });
}

#[test]
fn every_pass_has_its_folder() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/filetests/passes");
    let mut missing = pipeline::names();
    missing.retain(|name| !Path::new(folder).join(name).is_dir());
    assert!(missing.is_empty(), "no filetests of {missing:?}");
}

/// A family may write `attention` itself, over the cache or over what `kv_read` gave: the same comes out.
#[test]
fn attention_is_the_same_however_it_was_written() {
    let text = include_str!("../../tests/filetests/passes/whole-pipeline/llama.tir");
    let read = text.find("  %kk, %vv = kv_read").unwrap();
    let scores = text.find("  %s = attn_scores").unwrap();
    let mix = text.find("  %om = merge_heads").unwrap();
    let attributes = "mask = causal & window(1024), scale = 0.125";
    let over_view = format!("  %o = attention %qr, %c, %step {{kv_group = 2, {attributes}}}\n");
    let over_read =
        format!("  %o = attention %qr, %kk, %vv, %step {{kv_group = 1, {attributes}}}\n");
    let expected = run(text);
    assert_eq!(
        run(&[&text[..read], &over_view, &text[mix..]].concat()),
        expected
    );
    assert_eq!(
        run(&[&text[..scores], &over_read, &text[mix..]].concat()),
        expected
    );
}

//! `llmc opt`: passes over a module in text form.
//!
//! In: a module of any stage, and names of passes; by default all that lead from the module's stage
//! to the last one. Out: the module on standard output; dumps, times, statistics and missed remarks
//! on standard error. The module is verified before the first pass and after every pass.

use std::path::Path;

use llmc::{Error, Result};
use llmc_ir::Stage;
use llmc_passes::{Manager, Pass, PipelineError, Report, TileFacts, pipeline};

pub use super::pass_report::tell;
use super::{module_text, pass_report, stdout};
use crate::args::{Opt, PassArgs};

/// Runs the passes and prints the module.
pub fn run(args: &Opt) -> Result<()> {
    check_names(&args.tell)?;
    let named = args.passes.as_ref().map(|names| names.join(","));
    let named = named
        .map(|names| pipeline::passes_by_name(&names))
        .transpose();
    let named = named.map_err(|e| Error::Usage(format!("--passes: {e}")))?;
    let mut module = module_text::read(&args.input)?;
    let mut passes = named.unwrap_or_else(|| rest_of_pipeline(module.stage));
    stop_after(&mut passes, &args.tell)?;

    let mut manager = Manager::new().verify(llmc::compile::verify);
    if args.tell.print_after_all {
        manager = manager.print_after_all();
    }
    for name in &args.tell.print_after {
        manager = manager.print_after(name);
    }
    // One by one, so that the dumps before a failure are there to see.
    let mut all = Report::default();
    for (i, pass) in passes.iter().enumerate() {
        match manager.run(std::slice::from_ref(pass), &mut module) {
            Ok(report) => {
                pass_report::dumps(&report);
                all.runs.extend(report.runs);
                all.remarks.extend(report.remarks);
            }
            Err(e) => {
                tell(&all, &args.tell);
                return Err(explain(e, &args.input, &passes[..=i]));
            }
        }
    }
    tell(&all, &args.tell);
    stdout::print(&module.to_string())
}

/// What leads from a stage to the last one.
fn rest_of_pipeline(stage: Stage) -> Vec<Box<dyn Pass>> {
    match stage {
        Stage::Model => pipeline::all(TileFacts::default()),
        Stage::Fused => pipeline::planned(TileFacts::default()),
        Stage::Planned => Vec::new(),
    }
}

fn check_names(tell: &PassArgs) -> Result<()> {
    let known = pipeline::names();
    let flags = tell.print_after.iter().map(|name| ("--print-after", name));
    for (flag, name) in flags.chain(tell.stop_after.iter().map(|name| ("--stop-after", name))) {
        if !known.contains(&name.as_str()) {
            let known = known.join(", ");
            return Err(Error::Usage(format!(
                "{flag}: found `{name}`, expected one of {known}"
            )));
        }
    }
    Ok(())
}

/// Drops what follows the first pass of the name.
fn stop_after(passes: &mut Vec<Box<dyn Pass>>, tell: &PassArgs) -> Result<()> {
    let Some(name) = &tell.stop_after else {
        return Ok(());
    };
    match passes.iter().position(|pass| pass.name() == name) {
        Some(last) => passes.truncate(last + 1),
        None => {
            return Err(Error::Usage(format!(
                "--stop-after: `{name}` is not among the passes"
            )));
        }
    }
    Ok(())
}

/// A pass that broke the module is a bug of the compiler: shows the module, and how to get there again.
fn explain(error: PipelineError, input: &Path, run: &[Box<dyn Pass>]) -> Error {
    let PipelineError::Invalid {
        pass,
        violations,
        module,
    } = error
    else {
        return error.into();
    };
    let names: Vec<&str> = run.iter().map(|pass| pass.name()).collect();
    Error::Bug(format!(
        "compiler bug: the module does not verify after {pass}:\n{}\n  to reproduce: llmc opt {} --passes={}\n{module}",
        module_text::indented(&violations),
        input.display(),
        names.join(","),
    ))
}

//! `llmc compile`: shows progress, prints what was asked for, says what was done.

use indicatif::ProgressBar;
use llmc::{CompileOptions, Emit, Observer, Result, compile};
use llmc_passes::{Precision, Remark};

use crate::{
    args::{self, Compile},
    progress::Progress,
};

/// Runs the command.
pub fn run(args: &Compile) -> Result<()> {
    let options = CompileOptions {
        input: args.input.clone(),
        output: args.output.clone(),
        emit: match args.emit {
            args::Emit::Exe => Emit::Exe,
            args::Emit::Obj => Emit::Obj,
            args::Emit::Tir => Emit::Tir,
            args::Emit::Mlir => Emit::Mlir,
            args::Emit::Llvm => Emit::Llvm,
            args::Emit::Asm => Emit::Asm,
        },
        target: Some(args.target.clone()),
        target_cpu: args.target_cpu.clone(),
        precision: Precision {
            quant: args.quant,
            activations: args.activations,
            kv: args.kv,
        },
        max_context: args.max_context,
        weights: args.model.weights.clone(),
        tokenizer: args.model.tokenizer.clone(),
        random_weights: args.random_weights,
        print_after: args.passes.print_after.clone(),
        print_after_all: args.passes.print_after_all,
        stop_after: args.passes.stop_after.clone(),
    };
    let mut bars = Bars {
        progress: Progress::new(args.quiet),
        bar: None,
    };
    let outcome = compile(&options, &mut bars)?;
    bars.end();
    for dump in &outcome.passes.dumps {
        eprintln!("// after {}\n{}", dump.after, dump.module);
    }
    if let Some(module) = &outcome.stopped {
        super::stdout::print(&module.to_string())?;
    }
    super::opt::tell(&outcome.passes, &args.passes);
    if args.verbose && !args.passes.stats {
        let notes = outcome.passes.remarks.iter();
        for note in notes.filter(|r| matches!(r, Remark::Note { .. })) {
            eprintln!("{note}");
        }
    }
    if args.passes.time_passes || args.verbose {
        for (phase, time) in &outcome.times {
            eprintln!("{:>9} {:8.1} ms", phase, time.as_secs_f64() * 1e3);
        }
    }
    if args.verbose && !outcome.unused.is_empty() {
        eprintln!(
            "tensors that the model does not use: {}",
            outcome.unused.join(", ")
        );
    }
    if let (Some(path), false) = (&outcome.output, args.quiet) {
        eprintln!(
            "{}: {} ({}), {:.1} M parameters, code {:.1} MB, weights {:.1} MB",
            path.display(),
            outcome.name,
            outcome.family,
            outcome.parameters as f64 / 1e6,
            outcome.code_bytes as f64 / 1e6,
            outcome.weight_bytes as f64 / 1e6,
        );
    }
    Ok(())
}

/// A spinner for each phase, a bar for packing.
struct Bars {
    progress: Progress,
    bar: Option<ProgressBar>,
}

impl Bars {
    fn end(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

impl Observer for Bars {
    fn phase(&mut self, name: &'static str) {
        self.end();
        self.bar = Some(if name == "packing" {
            self.progress.bytes(name, 0)
        } else {
            self.progress.spinner(name)
        });
    }

    fn packed(&mut self, done: u64, of: u64) {
        if let Some(bar) = &self.bar {
            bar.set_length(of);
            bar.set_position(done);
        }
    }
}

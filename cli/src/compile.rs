//! From a model's files to an executable, or to a form on the way.
//!
//! In: [`CompileOptions`]. Out: the file, and an [`Outcome`] that says what was done. The order is
//! the data flow: frontend, passes, code generation, linking; weights are read last, streamed
//! straight into the output.
//!
//! Not here: progress bars and messages ([`Observer`]).

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use llmc_codegen::{
    link::{Output, Payload, link_elf, write_executable},
    lower::lower,
    pack::WeightPlan,
    step::{self, Form},
    target::{FeatureLevel, Target},
    targets,
};
use llmc_frontend::{Input, Model, ModelDir, Overrides, model::BuildOptions};
use llmc_ir::Module;
use llmc_passes::{Manager, Precision, Report, TileFacts, pipeline};

use crate::{
    chat_check,
    error::{Error, Result},
    manifest::manifest,
};

/// What comes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Emit {
    /// One standalone executable.
    #[default]
    Exe,
    /// The generated code as an object file, for one feature level.
    Obj,
    /// The module after all passes, as text.
    Tir,
    Mlir,
    Llvm,
    Asm,
}

/// What to compile, and how.
#[derive(Clone, Debug, Default)]
pub struct CompileOptions {
    /// A Hugging Face directory, a GGUF file or a config.json under any name.
    pub input: String,
    /// The file to write; None: the model's name in the current folder.
    pub output: Option<PathBuf>,
    pub emit: Emit,
    /// Target triple; None: x86-64 Linux.
    pub target: Option<String>,
    /// A feature level, or `native`; None: all levels.
    pub target_cpu: Option<String>,
    /// Types of weights, activations and the KV cache.
    pub precision: Precision,
    pub max_context: Option<u32>,
    pub weights: Option<PathBuf>,
    pub tokenizer: Option<PathBuf>,
    pub random_weights: Option<u64>,
    pub print_after: Vec<String>,
    pub print_after_all: bool,
    pub stop_after: Option<String>,
}

/// Is told what happens; every method does nothing by default.
pub trait Observer {
    /// A phase begins: `reading`, `tokenizer`, `passes`, `codegen`, `linking`, `packing`.
    fn phase(&mut self, _name: &'static str) {}
    /// Bytes of weights written, of how many.
    fn packed(&mut self, _done: u64, _of: u64) {}
}

/// An observer that looks away.
impl Observer for () {}

/// What was done.
#[derive(Debug, Default)]
pub struct Outcome {
    pub name: String,
    pub family: String,
    pub parameters: u64,
    /// The file that was written; None where `stop_after` ended the run.
    pub output: Option<PathBuf>,
    /// Bytes of the executable without weights and tokenizer, and of the weights.
    pub code_bytes: u64,
    pub weight_bytes: u64,
    /// The module as far as it came, where the run was stopped.
    pub stopped: Option<Module>,
    pub passes: Report,
    /// Wall time of each phase, in order.
    pub times: Vec<(&'static str, Duration)>,
    /// Tensors of the checkpoint that the model does not use.
    pub unused: Vec<String>,
}

/// Runs phases and takes their times.
struct Clock<'a> {
    observer: &'a mut dyn Observer,
    times: Vec<(&'static str, Duration)>,
}

impl Clock<'_> {
    fn phase<T>(&mut self, name: &'static str, run: impl FnOnce() -> Result<T>) -> Result<T> {
        self.observer.phase(name);
        let start = Instant::now();
        let result = run();
        self.times.push((name, start.elapsed()));
        result
    }
}

/// Compiles a model.
pub fn compile(options: &CompileOptions, observer: &mut dyn Observer) -> Result<Outcome> {
    let (target, levels) = levels(options)?;
    let manager = manager(options)?;
    let mut clock = Clock {
        observer,
        times: Vec::new(),
    };
    let (dir, mut model) = clock.phase("reading", || read(options))?;
    let tokenizer = clock.phase("tokenizer", || match &dir.tokenizer {
        Some(t) if options.emit == Emit::Exe => {
            chat_check::check(t)?;
            Ok(llmc_runtime::tokenizer::compile(&t.json)?)
        }
        _ => Ok(Vec::new()),
    })?;
    let path = options
        .output
        .clone()
        .unwrap_or_else(|| default_output(options.emit, &dir.name));
    if options.stop_after.is_none() {
        Output::check(&path).map_err(|e| Error::io("write", &path, e))?;
    }
    let dims = model.module.dims;
    let mut module = std::mem::replace(&mut model.module, Module::new("", dims));
    let passes = clock.phase("passes", || {
        Ok(manager.run(
            &pipeline::all_in(options.precision, TileFacts::default()),
            &mut module,
        )?)
    })?;
    let mut outcome = Outcome {
        name: dir.name.clone(),
        family: model.family.to_string(),
        parameters: model.weights.parameters,
        passes,
        unused: model.weights.unused.clone(),
        ..Outcome::default()
    };
    if options.stop_after.is_some() {
        outcome.stopped = Some(module);
        outcome.times = clock.times;
        return Ok(outcome);
    }
    let form = match options.emit {
        Emit::Tir => {
            write_text(&path, module.to_string().as_bytes())?;
            outcome.output = Some(path);
            outcome.times = clock.times;
            return Ok(outcome);
        }
        Emit::Exe | Emit::Obj => Form::Object,
        Emit::Mlir => Form::Mlir,
        Emit::Llvm => Form::LlvmIr,
        Emit::Asm => Form::Assembly,
    };
    let weights = WeightPlan::new(&module)?;
    let plan = lower(&module, &weights)?;
    // Text and single objects are of one level: the best one that was asked for.
    let levels = if options.emit == Emit::Exe {
        &levels[..]
    } else {
        &levels[levels.len() - 1..]
    };
    let code = clock.phase("codegen", || {
        Ok(step::compile(&plan, target, levels, form)?)
    })?;
    outcome.weight_bytes = weights.bytes;
    if options.emit != Emit::Exe {
        write_text(&path, &code[0].code)?;
    } else {
        let objects: Vec<&[u8]> = code.iter().map(|c| c.code.as_slice()).collect();
        let elf = clock.phase("linking", || Ok(link_elf(&objects)?))?;
        outcome.code_bytes = elf.len() as u64;
        let manifest = manifest(
            &dir,
            &model,
            &module,
            &weights,
            &plan,
            (target, levels),
            options.precision,
        );
        let payload = Payload {
            module: &module,
            plan: &weights,
            source: &model.weights,
            tokenizer: &tokenizer,
            manifest: &manifest,
        };
        clock.observer.phase("packing");
        let start = Instant::now();
        let observer = &mut *clock.observer;
        write_executable(&path, &elf, &payload, &mut |done| {
            observer.packed(done, weights.bytes)
        })?;
        clock.times.push(("packing", start.elapsed()));
    }
    outcome.output = Some(path);
    outcome.times = clock.times;
    Ok(outcome)
}

/// Reads the model's files and writes its module.
pub fn read(options: &CompileOptions) -> Result<(ModelDir, Model)> {
    let input = Input::resolve(&options.input)?;
    let overrides = Overrides {
        weights: options.weights.clone(),
        tokenizer: options.tokenizer.clone(),
    };
    let dir = ModelDir::open(&input, &overrides)?;
    let build = BuildOptions {
        max_context: options.max_context,
        random_weights: options.random_weights,
    };
    let model = Model::build(&dir, &build)?;
    Ok((dir, model))
}

fn levels(options: &CompileOptions) -> Result<(&'static Target, Vec<&'static FeatureLevel>)> {
    let triple = options.target.as_deref().unwrap_or(targets::ALL[0].triple);
    let target = targets::ALL
        .iter()
        .copied()
        .find(|t| t.triple == triple)
        .ok_or_else(|| {
            let known: Vec<&str> = targets::ALL.iter().map(|t| t.triple).collect();
            Error::Usage(format!(
                "--target: found `{triple}`, supported are {}",
                known.join(", ")
            ))
        })?;
    let all = || target.levels.iter();
    let levels = match options.target_cpu.as_deref() {
        None => all().collect(),
        Some("native") => {
            let best = all()
                .rev()
                .find(|l| l.requires.iter().all(|f| targets::x86_64::host_has(f)));
            vec![best.ok_or_else(|| {
                Error::Usage("--target-cpu native: this CPU is below every known level".into())
            })?]
        }
        Some(name) => vec![target.level(name).ok_or_else(|| {
            let known: Vec<&str> = all().map(|l| l.name).collect();
            Error::Usage(format!(
                "--target-cpu: found `{name}`, expected native, {}",
                known.join(", ")
            ))
        })?],
    };
    Ok((target, levels))
}

fn manager(options: &CompileOptions) -> Result<Manager> {
    let known = pipeline::names();
    for name in options.print_after.iter().chain(&options.stop_after) {
        if !known.contains(&name.as_str()) {
            return Err(Error::Usage(format!(
                "found the pass `{name}`, expected one of {}",
                known.join(", ")
            )));
        }
    }
    let mut manager = Manager::new().verify(verify);
    if options.print_after_all {
        manager = manager.print_after_all();
    }
    for name in &options.print_after {
        manager = manager.print_after(name);
    }
    if let Some(name) = &options.stop_after {
        manager = manager.stop_after(name);
    }
    Ok(manager)
}

/// The IR's verifier, as the pass manager takes it.
pub fn verify(module: &Module) -> Vec<String> {
    llmc_ir::verify::verify(module)
        .iter()
        .map(ToString::to_string)
        .collect()
}

fn default_output(emit: Emit, name: &str) -> PathBuf {
    let extension = match emit {
        Emit::Exe => return PathBuf::from(name),
        Emit::Obj => "o",
        Emit::Tir => "tir",
        Emit::Mlir => "mlir",
        Emit::Llvm => "ll",
        Emit::Asm => "s",
    };
    PathBuf::from(format!("{name}.{extension}"))
}

fn write_text(path: &std::path::Path, bytes: &[u8]) -> Result<()> {
    let fail = |e| Error::io("write", path, e);
    let mut output = Output::create(path).map_err(fail)?;
    output.writer().write_all(bytes).map_err(fail)?;
    output.finish(false).map_err(fail)
}

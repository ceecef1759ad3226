//! Compiles a step plan for one or more feature levels, in parallel.

use std::thread;

use llmc_abi::{ABI_VERSION, PROGRAM_SYMBOL};

use super::{emit_steps, plan::StepPlan, step_symbol};
use crate::{
    kernel::{KernelBuilder, Linkage, Word},
    llvm::{LlvmError, Object},
    mlir::{MlirError, Session},
    target::{FeatureLevel, Target},
};

/// Why code generation failed: always a bug of the compiler.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    #[error("MLIR refused the generated code: {0}")]
    Mlir(#[from] MlirError),
    #[error("LLVM refused the generated code: {0}")]
    Llvm(#[from] LlvmError),
    #[error("a code generation thread died")]
    Thread,
}

/// What to compile to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Object,
    Mlir,
    LlvmIr,
    Assembly,
}

/// One level's code: an object's bytes, or text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compiled {
    pub level: &'static str,
    pub code: Vec<u8>,
}

/// Compiles the step for each of `levels` (worst first). Objects are followed by one more, which
/// holds the `Program` record that names them all.
pub fn compile(
    plan: &StepPlan,
    target: &Target,
    levels: &[&'static FeatureLevel],
    form: Form,
) -> Result<Vec<Compiled>, CompileError> {
    thread::scope(|scope| {
        let running: Vec<_> = levels
            .iter()
            .map(|level| scope.spawn(move || compile_level(plan, target, level, form)))
            .collect();
        let mut all = running
            .into_iter()
            .map(|t| t.join().map_err(|_| CompileError::Thread)?)
            .collect::<Result<Vec<_>, _>>()?;
        if let (Form::Object, Some(level)) = (form, levels.first()) {
            let session = Session::new();
            let mut b = KernelBuilder::new(&session, level);
            program(&mut b, plan, levels);
            let code = Object::emit(&b.finish()?, target, level)?.bytes;
            all.push(Compiled {
                level: "program",
                code,
            });
        }
        Ok(all)
    })
}

fn compile_level(
    plan: &StepPlan,
    target: &Target,
    level: &'static FeatureLevel,
    form: Form,
) -> Result<Compiled, CompileError> {
    let session = Session::new();
    let mut b = KernelBuilder::new(&session, level);
    emit_steps(&mut b, plan);
    let code = if form == Form::Mlir {
        b.text().into_bytes()
    } else {
        let module = b.finish()?;
        match form {
            Form::Object => Object::emit(&module, target, level)?.bytes,
            Form::LlvmIr => Object::llvm_ir(&module, target, level)?.into_bytes(),
            Form::Assembly => Object::assembly(&module, target, level)?.into_bytes(),
            Form::Mlir => unreachable!("printed before lowering"),
        }
    };
    Ok(Compiled {
        level: level.name,
        code,
    })
}

/// The exported `Program` (`llmc_abi`): version, and name and steps of every level.
fn program(b: &mut KernelBuilder<'_>, plan: &StepPlan, levels: &[&'static FeatureLevel]) {
    let mut fields = Vec::new();
    for level in levels {
        let name = level.symbol("llmc_level_name");
        b.text_constant(&name, level.name);
        let symbols = plan.entries.iter().map(|e| step_symbol(level, e));
        let steps: Vec<Word> = symbols
            .map(|step| {
                b.declare_external(&step);
                Word::Address(step)
            })
            .collect();
        let list = level.symbol("llmc_steps");
        b.record(&list, Linkage::Internal, &steps);
        fields.extend([Word::Address(name), Word::Address(list)]);
    }
    b.record("llmc_levels", Linkage::Internal, &fields);
    let program = [
        Word::U64(u64::from(ABI_VERSION)),
        Word::U64(levels.len() as u64),
        Word::Address("llmc_levels".into()),
        Word::U64(plan.entries.len() as u64),
    ];
    b.record(PROGRAM_SYMBOL, Linkage::Exported, &program);
}

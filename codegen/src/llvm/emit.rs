//! From LLVM-dialect MLIR to machine code.
//!
//! In: [`Finished`] MLIR. Out: bytes of one relocatable object, assembly text or LLVM IR text.
//! Invariant: every defined function carries the feature level's CPU and features.

use super::LlvmError;
use crate::mlir::Finished;
use crate::target::{FeatureLevel, Target};
use inkwell::OptimizationLevel;
use inkwell::attributes::AttributeLoc;
use inkwell::context::Context;
use inkwell::module::Module;
use inkwell::passes::PassBuilderOptions;
use inkwell::targets::{
    CodeModel, FileType, InitializationConfig, RelocMode, Target as LlvmTarget, TargetMachine,
    TargetTriple,
};
use std::sync::Once;

const PASSES: &str = "function(\
    simplifycfg,early-cse,instcombine<no-verify-fixpoint>,\
    loop-mssa(loop-simplifycfg,loop-rotate<header-duplication>,licm),\
    simplifycfg,early-cse<memssa>,instcombine<no-verify-fixpoint>,\
    loop(indvars,loop-deletion),\
    loop-mssa(licm),simplifycfg<sink-common-insts>,instcombine<no-verify-fixpoint>,adce)";

/// One module, compiled for one feature level.
pub struct Object {
    /// A relocatable ELF object.
    pub bytes: Vec<u8>,
}

impl Object {
    /// Compiles to machine code.
    pub fn emit(
        module: &Finished<'_>,
        target: &Target,
        level: &FeatureLevel,
    ) -> Result<Object, LlvmError> {
        let bytes = with_module(module, target, level, |module, machine| {
            let buffer = machine
                .write_to_memory_buffer(module, FileType::Object)
                .map_err(|e| LlvmError::Emit(e.to_string()))?;
            Ok(buffer.as_slice().to_vec())
        })?;
        Ok(Object { bytes })
    }

    /// Compiles to assembly text.
    pub fn assembly(
        module: &Finished<'_>,
        target: &Target,
        level: &FeatureLevel,
    ) -> Result<String, LlvmError> {
        with_module(module, target, level, |module, machine| {
            let buffer = machine
                .write_to_memory_buffer(module, FileType::Assembly)
                .map_err(|e| LlvmError::Emit(e.to_string()))?;
            let text = String::from_utf8_lossy(buffer.as_slice());
            Ok(text.trim_end_matches('\0').to_string())
        })
    }

    /// The optimised LLVM IR as text.
    pub fn llvm_ir(
        module: &Finished<'_>,
        target: &Target,
        level: &FeatureLevel,
    ) -> Result<String, LlvmError> {
        with_module(module, target, level, |module, _| {
            Ok(module.print_to_string().to_string())
        })
    }
}

fn with_module<R>(
    finished: &Finished<'_>,
    target: &Target,
    level: &FeatureLevel,
    write: impl FnOnce(&Module<'_>, &TargetMachine) -> Result<R, LlvmError>,
) -> Result<R, LlvmError> {
    let machine = machine(target, level)?;
    let context = Context::create();
    // SAFETY: the context outlives the module, which inkwell owns from here on.
    let module = unsafe {
        let raw = finished.translate(context.raw().cast())?;
        Module::new(raw.cast())
    };
    module.set_triple(&machine.get_triple());
    module.set_data_layout(&machine.get_target_data().get_data_layout());
    annotate(&context, &module, level);
    module
        .verify()
        .map_err(|e| LlvmError::Invalid(e.to_string()))?;
    module
        .run_passes(PASSES, &machine, PassBuilderOptions::create())
        .map_err(|e| LlvmError::Passes(e.to_string()))?;
    write(&module, &machine)
}

fn machine(target: &Target, level: &FeatureLevel) -> Result<TargetMachine, LlvmError> {
    static X86: Once = Once::new();
    X86.call_once(|| LlvmTarget::initialize_x86(&InitializationConfig::default()));
    let no_target = |message: String| LlvmError::NoTarget {
        triple: target.triple.to_string(),
        message,
    };
    let triple = TargetTriple::create(target.triple);
    LlvmTarget::from_triple(&triple)
        .map_err(|e| no_target(e.to_string()))?
        .create_target_machine(
            &triple,
            level.llvm_cpu,
            level.llvm_features,
            OptimizationLevel::Default,
            RelocMode::PIC,
            CodeModel::Default,
        )
        .ok_or_else(|| no_target("no target machine".to_string()))
}

fn annotate(context: &Context, module: &Module<'_>, level: &FeatureLevel) {
    let width = level.vector_bits.to_string();
    let attributes = [
        ("target-cpu", level.llvm_cpu),
        ("target-features", level.llvm_features),
        ("min-legal-vector-width", width.as_str()),
        ("prefer-vector-width", width.as_str()),
    ]
    .map(|(key, value)| context.create_string_attribute(key, value));
    for function in module.get_functions() {
        if function.count_basic_blocks() == 0 {
            continue;
        }
        for attribute in attributes {
            function.add_attribute(AttributeLoc::Function, attribute);
        }
    }
}

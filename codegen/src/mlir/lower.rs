//! The MLIR pass pipeline down to the LLVM dialect, and the step into LLVM IR.
//!
//! In: a module of func, scf, arith, vector and llvm operations. Out: a module in an LLVM context.
//! Not here: optimisation; that is LLVM's part (`crate::llvm`).

use super::session::{MlirError, Session};
use melior::ir::Module;
use melior::ir::operation::OperationLike;
use melior::pass::PassManager;
use melior::utility::parse_pass_pipeline;
use std::ffi::c_void;

const PIPELINE: &str = "builtin.module(\
    convert-scf-to-cf,\
    convert-vector-to-llvm,\
    convert-arith-to-llvm,\
    convert-func-to-llvm,\
    convert-cf-to-llvm,\
    reconcile-unrealized-casts)";

/// A module in the LLVM dialect.
pub struct Finished<'c> {
    session: &'c Session,
    module: Module<'c>,
}

impl<'c> Finished<'c> {
    pub(super) fn lower(
        session: &'c Session,
        mut module: Module<'c>,
    ) -> Result<Finished<'c>, MlirError> {
        if !module.as_operation().verify() {
            return Err(session.error("verifying generated MLIR"));
        }
        let passes = PassManager::new(&session.context);
        parse_pass_pipeline(passes.as_operation_pass_manager(), PIPELINE).map_err(|e| {
            MlirError {
                stage: "reading the MLIR pipeline",
                diagnostics: vec![e.to_string()],
            }
        })?;
        passes
            .run(&mut module)
            .map_err(|_| session.error("lowering MLIR to the LLVM dialect"))?;
        Ok(Finished { session, module })
    }

    /// Translates into `llvm_context`; returns an owned `LLVMModuleRef`.
    ///
    /// # Safety
    /// `llvm_context` is a live `LLVMContextRef`; the result must be disposed of before it.
    pub unsafe fn translate(&self, llvm_context: *mut c_void) -> Result<*mut c_void, MlirError> {
        // SAFETY: the operation is alive and verified, the context is the caller's promise.
        let raw = unsafe {
            mlir_sys::mlirTranslateModuleToLLVMIR(
                self.module.as_operation().to_raw(),
                llvm_context.cast(),
            )
        };
        if raw.is_null() {
            return Err(self.session.error("translating to LLVM IR"));
        }
        Ok(raw.cast())
    }
}

//! What the LLVM stage can fail with. Always a bug of this compiler or a broken installation.

use crate::mlir::MlirError;

#[derive(Debug, thiserror::Error)]
pub enum LlvmError {
    #[error(transparent)]
    Mlir(#[from] MlirError),
    #[error("LLVM has no target for `{triple}`: {message}")]
    NoTarget { triple: String, message: String },
    #[error("LLVM rejects the generated module: {0}")]
    Invalid(String),
    #[error("the LLVM pass pipeline failed: {0}")]
    Passes(String),
    #[error("LLVM could not emit code: {0}")]
    Emit(String),
}

//! One MLIR context with its diagnostics.
//!
//! In: nothing. Out: a [`Session`], from which builders are made. A session belongs to one thread;
//! compile feature levels in parallel with a session each.

use melior::Context;
use melior::dialect::DialectRegistry;
use melior::utility;
use std::sync::{Arc, Mutex, Once, PoisonError};

/// What MLIR refused, with its own words. Always a bug of this compiler, never of the user's input.
#[derive(Debug, thiserror::Error)]
#[error("{stage}: {}", .diagnostics.join("; "))]
pub struct MlirError {
    /// What was being done.
    pub stage: &'static str,
    /// MLIR's diagnostics, oldest first.
    pub diagnostics: Vec<String>,
}

/// An MLIR context with the dialects of generated code loaded.
pub struct Session {
    pub(super) context: Context,
    diagnostics: Arc<Mutex<Vec<String>>>,
}

const DIALECTS: [&str; 6] = ["arith", "cf", "func", "llvm", "scf", "vector"];

impl Session {
    pub fn new() -> Session {
        static PASSES: Once = Once::new();
        PASSES.call_once(utility::register_all_passes);

        let registry = DialectRegistry::new();
        utility::register_all_dialects(&registry);
        let context = Context::new_with_threading(false);
        context.append_dialect_registry(&registry);
        for name in DIALECTS {
            context.get_or_load_dialect(name);
        }
        utility::register_all_llvm_translations(&context);

        let diagnostics = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&diagnostics);
        context.attach_diagnostic_handler(move |diagnostic| {
            sink.lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(diagnostic.to_string());
            true
        });
        Session {
            context,
            diagnostics,
        }
    }

    /// Takes the diagnostics collected so far into an error.
    pub(super) fn error(&self, stage: &'static str) -> MlirError {
        let mut held = self
            .diagnostics
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        MlirError {
            stage,
            diagnostics: std::mem::take(&mut *held),
        }
    }
}

impl Default for Session {
    fn default() -> Self {
        Session::new()
    }
}

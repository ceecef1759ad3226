//! A typed builder in which a kernel reads like its loop nest.
//!
//! In: Rust code calling [`KernelBuilder`]. Out: one MLIR module of functions and constants.
//!
//! - Sizes and byte offsets are `i64`, memory is `ptr`, floats are f32 unless said otherwise.
//! - [`GROUP`] (16 × f32) is the vector of every kernel; on 8-lane machines the backend splits it,
//!   which keeps the order of every reduction the same on all feature levels.
//! - A function is emitted once per name: the name must say everything that shaped the body.
//! - Wrong types panic here: they are bugs of this crate, not of the user's input.
//!
//! Not here: MLIR itself (`crate::mlir`), and which kernels exist (`crate::kernels`).

mod arith;
mod bytes;
mod control;
mod convert;
mod function;
mod math;
mod memory;
mod vector;

pub use crate::mlir::{Elem, Ty, Value};
pub use bytes::{BYTES, SUMS};
pub use function::{Linkage, Param, Word};

use crate::mlir::{Attr, Finished, MlirError, OpBuilder, Session};
use crate::target::FeatureLevel;
use std::collections::BTreeSet;

/// Lanes of [`GROUP`]; every buffer's innermost extent is a multiple of it.
pub const LANES: i64 = llmc_abi::LANES as i64;

/// 16 floats.
pub const GROUP: Ty = Ty::Vector(Elem::F32, LANES as u32);

/// Builds one module for one feature level.
pub struct KernelBuilder<'c> {
    ops: OpBuilder<'c>,
    level: &'static FeatureLevel,
    defined: BTreeSet<String>,
    export_kernels: bool,
}

impl<'c> KernelBuilder<'c> {
    pub fn new(session: &'c Session, level: &'static FeatureLevel) -> KernelBuilder<'c> {
        KernelBuilder {
            ops: OpBuilder::new(session),
            level,
            defined: BTreeSet::new(),
            export_kernels: false,
        }
    }

    /// Makes kernels visible outside the object: for tests and measurements.
    pub fn export_kernels(mut self) -> KernelBuilder<'c> {
        self.export_kernels = true;
        self
    }

    /// The level whose facts the kernels go by.
    pub fn level(&self) -> &'static FeatureLevel {
        self.level
    }

    /// The module as MLIR text.
    pub fn text(&self) -> String {
        self.ops.text()
    }

    /// Verifies and lowers the module.
    pub fn finish(self) -> Result<Finished<'c>, MlirError> {
        self.ops.finish()
    }

    fn one(
        &mut self,
        name: &str,
        operands: &[Value],
        result: Ty,
        attributes: &[(&str, Attr<'_>)],
    ) -> Value {
        self.ops
            .op(name, operands, &[result], attributes, Vec::new())[0]
    }
}

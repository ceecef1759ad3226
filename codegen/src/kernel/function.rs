//! Functions, calls and constant data.
//!
//! In: names, parameters, bodies as closures. Out: `func.func` and `llvm.mlir.global` operations.

use super::{Elem, KernelBuilder, Ty, Value};
use crate::mlir::Attr;

/// Who may refer to a symbol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Linkage {
    Internal,
    Exported,
}

/// A parameter: its type, and what is promised about a pointer.
#[derive(Clone, Copy, Debug)]
pub struct Param {
    ty: Ty,
    noalias: bool,
    readonly: bool,
}

impl Param {
    pub const fn value(ty: Ty) -> Param {
        Param {
            ty,
            noalias: false,
            readonly: false,
        }
    }

    pub const fn i64() -> Param {
        Param::value(Ty::I64)
    }

    pub const fn f32() -> Param {
        Param::value(Ty::F32)
    }

    /// A pointer about which nothing is promised.
    pub const fn ptr() -> Param {
        Param::value(Ty::Ptr)
    }

    /// Memory that the function only reads, and that it does not write through another parameter.
    pub const fn input() -> Param {
        Param {
            ty: Ty::Ptr,
            noalias: true,
            readonly: true,
        }
    }

    /// Memory that is reached through this parameter alone.
    pub const fn output() -> Param {
        Param {
            ty: Ty::Ptr,
            noalias: true,
            readonly: false,
        }
    }
}

/// One 8-byte field of a constant record.
#[derive(Clone, Debug)]
pub enum Word {
    U64(u64),
    /// The address of a symbol, defined or declared in the module.
    Address(String),
}

impl KernelBuilder<'_> {
    /// Defines an un-inlined kernel once and returns its symbol, which is `name`.
    ///
    /// `body` gets the parameters and emits the function's code; it returns nothing at run time.
    pub fn kernel(
        &mut self,
        name: &str,
        params: &[Param],
        body: impl FnOnce(&mut Self, &[Value]),
    ) -> String {
        let linkage = if self.export_kernels {
            Linkage::Exported
        } else {
            Linkage::Internal
        };
        self.function(name, linkage, params, &[], |b, args| {
            body(b, args);
            Vec::new()
        });
        name.to_string()
    }

    /// Defines a function once; `body` returns the results.
    pub fn function(
        &mut self,
        name: &str,
        linkage: Linkage,
        params: &[Param],
        results: &[Ty],
        body: impl FnOnce(&mut Self, &[Value]) -> Vec<Value>,
    ) {
        if !self.defined.insert(name.to_string()) {
            return;
        }
        let types: Vec<Ty> = params.iter().map(|p| p.ty).collect();
        let outer = self.ops.enter_top_level();
        let (open, args) = self.ops.open_region(&types);
        let returned = body(self, &args);
        assert!(
            returned.iter().map(|v| v.ty).eq(results.iter().copied()),
            "`{name}` returns other types than it declares"
        );
        self.ops.op("func.return", &returned, &[], &[], Vec::new());
        let region = self.ops.close_region(open);
        let attributes = params
            .iter()
            .map(|p| match (p.noalias, p.readonly) {
                (true, true) => Attr::Text("{llvm.noalias, llvm.noundef, llvm.readonly}"),
                (true, false) => Attr::Text("{llvm.noalias, llvm.noundef}"),
                _ => Attr::Text("{llvm.noundef}"),
            })
            .collect();
        let (link, visibility) = match linkage {
            Linkage::Internal => ("#llvm.linkage<internal>", "private"),
            Linkage::Exported => ("#llvm.linkage<external>", "public"),
        };
        self.ops.op(
            "func.func",
            &[],
            &[],
            &[
                ("sym_name", Attr::Str(name)),
                ("function_type", Attr::FunctionType(&types, results)),
                ("arg_attrs", Attr::List(attributes)),
                ("llvm.linkage", Attr::Text(link)),
                ("sym_visibility", Attr::Str(visibility)),
                (
                    "passthrough",
                    Attr::List(vec![Attr::Str("noinline"), Attr::Str("nounwind")]),
                ),
            ],
            vec![region],
        );
        self.ops.leave_top_level(outer);
    }

    /// Declares a symbol of another object whose address a record holds, once.
    pub fn declare_external(&mut self, name: &str) {
        if !self.defined.insert(name.to_string()) {
            return;
        }
        let outer = self.ops.enter_top_level();
        let empty = self.ops.empty_region();
        // A function of the LLVM dialect: only of such can an address be taken.
        self.ops.op(
            "llvm.func",
            &[],
            &[],
            &[
                ("sym_name", Attr::Str(name)),
                (
                    "function_type",
                    Attr::Text("!llvm.func<void (ptr, i64, i64)>"),
                ),
                ("linkage", Attr::Text("#llvm.linkage<external>")),
            ],
            vec![empty],
        );
        self.ops.leave_top_level(outer);
    }

    /// Calls a function of this module by symbol.
    pub fn call(&mut self, symbol: &str, args: &[Value], results: &[Ty]) -> Vec<Value> {
        self.ops.op(
            "func.call",
            args,
            results,
            &[("callee", Attr::Symbol(symbol))],
            Vec::new(),
        )
    }

    /// Calls through a pointer; the callee returns nothing.
    pub fn call_pointer(&mut self, callee: Value, args: &[Value]) {
        assert_eq!(callee.ty, Ty::Ptr, "a callee is a pointer");
        let mut operands = vec![callee];
        operands.extend_from_slice(args);
        let count = i32::try_from(operands.len()).expect("few arguments");
        self.ops.op(
            "llvm.call",
            &operands,
            &[],
            &[
                ("operandSegmentSizes", Attr::I32s(&[count, 0])),
                ("op_bundle_sizes", Attr::I32s(&[])),
            ],
            Vec::new(),
        );
    }

    /// A constant f32 array, 64-byte aligned, defined once; returns its address.
    pub fn table_f32(&mut self, name: &str, values: &[f32]) -> Value {
        self.table(name, Elem::F32, values.len(), Attr::TensorF32(values))
    }

    /// A constant i32 array, 64-byte aligned, defined once; returns its address.
    pub fn table_i32(&mut self, name: &str, values: &[i32]) -> Value {
        self.table(name, Elem::I32, values.len(), Attr::TensorI32(values))
    }

    fn table(&mut self, name: &str, elem: Elem, len: usize, values: Attr<'_>) -> Value {
        if self.defined.insert(name.to_string()) {
            let outer = self.ops.enter_top_level();
            let empty = self.ops.empty_region();
            self.ops.op(
                "llvm.mlir.global",
                &[],
                &[],
                &[
                    ("sym_name", Attr::Str(name)),
                    ("global_type", Attr::ArrayType(elem, len)),
                    ("value", values),
                    ("linkage", Attr::Text("#llvm.linkage<internal>")),
                    ("constant", Attr::Unit),
                    ("alignment", Attr::Int(Elem::I64, 64)),
                ],
                vec![empty],
            );
            self.ops.leave_top_level(outer);
        }
        self.address_of(name)
    }

    /// A constant NUL-terminated string, defined once under `name`.
    pub fn text_constant(&mut self, name: &str, text: &str) {
        if !self.defined.insert(name.to_string()) {
            return;
        }
        let outer = self.ops.enter_top_level();
        let empty = self.ops.empty_region();
        let bytes = format!("{text}\0");
        self.ops.op(
            "llvm.mlir.global",
            &[],
            &[],
            &[
                ("sym_name", Attr::Str(name)),
                ("global_type", Attr::ArrayType(Elem::I8, bytes.len())),
                ("value", Attr::Str(&bytes)),
                ("linkage", Attr::Text("#llvm.linkage<internal>")),
                ("constant", Attr::Unit),
            ],
            vec![empty],
        );
        self.ops.leave_top_level(outer);
    }

    /// A constant record of 8-byte fields (integers and addresses), defined once under `name`.
    pub fn record(&mut self, name: &str, linkage: Linkage, fields: &[Word]) {
        if !self.defined.insert(name.to_string()) {
            return;
        }
        let members: Vec<&str> = fields
            .iter()
            .map(|f| match f {
                Word::U64(_) => "i64",
                Word::Address(_) => "ptr",
            })
            .collect();
        let ty = format!("!llvm.struct<({})>", members.join(", "));
        let outer = self.ops.enter_top_level();
        let (open, _) = self.ops.open_region(&[]);
        let values: Vec<Value> = fields
            .iter()
            .map(|f| match f {
                Word::U64(v) => self.one(
                    "llvm.mlir.constant",
                    &[],
                    Ty::I64,
                    &[("value", Attr::Int(Elem::I64, *v as i64))],
                ),
                Word::Address(symbol) => self.address_of(symbol),
            })
            .collect();
        self.ops.record_body(&ty, &values);
        let region = self.ops.close_region(open);
        let link = match linkage {
            Linkage::Internal => "#llvm.linkage<internal>",
            Linkage::Exported => "#llvm.linkage<external>",
        };
        self.ops.op(
            "llvm.mlir.global",
            &[],
            &[],
            &[
                ("sym_name", Attr::Str(name)),
                ("global_type", Attr::Text(&ty)),
                ("linkage", Attr::Text(link)),
                ("constant", Attr::Unit),
            ],
            vec![region],
        );
        self.ops.leave_top_level(outer);
    }

    /// The address of a symbol of this module.
    pub fn address_of(&mut self, symbol: &str) -> Value {
        self.one(
            "llvm.mlir.addressof",
            &[],
            Ty::Ptr,
            &[("global_name", Attr::Symbol(symbol))],
        )
    }
}

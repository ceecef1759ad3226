//! Generic operation construction over typed value ids.
//!
//! In: operation names, operands, attributes and regions. Out: a module.
//!
//! Invariants: a [`Value`] belongs to the builder that made it; operations go to the end of the
//! current block; regions are opened and closed like brackets.

use super::lower::Finished;
use super::session::{MlirError, Session};
use super::types::{Elem, Ty};
use melior::ir::attribute::{
    ArrayAttribute, BoolAttribute, DenseElementsAttribute, DenseI32ArrayAttribute,
    DenseI64ArrayAttribute, FlatSymbolRefAttribute, FloatAttribute, IntegerAttribute,
    StringAttribute, TypeAttribute,
};
use melior::ir::operation::OperationBuilder;
use melior::ir::r#type::{FunctionType, IntegerType};
use melior::ir::{
    Attribute, Block, BlockLike, BlockRef, Identifier, Location, Module, Region, RegionLike, Type,
    TypeLike, Value as MlirRef, ValueLike,
};
use mlir_sys::{MlirBlock, MlirValue};

/// An SSA value: an id into its builder, and its type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Value {
    id: u32,
    pub ty: Ty,
}

/// An attribute, as plain data.
pub enum Attr<'a> {
    Unit,
    Bool(bool),
    /// An integer or float constant of the given scalar type.
    Int(Elem, i64),
    Float(Elem, f64),
    /// A constant with every lane the same.
    SplatInt(Elem, u32, i64),
    SplatF32(u32, f32),
    SplatF64(u32, f64),
    /// A vector constant, lane by lane.
    VectorF32(&'a [f32]),
    VectorI32(&'a [i32]),
    VectorI64(&'a [i64]),
    /// The initialiser of a global array.
    TensorF32(&'a [f32]),
    TensorI32(&'a [i32]),
    Str(&'a str),
    Symbol(&'a str),
    Type(Ty),
    /// `!llvm.array<len x elem>`.
    ArrayType(Elem, usize),
    FunctionType(&'a [Ty], &'a [Ty]),
    I32s(&'a [i32]),
    I64s(&'a [i64]),
    List(Vec<Attr<'a>>),
    /// MLIR text, for what has no constructor.
    Text(&'a str),
}

/// Builds one module.
pub struct OpBuilder<'c> {
    session: &'c Session,
    module: Module<'c>,
    location: Location<'c>,
    values: Vec<MlirValue>,
    block: MlirBlock,
}

impl<'c> OpBuilder<'c> {
    pub fn new(session: &'c Session) -> OpBuilder<'c> {
        let location = Location::unknown(&session.context);
        let module = Module::new(location);
        let block = module.body().to_raw();
        OpBuilder {
            session,
            module,
            location,
            values: Vec::new(),
            block,
        }
    }

    /// Appends an operation to the current block and returns its results.
    ///
    /// # Panics
    /// When MLIR cannot build the operation: the caller named it wrongly.
    pub fn op(
        &mut self,
        name: &str,
        operands: &[Value],
        results: &[Ty],
        attributes: &[(&str, Attr<'_>)],
        regions: Vec<RegionBody<'c>>,
    ) -> Vec<Value> {
        // SAFETY: ids are only handed out by `remember`, for values of this module, which lives.
        let operands: Vec<MlirRef<'c, '_>> = operands
            .iter()
            .map(|v| unsafe { MlirRef::from_raw(self.values[v.id as usize]) })
            .collect();
        let result_types: Vec<Type<'c>> = results.iter().map(|t| self.ty(*t)).collect();
        let attributes: Vec<_> = attributes
            .iter()
            .map(|(key, value)| (Identifier::new(self.context(), key), self.attribute(value)))
            .collect();
        let operation = OperationBuilder::new(name, self.location)
            .add_operands(&operands)
            .add_results(&result_types)
            .add_attributes(&attributes)
            .add_regions_vec(regions.into_iter().map(|r| r.region).collect())
            .build()
            .unwrap_or_else(|e| panic!("operation `{name}` was built wrongly: {e}"));
        // SAFETY: the current block is a block of this module or of a region under construction.
        let block: BlockRef<'c, '_> = unsafe { BlockRef::from_raw(self.block) };
        let operation = block.append_operation(operation);
        let made: Vec<MlirValue> = (0..results.len())
            .map(|i| {
                operation
                    .result(i)
                    .expect("the operation was built with this many results")
                    .to_raw()
            })
            .collect();
        made.into_iter()
            .zip(results)
            .map(|(raw, ty)| self.remember(raw, *ty))
            .collect()
    }

    /// Starts a region of one block with the given arguments and makes that block current.
    pub fn open_region(&mut self, arguments: &[Ty]) -> (OpenRegion<'c>, Vec<Value>) {
        let types: Vec<_> = arguments
            .iter()
            .map(|t| (self.ty(*t), self.location))
            .collect();
        let region = Region::new();
        let block = region.append_block(Block::new(&types));
        let values = arguments
            .iter()
            .enumerate()
            .map(|(i, ty)| {
                let raw = block
                    .argument(i)
                    .expect("the block was built with this many arguments")
                    .to_raw();
                self.remember(raw, *ty)
            })
            .collect();
        let outer = std::mem::replace(&mut self.block, block.to_raw());
        (OpenRegion { region, outer }, values)
    }

    /// Ends a region and makes the block around it current again.
    pub fn close_region(&mut self, open: OpenRegion<'c>) -> RegionBody<'c> {
        self.block = open.outer;
        RegionBody {
            region: open.region,
        }
    }

    /// A region without blocks: the body of a declaration.
    pub fn empty_region(&self) -> RegionBody<'c> {
        RegionBody {
            region: Region::new(),
        }
    }

    /// Ends the initialiser of a constant record: `ty` is the struct's MLIR text.
    pub fn record_body(&mut self, ty: &str, fields: &[Value]) {
        let ty =
            Type::parse(self.context(), ty).unwrap_or_else(|| panic!("type `{ty}` does not parse"));
        // SAFETY: as in `op`.
        let block: BlockRef<'c, '_> = unsafe { BlockRef::from_raw(self.block) };
        let undef = OperationBuilder::new("llvm.mlir.undef", self.location)
            .add_results(&[ty])
            .build()
            .expect("an undefined struct is well formed");
        let mut record: MlirRef<'c, '_> = block
            .append_operation(undef)
            .result(0)
            .expect("one result")
            .into();
        for (i, field) in fields.iter().enumerate() {
            // SAFETY: as in `op`.
            let field = unsafe { MlirRef::from_raw(self.values[field.id as usize]) };
            let position = DenseI64ArrayAttribute::new(self.context(), &[i as i64]);
            let insert = OperationBuilder::new("llvm.insertvalue", self.location)
                .add_operands(&[record, field])
                .add_results(&[ty])
                .add_attributes(&[(Identifier::new(self.context(), "position"), position.into())])
                .build()
                .expect("an insertion into a struct is well formed");
            record = block
                .append_operation(insert)
                .result(0)
                .expect("one result")
                .into();
        }
        let done = OperationBuilder::new("llvm.return", self.location)
            .add_operands(&[record])
            .build()
            .expect("a return is well formed");
        block.append_operation(done);
    }

    /// Makes the module's top level current: for functions and globals.
    pub fn enter_top_level(&mut self) -> Outer {
        let top = self.module.body().to_raw();
        Outer(std::mem::replace(&mut self.block, top))
    }

    /// Makes the block that was current before [`OpBuilder::enter_top_level`] current again.
    pub fn leave_top_level(&mut self, outer: Outer) {
        self.block = outer.0;
    }

    /// The module as MLIR text.
    pub fn text(&self) -> String {
        self.module.as_operation().to_string()
    }

    /// Verifies and lowers the module to the LLVM dialect.
    pub fn finish(self) -> Result<Finished<'c>, MlirError> {
        Finished::lower(self.session, self.module)
    }

    fn context(&self) -> &'c melior::Context {
        &self.session.context
    }

    fn remember(&mut self, raw: MlirValue, ty: Ty) -> Value {
        let id = u32::try_from(self.values.len()).expect("fewer than 2^32 values in a module");
        self.values.push(raw);
        Value { id, ty }
    }

    fn elem(&self, elem: Elem) -> Type<'c> {
        let c = self.context();
        match elem {
            Elem::F16 => Type::float16(c),
            Elem::BF16 => Type::bfloat16(c),
            Elem::F32 => Type::float32(c),
            Elem::F64 => Type::float64(c),
            _ => IntegerType::new(c, elem.bits()).into(),
        }
    }

    fn ty(&self, ty: Ty) -> Type<'c> {
        match ty {
            Ty::Scalar(e) => self.elem(e),
            Ty::Vector(e, n) => Type::vector(&[u64::from(n)], self.elem(e)),
            Ty::Ptr => melior::dialect::llvm::r#type::pointer(self.context(), 0),
        }
    }

    fn vector(&self, elem: Elem, lanes: usize) -> Type<'c> {
        Type::vector(&[lanes as u64], self.elem(elem))
    }

    fn tensor(&self, elem: Elem, len: usize) -> Type<'c> {
        // SAFETY: a ranked tensor type of a valid element type in the same context.
        unsafe {
            Type::from_raw(mlir_sys::mlirRankedTensorTypeGet(
                1,
                [len as i64].as_ptr(),
                self.elem(elem).to_raw(),
                mlir_sys::mlirAttributeGetNull(),
            ))
        }
    }

    fn attribute(&self, attr: &Attr<'_>) -> Attribute<'c> {
        let c = self.context();
        match attr {
            Attr::Unit => Attribute::unit(c),
            Attr::Bool(v) => BoolAttribute::new(c, *v).into(),
            Attr::Int(e, v) => IntegerAttribute::new(self.elem(*e), *v).into(),
            Attr::Float(e, v) => FloatAttribute::new(c, self.elem(*e), *v).into(),
            Attr::SplatInt(e, n, v) => DenseElementsAttribute::splat(
                self.vector(*e, *n as usize),
                IntegerAttribute::new(self.elem(*e), *v).into(),
            )
            .into(),
            Attr::SplatF32(n, v) => {
                DenseElementsAttribute::f32_splat(self.vector(Elem::F32, *n as usize), *v).into()
            }
            Attr::SplatF64(n, v) => {
                DenseElementsAttribute::f64_splat(self.vector(Elem::F64, *n as usize), *v).into()
            }
            Attr::VectorF32(v) => {
                DenseElementsAttribute::f32_values(self.vector(Elem::F32, v.len()), v).into()
            }
            Attr::VectorI32(v) => {
                DenseElementsAttribute::i32_values(self.vector(Elem::I32, v.len()), v).into()
            }
            Attr::VectorI64(v) => {
                DenseElementsAttribute::i64_values(self.vector(Elem::I64, v.len()), v).into()
            }
            Attr::TensorF32(v) => {
                DenseElementsAttribute::f32_values(self.tensor(Elem::F32, v.len()), v).into()
            }
            Attr::TensorI32(v) => {
                DenseElementsAttribute::i32_values(self.tensor(Elem::I32, v.len()), v).into()
            }
            Attr::Str(s) => StringAttribute::new(c, s).into(),
            Attr::Symbol(s) => FlatSymbolRefAttribute::new(c, s).into(),
            Attr::Type(t) => TypeAttribute::new(self.ty(*t)).into(),
            Attr::ArrayType(e, n) => {
                let len = u32::try_from(*n).expect("a global array has fewer than 2^32 elements");
                TypeAttribute::new(melior::dialect::llvm::r#type::array(self.elem(*e), len)).into()
            }
            Attr::FunctionType(ins, outs) => {
                let ins: Vec<_> = ins.iter().map(|t| self.ty(*t)).collect();
                let outs: Vec<_> = outs.iter().map(|t| self.ty(*t)).collect();
                TypeAttribute::new(FunctionType::new(c, &ins, &outs).into()).into()
            }
            Attr::I32s(v) => DenseI32ArrayAttribute::new(c, v).into(),
            Attr::I64s(v) => DenseI64ArrayAttribute::new(c, v).into(),
            Attr::List(items) => {
                let items: Vec<_> = items.iter().map(|a| self.attribute(a)).collect();
                ArrayAttribute::new(c, &items).into()
            }
            Attr::Text(s) => {
                Attribute::parse(c, s).unwrap_or_else(|| panic!("attribute `{s}` does not parse"))
            }
        }
    }
}

/// A region whose block is current; closed by [`OpBuilder::close_region`].
pub struct OpenRegion<'c> {
    region: Region<'c>,
    outer: MlirBlock,
}

/// The block to return to from the top level.
pub struct Outer(MlirBlock);

/// A finished region, to be given to the operation that owns it.
pub struct RegionBody<'c> {
    region: Region<'c>,
}

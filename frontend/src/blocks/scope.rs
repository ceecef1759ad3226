//! A function under construction, and the weights that it asks for.
//!
//! In: ops and tensors' names. Out: instructions in the module, [`Wanted`] tensors in the [`Graph`].
//!
//! Invariants: a weight is one entry of the module however many blocks name it; the type of a weight is that of
//! the checkpoint (f32 where there is none), the shape is the family's.
//!
//! Not here: comparing shapes with the checkpoint (`weights::bound`).

use llmc_ir::{
    DType, Entry, FuncBuilder, Module, Op, Operand, Projected, Source, SourceNorm, SourcePart,
    State, StateId, TensorType, Type, ValueId, Weight, WeightId,
};

use super::{Class, Projection};
use crate::error::{FrontendError, Result};
use crate::weights::synthetic::Fill;

/// What a checkpoint is asked while a module is written.
pub trait Catalog {
    /// The type of a tensor under the family's name for it; `None` if there is no such tensor.
    fn dtype(&self, tensor: &str) -> Option<DType>;

    /// Whether the weights of norms hold the offset that the family adds to them.
    fn norms_include_offset(&self) -> bool {
        false
    }
}

/// A tensor, or one of every layer of a class, that a module names.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// The family's name, with `{layer}` for the index of the layer.
    pub pattern: String,
    /// The layers; empty for a tensor of the whole model.
    pub layers: Vec<u32>,
    /// How many tensors there are for `{expert}` in the name.
    pub experts: Option<u32>,
    /// The shape that the configuration asks for, as the checkpoint stores it.
    pub shape: Vec<u32>,
    /// Another shape of the same elements, where the checkpoint has that one (a convolution over patches is the
    /// matrix of their pixels).
    pub stored: Option<Vec<u32>>,
    /// Where the shape comes from, for messages.
    pub why: String,
    /// What random weights hold.
    pub fill: Fill,
}

/// A module under construction.
pub struct Graph<'c> {
    /// The module so far.
    pub module: Module,
    /// The tensors so far.
    pub wanted: Vec<Wanted>,
    /// What is known of the checkpoint.
    pub catalog: &'c dyn Catalog,
    /// Standard deviation of random matrices.
    pub deviation: f32,
}

/// One function of it.
pub struct Scope<'g> {
    function: FuncBuilder<'g>,
    wanted: &'g mut Vec<Wanted>,
    catalog: &'g dyn Catalog,
    class: Option<&'g Class>,
    /// Layers of a group: `{inner}` in names counts them, `{layer}` then the groups.
    group: u32,
    /// The class's layers are every so manyth of the checkpoint's.
    spacing: u32,
    deviation: f32,
}

/// Tensors that make up a part of a stack of experts' matrices.
#[derive(Clone, Debug)]
pub struct StackPart {
    /// The name, with `{expert}` where each expert has a tensor.
    pub tensor: String,
    /// How the checkpoint stores it.
    pub stored: Stored,
    /// The rows that are taken: first, end, and every how manyth; `None`: all.
    pub rows: Option<(u32, u32, u32)>,
    /// How many experts have a tensor each.
    pub experts: Option<u32>,
}

/// A matrix that is computed of a table: `norm(row) · projection`.
pub struct Computed<'a> {
    /// The tensor `[rows, in]`, and its rows.
    pub table: (&'a str, u32),
    /// The layer norm of its rows: eps, and the tensor without `.weight`.
    pub norm: Option<(f32, &'a str)>,
    /// A whole tensor.
    pub projection: &'a Projection,
    /// Of the projection: `[out, in]`.
    pub shape: [u32; 2],
}

/// A tensor's shape, and whether its matrices are transposed.
#[derive(Clone, Debug)]
pub struct Stored {
    pub shape: Vec<u32>,
    pub transposed: bool,
}

impl StackPart {
    /// The whole of one tensor.
    pub fn whole(tensor: String, shape: &[u32]) -> Self {
        let stored = Stored {
            shape: shape.to_vec(),
            transposed: false,
        };
        Self {
            tensor,
            stored,
            rows: None,
            experts: None,
        }
    }
}

/// Where a weight lies in its tensor.
struct Place {
    /// The tensor's own shape.
    stored: Vec<u32>,
    transposed: bool,
    /// The rows that are taken; `None`: all.
    runs: Option<Vec<(u32, u32)>>,
    /// The checkpoint's shape of the tensor, where it is another one of the same elements.
    reshaped: Option<Vec<u32>>,
}

impl Place {
    fn whole(shape: &[u32]) -> Self {
        Self {
            stored: shape.to_vec(),
            transposed: false,
            runs: None,
            reshaped: None,
        }
    }
}

impl Graph<'_> {
    /// Starts the function of a layer class.
    pub fn layer<'g>(&'g mut self, class: &'g Class) -> Scope<'g> {
        self.scope(&class.name, Some(class))
    }

    /// Wants a number that no function reads, a tensor without extents: the caller's business.
    pub fn want_scalar(&mut self, tensor: &str, fill: Fill) {
        self.wanted.push(Wanted {
            pattern: tensor.to_owned(),
            layers: Vec::new(),
            experts: None,
            shape: vec![1],
            stored: Some(Vec::new()),
            why: "one number".into(),
            fill,
        });
    }

    /// Starts an entry.
    pub fn entry(&mut self, entry: Entry) -> Scope<'_> {
        self.scope(entry.name(), None)
    }

    fn scope<'g>(&'g mut self, name: &str, class: Option<&'g Class>) -> Scope<'g> {
        Scope {
            function: FuncBuilder::new(&mut self.module, name),
            wanted: &mut self.wanted,
            catalog: self.catalog,
            class,
            group: 1,
            spacing: 1,
            deviation: self.deviation,
        }
    }
}

impl Scope<'_> {
    /// Says how many layers a group has, where names count groups and the layers in them.
    pub fn grouped(&mut self, group: u32) {
        self.group = group;
    }

    /// Says that the layers that run here are every so manyth of the checkpoint's, from the first on.
    pub fn spaced(&mut self, spacing: u32) {
        self.spacing = spacing;
    }

    /// A parameter.
    pub fn param(&mut self, name: &str, ty: Type) -> ValueId {
        self.function.param(name, ty)
    }

    /// An instruction with one result.
    pub fn op(&mut self, hint: &str, op: impl Into<Op>, operands: &[Operand]) -> Result<ValueId> {
        Ok(self.function.push1(hint, op, operands)?)
    }

    /// An instruction with two results.
    pub fn op2(
        &mut self,
        hint: &str,
        op: impl Into<Op>,
        operands: &[Operand],
    ) -> Result<(ValueId, ValueId)> {
        match self.function.push(hint, op, operands)?.as_slice() {
            &[first, second] => Ok((first, second)),
            results => Err(FrontendError::Bug(format!(
                "{hint}: {} results, not two",
                results.len()
            ))),
        }
    }

    /// A matrix or table; of every layer if `tensor` holds `{layer}`.
    pub fn matrix(
        &mut self,
        name: &str,
        tensor: &str,
        shape: [u32; 2],
        why: impl Into<String>,
    ) -> WeightId {
        let fill = Fill::Normal(self.deviation);
        self.weight(name, tensor, &shape, Place::whole(&shape), why.into(), fill)
    }

    /// A table whose first `skip` rows nobody reads.
    pub fn table_behind(
        &mut self,
        name: &str,
        tensor: &str,
        [rows, columns]: [u32; 2],
        skip: u32,
        why: impl Into<String>,
    ) -> WeightId {
        let place = Place {
            stored: vec![rows + skip, columns],
            transposed: false,
            runs: Some(vec![(skip, rows + skip)]),
            reshaped: None,
        };
        let fill = Fill::Normal(self.deviation);
        self.weight(name, tensor, &[rows, columns], place, why.into(), fill)
    }

    /// The matrix `[out, in]` of a projection.
    pub fn projection(
        &mut self,
        name: &str,
        projection: &Projection,
        shape: [u32; 2],
        why: &str,
    ) -> WeightId {
        let of = projection.rows.as_ref().map_or(shape[0], |rows| rows.of);
        let mut stored = vec![of, shape[1]];
        if projection.transposed {
            stored.reverse();
        }
        let place = Place {
            stored,
            transposed: projection.transposed,
            runs: projection.rows.as_ref().map(|rows| rows.runs.clone()),
            reshaped: None,
        };
        let tensor = format!("{}.weight", projection.tensor);
        let fill = Fill::Normal(self.deviation);
        self.weight(name, &tensor, &shape, place, why.to_owned(), fill)
    }

    /// The bias of a projection.
    pub fn projection_bias(
        &mut self,
        name: &str,
        projection: &Projection,
        length: u32,
        why: &str,
    ) -> WeightId {
        if let Some(tensor) = projection.bias_tensor {
            return self.vector(name, tensor, length, why, 0.0);
        }
        let of = projection.rows.as_ref().map_or(length, |rows| rows.of);
        let place = Place {
            stored: vec![of],
            transposed: false,
            runs: projection.rows.as_ref().map(|rows| rows.runs.clone()),
            reshaped: None,
        };
        let tensor = format!("{}.bias", projection.tensor);
        self.weight(
            name,
            &tensor,
            &[length],
            place,
            why.to_owned(),
            Fill::Constant(0.0),
        )
    }

    /// A matrix, table or vector of `shape` that the checkpoint stores as `stored`: the same elements in the same
    /// order.
    pub fn reshaped(
        &mut self,
        name: &str,
        tensor: &str,
        shape: &[u32],
        stored: &[u32],
        why: impl Into<String>,
    ) -> WeightId {
        let place = Place {
            reshaped: (shape != stored).then(|| stored.to_vec()),
            ..Place::whole(shape)
        };
        let fill = Fill::Normal(self.deviation);
        self.weight(name, tensor, shape, place, why.into(), fill)
    }

    /// A vector that random weights fill with one value.
    pub fn vector(
        &mut self,
        name: &str,
        tensor: &str,
        length: u32,
        why: impl Into<String>,
        fill: f32,
    ) -> WeightId {
        let place = Place::whole(&[length]);
        self.weight(
            name,
            tensor,
            &[length],
            place,
            why.into(),
            Fill::Constant(fill),
        )
    }

    /// The weight `[out, in · width]` of a convolution that the checkpoint stores as `[out, in, width]`.
    pub fn convolution(
        &mut self,
        name: &str,
        tensor: &str,
        [out, columns, width]: [u32; 3],
        why: &str,
    ) -> WeightId {
        let tensor = format!("{tensor}.weight");
        let place = Place::whole(&[out, columns, width]);
        let fill = Fill::Normal(self.deviation);
        let shape = [out, columns * width];
        self.weight(name, &tensor, &shape, place, why.to_owned(), fill)
    }

    /// A matrix of f32 that is computed of others.
    pub fn computed(&mut self, name: &str, of: &Computed) -> WeightId {
        let class = self.class;
        let name = class.map_or(name.to_owned(), |class| format!("{}.{name}", class.name));
        let weights = &self.function.module.weights;
        if let Some(at) = weights.iter().position(|weight| weight.name == name) {
            return WeightId(at as u32);
        }
        let ((table, rows), [columns, width]) = (of.table, of.shape);
        let why = format!("rows = relative positions ({rows}), columns = hidden_size ({width})");
        self.want(table, vec![rows, width], why, Fill::Normal(self.deviation));
        let norm = of.norm.map(|(eps, tensor)| {
            let [weight, bias] = ["weight", "bias"].map(|part| format!("{tensor}.{part}"));
            for (tensor, fill) in [(&weight, 1.0), (&bias, 0.0)] {
                let why = format!("length = hidden_size ({width})");
                self.want(tensor, vec![width], why, Fill::Constant(fill));
            }
            SourceNorm { weight, bias, eps }
        });
        let tensor = format!("{}.weight", of.projection.tensor);
        let why = format!("rows = heads × head size ({columns}), columns = hidden_size ({width})");
        self.want(
            &tensor,
            vec![columns, width],
            why,
            Fill::Normal(self.deviation),
        );
        let mut bias = Vec::new();
        if of.projection.bias {
            let tensor = format!("{}.bias", of.projection.tensor);
            let why = format!("length = heads × head size ({columns})");
            self.want(&tensor, vec![columns], why, Fill::Constant(0.0));
            bias.push(SourcePart::tensor(tensor));
        }
        let projected = Projected {
            norm,
            matrix: vec![SourcePart::tensor(tensor)],
            bias,
        };
        self.function.module.add_weight(Weight {
            name,
            slots: class.map(|class| class.layers.len() as u32),
            ty: TensorType::weight(DType::F32, &[rows, columns]),
            source: Source {
                parts: vec![SourcePart::tensor(table)],
                projected: Some(projected),
            },
            pack: None,
        })
    }

    /// Wants a tensor, or that of every layer of the class, once.
    fn want(&mut self, tensor: &str, shape: Vec<u32>, why: String, fill: Fill) {
        self.want_as(tensor, (shape, None), why, fill);
    }

    /// The same, with another shape of it in the checkpoint.
    fn want_as(
        &mut self,
        tensor: &str,
        (shape, stored): (Vec<u32>, Option<Vec<u32>>),
        why: String,
        fill: Fill,
    ) {
        let class = self.class.filter(|_| llmc_ir::source::names_layer(tensor));
        let layers = class.map_or(Vec::new(), |class| class.layers.clone());
        let known = |w: &Wanted| w.pattern == tensor && w.layers == layers;
        if !self.wanted.iter().any(known) {
            self.wanted.push(Wanted {
                pattern: tensor.to_owned(),
                layers,
                experts: None,
                shape,
                stored,
                why,
                fill,
            });
        }
    }

    fn weight(
        &mut self,
        name: &str,
        tensor: &str,
        shape: &[u32],
        place: Place,
        why: String,
        fill: Fill,
    ) -> WeightId {
        let class = self.class.filter(|_| tensor.contains("{layer}"));
        let name = class.map_or(name.to_owned(), |class| format!("{}.{name}", class.name));
        let tensor = match (tensor.contains("{inner}"), self.group) {
            (false, _) => tensor.to_owned(),
            (true, 1) => tensor.replace("{inner}", "0"),
            (true, n) => tensor
                .replace("{layer}", &format!("{{layer/{n}}}"))
                .replace("{inner}", &format!("{{layer%{n}}}")),
        };
        let tensor = &*tensor;
        let weights = &self.function.module.weights;
        if let Some(at) = weights.iter().position(|weight| weight.name == name) {
            return WeightId(at as u32);
        }
        let layers = class.map_or(Vec::new(), |class| class.layers.clone());
        let first = llmc_ir::source::tensor_name(tensor, layers.first().copied());
        let dtype = self.catalog.dtype(&first).unwrap_or(DType::F32);
        // The parts of a fused tensor want it once.
        self.want_as(tensor, (place.stored, place.reshaped), why, fill);
        let source = match self.spacing {
            1 => tensor.to_owned(),
            n => tensor.replace("{layer}", &format!("{{layer*{n}}}")),
        };
        let part = |rows| SourcePart {
            rows,
            transposed: place.transposed,
            ..SourcePart::tensor(source.as_str())
        };
        let parts = match place.runs {
            None => vec![part(None)],
            Some(runs) => runs.into_iter().map(|run| part(Some(run))).collect(),
        };
        self.function.module.add_weight(Weight {
            name,
            slots: class.map(|class| class.layers.len() as u32),
            ty: TensorType::weight(dtype, shape),
            source: Source::rows(parts),
            pack: None,
        })
    }

    /// The experts' matrices, or their biases, over one another.
    pub fn stack(
        &mut self,
        name: &str,
        parts: &[StackPart],
        shape: &[u32],
        why: &str,
    ) -> Result<WeightId> {
        let class = self.class;
        let layers = class.map_or(Vec::new(), |class| class.layers.clone());
        let mut found: Option<(String, DType)> = None;
        for part in parts {
            let first = llmc_ir::source::tensor_name(&part.tensor, layers.first().copied());
            for e in 0..part.experts.unwrap_or(1) {
                let tensor = first.replace("{expert}", &e.to_string());
                let Some(dtype) = self.catalog.dtype(&tensor) else {
                    continue;
                };
                match &found {
                    Some((other, of)) if *of != dtype => {
                        let what = format!(
                            "{other} is {}, {tensor} is {}: experts of several types",
                            of.name(),
                            dtype.name()
                        );
                        return Err(crate::error::Problem::new(what).unsupported());
                    }
                    Some(_) => {}
                    None => found = Some((tensor, dtype)),
                }
            }
            let known = |w: &Wanted| w.pattern == part.tensor && w.layers == layers;
            if !self.wanted.iter().any(known) {
                let fill = match shape.len() {
                    1 => Fill::Constant(0.0),
                    _ => Fill::Normal(self.deviation),
                };
                self.wanted.push(Wanted {
                    pattern: part.tensor.clone(),
                    layers: layers.clone(),
                    experts: part.experts,
                    shape: part.stored.shape.clone(),
                    stored: None,
                    why: why.to_owned(),
                    fill,
                });
            }
        }
        let source = |part: &StackPart| SourcePart {
            rows: part.rows.map(|(first, end, _)| (first, end)),
            every: part.rows.map_or(1, |(.., every)| every),
            transposed: part.stored.transposed,
            experts: part.experts,
            ..SourcePart::tensor(part.tensor.as_str())
        };
        let dtype = found.map_or(DType::F32, |(_, dtype)| dtype);
        Ok(self.function.module.add_weight(Weight {
            name: class.map_or(name.to_owned(), |class| format!("{}.{name}", class.name)),
            slots: class.map(|class| class.layers.len() as u32),
            ty: TensorType::weight(dtype, shape),
            source: Source::rows(parts.iter().map(source).collect()),
            pack: None,
        }))
    }

    /// The type of a tensor of the class's first layer.
    pub fn dtype_in_layers(&self, tensor: &str) -> Option<DType> {
        let first = self.class.and_then(|class| class.layers.first().copied());
        self.catalog
            .dtype(&llmc_ir::source::tensor_name(tensor, first))
    }

    /// Whether the class's first layer has a tensor. Random weights have all of them.
    pub fn has_in_layers(&self, tensor: &str) -> bool {
        self.dtype_in_layers(tensor).is_some()
    }

    /// The keys and values of the class's layers.
    pub fn kv_cache(&mut self, heads: u32, dim: u32, window: Option<u32>) -> StateId {
        let prefix = self
            .class
            .map_or(String::new(), |class| format!("{}.", class.name));
        self.function.module.add_state(State {
            name: format!("{prefix}kv"),
            slots: self.class.map(|class| class.layers.len() as u32),
            dtype: DType::F32,
            heads,
            k_dim: dim,
            v_dim: dim,
            window,
        })
    }

    /// Whether the checkpoint has a tensor of the whole model. Random weights have all of them.
    pub fn has(&self, tensor: &str) -> bool {
        self.catalog.dtype(tensor).is_some()
    }

    /// What is left to add to the weights of norms, of the `offset` that the family adds.
    pub fn norm_offset(&self, offset: f32) -> f32 {
        match self.catalog.norms_include_offset() {
            true => 0.0,
            false => offset,
        }
    }

    /// Ends the function.
    pub fn finish(self, results: &[(&str, ValueId)]) {
        self.function.finish(results);
    }
}

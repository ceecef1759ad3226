//! The closed set of ops: one file each, gathered by `ops!`.
//!
//! A new op does not compile until printing, evaluation and lowering have decided about it: no
//! match on [`Op`] has a wildcard where the op's meaning matters.

use crate::{
    OpDef, OperandType, Type,
    attr::{AttrReader, Attrs},
    eval::{Args, EvalError, Frame, Val},
};

mod gate;
mod norm;

macro_rules! ops {
    ($($module:ident :: $name:ident),* $(,)?) => {
        $(mod $module; pub use $module::$name;)*

        /// An op with its attributes.
        #[derive(Clone, PartialEq, Debug)]
        pub enum Op { $($name($name)),* }

        $(impl From<$name> for Op { fn from(op: $name) -> Op { Op::$name(op) } })*

        impl Op {
            /// Names of all ops, alphabetical.
            pub const NAMES: &'static [&'static str] = &[$($name::NAME),*];

            /// The text syntax.
            pub fn name(&self) -> &'static str {
                match self { $(Op::$name(_) => $name::NAME),* }
            }

            /// The attributes in generic form.
            pub fn attrs(&self) -> Attrs {
                match self { $(Op::$name(op) => op.attrs()),* }
            }

            /// The op called `name` with `attrs`.
            pub fn from_attrs(name: &str, attrs: Attrs) -> Result<Op, String> {
                let mut reader = AttrReader::new(attrs);
                let op = match name {
                    $($name::NAME => Op::$name($name::from_attrs(&mut reader)?),)*
                    _ => return Err(format!("unknown op `{name}`")),
                };
                reader.finish()?;
                Ok(op)
            }

            /// Checks the operands and tells the results' types.
            pub fn infer(&self, operands: &[OperandType]) -> Result<Vec<Type>, String> {
                match self { $(Op::$name(op) => op.infer(operands)),* }
            }

            /// What the op means (see [`crate::eval`]).
            pub fn eval(
                &self,
                frame: &mut Frame<'_, '_>,
                args: Args,
            ) -> Result<Vec<Val>, EvalError> {
                match self { $(Op::$name(op) => op.eval(frame, args)),* }
            }
        }
    };
}

ops! {
    activation::Activation,
    add::Add,
    alibi::Alibi,
    attention::Attention,
    attn_bias::AttnBias,
    attn_disentangled::AttnDisentangled,
    attn_mix::AttnMix,
    attn_scores::AttnScores,
    experts::Experts,
    gather::Gather,
    glu::Glu,
    kv_append::KvAppend,
    kv_read::KvRead,
    kv_source::KvSource,
    l2_normalize::L2Normalize,
    layer_norm::LayerNorm,
    linear::Linear,
    mask::MaskScores,
    merge_heads::MergeHeads,
    mul::Mul,
    pool::Pool,
    position_ids::PositionIds,
    quantize::Quantize,
    repeat::Repeat,
    rms_norm::RmsNorm,
    rope::Rope,
    rope_angles::RopeAngles,
    route::Route,
    rows::Rows,
    scale::Scale,
    softcap::Softcap,
    softmax::Softmax,
    split::Split,
    split_heads::SplitHeads,
    substitute::Substitute,
    unfold::Unfold,
}

pub use activation::ActKind;
pub use attention::{Flash, RelativeBias};
pub use attn_disentangled::Disentangled;
pub use gate::Gate;
pub use layer_norm::layer_norm_row;
pub use norm::Norm;
pub use pool::PoolKind;
pub use rope::RopeStyle;

//! `activation %x {kind}`: an elementwise nonlinearity. `[…] → […]`.

use crate::{
    OpDef, OperandType, Type,
    attr::{AttrReader, Attrs},
    op::Operands,
    DType,
};

/// Which nonlinearity; names as in HF's `hidden_act`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ActKind {
    /// x · σ(x).
    Silu,
    /// x · Φ(x), by erf.
    Gelu,
    /// The tanh form of GELU: HF `gelu_new`, `gelu_pytorch_tanh`.
    GeluTanh,
    /// x · σ(1.702 x).
    QuickGelu,
    Relu,
    Tanh,
    Sigmoid,
}

impl ActKind {
    /// All kinds.
    pub const ALL: [ActKind; 7] = [
        ActKind::Silu,
        ActKind::Gelu,
        ActKind::GeluTanh,
        ActKind::QuickGelu,
        ActKind::Relu,
        ActKind::Tanh,
        ActKind::Sigmoid,
    ];

    /// The text syntax.
    pub fn name(self) -> &'static str {
        match self {
            ActKind::Silu => "silu",
            ActKind::Gelu => "gelu",
            ActKind::GeluTanh => "gelu_tanh",
            ActKind::QuickGelu => "quick_gelu",
            ActKind::Relu => "relu",
            ActKind::Tanh => "tanh",
            ActKind::Sigmoid => "sigmoid",
        }
    }

    /// Reads the text syntax.
    pub fn from_name(name: &str) -> Result<ActKind, String> {
        Self::ALL
            .into_iter()
            .find(|k| k.name() == name)
            .ok_or_else(|| format!("unknown activation `{name}`"))
    }
}

#[derive(Clone, PartialEq, Debug)]
pub struct Activation {
    pub kind: ActKind,
}

impl OpDef for Activation {
    const NAME: &'static str = "activation";

    fn attrs(&self) -> Attrs {
        Attrs::new().word("kind", self.kind.name())
    }

    fn from_attrs(attrs: &mut AttrReader) -> Result<Self, String> {
        Ok(Activation { kind: ActKind::from_name(&attrs.word("kind")?)? })
    }

    fn infer(&self, operands: &[OperandType]) -> Result<Vec<Type>, String> {
        let mut o = Operands::new(operands);
        let x = o.tensor("x", DType::F32)?;
        o.end()?;
        Ok(vec![Type::Tensor(x.clone())])
    }
}

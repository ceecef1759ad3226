//! Activation functions, applied to vectors in other kernels' epilogues.

use crate::kernel::{KernelBuilder, Value};

/// An elementwise function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    None,
    /// `x/2 (1 + erf(x/√2))`
    Gelu,
    GeluTanh,
    QuickGelu,
    Relu,
    Sigmoid,
    Silu,
    Tanh,
}

impl Activation {
    pub const ALL: [Activation; 8] = [
        Activation::None,
        Activation::Gelu,
        Activation::GeluTanh,
        Activation::QuickGelu,
        Activation::Relu,
        Activation::Sigmoid,
        Activation::Silu,
        Activation::Tanh,
    ];

    /// Part of symbol names.
    pub const fn name(self) -> &'static str {
        match self {
            Activation::None => "id",
            Activation::Gelu => "gelu",
            Activation::GeluTanh => "gelutanh",
            Activation::QuickGelu => "quickgelu",
            Activation::Relu => "relu",
            Activation::Sigmoid => "sigmoid",
            Activation::Silu => "silu",
            Activation::Tanh => "tanh",
        }
    }

    /// Whether zero stays zero, so that pad lanes need no masking.
    pub const fn keeps_zero(self) -> bool {
        !matches!(self, Activation::Sigmoid)
    }

    /// Applies the function to a vector.
    pub fn apply(self, b: &mut KernelBuilder<'_>, x: Value) -> Value {
        match self {
            Activation::None => x,
            Activation::Gelu => b.gelu(x),
            Activation::GeluTanh => b.gelu_tanh(x),
            Activation::QuickGelu => b.quick_gelu(x),
            Activation::Relu => {
                let zero = b.constant(x.ty, 0.0);
                b.max(x, zero)
            }
            Activation::Sigmoid => b.sigmoid(x),
            Activation::Silu => b.silu(x),
            Activation::Tanh => b.tanh(x),
        }
    }
}

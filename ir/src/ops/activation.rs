//! `activation %x {kind}`: an elementwise nonlinearity. `[…] → […]`.

use crate::{
    OpDef, OperandType, Type,
    attr::{AttrReader, Attrs},
    eval::{Args, EvalError, Frame, Val},
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

impl ActKind {
    /// The function itself.
    pub fn apply(self, x: f64) -> f64 {
        let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
        match self {
            ActKind::Silu => x * sigmoid(x),
            ActKind::Gelu => 0.5 * x * (1.0 + erf(x * std::f64::consts::FRAC_1_SQRT_2)),
            ActKind::GeluTanh => {
                let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3));
                0.5 * x * (1.0 + inner.tanh())
            }
            ActKind::QuickGelu => x * sigmoid(1.702 * x),
            ActKind::Relu => x.max(0.0),
            ActKind::Tanh => x.tanh(),
            ActKind::Sigmoid => sigmoid(x),
        }
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

    fn eval(&self, _: &mut Frame<'_, '_>, mut args: Args) -> Result<Vec<Val>, EvalError> {
        Ok(vec![args.value()?.map(|x| self.kind.apply(f64::from(x)) as f32)?])
    }
}

/// erf: its series near 0, a continued fraction of erfc beyond.
fn erf(x: f64) -> f64 {
    let a = x.abs();
    let near = if a < 2.5 {
        let (mut term, mut sum) = (a, a);
        for n in 1..100 {
            term *= -a * a / f64::from(n);
            sum += term / f64::from(2 * n + 1);
        }
        sum * std::f64::consts::FRAC_2_SQRT_PI
    } else {
        let mut fraction = 0.0;
        for n in (1..100).rev() {
            fraction = f64::from(n) / 2.0 / (a + fraction);
        }
        1.0 - (-a * a).exp() / ((a + fraction) * std::f64::consts::PI.sqrt())
    };
    near.copysign(x)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn erf_meets_known_values() {
        for (x, y) in [
            (0.0, 0.0),
            (0.5, 0.520_499_877_813_046_5),
            (2.0, 0.995_322_265_018_952_7),
            (2.4, 0.999_311_486_103_355),
            (2.6, 0.999_763_965_583_470_6),
            (-1.0, -0.842_700_792_949_714_9),
        ] {
            assert!((erf(x) - y).abs() < 1e-14, "erf({x}) = {}", erf(x));
        }
    }
}

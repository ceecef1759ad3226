//! What the user may choose about precision: weights, activations, the cache. Names are those of the
//! command line and of `--passes=quantize-…=NAME`.
//!
//! Not here: what a choice means for one tensor (the passes).

use llmc_ir::{DType, Format};

macro_rules! choices {
    ($(#[$doc:meta])* $name:ident { $($(#[$of:meta])* $variant:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
        pub enum $name { $($(#[$of])* $variant,)* }

        impl $name {
            /// All choices, the default first.
            pub const ALL: &'static [$name] = &[$($name::$variant),*];

            /// The name on the command line.
            pub fn name(self) -> &'static str {
                match self { $($name::$variant => $text),* }
            }

            /// The choice of that name.
            pub fn from_name(name: &str) -> Option<$name> {
                Self::ALL.iter().copied().find(|c| c.name() == name)
            }

            /// All names, for messages.
            pub fn names() -> String {
                let names: Vec<&str> = Self::ALL.iter().map(|c| c.name()).collect();
                names.join(", ")
            }
        }
    };
}

choices! {
    /// Which types the weights get.
    Quant {
        /// Those of the checkpoint.
        #[default]
        None = "none",
        Bf16 = "bf16",
        F16 = "f16",
        Q8_0 = "q8_0",
        Q4_0 = "q4_0",
        /// GGUF's mix of Q4_K and Q6_K.
        Q4KM = "q4_k_m",
        /// 8-bit rows with a scale each.
        Int8 = "int8",
    }
}

choices! {
    /// What products read.
    Activations {
        /// 8-bit codes for weights in block formats and `int8`, f32 for others.
        #[default]
        Auto = "auto",
        F32 = "f32",
        Bf16 = "bf16",
        Int8 = "int8",
    }
}

choices! {
    /// Element type of the cache of keys and values.
    Kv {
        /// f32 where all arithmetic is f32, else f16.
        #[default]
        Auto = "auto",
        F32 = "f32",
        F16 = "f16",
        Bf16 = "bf16",
        Q8_0 = "q8_0",
    }
}

impl Kv {
    /// The element type, where one was chosen.
    pub fn dtype(self) -> Option<DType> {
        match self {
            Kv::Auto => None,
            Kv::F32 => Some(DType::F32),
            Kv::F16 => Some(DType::F16),
            Kv::Bf16 => Some(DType::BF16),
            Kv::Q8_0 => Some(DType::Block(Format::Q8_0)),
        }
    }
}

/// All choices.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Precision {
    pub quant: Quant,
    pub activations: Activations,
    pub kv: Kv,
}

impl Precision {
    /// What products read: weights that were asked to be bf16 multiply bf16, unless it was said
    /// otherwise.
    pub fn activations_of_weights(self) -> Activations {
        match (self.activations, self.quant) {
            (Activations::Auto, Quant::Bf16) => Activations::Bf16,
            (activations, _) => activations,
        }
    }
}

//! Ids of everything that a module holds: u32 indices into its arenas. `Display` is the text syntax.

use std::fmt;

macro_rules! entity {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub struct $name(pub u32);

        impl $name {
            /// The arena index.
            pub fn index(self) -> usize {
                self.0 as usize
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0)
            }
        }
    };
}

entity!(
    /// An SSA value of one function.
    ValueId, "%"
);
entity!(
    /// A weight of the module.
    WeightId, "@w"
);
entity!(
    /// A state (KV cache) of the module.
    StateId, "@s"
);
entity!(
    /// A function of the module.
    FuncId, "@f"
);

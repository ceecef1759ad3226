//! Which type a choice gives a tensor, as data: what `llama-quantize` does for the formats of GGUF.
//!
//! | | `q8_0` | `q4_0` | `q4_k_m` | `int8` | `bf16`, `f16` |
//! |---|---|---|---|---|---|
//! | head, tied table, an encoder's table | q8_0 | q6_k | q6_k | head int8, tables q8_0 | so |
//! | token table | q8_0 | q4_0 | q4_k | q8_0 | so |
//! | attention's values | q8_0 | q4_0 | q6_k in [`more_bits`], else q4_k | int8 | so |
//! | q, k and v in one matrix | q8_0 | q4_0 | q5_k | int8 | so |
//! | matrices in front of the activation | q8_0 | q4_0 | q4_k | int8 | so |
//! | matrix behind the activation | q8_0 | q4_0 | q6_k in [`more_bits`], else q4_k | q8_0 | so |
//! | other matrices | q8_0 | q4_0 | q4_k | int8 | so |
//! | positions, token types, norms, biases, routers | – | – | – | – | – |
//!
//! Rows that are not whole blocks: q4_k becomes q5_0, q5_k q5_1, q6_k q8_0; then f16.

use llmc_ir::{DType, Format};

use crate::{Quant, role::Role};

/// Where a tensor stands.
#[derive(Clone, Copy, Debug)]
pub struct Tensor {
    pub role: Role,
    /// The absolute layer, and how many there are.
    pub layer: u32,
    pub layers: u32,
    /// Elements of a row.
    pub cols: u32,
    /// Whether another matrix makes the logits.
    pub has_output: bool,
}

/// The type that `quant` gives a tensor, before its rows are looked at; None leaves it alone.
fn wanted(quant: Quant, t: &Tensor) -> Option<DType> {
    let block = |format| Some(DType::Block(format));
    let outer = match t.role {
        Role::Vector | Role::OtherTable | Role::Router => return None,
        Role::Output { .. } => true,
        Role::Table => !t.has_output,
        Role::AttnQkv | Role::AttnV | Role::FfnUp | Role::FfnDown | Role::Matrix => false,
    };
    match quant {
        Quant::None => None,
        Quant::Bf16 => Some(DType::BF16),
        Quant::F16 => Some(DType::F16),
        Quant::Q8_0 => block(Format::Q8_0),
        Quant::Q4_0 if outer => block(Format::Q6_K),
        Quant::Q4_0 => block(Format::Q4_0),
        Quant::Q4KM => block(match t.role {
            _ if outer => Format::Q6_K,
            Role::AttnQkv => Format::Q5_K,
            Role::AttnV | Role::FfnDown if more_bits(t.layer, t.layers) => Format::Q6_K,
            _ => Format::Q4_K,
        }),
        Quant::Int8 => match t.role {
            // Rows of tables are read one by one, and blocks keep more of them.
            Role::Table | Role::Output { table: true } => block(Format::Q8_0),
            // One code with one scale for a whole row of what they read loses most of what int8 loses.
            // Attention's values and the matrices in front of the activation read more than that
            // (`quantize-activations`); behind the activation, where outliers are, the weights have a
            // scale for each block too.
            Role::FfnDown => block(Format::Q8_0),
            _ => Some(DType::Int8),
        },
    }
}

/// The type that `quant` gives a tensor, and why it is not the wanted one; None leaves it alone.
pub fn choose(quant: Quant, t: &Tensor) -> Option<(DType, Option<String>)> {
    let first = wanted(quant, t)?;
    let mut dtype = first;
    while !t.cols.is_multiple_of(dtype.block_len()) {
        dtype = match dtype {
            DType::Block(Format::Q4_K) => DType::Block(Format::Q5_0),
            DType::Block(Format::Q5_K) => DType::Block(Format::Q5_1),
            DType::Block(Format::Q6_K) => DType::Block(Format::Q8_0),
            _ => DType::F16,
        };
    }
    let (cols, block) = (t.cols, first.block_len());
    let why = format!(
        "{}: rows of {cols} are not whole blocks of {block}",
        first.name()
    );
    Some((dtype, (dtype != first).then_some(why)))
}

/// The layers that a mix gives more bits: the first and last eighths, and every third between.
fn more_bits(layer: u32, layers: u32) -> bool {
    layer < layers / 8 || layer >= 7 * layers / 8 || (layer - layers / 8) % 3 == 2
}

#[cfg(test)]
mod tests {
    use super::*;

    const T: Tensor = Tensor {
        role: Role::Matrix,
        layer: 0,
        layers: 24,
        cols: 2048,
        has_output: true,
    };

    #[track_caller]
    fn check(quant: Quant, t: Tensor, expected: Option<&str>) {
        let found = choose(quant, &t);
        assert_eq!(
            found.map(|(dtype, _)| dtype.name()),
            expected,
            "{quant:?} {t:?}"
        );
    }

    #[test]
    fn roles_get_what_the_table_says() {
        let of = |role| Tensor {
            role,
            layer: 3,
            ..T
        };
        for (role, q4_0, q4_k_m, int8) in [
            (Role::Output { table: false }, "q6_k", "q6_k", "int8"),
            (Role::Output { table: true }, "q6_k", "q6_k", "q8_0"),
            (Role::Table, "q4_0", "q4_k", "q8_0"),
            (Role::AttnV, "q4_0", "q4_k", "int8"),
            (Role::AttnQkv, "q4_0", "q5_k", "int8"),
            (Role::FfnUp, "q4_0", "q4_k", "int8"),
            (Role::FfnDown, "q4_0", "q4_k", "q8_0"),
            (Role::Matrix, "q4_0", "q4_k", "int8"),
        ] {
            check(Quant::Q4_0, of(role), Some(q4_0));
            check(Quant::Q4KM, of(role), Some(q4_k_m));
            check(Quant::Int8, of(role), Some(int8));
            check(Quant::Q8_0, of(role), Some("q8_0"));
            check(Quant::Bf16, of(role), Some("bf16"));
            check(Quant::None, of(role), None);
        }
        for role in [Role::Vector, Role::OtherTable, Role::Router] {
            check(Quant::Q8_0, of(role), None);
        }
        // An encoder's table stands where the head would.
        let table = Tensor {
            has_output: false,
            ..of(Role::Table)
        };
        check(Quant::Q4_0, table, Some("q6_k"));
    }

    #[test]
    fn a_mix_gives_some_layers_more_bits() {
        let more: Vec<u32> = (0..24).filter(|&l| more_bits(l, 24)).collect();
        assert_eq!(more, [0, 1, 2, 5, 8, 11, 14, 17, 20, 21, 22, 23]);
        check(
            Quant::Q4KM,
            Tensor {
                role: Role::AttnV,
                layer: 5,
                ..T
            },
            Some("q6_k"),
        );
        check(
            Quant::Q4KM,
            Tensor {
                role: Role::Matrix,
                layer: 5,
                ..T
            },
            Some("q4_k"),
        );
    }

    #[test]
    fn rows_that_are_no_blocks_fall_back() {
        let cols = |role, cols| Tensor {
            role,
            cols,
            layer: 3,
            ..T
        };
        check(Quant::Q4KM, cols(Role::Matrix, 896), Some("q5_0"));
        check(Quant::Q4KM, cols(Role::AttnQkv, 896), Some("q5_1"));
        check(
            Quant::Q4KM,
            cols(Role::Output { table: true }, 896),
            Some("q8_0"),
        );
        check(Quant::Q4KM, cols(Role::Matrix, 72), Some("f16"));
        check(Quant::Q8_0, cols(Role::Matrix, 72), Some("f16"));
        check(Quant::Int8, cols(Role::Matrix, 72), Some("int8"));
        let (_, why) = choose(Quant::Q4_0, &cols(Role::Matrix, 72)).unwrap();
        assert_eq!(why.unwrap(), "q4_0: rows of 72 are not whole blocks of 32");
    }
}

//! One metadata value of a GGUF file.
//!
//! In: a type number and the bytes that follow it. Out: [`Value`]; strings and arrays stay where they are in the
//! mapping.
//!
//! Invariants: every string of an array lies inside the file; an array's count is not larger than its bytes allow;
//! arrays of arrays are refused, as by all readers; a boolean is 0 or 1.

use std::fmt;
use std::ops::Range;

use super::cursor::Cursor;
use crate::error::Result;

/// The type of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValueType {
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    F32,
    Bool,
    String,
    Array,
    U64,
    I64,
    F64,
}

impl ValueType {
    const ALL: [(Self, &'static str); 13] = [
        (Self::U8, "u8"),
        (Self::I8, "i8"),
        (Self::U16, "u16"),
        (Self::I16, "i16"),
        (Self::U32, "u32"),
        (Self::I32, "i32"),
        (Self::F32, "f32"),
        (Self::Bool, "bool"),
        (Self::String, "string"),
        (Self::Array, "array"),
        (Self::U64, "u64"),
        (Self::I64, "i64"),
        (Self::F64, "f64"),
    ];

    /// The type of that number.
    fn from_id(id: u32) -> Option<Self> {
        Self::ALL.get(id as usize).map(|(ty, _)| *ty)
    }

    /// Bytes of a scalar.
    pub fn bytes(self) -> Option<u64> {
        match self {
            Self::U8 | Self::I8 | Self::Bool => Some(1),
            Self::U16 | Self::I16 => Some(2),
            Self::U32 | Self::I32 | Self::F32 => Some(4),
            Self::U64 | Self::I64 | Self::F64 => Some(8),
            Self::String | Self::Array => None,
        }
    }
}

impl fmt::Display for ValueType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Self::ALL[*self as usize].1)
    }
}

/// A value, or where it is.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// An integer of any type.
    Integer(i128),
    /// A number of type f32 or f64: the shortest decimal that means the same f32.
    Real(f64),
    /// A boolean.
    Bool(bool),
    /// The place of a string's bytes.
    String(Range<usize>),
    /// An array.
    Array(Array),
}

/// The elements of an array.
#[derive(Clone, Debug, PartialEq)]
pub struct Array {
    /// Their type.
    pub of: ValueType,
    /// How many.
    pub len: usize,
    /// Where they are; strings with their lengths.
    pub place: Range<usize>,
}

/// Reads a value after its key; what is wrong with it is said with `what`.
pub fn read(cursor: &mut Cursor, what: &str) -> Result<Result<Value, String>> {
    let id = cursor.u32(what)?;
    let Some(ty) = ValueType::from_id(id) else {
        return Ok(Err(format!(
            "value type: found {id}, expected 0 to {}",
            ValueType::ALL.len() - 1
        )));
    };
    match ty {
        ValueType::String => Ok(Ok(Value::String(cursor.string(what)?))),
        ValueType::Array => array(cursor, what),
        _ => {
            let bytes = cursor.skip(ty.bytes().unwrap_or(0), what)?;
            Ok(scalar(ty, cursor.slice(&bytes)))
        }
    }
}

fn array(cursor: &mut Cursor, what: &str) -> Result<Result<Value, String>> {
    let id = cursor.u32(what)?;
    let len = cursor.u64(what)?;
    let of = match ValueType::from_id(id) {
        Some(ValueType::Array) => {
            return Ok(Err("an array of arrays, expected scalars or strings".into()));
        }
        Some(of) => of,
        None => {
            return Ok(Err(format!(
                "type of the array's elements: found {id}, expected 0 to {}",
                ValueType::ALL.len() - 1
            )));
        }
    };
    // A string takes its length at least.
    let least = of.bytes().unwrap_or(8);
    let left = cursor.left();
    if len > left / least {
        return Ok(Err(format!(
            "an array of {len} {of}, expected at most {} in the {left} bytes that are left",
            left / least
        )));
    }
    let start = cursor.at();
    match of.bytes() {
        Some(bytes) => {
            cursor.skip(len * bytes, what)?;
        }
        None => {
            for _ in 0..len {
                cursor.string(what)?;
            }
        }
    }
    Ok(Ok(Value::Array(Array {
        of,
        len: len as usize,
        place: start..cursor.at(),
    })))
}

/// A scalar of `ty.bytes()` bytes.
pub fn scalar(ty: ValueType, bytes: &[u8]) -> Result<Value, String> {
    let wide = || {
        let mut wide = [0; 8];
        wide[..bytes.len()].copy_from_slice(bytes);
        u64::from_le_bytes(wide)
    };
    let signed = || {
        let unused = 64 - 8 * bytes.len() as u32;
        ((wide() << unused) as i64) >> unused
    };
    Ok(match ty {
        ValueType::U8 | ValueType::U16 | ValueType::U32 | ValueType::U64 => {
            Value::Integer(wide().into())
        }
        ValueType::I8 | ValueType::I16 | ValueType::I32 | ValueType::I64 => {
            Value::Integer(signed().into())
        }
        ValueType::F32 => Value::Real(shortest(f32::from_bits(wide() as u32))),
        ValueType::F64 => Value::Real(f64::from_bits(wide())),
        ValueType::Bool => match bytes {
            [0] => Value::Bool(false),
            [1] => Value::Bool(true),
            _ => return Err(format!("a bool: found {}, expected 0 or 1", wide())),
        },
        ValueType::String | ValueType::Array => return Err("found no scalar".into()),
    })
}

/// 1e-6 rather than 9.999999974752427e-7: files hold as f32 what configurations spell in decimals.
fn shortest(value: f32) -> f64 {
    value.to_string().parse().unwrap_or(f64::from(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_that_were_meant() {
        assert_eq!(shortest(1e-6), 1e-6);
        assert_eq!(shortest(500_000.0), 500_000.0);
        assert!(shortest(f32::NAN).is_nan());
        assert_eq!(shortest(f32::NEG_INFINITY), f64::NEG_INFINITY);
        assert_eq!(
            scalar(ValueType::I16, &[0xfe, 0xff]),
            Ok(Value::Integer(-2))
        );
        assert_eq!(
            scalar(ValueType::U64, &[0xff; 8]),
            Ok(Value::Integer(u64::MAX.into()))
        );
        assert_eq!(scalar(ValueType::I64, &[0xff; 8]), Ok(Value::Integer(-1)));
        assert!(scalar(ValueType::Bool, &[2]).is_err());
    }
}

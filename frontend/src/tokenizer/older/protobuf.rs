//! Fields of a protocol buffer, one after another.
//!
//! In: bytes. Out: field numbers with their values, in the order of the file.
//!
//! Invariants: nothing outside the bytes is read; a length is compared with what is left before it is used.
//!
//! Not here: which fields a message has.

/// A value on the wire.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    /// Integers, booleans, enumerations.
    Varint(u64),
    Fixed64(u64),
    /// Strings, bytes, messages.
    Bytes(&'a [u8]),
    Fixed32(u32),
}

/// The fields of a message.
pub struct Fields<'a> {
    bytes: &'a [u8],
}

impl<'a> Fields<'a> {
    /// The fields of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    fn varint(&mut self) -> Result<u64, String> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = self.bytes.split_first().ok_or("it ends within a number")?;
            self.bytes = rest;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                break;
            }
            value |= bits << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err("a number of more than 64 bits".into())
    }

    fn take(&mut self, count: u64) -> Result<&'a [u8], String> {
        if count > self.bytes.len() as u64 {
            let left = self.bytes.len();
            return Err(format!("a field of {count} bytes where {left} are left"));
        }
        let (taken, rest) = self.bytes.split_at(count as usize);
        self.bytes = rest;
        Ok(taken)
    }

    fn fixed<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let mut bytes = [0; N];
        bytes.copy_from_slice(self.take(N as u64)?);
        Ok(bytes)
    }

    fn field(&mut self) -> Result<(u64, Value<'a>), String> {
        let key = self.varint()?;
        let value = match key & 7 {
            0 => Value::Varint(self.varint()?),
            1 => Value::Fixed64(u64::from_le_bytes(self.fixed()?)),
            2 => {
                let length = self.varint()?;
                Value::Bytes(self.take(length)?)
            }
            5 => Value::Fixed32(u32::from_le_bytes(self.fixed()?)),
            other => {
                return Err(format!(
                    "a field of the type {other}, expected 0, 1, 2 or 5"
                ));
            }
        };
        match key >> 3 {
            0 => Err("a field with the number 0".into()),
            number => Ok((number, value)),
        }
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, Value<'a>), String>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.bytes.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.bytes = &[];
        }
        Some(field)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(bytes: &[u8], expected: Result<&[(u64, Value<'_>)], &str>) {
        let found: Result<Vec<_>, String> = Fields::new(bytes).collect();
        match expected {
            Ok(fields) => assert_eq!(found.as_deref(), Ok(fields)),
            Err(what) => assert!(found.as_ref().is_err_and(|e| e.contains(what)), "{found:?}"),
        }
    }

    #[test]
    fn fields_are_read_or_refused() {
        check(&[], Ok(&[]));
        check(
            &[
                0x08, 0x96, 0x01, 0x12, 2, b'h', b'i', 0x1d, 0, 0, 0x80, 0x3f,
            ],
            Ok(&[
                (1, Value::Varint(150)),
                (2, Value::Bytes(b"hi")),
                (3, Value::Fixed32(1f32.to_bits())),
            ]),
        );
        check(
            &[0x09, 1, 0, 0, 0, 0, 0, 0, 0],
            Ok(&[(1, Value::Fixed64(1))]),
        );
        check(&[0x08], Err("ends within a number"));
        check(&[0x12, 3, b'h', b'i'], Err("3 bytes where 2 are left"));
        check(
            &[
                0x12, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1,
            ],
            Err("where 0 are left"),
        );
        check(
            &[
                0x08, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 2,
            ],
            Err("64 bits"),
        );
        check(&[0x0b], Err("of the type 3"));
        check(&[0x00, 0x00], Err("number 0"));
        check(&[0x0d, 1, 2], Err("4 bytes where 2 are left"));
    }
}

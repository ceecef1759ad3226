//! SentencePiece's table that normalises texts, checked before anything indexes it.
//!
//! In: its bytes: how many of them are a trie, the trie as a double array of 32-bit units, then texts that end in NUL.
//! Out: what is wrong with it.
//!
//! Invariants: whatever a text holds, its walk through the trie stays inside, and the leaves that it meets point into
//! the texts between two characters.
//!
//! Not here: normalising; the `tokenizers` crate does that.

/// What is wrong with a table, if anything is.
pub fn check(map: &[u8]) -> Result<(), String> {
    let cut = || {
        format!(
            "found {} bytes, expected the length of a trie, the trie, and texts",
            map.len()
        )
    };
    let (length, rest) = map.split_first_chunk::<4>().ok_or_else(cut)?;
    let length = u32::from_le_bytes(*length) as usize / 4 * 4;
    let (trie, texts) = rest.split_at_checked(length).ok_or_else(cut)?;
    let texts = std::str::from_utf8(texts).map_err(|_| "its texts are not valid UTF-8")?;
    let units = trie.chunks_exact(4);
    let units: Vec<Unit> = units
        .map(|b| Unit(u32::from_le_bytes([b[0], b[1], b[2], b[3]])))
        .collect();
    let outside = |at: usize| format!("the trie leads to unit {at} of {}", units.len());
    let first = units.first().ok_or_else(|| outside(0))?;
    let mut seen = vec![false; units.len()];
    // Where the children of a unit are; each is at this place with its byte's bits turned over.
    let mut open = vec![first.offset()];
    while let Some(base) = open.pop() {
        if base | 0xff >= units.len() {
            return Err(outside(base | 0xff));
        }
        for byte in 1..=0xff {
            let at = base ^ byte;
            let unit = units[at];
            if unit.label() != byte as u32 || std::mem::replace(&mut seen[at], true) {
                continue;
            }
            let base = at ^ unit.offset();
            if unit.has_leaf() {
                let text = units.get(base).ok_or_else(|| outside(base))?.value();
                if !texts.is_char_boundary(text) {
                    return Err(format!(
                        "a leaf of the trie points to byte {text} of {} bytes of texts",
                        texts.len()
                    ));
                }
            }
            open.push(base);
        }
    }
    Ok(())
}

/// A unit of a double array: a node, or the value of a leaf.
#[derive(Clone, Copy)]
struct Unit(u32);

impl Unit {
    fn has_leaf(self) -> bool {
        self.0 >> 8 & 1 == 1
    }

    fn value(self) -> usize {
        (self.0 & (u32::MAX >> 1)) as usize
    }

    /// The byte that leads here; no byte for values.
    fn label(self) -> u32 {
        self.0 & (1 << 31 | 0xff)
    }

    fn offset(self) -> usize {
        ((self.0 >> 10) as usize) << ((self.0 & 1 << 9) >> 6)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A trie of one block in which `a` leads to a leaf with this value, before these texts.
    fn table(value: u32, texts: &[u8]) -> Vec<u8> {
        let mut units = [0u32; 256];
        // The root's children are around 0; those of `a`, its leaf among them, around 1.
        units[usize::from(b'a')] = u32::from(b'a') | 1 << 8 | u32::from(b'a' ^ 1) << 10;
        units[1] = 1 << 31 | value;
        let trie = units.iter().flat_map(|unit| unit.to_le_bytes());
        let length = 1024u32.to_le_bytes();
        length
            .into_iter()
            .chain(trie)
            .chain(texts.iter().copied())
            .collect()
    }

    #[track_caller]
    fn refused(map: &[u8], expected: &str) {
        let what = check(map).unwrap_err();
        assert!(what.contains(expected), "{what}");
    }

    #[test]
    fn tables_that_hold_are_taken() {
        assert_eq!(check(&table(0, "ä\0".as_bytes())), Ok(()));
        assert_eq!(check(&table(3, "ä\0".as_bytes())), Ok(()));
    }

    #[test]
    fn tables_that_lead_astray_are_refused() {
        refused(&[], "found 0 bytes");
        refused(&u32::MAX.to_le_bytes(), "found 4 bytes");
        refused(&[0; 4], "unit 0 of 0");
        refused(&table(0, &[0xff]), "UTF-8");
        refused(&table(1, "ä\0".as_bytes()), "byte 1 of 3");
        refused(&table(4, "ä\0".as_bytes()), "byte 4 of 3");
        let mut far = table(0, b"x");
        let at = 4 + 4 * usize::from(b'a');
        far[at + 2] = 0xff;
        refused(&far, "of 256");
        // Nodes that lead to each other.
        let mut ring = table(0, b"x");
        ring[at..at + 4].copy_from_slice(&(u32::from(b'a') | u32::from(b'a') << 10).to_le_bytes());
        assert_eq!(check(&ring), Ok(()));
    }
}

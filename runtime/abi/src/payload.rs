//! The payload behind the ELF: where its regions are, told by a footer at the very end of the file.
//!
//! ```text
//! ELF | zeros to 2 MiB | weights | zeros to 64 | tokenizer | manifest (JSON) | footer (256 bytes)
//! ```
//! Offsets are from the start of the file. All integers little endian.

/// First bytes of the footer.
pub const MAGIC: [u8; 16] = *b"LLMC-PAYLOAD\0\0\0\x01";
/// Bytes of the footer.
pub const FOOTER_BYTES: usize = 256;
/// Alignment of the weights within the file.
pub const WEIGHTS_ALIGN: u64 = 2 << 20;

/// A part of the file and its BLAKE3 digest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Region {
    pub offset: u64,
    pub len: u64,
    pub digest: [u8; 32],
}

/// The decoded footer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Footer {
    /// Length of the whole file, footer included.
    pub file_len: u64,
    pub weights: Region,
    pub tokenizer: Region,
    pub manifest: Region,
}

/// Why a footer is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FooterError {
    /// The magic is not there: no payload, or one that was cut off.
    Missing,
    /// Written for another version of the contract.
    Version(u32),
    /// A region lies outside of the file, or the file has another length.
    Bounds,
    /// The footer's own checksum does not match.
    Checksum,
}

impl Footer {
    /// Encodes the footer; `digest_of` computes BLAKE3.
    pub fn encode(&self, digest_of: impl Fn(&[u8]) -> [u8; 32]) -> [u8; FOOTER_BYTES] {
        let mut out = [0u8; FOOTER_BYTES];
        out[..16].copy_from_slice(&MAGIC);
        out[16..20].copy_from_slice(&crate::ABI_VERSION.to_le_bytes());
        out[24..32].copy_from_slice(&self.file_len.to_le_bytes());
        for (i, r) in [self.weights, self.tokenizer, self.manifest]
            .iter()
            .enumerate()
        {
            let at = 32 + i * 48;
            out[at..at + 8].copy_from_slice(&r.offset.to_le_bytes());
            out[at + 8..at + 16].copy_from_slice(&r.len.to_le_bytes());
            out[at + 16..at + 48].copy_from_slice(&r.digest);
        }
        let digest = digest_of(&out[..224]);
        out[224..].copy_from_slice(&digest);
        out
    }

    /// Decodes and checks the last [`FOOTER_BYTES`] of a file of `file_len` bytes.
    pub fn decode(
        bytes: &[u8; FOOTER_BYTES],
        file_len: u64,
        digest_of: impl Fn(&[u8]) -> [u8; 32],
    ) -> Result<Footer, FooterError> {
        if bytes[..16] != MAGIC {
            return Err(FooterError::Missing);
        }
        if bytes[224..] != digest_of(&bytes[..224]) {
            return Err(FooterError::Checksum);
        }
        let u64_at = |at: usize| {
            let mut b = [0u8; 8];
            b.copy_from_slice(&bytes[at..at + 8]);
            u64::from_le_bytes(b)
        };
        let version = u64_at(16) as u32;
        if version != crate::ABI_VERSION {
            return Err(FooterError::Version(version));
        }
        let region = |i: usize| {
            let at = 32 + i * 48;
            let mut digest = [0u8; 32];
            digest.copy_from_slice(&bytes[at + 16..at + 48]);
            Region {
                offset: u64_at(at),
                len: u64_at(at + 8),
                digest,
            }
        };
        let footer = Footer {
            file_len: u64_at(24),
            weights: region(0),
            tokenizer: region(1),
            manifest: region(2),
        };
        let inside = |r: &Region| {
            r.offset
                .checked_add(r.len)
                .is_some_and(|end| end <= file_len.saturating_sub(FOOTER_BYTES as u64))
        };
        let regions = [&footer.weights, &footer.tokenizer, &footer.manifest];
        if footer.file_len != file_len || !regions.into_iter().all(inside) {
            return Err(FooterError::Bounds);
        }
        Ok(footer)
    }
}

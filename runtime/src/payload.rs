//! The payload behind the executable: found through the footer, checked, mapped read-only.
//!
//! Input: a path (`/proc/self/exe`). Output: the manifest, and mappings of the tokenizer and the
//! weights. Checked at start: footer, length, and the digests of tokenizer and manifest; the
//! weights' digest only by [`Payload::verify_weights`], since it reads all of them.
//! Not here: the byte layout (`llmc_abi::payload`), and writing it (the compiler does).

use crate::{Error, Result};
use llmc_abi::payload::{FOOTER_BYTES, Footer, FooterError, Region};
use llmc_abi::{ABI_VERSION, Manifest};
use memmap2::{Advice, Mmap, MmapOptions};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// A checked payload.
#[derive(Debug)]
pub struct Payload {
    pub manifest: Manifest,
    tokenizer: Mapped,
    weights: Mapped,
    digest: [u8; 32],
}

/// A region of the file in memory; nothing where it is empty.
#[derive(Debug)]
struct Mapped(Option<Mmap>);

impl Mapped {
    fn new(file: &File, region: &Region) -> std::io::Result<Mapped> {
        let Ok(len @ 1..) = usize::try_from(region.len) else {
            return Ok(Mapped(None));
        };
        // SAFETY: the mapping is read-only; a running executable cannot be written to.
        let map = unsafe {
            MmapOptions::new()
                .offset(region.offset)
                .len(len)
                .map(file)?
        };
        Ok(Mapped(Some(map)))
    }

    fn bytes(&self) -> &[u8] {
        self.0.as_deref().unwrap_or_default()
    }
}

/// Digest of a region; the footer's `digest_of`.
pub fn digest_of(bytes: &[u8]) -> [u8; 32] {
    *blake3::hash(bytes).as_bytes()
}

impl Payload {
    /// Opens the payload of an executable file.
    pub fn open(path: &Path) -> Result<Payload> {
        let damaged = |why: &str| Error::Payload(format!("this executable is damaged: {why}"));
        let read = |e| Error::io("cannot read this executable", e);
        let file = File::open(path).map_err(read)?;
        let file_len = file.metadata().map_err(read)?.len();
        let missing = "its model data is missing (cut off, or removed by `strip`); copy it again or compile it anew";
        if file_len < FOOTER_BYTES as u64 {
            return Err(damaged(missing));
        }
        let mut tail = [0u8; FOOTER_BYTES];
        file.read_exact_at(&mut tail, file_len - FOOTER_BYTES as u64)
            .map_err(read)?;
        let footer = Footer::decode(&tail, file_len, digest_of).map_err(|e| match e {
            FooterError::Missing => damaged(missing),
            FooterError::Checksum => damaged("the footer does not match its checksum"),
            FooterError::Bounds => damaged("its length is not what the footer says"),
            FooterError::Version(v) => Error::Payload(format!(
                "the model data is of version {v}, this code reads version {ABI_VERSION}"
            )),
        })?;
        let altered = |name: &str| damaged(&format!("the {name} does not match its digest"));
        let len = usize::try_from(footer.manifest.len);
        let mut manifest = vec![0u8; len.map_err(|_| damaged("a region is too large"))?];
        file.read_exact_at(&mut manifest, footer.manifest.offset)
            .map_err(read)?;
        if digest_of(&manifest) != footer.manifest.digest {
            return Err(altered("manifest"));
        }
        if digest_of_region(&file, &footer.tokenizer).map_err(read)? != footer.tokenizer.digest {
            return Err(altered("tokenizer"));
        }
        let manifest: Manifest = serde_json::from_slice(&manifest)
            .map_err(|e| damaged(&format!("the manifest cannot be read: {e}")))?;
        if manifest.abi != ABI_VERSION {
            return Err(Error::Payload(format!(
                "the manifest is of version {}, this code reads version {ABI_VERSION}",
                manifest.abi
            )));
        }
        Ok(Payload {
            manifest,
            tokenizer: Mapped::new(&file, &footer.tokenizer).map_err(read)?,
            weights: Mapped::new(&file, &footer.weights).map_err(read)?,
            digest: footer.weights.digest,
        })
    }

    /// The packed weights.
    pub fn weights(&self) -> &[u8] {
        self.weights.bytes()
    }

    /// The compiled tokenizer; empty where the model has none.
    pub fn tokenizer(&self) -> &[u8] {
        self.tokenizer.bytes()
    }

    /// Asks the kernel to start reading the weights: a step will need all of them.
    pub fn warm(&self) {
        if let Some(map) = &self.weights.0 {
            let _ = map.advise(Advice::WillNeed);
        }
    }

    /// Reads all weights and compares them with their digest.
    pub fn verify_weights(&self) -> Result<()> {
        let mut hasher = blake3::Hasher::new();
        for chunk in self.weights().chunks(4 << 20) {
            hasher.update(chunk);
        }
        if hasher.finalize().as_bytes() == &self.digest {
            Ok(())
        } else {
            Err(Error::Payload(
                "this executable is damaged: the weights do not match their digest".into(),
            ))
        }
    }
}

/// Digest of a region, read through a small buffer: its pages are mapped when they are used.
fn digest_of_region(file: &File, region: &Region) -> std::io::Result<[u8; 32]> {
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0u8; (256 << 10).min(region.len as usize)];
    let mut done = 0;
    while done < region.len {
        let some = (buffer.len() as u64).min(region.len - done) as usize;
        file.read_exact_at(&mut buffer[..some], region.offset + done)?;
        hasher.update(&buffer[..some]);
        done += some as u64;
    }
    Ok(*hasher.finalize().as_bytes())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Writes `elf | weights | tokenizer | manifest | footer`, as the compiler does.
    pub(crate) fn write(path: &Path, manifest: &Manifest, tokenizer: &[u8], weights: &[u8]) {
        let mut file = b"\x7fELF not really".to_vec();
        let mut append = |bytes: &[u8], align: usize| {
            file.resize(file.len().next_multiple_of(align), 0);
            let region = Region {
                offset: file.len() as u64,
                len: bytes.len() as u64,
                digest: digest_of(bytes),
            };
            file.extend_from_slice(bytes);
            region
        };
        let mut footer = Footer {
            weights: append(weights, llmc_abi::payload::WEIGHTS_ALIGN as usize),
            tokenizer: append(tokenizer, 64),
            manifest: append(&serde_json::to_vec(manifest).unwrap(), 1),
            file_len: 0,
        };
        footer.file_len = (file.len() + FOOTER_BYTES) as u64;
        file.extend_from_slice(&footer.encode(digest_of));
        std::fs::write(path, file).unwrap();
    }

    fn manifest() -> Manifest {
        Manifest {
            abi: ABI_VERSION,
            name: "tiny".into(),
            ..Manifest::default()
        }
    }

    #[test]
    fn what_was_written_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("m");
        write(&path, &manifest(), b"{}", &[7; 1000]);
        let p = Payload::open(&path).unwrap();
        assert_eq!(
            (p.manifest.name.as_str(), p.tokenizer()),
            ("tiny", &b"{}"[..])
        );
        assert_eq!(p.weights(), [7; 1000]);
        p.verify_weights().unwrap();
        write(&path, &manifest(), b"", &[]);
        assert!(Payload::open(&path).unwrap().weights().is_empty());
    }

    #[test]
    fn every_alteration_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("m");
        write(&path, &manifest(), b"{\"a\": 1}", &[7; 1000]);
        let good = std::fs::read(&path).unwrap();
        let check = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            Payload::open(&path).and_then(|p| p.verify_weights())
        };
        let start = llmc_abi::payload::WEIGHTS_ALIGN as usize;
        for at in (start..start + 1000)
            .step_by(97)
            .chain(good.len() - 700..good.len())
        {
            let padding = start + 1000..(start + 1000usize).next_multiple_of(64);
            let mut bad = good.clone();
            bad[at] ^= 0x10;
            if !padding.contains(&at) {
                let e = check(&bad).expect_err("altered byte");
                assert_eq!(e.exit_code(), 1, "{e}");
            }
        }
        for len in [0, 10, 255, 256, start, good.len() - 1, good.len() - 300] {
            assert!(check(&good[..len]).is_err(), "cut to {len}");
        }
        let mut longer = good.clone();
        longer.push(0);
        assert!(check(&longer).is_err());
    }

    #[test]
    fn footers_that_point_outside_are_refused() {
        let mut footer = Footer {
            file_len: 1000,
            ..Footer::default()
        };
        footer.weights = Region {
            offset: 900,
            len: u64::MAX,
            digest: [0; 32],
        };
        let bytes = footer.encode(digest_of);
        assert_eq!(
            Footer::decode(&bytes, 1000, digest_of),
            Err(FooterError::Bounds)
        );
    }
}

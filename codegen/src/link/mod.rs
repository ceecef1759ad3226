//! From an object file to an executable: links it with the runtime, then appends the payload.
//!
//! The ELF is linked first, while it is small; the packed weights are streamed behind it, straight
//! into the output. The output is written to a temporary file beside it and renamed; an existing
//! output that is no regular file (a device, a pipe) is written directly.
//!
//! Not here: what the payload's parts mean (`llmc_abi::payload`).

mod elf;
mod output;

use std::{
    io::{self, Write},
    path::Path,
};

use llmc_abi::{
    Manifest,
    payload::{FOOTER_BYTES, Footer, Region, WEIGHTS_ALIGN},
};
use llmc_ir::{Module, TensorSource};

use crate::pack::{self, PackError, WeightPlan};

pub use elf::link_elf;
pub use output::Output;

/// Why no executable came out.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The linker could not be started.
    #[error("cannot run the linker `{linker}`: {source}")]
    NoLinker { linker: String, source: io::Error },
    /// The linker failed; its words.
    #[error("the linker failed: {0}")]
    Linker(String),
    #[error(transparent)]
    Pack(#[from] PackError),
    /// The output could not be written.
    #[error("cannot write `{path}`: {source}")]
    Write { path: String, source: io::Error },
}

/// Everything that goes behind the ELF.
pub struct Payload<'a> {
    pub module: &'a Module,
    pub plan: &'a WeightPlan,
    pub source: &'a dyn TensorSource,
    pub tokenizer: &'a [u8],
    pub manifest: &'a Manifest,
}

/// Writes the executable `elf` + payload to `path`. `progress` is told the weight bytes written.
pub fn write_executable(
    path: &Path,
    elf: &[u8],
    payload: &Payload<'_>,
    progress: &mut dyn FnMut(u64),
) -> Result<(), LinkError> {
    let fail = |source| LinkError::Write {
        path: path.display().to_string(),
        source,
    };
    let mut output = Output::create(path).map_err(fail)?;
    let mut out = Hashed {
        to: output.writer(),
        at: 0,
        hasher: blake3::Hasher::new(),
    };
    out.write_all(elf).map_err(fail)?;
    out.pad(WEIGHTS_ALIGN).map_err(fail)?;

    let weights = out.region(|o| {
        pack::write(payload.module, payload.plan, payload.source, o, progress).map_err(
            |e| match e {
                PackError::Write(source) => fail(source),
                e => LinkError::Pack(e),
            },
        )
    })?;
    out.pad(64).map_err(fail)?;
    let tokenizer = out.region(|o| o.write_all(payload.tokenizer).map_err(fail))?;
    let json = serde_json::to_vec(payload.manifest).map_err(|e| fail(e.into()))?;
    let manifest = out.region(|o| o.write_all(&json).map_err(fail))?;
    let file_len = out.at + FOOTER_BYTES as u64;
    let footer = Footer {
        file_len,
        weights,
        tokenizer,
        manifest,
    };
    out.write_all(&footer.encode(|b| *blake3::hash(b).as_bytes()))
        .map_err(fail)?;
    output.finish(true).map_err(fail)
}

/// A writer that knows its position and hashes the region being written.
struct Hashed<W> {
    to: W,
    at: u64,
    hasher: blake3::Hasher,
}

impl<W: Write> Hashed<W> {
    fn pad(&mut self, align: u64) -> io::Result<()> {
        let mut left = self.at.next_multiple_of(align) - self.at;
        while left > 0 {
            let some = left.min(4096);
            self.write_all(&[0u8; 4096][..some as usize])?;
            left -= some;
        }
        Ok(())
    }

    fn region<E>(&mut self, write: impl FnOnce(&mut Self) -> Result<(), E>) -> Result<Region, E> {
        let offset = self.at;
        self.hasher.reset();
        write(self)?;
        let digest = *self.hasher.finalize().as_bytes();
        Ok(Region {
            offset,
            len: self.at - offset,
            digest,
        })
    }
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let n = self.to.write(buf)?;
        self.hasher.update(&buf[..n]);
        self.at += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

//! Sources of encoder-decoders: what a text is about is read before the text begins.
//!
//! Input: the ids of a source, and the rows of pictures in it. Output: its keys and values, in the cache of a sequence whose text is still
//! empty. Not here: texts (`decode_loop`, `beam_text`).

use crate::Result;
use crate::engine::{Engine, Rows, Work};
use crate::kv_cache::SeqId;
use crate::session::as_i32;
use crate::told::Given;
use llmc_abi::Entry;

/// Reads a source for a sequence, in place of the one that it had.
pub fn read_source(
    engine: &mut Engine<'_>,
    seq: SeqId,
    ids: &[u32],
    given: Given<'_>,
) -> Result<()> {
    let ids = as_i32(ids);
    let work = Work {
        seq: Some(seq),
        ids: &ids,
        types: given.types,
        rows: Rows::None,
    };
    engine.run_of(Entry::Encode, &[work], &[&[given.rows]], &mut |_| Ok(()))
}

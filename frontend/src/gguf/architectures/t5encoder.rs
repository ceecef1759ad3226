//! `t5encoder`: T5's encoder alone, as sentence-T5 has it.

use super::{Architecture, Fields, t5};
use crate::error::Result;
use crate::gguf::sentence;
use crate::json::Json;

pub const ARCHITECTURE: Architecture = Architecture {
    name: "t5encoder",
    tensors: t5::TENSORS,
    layer_tensors: &[],
    layers: "",
    paired: &[],
    norms_include_offset: false,
    configure,
};

fn configure(fields: &mut Fields) -> Result<()> {
    t5::encoder(fields)?;
    fields.key(sentence::POOLING);
    fields.set("architectures", Json::Array(vec!["T5EncoderModel".into()]));
    Ok(())
}

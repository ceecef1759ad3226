//! BLIP-2: a language model that is told a picture by a few queries about it.
//!
//! Li et al., *BLIP-2: Bootstrapping Language-Image Pre-training with Frozen Image Encoders and Large Language Models*
//! (arXiv:2301.12597):
//!
//! ```text
//! picture:  h = norm(ViT(patches)), of all tokens; queries, key and value of a layer are one matrix
//! queries:  q = Q-Former(queries, h): BERT's layers; every cross_attention_frequency-th looks at h
//! text:     OPT continues [linear(q); tokens], T5's encoder reads it
//! ```
//!
//! The language model is that of the family that `text_config` names, with its tensors behind `language_model.`. In
//! ids the picture's rows are `num_query_tokens` tokens `image_token_index`. Sections leave out what the classes of
//! transformers have as defaults.

use llmc_ir::Mask;

use super::{Family, Request, Task, opt, t5};
use crate::blocks::mlp::activation;
use crate::blocks::{
    Attention, Blueprint, Grid, Leading, Mlp, Norm, Pictured, Projection, Qformer, Vision, VisionHead, VisionLayer,
};
use crate::config::Config;
use crate::error::Result;
use crate::limits;

pub const FAMILY: Family = Family {
    name: "blip-2",
    architectures: &[("Blip2ForConditionalGeneration", Task::CausalLm)],
    prefix: "",
    build,
};

/// What sections are where they say nothing.
const VISION: [(&str, u32); 6] = [
    ("hidden_size", 1408),
    ("intermediate_size", 6144),
    ("num_hidden_layers", 39),
    ("num_attention_heads", 16),
    ("image_size", 224),
    ("patch_size", 14),
];
const QFORMER: [(&str, u32); 5] = [
    ("hidden_size", 768),
    ("num_hidden_layers", 12),
    ("num_attention_heads", 12),
    ("intermediate_size", 3072),
    ("cross_attention_frequency", 2),
];
const OPT: [(&str, u32); 9] = [
    ("vocab_size", 50272),
    ("hidden_size", 768),
    ("num_hidden_layers", 12),
    ("ffn_dim", 3072),
    ("num_attention_heads", 12),
    ("max_position_embeddings", 2048),
    ("bos_token_id", 2),
    ("eos_token_id", 2),
    ("pad_token_id", 1),
];
const T5: [(&str, u32); 8] = [
    ("vocab_size", 32128),
    ("d_model", 512),
    ("d_kv", 64),
    ("d_ff", 2048),
    ("num_layers", 6),
    ("num_heads", 8),
    ("eos_token_id", 1),
    ("pad_token_id", 0),
];

/// What the language model is configured by, and its family.
fn language(c: &Config) -> Result<(Config, &'static Family)> {
    let text = c.section_or("text_config", &[])?;
    match text.optional_text("model_type")?.unwrap_or("opt") {
        "opt" => Ok((c.section_or("text_config", &OPT)?, &opt::FAMILY)),
        "t5" => Ok((c.section_or("text_config", &T5)?, &t5::FAMILY)),
        _ => Err(text.refuse("model_type", "\"opt\" or \"t5\"")),
    }
}

/// The configuration of the language model.
pub fn text_config(c: &Config) -> Result<Config> {
    Ok(language(c)?.0)
}

fn build(request: &Request) -> Result<Blueprint> {
    let c = request.config;
    let (text, family) = language(c)?;
    let width = text.width()?;
    let narrow = text.optional_count("word_embed_proj_dim", 1..=limits::WIDTH)?;
    if narrow.is_some_and(|narrow| narrow != width) {
        return Err(text.refuse("word_embed_proj_dim", format_args!("hidden_size ({width})")));
    }
    let language = (family.build)(&Request { config: &text, task: Task::CausalLm, sentence: None })?;
    let vocabulary = text.vocab_size()?;
    let field = if c.has("image_token_id") { "image_token_id" } else { "image_token_index" };
    if !c.has(field) {
        return Err(c
            .problem(field, "missing, expected the id of the token that stands for a row of a picture")
            .help("older configurations lack it: it is the id of `<image>` in the tokenizer")
            .input());
    }
    let token = c.count(field, 0..=vocabulary - 1)?;
    let count = c.count_or("num_query_tokens", 1..=limits::POSITIONS, 32)?;
    if count >= language.context() {
        let what = format!("found {count}, expected fewer than the text's positions ({})", language.context());
        return Err(c.problem("num_query_tokens", what).input());
    }
    let vision = vision(&c.section_or("vision_config", &VISION)?)?;
    let asked = c.section_or("qformer_config", &QFORMER)?;
    Ok(Blueprint::Pictured(Box::new(Pictured {
        qformer: qformer(&asked, vision.hidden, count, width)?,
        vision,
        language,
        prefix: "language_model.",
        token,
    })))
}

fn vision(c: &Config) -> Result<Vision> {
    let (hidden, heads) = (c.hidden_size()?, c.heads()?);
    let norm = Norm::layer(c.epsilon("layer_norm_eps", 1e-6)?);
    let part = |tensor| Projection::plain(tensor).with_bias(true);
    let bias = c.flag_or("qkv_bias", true)?;
    let qkv = Projection::plain("vision_model.encoder.layers.{layer}.self_attn.qkv").with_bias(bias);
    let [q, k, v] = qkv.split([hidden; 3]);
    let o = part("vision_model.encoder.layers.{layer}.self_attn.projection");
    Ok(Vision {
        hidden,
        grid: Grid::read(c)?,
        patches: ("vision_model.embeddings.patch_embedding", true),
        class: ("vision_model.embeddings.class_embedding", Leading(2)),
        positions: ("vision_model.embeddings.position_embedding", Leading(1)),
        pre_norm: None,
        layer: VisionLayer {
            attention: Attention::plain(hidden, heads, [q, k, v, o], Mask::Bidirectional),
            mlp: Mlp {
                hidden,
                inner: c.intermediate_size()?,
                act: activation(c, "hidden_act", "gelu")?,
                gate: None,
                up: part("vision_model.encoder.layers.{layer}.mlp.fc1"),
                down: part("vision_model.encoder.layers.{layer}.mlp.fc2"),
            },
            norm,
            attention_norm: "vision_model.encoder.layers.{layer}.layer_norm1",
            mlp_norm: "vision_model.encoder.layers.{layer}.layer_norm2",
        },
        layers: vec![0; c.layers()? as usize],
        norm: Some((norm, "vision_model.post_layernorm")),
        head: VisionHead::NormAgain,
    })
}

fn qformer(c: &Config, source: u32, count: u32, width: u32) -> Result<Qformer> {
    if c.flag_or("use_qformer_text_input", false)? {
        return Err(c.refuse("use_qformer_text_input", "false"));
    }
    if c.optional_text("position_embedding_type")?.is_some_and(|kind| kind != "absolute") {
        return Err(c.refuse("position_embedding_type", "\"absolute\""));
    }
    let (hidden, heads) = (c.hidden_size()?, c.heads()?);
    let part = |tensor| Projection::plain(tensor).with_bias(true);
    let attention =
        |names: [&'static str; 4]| Attention::plain(hidden, heads, names.map(part), Mask::Bidirectional);
    let layers = c.layers()?;
    let every = c.count("cross_attention_frequency", 1..=limits::LAYERS)?;
    Ok(Qformer {
        hidden,
        count,
        queries: ("query_tokens", Leading(1)),
        norm: (Norm::layer(c.epsilon("layer_norm_eps", 1e-12)?), "qformer.layernorm"),
        attention: attention([
            "qformer.encoder.layer.{layer}.attention.attention.query",
            "qformer.encoder.layer.{layer}.attention.attention.key",
            "qformer.encoder.layer.{layer}.attention.attention.value",
            "qformer.encoder.layer.{layer}.attention.output.dense",
        ]),
        attention_norm: "qformer.encoder.layer.{layer}.attention.output.LayerNorm",
        cross: attention([
            "qformer.encoder.layer.{layer}.crossattention.attention.query",
            "qformer.encoder.layer.{layer}.crossattention.attention.key",
            "qformer.encoder.layer.{layer}.crossattention.attention.value",
            "qformer.encoder.layer.{layer}.crossattention.output.dense",
        ]),
        cross_norm: "qformer.encoder.layer.{layer}.crossattention.output.LayerNorm",
        source,
        every,
        mlp: Mlp {
            hidden,
            inner: c.intermediate_size()?,
            act: activation(c, "hidden_act", "gelu")?,
            gate: None,
            up: part("qformer.encoder.layer.{layer}.intermediate_query.dense"),
            down: part("qformer.encoder.layer.{layer}.output_query.dense"),
        },
        mlp_norm: "qformer.encoder.layer.{layer}.output_query.LayerNorm",
        layers: Qformer::structures(layers, every),
        projection: ("language_projection", width),
    })
}

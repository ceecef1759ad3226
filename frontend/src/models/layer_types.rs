//! `layer_types`: which layers see everything and which a window.
//!
//! In: the field of transformers 5, a list with one word per layer. Out: whether each layer slides.
//!
//! Not here: the older fields that say the same by a rule; they are their families' business.

use crate::config::Config;
use crate::error::Result;
use crate::limits;

/// Whether each of `layers` layers slides, if the field is there.
pub fn sliding(c: &Config, layers: u32) -> Result<Option<Vec<bool>>> {
    const FIELD: &str = "layer_types";
    let Some(types) = c.optional_texts(FIELD)? else {
        return Ok(None);
    };
    if types.len() != layers as usize {
        let what = format!(
            "found {} layers, expected num_hidden_layers ({layers})",
            types.len()
        );
        return Err(c.problem(FIELD, what).input());
    }
    let slides = types
        .iter()
        .enumerate()
        .map(|(i, layer_type)| match *layer_type {
            "full_attention" => Ok(false),
            "sliding_attention" => Ok(true),
            other => {
                let what = format!(
                    "found \"{}\", supported are \"full_attention\" and \"sliding_attention\"",
                    crate::error::Excerpt(other)
                );
                Err(c.problem(&format!("{FIELD}[{i}]"), what).unsupported())
            }
        });
    slides.collect::<Result<_>>().map(Some)
}

/// `sliding_window` of a model that has sliding layers: the family's default if the field is absent, an error if
/// it is `null`.
pub fn window(c: &Config, default: u32) -> Result<u32> {
    const FIELD: &str = "sliding_window";
    match c.members().contains_key(FIELD) {
        true => c.count(FIELD, 1..=limits::POSITIONS),
        false => Ok(default),
    }
}

//! Whether a model's chat template can be rendered, before the executable counts on it.
//!
//! In: a tokenizer with its templates. Out: nothing, or one error that says what the template lacks.
//!
//! Not here: what a template says (the runtime renders it), and chats that a template refuses by itself.

use std::collections::BTreeMap;

use llmc_frontend::tokenizer::Tokenizer;
use llmc_runtime::chat_template::{ChatTemplate, Message};

use crate::error::Result;

/// The strings that templates name: `bos_token` and alike.
pub fn special_strings(tokenizer: &Tokenizer) -> BTreeMap<String, String> {
    let special = tokenizer.special.iter();
    special
        .map(|s| (format!("{}_token", s.role), s.text.clone()))
        .collect()
}

/// Renders a message of a user, alone or behind a system's. A template that can do neither is refused: nobody could
/// talk through it.
pub fn check(tokenizer: &Tokenizer) -> Result<()> {
    let Some(template) = tokenizer.templates.first() else {
        return Ok(());
    };
    let user = || Message::new("user", "Hello");
    let alone = vec![user()];
    let behind = vec![Message::new("system", "Be brief."), user()];
    let compiled = ChatTemplate::new(&template.source, &special_strings(tokenizer));
    let rendered = compiled.and_then(|compiled| {
        let first = compiled.render(&alone, None, true);
        first.or_else(|error| compiled.render(&behind, None, true).map_err(|_| error))
    });
    rendered.map(|_| ()).map_err(|error| {
        let folder = tokenizer.file.parent().unwrap_or(&tokenizer.file);
        let text = format!(
            "{}: `{}`: {error}\n  help: mend chat_template.jinja (or `chat_template` in tokenizer_config.json), or remove it",
            folder.display(),
            template.name,
        );
        llmc_runtime::Error::Unsupported(text).into()
    })
}

//! `infer` of encoder-decoders: a source is read, then a text is looked at or written.
//!
//! In: a batch of sources, and perhaps one of texts of as many rows. Out: what `encode` gives under the
//! names `encoder_…`, what `decode` gives under its own, `decoder_hidden_states.i`, and generated ids, which
//! begin with the start token. The decoder's `last_hidden_state` is left out, as by every model with a head.

use super::{
    EvalError, Evaluator,
    batch::Batch,
    infer::{InferOptions, InferOutput, Run},
};
use crate::Entry;

/// Runs sources and texts. The evaluator forgets the rows' sequences before and after; generation begins
/// with `start` whatever the texts.
pub fn infer(
    evaluator: &mut Evaluator<'_>,
    source: &Batch,
    text: Option<&Batch>,
    start: i32,
    options: &InferOptions,
) -> Result<InferOutput, EvalError> {
    let forget = |e: &mut Evaluator<'_>| (0..source.rows as u32).for_each(|r| e.forget(r));
    forget(evaluator);
    let done = run(evaluator, source, text, start, options);
    forget(evaluator);
    done
}

fn run(
    evaluator: &mut Evaluator<'_>,
    source: &Batch,
    text: Option<&Batch>,
    start: i32,
    options: &InferOptions,
) -> Result<InferOutput, EvalError> {
    let rows = source.rows_with_pictures()?;
    if let Some(row) = rows.iter().position(|row| row.ids.is_empty()) {
        let message = format!("row {row} of the source is empty");
        return Err(EvalError::Input(message));
    }
    let mut output = InferOutput::default();
    let mut encode = Run::new(evaluator, Entry::Encode, source, options)?;
    encode.forward(evaluator, &rows)?;
    let encoded = encode.output.tensors.into_iter();
    output
        .tensors
        .extend(encoded.map(|(name, t)| (format!("encoder_{name}"), t)));
    if let Some(text) = text {
        if text.rows != source.rows {
            let message = format!("{} sources, {} texts", source.rows, text.rows);
            return Err(EvalError::Input(message));
        }
        let mut decode = Run::new(evaluator, Entry::Decode, text, options)?;
        decode.forward(evaluator, &text.unpad()?)?;
        for (name, t) in decode.output.tensors {
            match name.strip_prefix("hidden_states.") {
                Some(i) => output
                    .tensors
                    .insert(format!("decoder_hidden_states.{i}"), t),
                None if name == "last_hidden_state" => None,
                None => output.tensors.insert(name, t),
            };
        }
    }
    if let Some(n) = options.generate {
        let starts = Batch {
            rows: source.rows,
            len: 1,
            ids: vec![start; source.rows],
            ..Batch::default()
        };
        let plain = InferOptions {
            hidden_states: false,
            ..options.clone()
        };
        let mut decode = Run::new(evaluator, Entry::Decode, &starts, &plain)?;
        let mut rows = starts.unpad()?;
        decode.forward(evaluator, &rows)?;
        decode.generate(evaluator, &mut rows, n)?;
        let mut generated = decode.output.generated.unwrap_or_default();
        generated.iter_mut().for_each(|row| row.insert(0, start));
        output.generated = Some(generated);
    }
    Ok(output)
}

//! `llmc run` of models that read pictures.
//!
//! In: the tensors that their executables' `infer` takes: pixel values, and texts. Out: what those write: results of
//! pictures and of texts, products of their embeddings, texts about pictures.
//!
//! Deliberately not here: pictures' files, which only executables read.

use llmc_abi::{Manifest, PictureTokens, Pictures, Similarity};
use llmc_ir::eval::{
    EvalError, Evaluator, Tensor,
    batch::Batch,
    encoder_decoder,
    infer::{InferOptions, InferOutput, infer},
    pictures::see,
};
use llmc_runtime::infer_input::{self, Inputs};

use super::run::{Subject, batch};

/// Why nothing comes out.
pub enum Failure {
    /// Tensors that the model does not take.
    Input(String),
    /// What the evaluator says.
    Evaluate(EvalError),
}

impl From<EvalError> for Failure {
    fn from(error: EvalError) -> Failure {
        Failure::Evaluate(error)
    }
}

impl From<llmc_runtime::Error> for Failure {
    fn from(error: llmc_runtime::Error) -> Failure {
        Failure::Input(error.to_string())
    }
}

/// Runs the tensors of a file.
pub fn run(
    evaluator: &mut Evaluator<'_>,
    (subject, pictures): (&Subject, &Pictures),
    manifest: &Manifest,
    bytes: &[u8],
    options: &InferOptions,
) -> Result<InferOutput, Failure> {
    match pictures.told {
        Some(tokens) => told(
            evaluator,
            (subject, pictures, tokens),
            manifest,
            bytes,
            options,
        ),
        None => apart(evaluator, pictures, manifest, bytes, options),
    }
}

/// Pixel values, `[pictures, 3, edge, edge]`.
fn pixels(values: Vec<f32>, pictures: &Pictures) -> Tensor {
    let edge = pictures.image_size as usize;
    Tensor {
        dims: vec![values.len() / (3 * edge * edge), 3, edge, edge],
        data: values,
    }
}

/// Pictures in texts.
fn told(
    evaluator: &mut Evaluator<'_>,
    (subject, pictures, tokens): (&Subject, &Pictures, PictureTokens),
    manifest: &Manifest,
    bytes: &[u8],
    options: &InferOptions,
) -> Result<InferOutput, Failure> {
    let given = infer_input::read_told(bytes, manifest, pictures.image_size as usize)?;
    if given.pixels.is_empty() {
        return Err(Failure::Input(
            "the tensor `pixel_values` is missing".into(),
        ));
    }
    let seen = see(evaluator, &pixels(given.pixels, pictures), false)?;
    let features = seen.tensors.get("image_features");
    let features = features.cloned().unwrap_or_else(|| Tensor::zeros(&[0, 0]));
    let mut prompts = match &given.prompts {
        Some(prompts) => batch(prompts),
        None => {
            let Some(bos) = subject.bos else {
                let what = "this model has no token that begins texts: give `input_ids`";
                return Err(Failure::Input(what.into()));
            };
            let mut row = vec![tokens.id as i32; tokens.count as usize];
            row.push(bos as i32);
            let (rows, len) = (features.dims[0], row.len());
            Batch {
                rows,
                len,
                ids: row.repeat(rows),
                ..Batch::default()
            }
        }
    };
    prompts.pictures = Some((tokens.id, features));
    let text = given.text.as_ref().map(batch);
    let start = subject.start as i32;
    let mut output = match manifest.kind {
        llmc_abi::Kind::EncoderDecoder => {
            encoder_decoder::infer(evaluator, &prompts, text.as_ref(), start, options)?
        }
        llmc_abi::Kind::Decoder | llmc_abi::Kind::Encoder => infer(evaluator, &prompts, options)?,
    };
    output.tensors.extend(seen.tensors);
    Ok(output)
}

/// Pictures, and perhaps texts beside them.
fn apart(
    evaluator: &mut Evaluator<'_>,
    pictures: &Pictures,
    manifest: &Manifest,
    bytes: &[u8],
    options: &InferOptions,
) -> Result<InferOutput, Failure> {
    if options.generate.is_some() {
        return Err(Failure::Input(
            "--generate: the model does not generate".into(),
        ));
    }
    let edge = pictures.image_size as usize;
    let given = infer_input::read_pictured(bytes, manifest, edge, pictures.similarity.is_some())?;
    let mut output = InferOutput::default();
    if !given.pixels.is_empty() {
        output = see(
            evaluator,
            &pixels(given.pixels, pictures),
            options.hidden_states,
        )?;
    }
    if let (Some(mut text), Some(similarity)) = (given.text, pictures.similarity) {
        cut(&mut text, similarity)?;
        let plain = InferOptions {
            hidden_states: false,
            ..options.clone()
        };
        output
            .tensors
            .extend(infer(evaluator, &batch(&text), &plain)?.tensors);
        products(&mut output, similarity.scale);
    }
    if output.tensors.is_empty() {
        return Err(Failure::Input(
            "the tensor `pixel_values` is missing".into(),
        ));
    }
    Ok(output)
}

/// Ends texts at the tokens where they are pooled.
fn cut(text: &mut Inputs, similarity: Similarity) -> Result<(), Failure> {
    for (r, row) in text.rows.iter_mut().enumerate() {
        if row.ids.is_empty() {
            return Err(Failure::Input(format!(
                "row {r} is masked wholly: there is no text"
            )));
        }
        let len = similarity.end.len(&row.ids);
        row.ids.truncate(len);
        row.columns.truncate(len);
    }
    Ok(())
}

/// Products of all pictures' and texts' embeddings, where there are both.
fn products(output: &mut InferOutput, scale: f32) {
    let of = |name: &str| output.tensors.get(name).cloned();
    let (Some(images), Some(texts)) = (of("image_embeds"), of("text_embeds")) else {
        return;
    };
    let all = |a: &Tensor, b: &Tensor| {
        let rows = (0..a.dims[0]).flat_map(|i| (0..b.dims[0]).map(move |t| (i, t)));
        let product = |(i, t): (usize, usize)| {
            let pairs = a.at(i).iter().zip(b.at(t));
            let sum: f64 = pairs.map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
            (sum * f64::from(scale)) as f32
        };
        Tensor {
            dims: vec![a.dims[0], b.dims[0]],
            data: rows.map(product).collect(),
        }
    };
    let both = [
        ("logits_per_image", all(&images, &texts)),
        ("logits_per_text", all(&texts, &images)),
    ];
    output
        .tensors
        .extend(both.map(|(name, t)| (name.to_owned(), t)));
}

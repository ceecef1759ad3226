//! The manifest of an executable: what the frontend knows about the model and what code generation
//! made of it, in the runtime's terms.

use llmc_abi::{
    ABI_VERSION, EntryInfo, GenerationDefaults, Head, HeadTask, Kind, LevelInfo, Manifest, Scores,
    SentenceFace, SpecialTokens,
};
use llmc_codegen::{
    pack::WeightPlan,
    step::{EntryPlan, StepPlan},
    target::{FeatureLevel, Target},
};
use llmc_frontend::{Model, ModelDir, models::Task, preprocessor::Preprocessor};
use llmc_ir::{DType, Module, Op, rope::LengthRule};
use llmc_passes::Precision;

use crate::chat_check::special_strings;

/// What the products read that read the fewest bits.
fn activations(module: &Module) -> &'static str {
    let insts = module.funcs.iter().flat_map(|f| &f.body);
    let types = insts.filter_map(|i| match &i.op {
        Op::Quantize(q) => Some(q.to),
        _ => None,
    });
    let types: Vec<DType> = types.collect();
    if types.iter().any(|t| matches!(t, DType::Q8(_))) {
        "int8"
    } else if types.contains(&DType::BF16) {
        "bf16"
    } else {
        "f32"
    }
}

/// Puts the manifest together.
pub fn manifest(
    dir: &ModelDir,
    model: &Model,
    module: &Module,
    weights: &WeightPlan,
    plan: &StepPlan,
    (target, levels): (&Target, &[&'static FeatureLevel]),
    precision: Precision,
) -> Manifest {
    let generation = &dir.generation;
    let tokenizer = dir.tokenizer.as_ref();
    let kind = match model.kind {
        llmc_frontend::Kind::Decoder => Kind::Decoder,
        llmc_frontend::Kind::Encoder => Kind::Encoder,
        llmc_frontend::Kind::EncoderDecoder => Kind::EncoderDecoder,
    };
    let level = |l: &&FeatureLevel| LevelInfo {
        name: l.name.into(),
        features: l.requires.iter().map(|f| f.to_string()).collect(),
    };
    let info = |e: &EntryPlan| EntryInfo {
        entry: e.entry,
        limits: e.limits,
        inputs: e.inputs.clone(),
        outputs: e.outputs.clone(),
        taps: e.taps,
        best: e.logits.is_some(),
        layers: e.layers(),
    };
    let mut entries = plan.entries.iter().map(info);
    let main = entries.next().unwrap_or_default();
    Manifest {
        abi: ABI_VERSION,
        producer: env!("CARGO_PKG_VERSION").into(),
        name: dir.name.clone(),
        family: model.family.into(),
        architecture: model.architecture.clone(),
        target: target.triple.into(),
        kind,
        levels: levels.iter().map(level).collect(),
        entry: main.entry,
        others: entries.collect(),
        limits: main.limits,
        vocab_size: model.vocab_size,
        hidden_size: model.hidden_size,
        num_layers: main.layers,
        parameters: model.weights.parameters,
        arena_bytes: plan.arena_bytes,
        scratch_bytes: plan.scratch_bytes,
        weight_bytes: weights.bytes,
        weight_types: weights.bytes_by_type(),
        traffic: weights.traffic(module),
        embeds: main.outputs.iter().any(|o| o.name == "sentence_embedding"),
        inputs: main.inputs,
        outputs: main.outputs,
        taps: main.taps,
        kv: plan.kv.clone(),
        phases: plan.phases(),
        best: main.best,
        activations: activations(module).into(),
        quant: precision.quant.name().into(),
        tokens: SpecialTokens {
            bos: generation.bos,
            eos: generation.eos.clone(),
            pad: generation.pad.unwrap_or(0),
            decoder_start: generation.decoder_start,
        },
        generation: GenerationDefaults {
            do_sample: Some(generation.sample),
            temperature: generation.temperature.map(|v| v as f32),
            top_k: generation.top_k,
            top_p: generation.top_p.map(|v| v as f32),
            min_p: generation.min_p.map(|v| v as f32),
            repetition_penalty: generation.repetition_penalty.map(|v| v as f32),
        },
        chat_template: tokenizer
            .and_then(|t| t.templates.first())
            .map(|t| t.source.clone()),
        has_tokenizer: tokenizer.is_some(),
        max_input_tokens: dir
            .sentence
            .as_ref()
            .and_then(|s| s.max_tokens)
            .unwrap_or(0),
        special_strings: tokenizer.map(special_strings).unwrap_or_default(),
        prefixes: generation.prefixes.iter().cloned().collect(),
        type_vocab_size: model.type_vocab_size,
        rope_switch: match module.length_rule() {
            Some(LengthRule::Switch(at)) => Some(at),
            Some(LengthRule::Prompt(_)) | None => None,
        },
        rope_growth: match module.length_rule() {
            Some(LengthRule::Prompt(at)) => Some(at),
            Some(LengthRule::Switch(_)) | None => None,
        },
        head: head(model),
        pictures: model.pictures.as_ref().map(pictures),
        sentence: dir
            .sentence
            .as_ref()
            .map_or_else(SentenceFace::default, |s| SentenceFace {
                normalized: s.normalize,
                lower_case: s.lower_case,
                prompt: s.default_prompt.clone().unwrap_or_default(),
            }),
    }
}

/// What a preprocessor does to make pictures of `size`, `[height, width]`.
pub fn image_steps(preprocessor: &Preprocessor, size: [u32; 2]) -> llmc_abi::ImageSteps {
    use llmc_abi::{Filter as To, Resize};
    use llmc_frontend::preprocessor::{Filter, Resize as From};
    llmc_abi::ImageSteps {
        resize: preprocessor.resize.map(|to| match to {
            From::Exact(height, width) => Resize::Exact { height, width },
            From::ShortestEdge(edge) => Resize::ShortestEdge(edge),
        }),
        filter: match preprocessor.filter {
            Filter::Nearest => To::Nearest,
            Filter::Lanczos => To::Lanczos,
            Filter::Bilinear => To::Bilinear,
            Filter::Bicubic => To::Bicubic,
            Filter::Box => To::Box,
            Filter::Hamming => To::Hamming,
        },
        crop: preprocessor.crop,
        rescale: preprocessor.rescale,
        normalize: preprocessor.normalize,
        size,
    }
}

/// What the head of an encoder gives.
fn head(model: &Model) -> Option<Head> {
    let task = match model.task {
        Task::Base | Task::CausalLm => return None,
        Task::ImageClassification => HeadTask::ImageClassification,
        Task::MaskedLm => HeadTask::MaskedLm,
        Task::QuestionAnswering => HeadTask::QuestionAnswering,
        Task::SequenceClassification => HeadTask::SequenceClassification,
        Task::TokenClassification => HeadTask::TokenClassification,
    };
    let scores = |scores| match scores {
        llmc_frontend::Scores::Logits => Scores::Logits,
        llmc_frontend::Scores::Sigmoid => Scores::Sigmoid,
        llmc_frontend::Scores::Softmax => Scores::Softmax,
    };
    let labels = model.labels.as_ref();
    Some(Head {
        task,
        labels: labels.map_or_else(Vec::new, |labels| labels.names.clone()),
        scores: labels.map_or(Scores::Logits, |labels| scores(labels.scores)),
        relevance: labels.map_or(Scores::Logits, |labels| scores(labels.relevance)),
    })
}

/// How the model reads pictures.
pub fn pictures(from: &llmc_frontend::model::Pictures) -> llmc_abi::Pictures {
    use llmc_frontend::blocks::TextEnd;
    let edge = from.grid.image;
    llmc_abi::Pictures {
        image_size: edge,
        patch_size: from.grid.patch,
        steps: from
            .preprocessor
            .as_ref()
            .map(|p| image_steps(p, [edge; 2])),
        similarity: from.similarity.map(|(scale, end)| llmc_abi::Similarity {
            scale,
            end: match end {
                TextEnd::First(id) => llmc_abi::TextEnd::First(id),
                TextEnd::Greatest => llmc_abi::TextEnd::Greatest,
            },
        }),
        told: from
            .tokens
            .map(|(id, count)| llmc_abi::PictureTokens { id, count }),
    }
}

//! The manifest: what the runtime must know about a compiled model, as JSON in the payload.

use alloc::{collections::BTreeMap, string::String, vec::Vec};
use serde::{Deserialize, Serialize};

/// What the compiler tells the runtime. Shapes are in elements, sizes in bytes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    pub abi: u32,
    /// Version of the compiler, as `--version` prints it.
    pub producer: String,
    /// The model's name: the stem of its directory or file.
    pub name: String,
    /// Family, as `llmc inspect` prints it: `llama`, `bert`…
    pub family: String,
    /// HF architecture: `LlamaForCausalLM`…
    pub architecture: String,
    /// Target triple of the code.
    pub target: String,
    pub kind: Kind,
    /// CPU feature levels in the object, worst first: name and the features it needs, in
    /// `std::is_x86_feature_detected!` spelling.
    pub levels: Vec<LevelInfo>,
    /// The entry that texts go through: `limits`, `inputs`, `outputs`, `taps` and `best` are its.
    #[serde(default)]
    pub entry: Entry,
    /// The other entries.
    #[serde(default)]
    pub others: Vec<EntryInfo>,
    pub limits: Limits,
    pub vocab_size: u32,
    pub hidden_size: u32,
    pub num_layers: u32,
    pub parameters: u64,
    /// Bytes of `StepCtx::arena`.
    pub arena_bytes: u64,
    /// Bytes of scratch for each thread.
    pub scratch_bytes: u64,
    /// Bytes of the packed weights, for `info`.
    pub weight_bytes: u64,
    /// Weight element types and how many bytes each takes, for `info`.
    pub weight_types: BTreeMap<String, u64>,
    /// What a token costs in weights, for `info`.
    #[serde(default)]
    pub traffic: Traffic,
    #[serde(default)]
    pub inputs: Vec<Input>,
    pub outputs: Vec<Output>,
    pub taps: Taps,
    pub kv: Vec<KvClass>,
    /// The phases of all entries' steps, in the order of their numbers (`MarkFn`).
    #[serde(default)]
    pub phases: Vec<Phase>,
    /// Whether steps give the greedy choice (`StepCtx::best`).
    #[serde(default)]
    pub best: bool,
    /// What products read, the fewest bits of them: `f32`, `bf16`, `int8`.
    pub activations: String,
    /// The quantisation that was asked for; `none`: the checkpoint's types.
    #[serde(default)]
    pub quant: String,
    pub tokens: SpecialTokens,
    pub generation: GenerationDefaults,
    /// Jinja source of the chat template, where the model has one.
    pub chat_template: Option<String>,
    /// The tokenizer region holds a compiled tokenizer; false where the model has none.
    pub has_tokenizer: bool,
    /// Whether `sentence_embedding` is an output, hence `embed` a task.
    pub embeds: bool,
    /// Longest input that the tokenizer side truncates to (encoders); 0 = `limits.max_context`.
    pub max_input_tokens: u32,
    /// Strings of the special tokens under HF's names (`bos_token`, `eos_token`, `pad_token`…),
    /// from tokenizer_config.json: the chat template may name them.
    #[serde(default)]
    pub special_strings: BTreeMap<String, String>,
    /// What texts begin with, by the tasks of `task_specific_params`: `summarization`,
    /// `translation_en_to_de`…
    #[serde(default)]
    pub prefixes: BTreeMap<String, String>,
    /// Token types that the model tells apart; 0 where its forward takes no `token_type_ids`.
    #[serde(default)]
    pub type_vocab_size: u32,
    /// Longrope: sequences of more tokens than this use the long factors for every position
    /// (`Batch::rope_length`); the runtime recomputes the cache of a sequence that grows past it.
    #[serde(default)]
    pub rope_switch: Option<u32>,
    /// Dynamic NTK: the base depends on the length of a sequence's first run where that is more tokens
    /// than this (`Batch::rope_length`); a longer prompt is computed whole, not behind a cached part.
    #[serde(default)]
    pub rope_growth: Option<u32>,
    /// What the logits of an encoder are, where it has a head.
    #[serde(default)]
    pub head: Option<Head>,
    /// How pictures are read, where they are.
    #[serde(default)]
    pub pictures: Option<crate::Pictures>,
    /// What sentence-transformers does around the model.
    #[serde(default)]
    pub sentence: SentenceFace,
}

/// Texts before and embeddings behind a sentence encoder.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SentenceFace {
    /// Embeddings have the length 1.
    pub normalized: bool,
    /// Texts are lower-cased.
    pub lower_case: bool,
    /// What every text begins with.
    pub prompt: String,
}

/// The head of an encoder.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    pub task: HeadTask,
    /// What the columns of the logits are called; empty for tokens and spans.
    pub labels: Vec<String>,
    /// How logits become scores of labels.
    pub scores: Scores,
    /// How the one logit of a pair of texts becomes its relevance.
    pub relevance: Scores,
}

/// What a head gives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HeadTask {
    /// `logits [R, vocab_size]`: tokens behind masks.
    #[default]
    MaskedLm,
    /// `logits [B, labels]`.
    SequenceClassification,
    /// `logits [B, labels]`, of pictures.
    ImageClassification,
    /// `logits [N, labels]`.
    TokenClassification,
    /// `start_logits [N, 1]`, `end_logits [N, 1]`.
    QuestionAnswering,
}

/// A function of logits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scores {
    /// Themselves.
    #[default]
    Logits,
    /// Each by itself.
    Sigmoid,
    /// One of several.
    Softmax,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    #[default]
    Decoder,
    Encoder,
    /// A decoder that continues what it has, looking at a source that an encoder has read.
    EncoderDecoder,
}

/// A network of the model: a step function of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Entry {
    /// The only one of decoders and encoders.
    #[default]
    Forward,
    /// Reads sources whole and leaves their keys and values.
    Encode,
    /// Continues sequences that have a source.
    Decode,
    /// Encodes pictures; where there is a Q-Former it leaves their keys and values.
    Vision,
    /// Queries about pictures, each of which is the source of a sequence.
    Qformer,
}

/// What the runtime must know about an entry.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntryInfo {
    pub entry: Entry,
    pub limits: Limits,
    pub inputs: Vec<Input>,
    pub outputs: Vec<Output>,
    pub taps: Taps,
    /// Whether steps give the greedy choice (`StepCtx::best`).
    pub best: bool,
    /// Layers that the taps stand between.
    pub layers: u32,
}

impl Manifest {
    /// All entries, the main one first: the order of the steps in the code.
    pub fn entries(&self) -> Vec<EntryInfo> {
        let main = EntryInfo {
            entry: self.entry,
            limits: self.limits,
            inputs: self.inputs.clone(),
            outputs: self.outputs.clone(),
            taps: self.taps,
            best: self.best,
            layers: self.num_layers,
        };
        let mut all = alloc::vec![main];
        all.extend(self.others.iter().cloned());
        all
    }

    /// The token that a text about a source starts with; where nothing says which, the pad token.
    pub fn start_token(&self) -> u32 {
        self.tokens.decoder_start.unwrap_or(self.tokens.pad)
    }

    /// The greatest bounds of any entry.
    pub fn widest(&self) -> Limits {
        self.others.iter().fold(self.limits, |a, e| Limits {
            max_tokens: a.max_tokens.max(e.limits.max_tokens),
            max_seqs: a.max_seqs.max(e.limits.max_seqs),
            max_rows: a.max_rows.max(e.limits.max_rows),
            max_context: a.max_context.max(e.limits.max_context),
        })
    }

    /// The longest source; 0 where the model has none.
    pub fn source_limit(&self) -> u32 {
        let limits = self.other(Entry::Encode).map(|e| e.limits);
        limits.map_or(0, |l| l.max_context.min(l.max_tokens))
    }

    /// The longest source of any kind: a text, or a picture that queries look at.
    pub fn longest_source(&self) -> u32 {
        let asked = self
            .other(Entry::Qformer)
            .and_then(|_| self.other(Entry::Vision));
        let picture = asked.map_or(0, |e| e.limits.max_context);
        self.source_limit().max(picture)
    }

    /// An entry besides the main one.
    pub fn other(&self, entry: Entry) -> Option<&EntryInfo> {
        self.others.iter().find(|e| e.entry == entry)
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LevelInfo {
    pub name: String,
    pub features: Vec<String>,
}

/// The weights' part in a step. A weight counts for every instruction and layer that reads it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    /// Bytes that a step of one token and one row reads: all of a matrix or vector, one row of a table.
    pub step_bytes: u64,
    /// Elements of the matrices that every token is multiplied with.
    pub token_parameters: u64,
    /// Elements of those that every row of `Batch::rows` is multiplied with: the head's.
    pub row_parameters: u64,
}

/// A part of a step between two barriers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Phase {
    /// The layer class or entry and the kernel: `layer.attend`.
    pub name: String,
    pub work: Vec<Work>,
}

/// What a phase reads and computes in one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Work {
    /// Weights that are read once, where there is a row.
    Weights { per: Per, bytes: u64 },
    /// Bytes of tables that each row reads.
    Rows { per: Per, bytes: u64 },
    /// Operations of each row: a multiply-add counts as two.
    Product {
        per: Per,
        arithmetic: Arithmetic,
        operations: u64,
    },
    /// Attention over the keys of a class of `Manifest::kv`.
    Attention {
        class: u32,
        /// Whether a token sees the keys up to its own position alone.
        causal: bool,
        window: Option<u32>,
        /// Operations of each (query, key) that sees it, all heads together.
        operations: u64,
    },
}

/// The kind of number that products are made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Arithmetic {
    #[default]
    F32,
    Bf16,
    Int8,
}

/// Bounds of one step and of one sequence.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    pub max_tokens: u32,
    pub max_seqs: u32,
    pub max_rows: u32,
    pub max_context: u32,
}

/// A named result of the step, f32 at a fixed place of the arena, row-major with `stride` floats a row.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Output {
    /// HF's name: `logits`, `last_hidden_state`, `pooler_output`, `sentence_embedding`.
    pub name: String,
    pub per: Per,
    pub width: u32,
    pub offset: u64,
    pub stride: u32,
}

/// Rows of floats, one a token, that an entry takes instead of ids or besides: f32 at a fixed place of
/// the arena, where the host puts them before the step.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Input {
    pub name: String,
    pub width: u32,
    pub offset: u64,
    pub stride: u32,
    /// Only the rows of tokens of this type are read; None: all.
    #[serde(default)]
    pub of_type: Option<u32>,
}

/// What a row of an output stands for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Per {
    /// `Batch::rows`.
    #[default]
    Row,
    /// Token of the step.
    Token,
    /// Sequence of the batch.
    Sequence,
}

/// The residual stream at layer boundaries: HF's `hidden_states`, last one after the final norm. Where
/// that one is of another width, `count` is the number of layers, and the output `last_hidden_state`
/// is the last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Taps {
    pub count: u32,
    pub width: u32,
    /// Floats a row.
    pub stride: u32,
}

/// One class of KV state: layers whose pages live and die together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KvClass {
    pub name: String,
    /// Element type: `f32`, `f16`, `bf16`.
    pub dtype: String,
    /// Layers in the class.
    pub slots: u32,
    pub kv_heads: u32,
    /// Elements a head takes as stored (padded).
    pub k_width: u32,
    pub v_width: u32,
    pub page_bytes: u64,
    /// Sliding window in tokens; pages wholly behind it may be freed.
    pub window: Option<u32>,
    /// True for encoders: the pages live for one step only and one slot serves all layers.
    pub scratch: bool,
    /// True for the keys and values of sources: `Entry::Encode` writes them once, sequences that look
    /// at the same source share them.
    #[serde(default)]
    pub source: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpecialTokens {
    pub bos: Option<u32>,
    pub eos: Vec<u32>,
    /// `pad_token_id` of the config, else 0.
    pub pad: u32,
    /// What a decoder with an encoder starts with.
    #[serde(default)]
    pub decoder_start: Option<u32>,
}

/// generation_config.json, as far as sampling reads it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct GenerationDefaults {
    pub do_sample: Option<bool>,
    pub temperature: Option<f32>,
    pub top_k: Option<u32>,
    pub top_p: Option<f32>,
    pub min_p: Option<f32>,
    pub repetition_penalty: Option<f32>,
}

//! The command line, as clap reads it.

use std::path::PathBuf;

use clap::{
    Args, Parser, Subcommand, ValueEnum,
    builder::{PossibleValuesParser, TypedValueParser},
};
use llmc_passes::{Activations, Kv, Quant};
use llmc_runtime::text_tools::TokenizeArgs;

/// Compiles Transformer language models into standalone executables.
#[derive(Parser)]
#[command(name = "llmc", version, arg_required_else_help = true)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand)]
pub enum Command {
    /// Compile a model into one executable (or stop at an earlier form)
    Compile(Compile),
    /// Run passes over a module in text form
    Opt(Opt),
    /// Run a module with the reference evaluator
    Run(Run),
    /// Show what a model is: family, shapes, parameters, weights
    Inspect(Inspect),
    /// Tokenize as the model does
    Tokenize(Tokenize),
    /// Compare an executable with the reference evaluator on its model, layer by layer
    Verify(Verify),
    /// List the targets and CPU levels that code can be generated for
    Targets,
}

/// What comes out of `compile`.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Emit {
    /// One standalone executable
    Exe,
    /// The object file of the generated code
    Obj,
    /// Transformer IR, after all passes
    Tir,
    /// MLIR of the generated code
    Mlir,
    /// LLVM IR of the generated code, optimised
    Llvm,
    /// Assembly of the generated code
    Asm,
}

/// Names of a choice, as `--help` lists them, and what they stand for.
macro_rules! choice {
    ($ty:ty) => {
        PossibleValuesParser::new(<$ty>::ALL.iter().map(|c| c.name()))
            .map(|name| <$ty>::from_name(&name).unwrap_or_default())
    };
}

#[derive(Args)]
pub struct Compile {
    /// A Hugging Face directory, a GGUF file, or a config.json under any name
    pub input: String,
    /// The output file; default: the model's name
    #[arg(short, long)]
    pub output: Option<PathBuf>,
    /// What to write
    #[arg(long, value_enum, default_value = "exe")]
    pub emit: Emit,
    /// Quantisation of the weights; `none` keeps the types of the checkpoint
    #[arg(long, default_value = "none", value_parser = choice!(Quant))]
    pub quant: Quant,
    /// What products read: `auto` is 8 bits for quantised weights, bf16 for `--quant bf16`, else f32
    #[arg(long, default_value = "auto", value_parser = choice!(Activations))]
    pub activations: Activations,
    /// Element type of the KV cache: `auto` is f32 where all arithmetic is f32, else f16
    #[arg(long, default_value = "auto", value_parser = choice!(Kv))]
    pub kv: Kv,
    /// Target triple
    #[arg(long, default_value = "x86_64-unknown-linux-gnu")]
    pub target: String,
    /// One CPU or level (see `llmc targets`); default: all levels, chosen at start
    #[arg(long)]
    pub target_cpu: Option<String>,
    /// Longest sequence; default: the model's
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    pub max_context: Option<u32>,
    #[command(flatten)]
    pub model: ModelArgs,
    /// Write weights made of random numbers
    #[arg(long, value_name = "SEED")]
    pub random_weights: Option<u64>,
    #[command(flatten)]
    pub passes: PassArgs,
    /// Say what is being done
    #[arg(short, long)]
    pub verbose: bool,
    /// No progress, no summary
    #[arg(short, long, conflicts_with = "verbose")]
    pub quiet: bool,
}

/// Where a model's files are, if not beside its configuration.
#[derive(Args)]
pub struct ModelArgs {
    /// A directory, a .safetensors file, an index, or a GGUF file
    #[arg(long)]
    pub weights: Option<PathBuf>,
    /// A directory, a tokenizer.json, or a GGUF file
    #[arg(long)]
    pub tokenizer: Option<PathBuf>,
}

/// What to tell of the passes. Dumps go to standard error.
#[derive(Args)]
pub struct PassArgs {
    /// Print the module after this pass (may be given several times)
    #[arg(long, value_name = "PASS")]
    pub print_after: Vec<String>,
    /// Print the module after every pass
    #[arg(long)]
    pub print_after_all: bool,
    /// Stop after this pass and print the module to standard output
    #[arg(long, value_name = "PASS")]
    pub stop_after: Option<String>,
    /// Print how long each pass and phase took
    #[arg(long)]
    pub time_passes: bool,
    /// Print what each pass rewrote, and why something was left
    #[arg(long)]
    pub stats: bool,
}

#[derive(Args)]
pub struct Opt {
    /// A module in text form; - reads standard input
    pub input: PathBuf,
    /// Passes in order, separated by commas (`quantize-weights=q4_0` and alike choose); default: the whole pipeline
    #[arg(long, value_delimiter = ',')]
    pub passes: Option<Vec<String>>,
    #[command(flatten)]
    pub tell: PassArgs,
}

#[derive(Args)]
pub struct Run {
    /// A module in text form, or a model as `compile` takes it
    pub input: String,
    /// Inputs: named tensors (safetensors)
    pub tensors: PathBuf,
    /// Outputs: named tensors (safetensors)
    pub output: PathBuf,
    /// Generate this many tokens greedily
    #[arg(long, value_name = "N")]
    pub generate: Option<u32>,
    /// The tokens that end a row, separated by commas, or `none`; default: the model's
    #[arg(
        long,
        value_name = "ID|none",
        requires = "generate",
        allow_hyphen_values = true
    )]
    pub eos: Option<String>,
    /// Also write the hidden states
    #[arg(long)]
    pub hidden_states: bool,
    #[command(flatten)]
    pub model: ModelArgs,
}

#[derive(Args)]
pub struct Verify {
    /// An executable that `compile` wrote
    pub executable: PathBuf,
    /// The model that it was made of
    #[arg(long, value_name = "INPUT")]
    pub against: String,
    /// Compare on this text's tokens
    #[arg(long)]
    pub text: Option<String>,
    /// Compare on this many made-up tokens
    #[arg(long, default_value = "16", conflicts_with = "text", value_parser = clap::value_parser!(u32).range(1..))]
    pub tokens: u32,
    /// The largest relative error of a layer or an output that passes
    #[arg(long, value_name = "X")]
    pub max_error: Option<f64>,
    /// The largest mean divergence of the logits that passes, in nats
    #[arg(long, value_name = "X")]
    pub max_kl: Option<f64>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub model: ModelArgs,
}

#[derive(Args)]
pub struct Inspect {
    /// A model as `compile` takes it
    pub input: String,
    /// Show the weights as this quantisation leaves them
    #[arg(long, default_value = "none", value_parser = choice!(Quant))]
    pub quant: Quant,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub model: ModelArgs,
}

#[derive(Args)]
pub struct Tokenize {
    /// A Hugging Face directory, a GGUF file, or a tokenizer.json
    pub input: PathBuf,
    #[command(flatten)]
    pub tokenize: TokenizeArgs,
}

//! The command line of a compiled model, the same for every model.
//!
//! Input: arguments. Output: a parsed [`Cli`], or clap's message. Tasks that a model lacks are not listed, but
//! parsed all the same, so that they are refused by name. Not here: running anything.

use crate::answer::AnswerArgs;
use crate::bench::BenchArgs;
use crate::caption::CaptionArgs;
use crate::chat::ChatArgs;
use crate::classify::ClassifyArgs;
use crate::embed::EmbedArgs;
use crate::fill_mask::FillMaskArgs;
use crate::generate::GenerateArgs;
use crate::infer::InferArgs;
use crate::info::InfoArgs;
use crate::perplexity::PerplexityArgs;
use crate::profile::ProfileArgs;
use crate::rerank::RerankArgs;
use crate::rewrite::{RewriteArgs, TranslateArgs};
use crate::tag::TagArgs;
use crate::text_tools::{DetokenizeArgs, TokenizeArgs};
use crate::threads::MAX_THREADS;
use clap::error::ErrorKind;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use std::ffi::OsString;

/// A Transformer language model, compiled
#[derive(Debug, Parser)]
#[command(disable_version_flag = true, disable_help_subcommand = true)]
pub struct Cli {
    /// Print the model's name and the compiler's version
    #[arg(long)]
    pub version: bool,
    #[command(flatten)]
    pub common: Common,
    #[command(subcommand)]
    pub task: Option<Task>,
}

/// Flags of every task.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Common")]
pub struct Common {
    /// Threads [default: the cores that this process may use]
    #[arg(short, long, global = true, value_name = "N",
          value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_THREADS)))]
    pub threads: Option<u32>,
    /// No progress and figures on standard error
    #[arg(long, global = true)]
    pub quiet: bool,
    /// Where the time goes, on standard error, until the text ends (generate, chat)
    #[arg(short = 'v', long, global = true)]
    pub timings: bool,
    /// Check the weights against their digest first
    #[arg(long, global = true)]
    pub verify: bool,
    /// Use the code of this CPU level
    #[arg(long, global = true, value_name = "LEVEL", hide = true)]
    pub level: Option<String>,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Task {
    /// Continue a text
    Generate(Box<GenerateArgs>),
    /// Talk with the model
    Chat(Box<ChatArgs>),
    /// Translate each text
    Translate(Box<TranslateArgs>),
    /// Summarise each text
    Summarize(Box<RewriteArgs>),
    /// Print a vector for each text or picture
    Embed(EmbedArgs),
    /// Print labels of each text or picture
    Classify(ClassifyArgs),
    /// Print the entities of each text
    Tag(TagArgs),
    /// Print what may stand in the masks of each text
    FillMask(FillMaskArgs),
    /// Print how relevant each text is to a query
    Rerank(RerankArgs),
    /// Print where in a text the answers to questions stand, or answer questions about a picture
    Answer(Box<AnswerArgs>),
    /// Say what each picture shows
    Caption(Box<CaptionArgs>),
    /// Named tensors in, named tensors out
    Infer(Box<InferArgs>),
    /// Text to token ids
    Tokenize(TokenizeArgs),
    /// Token ids to text
    Detokenize(DetokenizeArgs),
    /// Measure the speed on this machine
    Bench(BenchArgs),
    /// Measure how well the model foretells a text
    Perplexity(PerplexityArgs),
    /// Measure where the time of a step goes
    Profile(ProfileArgs),
    /// Show what this executable is and needs
    Info(InfoArgs),
    /// Check the weights against their digest
    Verify,
    #[command(hide = true)]
    Serve(Rest),
}

/// Anything.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Rest {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    pub rest: Vec<OsString>,
}

/// The command, under the executable's own name; help lists these tasks alone, where they are known.
pub fn command(name: &str, tasks: Option<&[&str]>) -> clap::Command {
    let command = Cli::command().bin_name(name);
    let Some(tasks) = tasks else {
        return command;
    };
    let has = |task: &str| match task {
        "info" => true,
        // Both run made-up tokens.
        "profile" => tasks.contains(&"bench"),
        task => tasks.contains(&task),
    };
    command.mut_subcommands(|task| match has(task.get_name()) {
        true => task,
        false => task.hide(true),
    })
}

/// Parses the arguments that follow the executable's name; where they ask for help, asks for the model's tasks.
pub fn parse(
    name: &str,
    args: &[OsString],
    tasks: &dyn Fn() -> Option<Vec<&'static str>>,
) -> Result<Cli, clap::Error> {
    let line = || std::iter::once(OsString::from(name)).chain(args.iter().cloned());
    let mut parsed = command(name, None).try_get_matches_from(line());
    let asks_for_help = |e: &clap::Error| e.kind() == ErrorKind::DisplayHelp;
    if parsed.as_ref().is_err_and(asks_for_help) {
        parsed = command(name, tasks().as_deref()).try_get_matches_from(line());
    }
    Cli::from_arg_matches(&parsed?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: &str) -> Result<Cli, i32> {
        let args: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
        parse("m", &args, &|| None).map_err(|e| e.exit_code())
    }

    #[test]
    fn the_command_is_consistent() {
        command("m", None).debug_assert();
        command("m", Some(&[])).debug_assert();
    }

    #[test]
    fn help_lists_what_the_model_has() {
        let tasks = || Some(vec!["embed", "infer"]);
        let help = command("m", tasks().as_deref()).render_help().to_string();
        let is_listed = |task: &&str| help.contains(&format!("\n  {task} "));
        assert!(["embed", "infer", "info"].iter().all(&is_listed));
        let lacks = ["generate", "caption", "profile", "tokenize"];
        assert!(!lacks.iter().any(is_listed), "{help}");
        let e = parse("m", &["--help".into()], &tasks).unwrap_err();
        assert_eq!(e.to_string(), help);
        assert!(parse("m", &["generate".into(), "x".into()], &tasks).is_ok());
    }

    #[test]
    fn good_lines_are_parsed() {
        for line in [
            "",
            "--version",
            "generate hello -n 5 --temperature 0.5 --stop a --stop b -t 2",
            "-t 2 generate - --json --ids --ignore-eos",
            "generate x --timings",
            "-v chat",
            "chat --system s",
            "embed a b -",
            "embed -",
            "infer a b --generate 3 --eos none --hidden-states",
            "infer a b --beams 4",
            "tokenize --ids --no-special -",
            "tokenize --jsonl",
            "detokenize 1 2 3 --skip-special",
            "bench -p 1 -n 2 -b 3 -s 4 -r 5 --json",
            "perplexity - --window 512 --stride 256 --json --nll x",
            "profile -p 8 -n 4 --json -t 1",
            "info --json --quiet",
            "verify",
            "embed a --dimensions 64 --json",
            "classify a b --top-k 3 --json",
            "classify a b --pair c",
            "classify - --pairs",
            "classify",
            "tag - --aggregation none --stride 5",
            "fill-mask x --top-k 2",
            "rerank q a b --top-k 1",
            "rerank q",
            "answer --context c q --max-length 3 --window 9 --stride 2 --no-answer",
            "caption -",
            "caption a.png b.png --prompt x -n 5 --json --beams 2",
            "answer a.png q -n 5 --temperature 0.5 --json",
            "translate --to de hello -n 5 --beams 4",
            "summarize - --json",
        ] {
            assert!(check(line).is_ok(), "{line}");
        }
    }

    #[test]
    fn wrong_lines_exit_with_2() {
        for line in [
            "nonsense",
            "generate --nonsense",
            "generate a b",
            "generate -n x",
            "-t 0 info",
            "-t 100000 info",
            "infer a",
            "infer a b --eos 3",
            "tokenize --ids --jsonl",
            "detokenize",
            "perplexity",
            "rerank",
            "classify a --pair b --pairs",
            "tag x --aggregation nonsense",
            "bench -r 0",
        ] {
            assert_eq!(check(line).err(), Some(2), "{line}");
        }
        assert_eq!(check("--help").err(), Some(0));
    }
}

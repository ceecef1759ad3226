//! Start-up: from `main` to a task and its exit code.
//!
//! Input: the generated object's [`Program`], the executable file, arguments. Output: an exit
//! code: 0 done, 1 failed at run time, 2 wrong use or input. This is the only place that prints
//! errors. The CPU level is chosen, and a CPU that is too old refused, before anything of the
//! generated code runs; nothing else in the executable needs more than the target's baseline.

use crate::cli::{Cli, Task};
use crate::cpu::{choose_level, has_feature};
use crate::payload::Payload;
use crate::session::Session;
use crate::threads::granted_cores;
use crate::timings::Timings;
use crate::{
    Error, Result, answer, bench, caption, chat, classify, cli, embed, fill_mask, generate, infer,
    info, perplexity, profile, rerank, rewrite, tag,
};
use llmc_abi::{ABI_VERSION, Level, Program, StepFn};
use std::ffi::{CStr, OsString};
use std::io::{BufReader, BufWriter, IsTerminal, Write};
use std::path::Path;

#[cfg(feature = "entry")]
unsafe extern "C" {
    #[allow(non_upper_case_globals)]
    static llmc_program: Program;
}

/// The executable's `main`.
///
/// # Safety
/// Called by the C runtime only.
#[cfg(feature = "entry")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn main(
    _argc: std::ffi::c_int,
    _argv: *const *const std::ffi::c_char,
) -> std::ffi::c_int {
    std::panic::set_hook(Box::new(|panic| {
        eprintln!("error: internal error: {panic}");
        std::process::exit(1);
    }));
    let mut args = std::env::args_os();
    let name = args.next().unwrap_or_default();
    let args: Vec<OsString> = args.collect();
    // SAFETY: the linker has put the generated object's program there.
    let program = unsafe { &llmc_program };
    run(program, Path::new("/proc/self/exe"), &name, &args)
}

/// Runs a compiled model: `exe` is the file with the payload, `name` how it was called.
pub fn run(program: &Program, exe: &Path, name: &OsString, args: &[OsString]) -> i32 {
    let name = Path::new(name)
        .file_name()
        .unwrap_or(name)
        .to_string_lossy()
        .into_owned();
    let timings = Timings::default();
    // Of a broken payload help knows no tasks, and lists all.
    let tasks = || {
        let payload = Payload::open(exe).ok()?;
        let session = Session {
            manifest: &payload.manifest,
            tokenizer: payload.tokenizer(),
            weights: payload.weights(),
            steps: &[],
            level: 0,
            threads: 1,
            quiet: true,
            timings: &timings,
            tell_timings: false,
        };
        Some(info::tasks(&session))
    };
    let cli = match cli::parse(&name, args, &tasks) {
        Ok(cli) => cli,
        Err(e) => {
            let _ = e.print();
            return e.exit_code();
        }
    };
    // What is printed is buffered here; tasks flush where somebody may be waiting.
    let mut out = BufWriter::with_capacity(64 << 10, std::io::stdout().lock());
    timings.mark("arguments");
    let done = start(program, exe, &name, cli, &timings, &mut out);
    let flushed = out.flush().map_err(|e| Error::io("standard output", e));
    match done.and(flushed) {
        Ok(()) => 0,
        Err(e) => {
            eprintln!("error: {e}");
            e.exit_code()
        }
    }
}

fn start(
    program: &Program,
    exe: &Path,
    name: &str,
    cli: Cli,
    timings: &Timings,
    out: &mut dyn Write,
) -> Result<()> {
    let payload = Payload::open(exe)?;
    let m = &payload.manifest;
    let written = |e| Error::io("standard output", e);
    if cli.version {
        return writeln!(out, "{} ({})", m.name, m.producer).map_err(written);
    }
    timings.mark("map");
    let level = choose_level(&m.levels, cli.common.level.as_deref(), has_feature)?;
    let steps = find_steps(program, &m.levels[level].name)?;
    if cli.common.verify || matches!(cli.task, Some(Task::Verify)) {
        payload.verify_weights()?;
    }
    let session = Session {
        manifest: m,
        tokenizer: payload.tokenizer(),
        weights: payload.weights(),
        steps,
        level,
        threads: cli.common.threads.unwrap_or_else(granted_cores),
        quiet: cli.common.quiet,
        timings,
        tell_timings: cli.common.timings,
    };
    // Buffered by us rather than by `Stdin`, whose lock cannot go to another thread.
    let mut input = BufReader::new(std::io::stdin());
    match cli.task {
        None if session.continues_texts()
            && m.chat_template.is_some()
            && std::io::stdin().is_terminal() =>
        {
            payload.warm();
            chat::chat(&session, &chat::ChatArgs::default(), &mut input, out)
        }
        None => {
            let tasks = info::tasks(&session);
            write!(out, "{}", cli::command(name, Some(&tasks)).render_help()).map_err(written)
        }
        Some(Task::Generate(args)) => {
            payload.warm();
            generate::generate(&session, &args, &mut input, out)
        }
        Some(Task::Chat(args)) => {
            payload.warm();
            chat::chat(&session, &args, &mut input, out)
        }
        Some(Task::Translate(args)) => {
            payload.warm();
            rewrite::translate(&session, &args, &mut input, out)
        }
        Some(Task::Summarize(args)) => {
            payload.warm();
            rewrite::summarize(&session, &args, &mut input, out)
        }
        Some(Task::Embed(args)) => {
            payload.warm();
            embed::embed(&session, &args, &mut input, out)
        }
        Some(Task::Classify(args)) => {
            payload.warm();
            classify::classify(&session, &args, &mut input, out)
        }
        Some(Task::Tag(args)) => {
            payload.warm();
            tag::tag(&session, &args, &mut input, out)
        }
        Some(Task::FillMask(args)) => {
            payload.warm();
            fill_mask::fill_mask(&session, &args, &mut input, out)
        }
        Some(Task::Rerank(args)) => {
            payload.warm();
            rerank::rerank(&session, &args, &mut input, out)
        }
        Some(Task::Answer(args)) => {
            payload.warm();
            answer::answer(&session, &args, &mut input, out)
        }
        Some(Task::Caption(args)) => {
            payload.warm();
            caption::caption(&session, &args, &mut input, out)
        }
        Some(Task::Infer(args)) => {
            payload.warm();
            infer::infer(&session, &args)
        }
        Some(Task::Tokenize(args)) => session.text_tools()?.tokenize(&args, &mut input, out),
        Some(Task::Detokenize(args)) => session.text_tools()?.detokenize(&args, &mut input, out),
        Some(Task::Bench(args)) => {
            payload.warm();
            bench::bench(&session, &args, out)
        }
        Some(Task::Perplexity(args)) => {
            payload.warm();
            perplexity::perplexity(&session, &args, &mut input, out)
        }
        Some(Task::Profile(args)) => {
            payload.warm();
            profile::profile(&session, &args, out)
        }
        Some(Task::Info(args)) => info::info(&session, &args, out),
        Some(Task::Verify) => {
            session.note(&format!("{}: the weights match their digest", m.name));
            Ok(())
        }
        Some(Task::Serve(_)) => session.need(false, "serve"),
    }
}

/// The steps that the generated object has for a level of the manifest.
fn find_steps<'a>(program: &'a Program, name: &str) -> Result<&'a [StepFn]> {
    if program.version != u64::from(ABI_VERSION) {
        return Err(Error::Payload(format!(
            "the compiled code is of version {}, this runtime is of version {ABI_VERSION}",
            program.version
        )));
    }
    // SAFETY: the compiler wrote `level_count` levels with NUL-terminated names.
    let levels: &[Level] =
        unsafe { std::slice::from_raw_parts(program.levels, program.level_count as usize) };
    levels
        .iter()
        // SAFETY: as above.
        .find(|l| unsafe { CStr::from_ptr(l.name) }.to_bytes() == name.as_bytes())
        // SAFETY: every level has `entry_count` steps.
        .map(|l| unsafe { std::slice::from_raw_parts(l.steps, program.entry_count as usize) })
        .ok_or_else(|| Error::Payload(format!("the compiled code lacks the level `{name}`")))
}

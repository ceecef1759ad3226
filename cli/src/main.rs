//! The `llmc` command: reads the command line, runs one command, renders its error.
//!
//! Exit codes: 0 done, 1 failed at run time or a bug of the compiler, 2 wrong use or input.

mod args;
mod commands;
mod progress;

use std::{io::Write, process::ExitCode};

use clap::Parser;
use llmc::Error;

use args::{Cli, Command};

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(e) => {
            // Help and version go to standard output and are no failure.
            let code = if e.use_stderr() { 2 } else { 0 };
            let _ = e.print();
            return ExitCode::from(code);
        }
    };
    let done = match cli.command {
        Command::Compile(args) => commands::compile::run(&args),
        Command::Opt(args) => commands::opt::run(&args),
        Command::Run(args) => commands::run::run(&args),
        Command::Inspect(args) => commands::inspect::run(&args),
        Command::Tokenize(args) => commands::tokenize::run(&args),
        Command::Verify(args) => commands::verify::run(&args),
        Command::Targets => commands::targets::run(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            if !matches!(e, Error::ReaderGone) {
                // Nobody is left to hear of an error on standard error.
                let _ = writeln!(std::io::stderr(), "error: {e}");
            }
            ExitCode::from(e.exit_code())
        }
    }
}

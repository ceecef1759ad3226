//! A compiled executable: made by `llmc compile`, measured by its own `bench`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use serde_json::Value;

use crate::error::Error;
use crate::process::{output, parse};

pub struct Compiled {
    executable: PathBuf,
    pub compile_seconds: f64,
}

impl Compiled {
    /// Compiles `model` into `executable`; `options` are for `llmc compile`, separated by spaces.
    pub fn new(
        llmc: &Path,
        model: &Path,
        executable: PathBuf,
        options: &str,
    ) -> Result<Self, Error> {
        if let Some(folder) = executable.parent() {
            std::fs::create_dir_all(folder).map_err(|e| Error::Io(folder.into(), e))?;
        }
        let start = Instant::now();
        let mut command = Command::new(llmc);
        command
            .arg("compile")
            .arg(model)
            .arg("-o")
            .arg(&executable)
            .args(options.split_whitespace())
            .arg("--quiet");
        output(&mut command, "")?;
        Ok(Compiled {
            executable,
            compile_seconds: start.elapsed().as_secs_f64(),
        })
    }

    /// What the executable prints for `arguments`, given `input`.
    pub fn run(&self, arguments: &[&str], input: &str) -> Result<String, Error> {
        output(Command::new(&self.executable).args(arguments), input)
    }

    /// `info --json`.
    pub fn info(&self) -> Result<Value, Error> {
        parse("the executable's info", &self.run(&["info", "--json"], "")?)
    }

    /// The lines of `bench --json` with `threads` and these options.
    pub fn bench(&self, threads: usize, options: &[String]) -> Result<Vec<Value>, Error> {
        let threads = threads.to_string();
        let mut arguments = vec!["bench", "--json", "-t", &threads];
        arguments.extend(options.iter().map(String::as_str));
        self.run(&arguments, "")?
            .lines()
            .map(|line| parse("the executable's bench", line))
            .collect()
    }
}

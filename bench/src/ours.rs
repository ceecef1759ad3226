//! The compiled executable: made by `llmc compile`, measured by its own `bench`.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use crate::case::Case;
use crate::error::Error;

pub struct Ours {
    executable: PathBuf,
    pub compile_seconds: f64,
}

impl Ours {
    pub fn compile(llmc: &Path, model: &Path, cache: &Path, options: &str) -> Result<Self, Error> {
        let executable = cache.join("minilm");
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
        Ok(Ours {
            executable,
            compile_seconds: start.elapsed().as_secs_f64(),
        })
    }

    /// Embeds the reference's sentences; one JSON line each. A line break inside a sentence becomes a space, which
    /// is the same to a BERT tokenizer.
    pub fn embed(&self, golden: &Path) -> Result<String, Error> {
        let path = golden.with_extension("json");
        let text = std::fs::read_to_string(&path).map_err(|e| Error::Io(path.clone(), e))?;
        let json: serde_json::Value =
            serde_json::from_str(&text).map_err(|e| Error::Json(path.clone(), e))?;
        let sentences = json["sentences"]
            .as_array()
            .ok_or_else(|| Error::Missing(path.clone(), "sentences"))?;
        let lines: String = sentences
            .iter()
            .filter_map(|s| s.as_str())
            .map(|s| s.replace(['\n', '\r'], " ") + "\n")
            .collect();
        output(
            Command::new(&self.executable).args(["embed", "-", "--quiet"]),
            &lines,
        )
    }

    pub fn sentences_per_second(
        &self,
        case: Case,
        threads: usize,
        runs: usize,
    ) -> Result<f64, Error> {
        let mut command = Command::new(&self.executable);
        command.arg("bench").arg("--json").args([
            "-b",
            &case.batch.to_string(),
            "-s",
            &case.seq.to_string(),
        ]);
        let answer = output(
            command.args(["-t", &threads.to_string(), "-r", &runs.to_string()]),
            "",
        )?;
        answer
            .lines()
            .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
            .find_map(|line| line["sent_s"].as_f64())
            .ok_or(Error::Answer("the executable's bench", answer))
    }
}

/// Runs a command over `input` and returns its standard output; its standard error is shown only when it fails.
pub fn output(command: &mut Command, input: &str) -> Result<String, Error> {
    let name = PathBuf::from(command.get_program());
    let io = |e| Error::Io(name.clone(), e);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(io)?;
    if let Some(mut stdin) = child.stdin.take()
        && let Err(e) = stdin.write_all(input.as_bytes())
        && e.kind() != std::io::ErrorKind::BrokenPipe
    {
        return Err(io(e));
    }
    let done = child.wait_with_output().map_err(io)?;
    if !done.status.success() {
        let stderr = String::from_utf8_lossy(&done.stderr).trim_end().to_string();
        return Err(Error::Failed {
            command: format!("{command:?}"),
            status: done.status,
            stderr,
        });
    }
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}

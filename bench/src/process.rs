//! Other programs: run once for what they print, or kept and asked line by line.

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::Value;

use crate::error::Error;

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

/// A process that answers each line of its standard input with a line of JSON. An empty line ends it.
pub struct Server {
    name: &'static str,
    process: Child,
    ask: ChildStdin,
    answer: BufReader<ChildStdout>,
}

impl Server {
    /// Starts it; `name` is for messages.
    pub fn start(command: &mut Command, name: &'static str) -> Result<Self, Error> {
        let program = PathBuf::from(command.get_program());
        let io = |e| Error::Io(program.clone(), e);
        let broken = || io(std::io::ErrorKind::BrokenPipe.into());
        let mut process = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(io)?;
        let ask = process.stdin.take().ok_or_else(broken)?;
        let answer = BufReader::new(process.stdout.take().ok_or_else(broken)?);
        Ok(Server {
            name,
            process,
            ask,
            answer,
        })
    }

    /// Sends a line and waits for its answer.
    pub fn ask(&mut self, line: &str) -> Result<Value, Error> {
        let io = |e| Error::Io(PathBuf::from(self.name), e);
        writeln!(self.ask, "{line}").map_err(io)?;
        self.ask.flush().map_err(io)?;
        self.answer()
    }

    /// Waits for a line that it prints unasked.
    pub fn answer(&mut self) -> Result<Value, Error> {
        let mut line = String::new();
        self.answer
            .read_line(&mut line)
            .map_err(|e| Error::Io(PathBuf::from(self.name), e))?;
        parse(self.name, &line)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // One that does not listen is ended.
        if writeln!(self.ask).and_then(|()| self.ask.flush()).is_err() {
            let _ = self.process.kill();
        }
        let _ = self.process.wait();
    }
}

/// A line of JSON that `name` printed.
pub fn parse(name: &'static str, line: &str) -> Result<Value, Error> {
    serde_json::from_str(line).map_err(|_| Error::Answer(name, line.into()))
}

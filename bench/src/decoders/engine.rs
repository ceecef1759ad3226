//! The two sides: the compiled executable, and llama.cpp through `llama_decoder.py`.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use super::case::{Case, Half, Times};
use crate::compiled::Compiled;
use crate::error::Error;
use crate::process::Server;

/// The weights' part in a step, as each side stores them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Traffic {
    /// Bytes that a step of one token reads.
    pub step_bytes: f64,
    /// Parameters that every token is multiplied with.
    pub token_parameters: f64,
    /// The head's, for the last token of a step.
    pub row_parameters: f64,
}

impl Traffic {
    fn read(who: &'static str, json: &Value) -> Result<Traffic, Error> {
        let field = |name| {
            json["traffic"][name]
                .as_f64()
                .ok_or_else(|| Error::Missing(who.into(), name))
        };
        Ok(Traffic {
            step_bytes: field("step_bytes")?,
            token_parameters: field("token_parameters")?,
            row_parameters: field("row_parameters")?,
        })
    }

    /// What is compared with a limit, for each second at `rate` tokens a second: GB read while writing, 10⁹ operations
    /// of the matrix products while reading a prompt.
    pub fn per_second(&self, case: Case, half: Half, rate: f64) -> f64 {
        let token = match half {
            Half::Write => self.step_bytes,
            Half::Read => {
                2.0 * (self.token_parameters + self.row_parameters / case.prompt.max(1) as f64)
            }
        };
        token * rate / 1e9
    }
}

/// One side, ready to be measured.
pub enum Engine {
    Llmc(Compiled),
    LlamaCpp(Box<LlamaCpp>),
}

pub struct LlamaCpp {
    server: Server,
    /// Whether flash attention was the faster one, for the case and threads that were tried last.
    flash: Option<(Case, usize, bool)>,
}

impl Engine {
    /// An executable, and what it says of itself.
    pub fn llmc(compiled: Compiled) -> Result<(Engine, Traffic), Error> {
        let traffic = Traffic::read("the executable's info", &compiled.info()?)?;
        Ok((Engine::Llmc(compiled), traffic))
    }

    /// llama.cpp with the model loaded and room for `cases`.
    pub fn llama_cpp(
        python: &Path,
        script: &Path,
        model: &Path,
        cases: &[Case],
    ) -> Result<(Engine, Traffic), Error> {
        let most = |f: fn(&Case) -> usize| cases.iter().map(f).max().unwrap_or(1).max(1);
        let mut command = Command::new(python);
        command
            .arg(script)
            .arg(model)
            .arg(most(|c| c.prompt + c.new).to_string())
            .arg(most(|c| c.prompt).to_string());
        let mut server = Server::start(&mut command, "llama_decoder.py")?;
        let about = server.answer()?;
        eprintln!(
            "llama-cpp-python {}: {}",
            about["version"].as_str().unwrap_or("?"),
            about["system"].as_str().unwrap_or("?")
        );
        let traffic = Traffic::read("llama_decoder.py", &about)?;
        Ok((
            Engine::LlamaCpp(Box::new(LlamaCpp {
                server,
                flash: None,
            })),
            traffic,
        ))
    }

    /// One run, behind one that is not timed.
    pub fn run(&mut self, case: Case, threads: usize) -> Result<Times, Error> {
        match self {
            Engine::Llmc(compiled) => {
                let options = [
                    "-p",
                    &case.prompt.to_string(),
                    "-n",
                    &case.new.to_string(),
                    "-r",
                    "1",
                ]
                .map(String::from);
                let lines = compiled.bench(threads, &options)?;
                let seconds = |half| {
                    let test = case.test(half);
                    let rate = lines
                        .iter()
                        .find(|l| l["test"] == test.as_str())
                        .and_then(|l| l["tok_s"].as_f64());
                    match (case.tokens(half), rate) {
                        (0, _) => Ok(0.0),
                        (tokens, Some(rate)) if rate > 0.0 => Ok(tokens as f64 / rate),
                        _ => Err(Error::Answer(
                            "the executable's bench",
                            format!("{lines:?}"),
                        )),
                    }
                };
                Ok(Times {
                    read: seconds(Half::Read)?,
                    write: seconds(Half::Write)?,
                })
            }
            Engine::LlamaCpp(peer) => {
                let flash = peer.choose(case, threads)?;
                peer.run(case, threads, flash)
            }
        }
    }

    /// Whether llama.cpp's flash attention is on, where this is llama.cpp and it has run.
    pub fn flash(&self) -> Option<bool> {
        match self {
            Engine::LlamaCpp(peer) => peer.flash.map(|(_, _, flash)| flash),
            Engine::Llmc(_) => None,
        }
    }
}

impl LlamaCpp {
    /// With flash attention or without, whichever is faster, by the better of two runs each.
    fn choose(&mut self, case: Case, threads: usize) -> Result<bool, Error> {
        if let Some((c, t, flash)) = self.flash
            && (c, t) == (case, threads)
        {
            return Ok(flash);
        }
        let mut best = |flash| -> Result<f64, Error> {
            let mut least = f64::INFINITY;
            for _ in 0..2 {
                let times = self.run(case, threads, flash)?;
                least = least.min(times.read + times.write);
            }
            Ok(least)
        };
        let flash = best(true)? < best(false)?;
        self.flash = Some((case, threads, flash));
        Ok(flash)
    }

    fn run(&mut self, case: Case, threads: usize, flash: bool) -> Result<Times, Error> {
        let line = format!("{threads} {} {} {}", u8::from(flash), case.prompt, case.new);
        let answer = self.server.ask(&line)?;
        match (answer["read_s"].as_f64(), answer["write_s"].as_f64()) {
            (Some(read), Some(write)) => Ok(Times { read, write }),
            _ => Err(Error::Answer("llama_decoder.py", answer.to_string())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prompt_runs_the_head_once_and_a_step_reads_all() {
        let traffic = Traffic {
            step_bytes: 250e6,
            token_parameters: 100e6,
            row_parameters: 160e6,
        };
        let case = Case { prompt: 16, new: 4 };
        assert_eq!(traffic.per_second(case, Half::Write, 100.0), 25.0);
        assert_eq!(traffic.per_second(case, Half::Read, 1000.0), 220.0);
    }
}

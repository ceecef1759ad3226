//! onnxruntime, through `ort_minilm.py`: one process per graph, asked over its standard input.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use crate::case::{self, Case};
use crate::error::Error;
use crate::ours::output;

/// Both sides must be at least this close to the reference.
const LEAST_COSINE: f64 = 0.9999;

pub struct Peer {
    python: PathBuf,
    script: PathBuf,
    pub version: String,
    graphs: Vec<Graph>,
}

struct Graph {
    name: String,
    process: Child,
    ask: ChildStdin,
    answer: BufReader<ChildStdout>,
}

impl Peer {
    /// Builds the graphs, checks each one's embeddings and starts its process.
    pub fn prepare(
        python: &Path,
        script: &Path,
        model: &Path,
        cache: &Path,
        golden: &Path,
    ) -> Result<Self, Error> {
        let mut peer = Peer {
            python: python.into(),
            script: script.into(),
            version: String::new(),
            graphs: Vec::new(),
        };
        let built = output(peer.call("build").arg(model).arg(cache), "")?;
        for line in built.lines() {
            let json = answer(line)?;
            let (Some(name), Some(path)) = (json["graph"].as_str(), json["path"].as_str()) else {
                return Err(Error::Answer("ort_minilm.py build", line.into()));
            };
            let checked = output(
                peer.call("check")
                    .arg(path)
                    .arg(golden.with_extension("safetensors")),
                "",
            )?;
            close_enough(&format!("onnxruntime, graph {name}"), &checked)?;
            peer.version = answer(&checked)?["version"].as_str().unwrap_or("?").into();
            let graph = peer.start(name, path)?;
            peer.graphs.push(graph);
        }
        Ok(peer)
    }

    pub fn names(&self) -> Vec<String> {
        self.graphs.iter().map(|g| g.name.clone()).collect()
    }

    /// The lowest cosine between embeddings (a JSON line each) and the reference.
    pub fn compare(&self, golden: &Path, embeddings: &str) -> Result<f64, Error> {
        let compared = output(
            self.call("compare")
                .arg(golden.with_extension("safetensors")),
            embeddings,
        )?;
        close_enough("llmc", &compared)
    }

    /// The median time of one run.
    pub fn milliseconds(
        &mut self,
        graph: usize,
        case: Case,
        threads: usize,
        runs: usize,
    ) -> Result<f64, Error> {
        let graph = &mut self.graphs[graph];
        let io = |e| Error::Io(PathBuf::from("onnxruntime"), e);
        writeln!(graph.ask, "{threads} {} {} {runs}", case.batch, case.seq).map_err(io)?;
        graph.ask.flush().map_err(io)?;
        let mut line = String::new();
        graph.answer.read_line(&mut line).map_err(io)?;
        let times: Vec<f64> = answer(&line)?["ms"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(serde_json::Value::as_f64)
            .collect();
        if times.is_empty() {
            Err(Error::Answer("ort_minilm.py serve", line))
        } else {
            Ok(case::median(&times))
        }
    }

    fn call(&self, what: &str) -> Command {
        let mut command = Command::new(&self.python);
        command.arg(&self.script).arg(what);
        command
    }

    fn start(&self, name: &str, path: &str) -> Result<Graph, Error> {
        let io = |e| Error::Io(self.python.clone(), e);
        let broken = || io(std::io::ErrorKind::BrokenPipe.into());
        let mut process = self
            .call("serve")
            .arg(path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(io)?;
        let ask = process.stdin.take().ok_or_else(broken)?;
        let answer = BufReader::new(process.stdout.take().ok_or_else(broken)?);
        Ok(Graph {
            name: name.into(),
            process,
            ask,
            answer,
        })
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        // An empty line ends it; one that does not listen is ended.
        if writeln!(self.ask).and_then(|()| self.ask.flush()).is_err() {
            let _ = self.process.kill();
        }
        let _ = self.process.wait();
    }
}

fn answer(line: &str) -> Result<serde_json::Value, Error> {
    serde_json::from_str(line).map_err(|_| Error::Answer("ort_minilm.py", line.into()))
}

fn close_enough(who: &str, line: &str) -> Result<f64, Error> {
    let cosine = answer(line)?["cosine"].as_f64().unwrap_or(0.0);
    if cosine >= LEAST_COSINE {
        Ok(cosine)
    } else {
        Err(Error::Wrong {
            who: who.into(),
            cosine,
            least: LEAST_COSINE,
        })
    }
}

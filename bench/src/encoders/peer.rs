//! onnxruntime and OpenVINO, through `onnx_encoder.py`: one process per graph, asked over its standard input.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::case::{Case, Precision};
use crate::error::Error;
use crate::median::median;
use crate::process::{Server, output, parse};

/// The script, in messages.
const SCRIPT: &str = "onnx_encoder.py";

pub struct Peer {
    python: PathBuf,
    script: PathBuf,
    graphs: Vec<Graph>,
}

/// One engine with one graph.
pub struct Graph {
    /// `onnxruntime 1.23 fused`.
    pub name: String,
    pub precision: Precision,
    server: Server,
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
            graphs: Vec::new(),
        };
        let golden = golden.with_extension("safetensors");
        let built = output(peer.call("build").arg(model).arg(cache), "")?;
        for line in built.lines() {
            let json = parse(SCRIPT, line)?;
            let text = |key: &str| json[key].as_str();
            let precision = match text("precision") {
                Some("f32") => Some(Precision::F32),
                Some("int8") => Some(Precision::Int8),
                _ => None,
            };
            let (Some(engine), Some(graph), Some(path), Some(precision)) =
                (text("engine"), text("graph"), text("path"), precision)
            else {
                return Err(Error::Answer(SCRIPT, line.into()));
            };
            let checked = output(peer.call("check").args([engine, path]).arg(&golden), "")?;
            let who = format!("{engine}, graph {graph}");
            let cosine = close_enough(&who, &checked, precision.least_cosines()[1])?;
            eprintln!("{who}: lowest cosine with the reference {cosine:.6}");
            let version = parse(SCRIPT, &checked)?["version"].clone();
            let name = format!("{engine} {} {graph}", version.as_str().unwrap_or("?"));
            let server = Server::start(peer.call("serve").args([engine, path]), SCRIPT)?;
            peer.graphs.push(Graph {
                name,
                precision,
                server,
            });
        }
        Ok(peer)
    }

    /// The graphs of a precision.
    pub fn graphs(&mut self, of: Precision) -> Vec<&mut Graph> {
        let all = self.graphs.iter_mut();
        all.filter(|g| g.precision == of).collect()
    }

    /// The lowest cosine between embeddings (a JSON line each) and the reference.
    pub fn compare(&self, golden: &Path, embeddings: &str, least: f64) -> Result<f64, Error> {
        let golden = golden.with_extension("safetensors");
        let compared = output(self.call("compare").arg(golden), embeddings)?;
        close_enough("llmc", &compared, least)
    }

    fn call(&self, what: &str) -> Command {
        let mut command = Command::new(&self.python);
        command.arg(&self.script).arg(what);
        command
    }
}

impl Graph {
    /// The median time of one run.
    pub fn milliseconds(&mut self, case: &Case, threads: usize, runs: usize) -> Result<f64, Error> {
        let lengths = case.list(" ");
        let answer = self.server.ask(&format!("{threads} {runs} {lengths}"))?;
        let times: Vec<f64> = answer["ms"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(serde_json::Value::as_f64)
            .collect();
        if times.is_empty() {
            Err(Error::Answer(SCRIPT, answer.to_string()))
        } else {
            Ok(median(&times))
        }
    }
}

fn close_enough(who: &str, line: &str, least: f64) -> Result<f64, Error> {
    let cosine = parse(SCRIPT, line)?["cosine"].as_f64().unwrap_or(0.0);
    if cosine >= least {
        Ok(cosine)
    } else {
        Err(Error::Wrong {
            who: who.into(),
            cosine,
            least,
        })
    }
}

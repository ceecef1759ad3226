//! onnxruntime, through `ort_minilm.py`: one process per graph, asked over its standard input.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::case::Case;
use crate::error::Error;
use crate::median::median;
use crate::process::{Server, output, parse};

/// The script, in messages.
const SCRIPT: &str = "ort_minilm.py";
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
            version: String::new(),
            graphs: Vec::new(),
        };
        let built = output(peer.call("build").arg(model).arg(cache), "")?;
        for line in built.lines() {
            let json = parse(SCRIPT, line)?;
            let (Some(name), Some(path)) = (json["graph"].as_str(), json["path"].as_str()) else {
                return Err(Error::Answer(SCRIPT, line.into()));
            };
            let checked = output(
                peer.call("check")
                    .arg(path)
                    .arg(golden.with_extension("safetensors")),
                "",
            )?;
            close_enough(&format!("onnxruntime, graph {name}"), &checked)?;
            peer.version = parse(SCRIPT, &checked)?["version"]
                .as_str()
                .unwrap_or("?")
                .into();
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
        let answer = self.graphs[graph]
            .server
            .ask(&format!("{threads} {} {} {runs}", case.batch, case.seq))?;
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

    fn call(&self, what: &str) -> Command {
        let mut command = Command::new(&self.python);
        command.arg(&self.script).arg(what);
        command
    }

    fn start(&self, name: &str, path: &str) -> Result<Graph, Error> {
        Ok(Graph {
            name: name.into(),
            server: Server::start(self.call("serve").arg(path), SCRIPT)?,
        })
    }
}

fn close_enough(who: &str, line: &str) -> Result<f64, Error> {
    let cosine = parse(SCRIPT, line)?["cosine"].as_f64().unwrap_or(0.0);
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

//! The figures, as a Markdown table and as JSON lines.

use std::fmt::Write;

use serde_json::json;

use super::case::Case;

/// One case with one thread count; rates are sentences per second.
pub struct Row {
    pub case: Case,
    pub threads: usize,
    /// Arithmetic of one sentence.
    pub gflop: f64,
    /// The machine's, in GFLOP/s.
    pub peak: f64,
    pub graphs: Vec<(String, f64)>,
    pub ours: Option<f64>,
}

impl Row {
    /// onnxruntime's fastest graph.
    fn best(&self) -> (&str, f64) {
        self.graphs
            .iter()
            .map(|(n, r)| (n.as_str(), *r))
            .max_by(|a, b| a.1.total_cmp(&b.1))
            .unwrap_or(("none", 0.0))
    }

    fn share(&self, rate: f64) -> f64 {
        if self.peak > 0.0 {
            rate * self.gflop / self.peak
        } else {
            0.0
        }
    }

    pub fn json(&self) -> serde_json::Value {
        let (graph, theirs) = self.best();
        let mut row = json!({
            "test": format!("embed b{} s{}", self.case.batch, self.case.seq), "threads": self.threads,
            "peak_gflop_s": self.peak, "gflop_per_sentence": self.gflop,
            "onnxruntime": {"graph": graph, "sent_s": theirs, "peak_share": self.share(theirs)},
            "onnxruntime_graphs": self.graphs.iter().map(|(n, r)| (n.clone(), json!(r))).collect::<serde_json::Map<_, _>>(),
        });
        if let Some(rate) = self.ours {
            row["llmc"] = json!({"sent_s": rate, "peak_share": self.share(rate)});
            row["ratio"] = json!(if theirs > 0.0 { rate / theirs } else { 0.0 });
        }
        row
    }
}

/// One line a row.
pub fn table(rows: &[Row]) -> String {
    let mut t = String::from(
        "| threads | batch | f32 peak GFLOP/s | onnxruntime ms | sentences/s | of peak | best graph | llmc ms | sentences/s | of peak | llmc / onnxruntime |\n\
         |---|---|---|---|---|---|---|---|---|---|---|\n",
    );
    for row in rows {
        let (graph, theirs) = row.best();
        let cells = |rate: f64| {
            format!(
                "{:.2} | {rate:.1} | {:.0} %",
                row.case.batch as f64 * 1e3 / rate,
                100.0 * row.share(rate)
            )
        };
        let ours = row.ours.map_or("– | – | – | –".into(), |rate| {
            format!("{} | {:.2}", cells(rate), rate / theirs)
        });
        let _ = writeln!(
            t,
            "| {} | {} | {:.0} | {} | {graph} | {ours} |",
            row.threads,
            row.case,
            row.peak,
            cells(theirs)
        );
    }
    t
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(ours: Option<f64>) -> Row {
        let graphs = vec![("plain".into(), 50.0), ("fused".into(), 60.0)];
        Row {
            case: Case {
                batch: 32,
                seq: 128,
            },
            threads: 2,
            gflop: 2.869,
            peak: 200.0,
            graphs,
            ours,
        }
    }

    #[test]
    fn the_fastest_graph_stands_for_the_peer() {
        let json = row(Some(90.0)).json();
        assert_eq!(json["onnxruntime"]["graph"], "fused");
        assert_eq!(json["ratio"], 1.5);
    }

    #[test]
    fn a_table_has_dashes_for_what_was_not_measured() {
        let text = table(&[row(None)]);
        assert!(text.contains("| 86 % | fused | – | – | – | – |"), "{text}");
    }
}

//! The figures, as a Markdown table and as JSON lines.

use std::fmt::Write;

use serde_json::json;

use super::case::Case;

/// One case with one thread count; rates are sentences per second.
pub struct Row {
    pub model: String,
    pub precision: &'static str,
    pub case: Case,
    pub threads: usize,
    /// Arithmetic of one sentence.
    pub gflop: f64,
    /// The machine's, in 10⁹ operations a second of this precision.
    pub peak: f64,
    /// The peers' graphs of this precision.
    pub graphs: Vec<(String, f64)>,
    pub ours: Option<f64>,
}

impl Row {
    /// The peers' fastest graph.
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
            "model": self.model, "precision": self.precision,
            "test": format!("embed {}", self.case), "threads": self.threads,
            "peak_gop_s": self.peak, "gop_per_sentence": self.gflop,
            "best_peer": {"graph": graph, "sent_s": theirs, "peak_share": self.share(theirs)},
            "peers": self.graphs.iter().map(|(n, r)| (n.clone(), json!(r))).collect::<serde_json::Map<_, _>>(),
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
        "| model | precision | threads | batch | peak Gop/s | best peer | ms | sentences/s | of peak | llmc ms | sentences/s | of peak | llmc / peer |\n\
         |---|---|---|---|---|---|---|---|---|---|---|---|---|\n",
    );
    for row in rows {
        let (graph, theirs) = row.best();
        let cells = |rate: f64| {
            format!(
                "{:.2} | {rate:.1} | {:.0} %",
                row.case.batch() as f64 * 1e3 / rate,
                100.0 * row.share(rate)
            )
        };
        let ours = row.ours.map_or("– | – | – | –".into(), |rate| {
            format!("{} | {:.2}", cells(rate), rate / theirs)
        });
        let _ = writeln!(
            t,
            "| {} | {} | {} | {} | {:.0} | {graph} | {} | {ours} |",
            row.model,
            row.precision,
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
            model: "m".into(),
            precision: "f32",
            case: "32x128".parse().unwrap(),
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
        assert_eq!(json["best_peer"]["graph"], "fused");
        assert_eq!(json["ratio"], 1.5);
    }

    #[test]
    fn a_table_has_dashes_for_what_was_not_measured() {
        let text = table(&[row(None)]);
        assert!(
            text.contains("| fused | 533.33 | 60.0 | 86 % | – | – | – | – |"),
            "{text}"
        );
    }
}

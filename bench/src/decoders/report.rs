//! The figures, as a Markdown table and as JSON lines.

use std::fmt::Write;

use serde_json::{Value, json};

use super::case::{Case, Half, Times};
use super::engine::Traffic;
use crate::limits::Limits;
use crate::median::median;

/// One test of one model with one number of threads.
pub struct Row {
    pub model: String,
    pub threads: usize,
    pub case: Case,
    pub half: Half,
    /// llama.cpp, where it was asked for.
    pub peer: Option<Side>,
    /// The executable, where it was asked for.
    pub ours: Option<Side>,
    pub limits: Limits,
    /// The load average after the last round.
    pub load: Option<f64>,
}

/// What became of one side.
#[derive(Clone, Debug)]
pub enum Side {
    Measured {
        traffic: Traffic,
        flash: Option<bool>,
        /// One a round.
        times: Vec<Times>,
    },
    Failed(String),
}

impl Row {
    fn rates(&self, times: &[Times]) -> Vec<f64> {
        times.iter().map(|t| self.case.rate(self.half, t)).collect()
    }

    /// The median rate, in tokens a second.
    fn rate(&self, side: &Option<Side>) -> Option<f64> {
        match side {
            Some(Side::Measured { times, .. }) => Some(median(&self.rates(times))),
            Some(Side::Failed(_)) | None => None,
        }
    }

    /// The limit that stands over this test, and its unit.
    fn limit(&self) -> (Option<f64>, &'static str) {
        match self.half {
            Half::Read => (self.limits.int8, "GOP/s"),
            Half::Write => (Some(self.limits.read), "GB/s"),
        }
    }

    /// What a side does of that limit, in its unit.
    fn load_on_limit(&self, side: &Option<Side>) -> Option<f64> {
        match (side, self.rate(side)) {
            (Some(Side::Measured { traffic, .. }), Some(rate)) => {
                Some(traffic.per_second(self.case, self.half, rate))
            }
            _ => None,
        }
    }

    fn share(&self, side: &Option<Side>) -> Option<f64> {
        Some(self.load_on_limit(side)? / self.limit().0?)
    }

    /// llmc / llama.cpp.
    fn ratio(&self) -> Option<f64> {
        Some(self.rate(&self.ours)? / self.rate(&self.peer)?)
    }

    pub fn json(&self) -> Value {
        let mut row = json!({
            "model": self.model, "test": self.case.test(self.half), "threads": self.threads,
            "limits": self.limits.json(), "load": self.load,
        });
        if self.half == Half::Write {
            row["depth"] = json!(self.case.prompt);
        }
        for (name, side) in [("llama.cpp", &self.peer), ("llmc", &self.ours)] {
            row[name] = match side {
                None => continue,
                Some(Side::Failed(error)) => json!({"error": error}),
                Some(Side::Measured { times, flash, .. }) => {
                    let rates = self.rates(times);
                    let mut side = json!({
                        "tok_s": self.rate(side),
                        "min": rates.iter().copied().reduce(f64::min),
                        "max": rates.iter().copied().reduce(f64::max),
                        "runs": rates.len(),
                        self.limit().1: self.load_on_limit(side),
                        "share": self.share(side),
                    });
                    if let Some(flash) = flash {
                        side["flash_attention"] = json!(flash);
                    }
                    side
                }
            };
        }
        if let Some(ratio) = self.ratio() {
            row["ratio"] = json!(ratio);
        }
        row
    }

    /// Two cells: tokens a second, share of the limit.
    fn cells(&self, side: &Option<Side>) -> String {
        match (side, self.rate(side), self.load_on_limit(side)) {
            (Some(Side::Failed(_)), ..) => "failed | –".into(),
            (_, Some(rate), Some(load)) => {
                let share = self.share(side).map_or_else(
                    || "–".into(),
                    |share| format!("{load:.1}, {:.0} %", 100.0 * share),
                );
                format!("{rate:.1} | {share}")
            }
            _ => "– | –".into(),
        }
    }
}

/// One line a row. The limits are the medians of the rounds that the row was measured in.
pub fn table(rows: &[Row]) -> String {
    let mut t = String::from(
        "| model | threads | test | llama.cpp tok/s | of limit | llmc tok/s | of limit | llmc / llama.cpp | limit |\n\
         |---|---|---|---|---|---|---|---|---|\n",
    );
    for row in rows {
        let ratio = row.ratio().map_or("–".into(), |r| format!("{r:.2}"));
        let limit = match row.limit() {
            (Some(limit), unit) => format!("{limit:.0} {unit}"),
            (None, _) => "–".into(),
        };
        let _ = writeln!(
            t,
            "| {} | {} | {} | {} | {} | {ratio} | {limit} |",
            row.model,
            row.threads,
            row.case.test(row.half),
            row.cells(&row.peer),
            row.cells(&row.ours),
        );
    }
    let mut all: Vec<usize> = rows.iter().map(|r| r.threads).collect();
    all.sort_unstable();
    all.dedup();
    t += "\n| threads | read GB/s | f32 GFLOP/s | bf16 GFLOP/s | int8 GOP/s |\n|---|---|---|---|---|\n";
    for threads in all {
        let of: Vec<Limits> = rows
            .iter()
            .filter(|r| r.threads == threads)
            .map(|r| r.limits)
            .collect();
        let limits = Limits::median(&of);
        let cell = |limit: Option<f64>| limit.map_or("–".into(), |l| format!("{l:.0}"));
        let _ = writeln!(
            t,
            "| {threads} | {:.1} | {} | {} | {} |",
            limits.read,
            cell(limits.f32),
            cell(limits.bf16),
            cell(limits.int8)
        );
    }
    t
}

#[cfg(test)]
mod tests {
    use super::*;

    fn side(seconds: &[f64]) -> Option<Side> {
        let times = seconds.iter().map(|&s| Times {
            read: s,
            write: 10.0 * s,
        });
        Some(Side::Measured {
            traffic: Traffic {
                step_bytes: 200e6,
                token_parameters: 100e6,
                row_parameters: 1.0,
            },
            flash: None,
            times: times.collect(),
        })
    }

    fn row(half: Half, peer: Option<Side>, ours: Option<Side>) -> Row {
        let limits = Limits {
            read: 20.0,
            f32: Some(100.0),
            bf16: None,
            int8: Some(400.0),
        };
        Row {
            model: "m".into(),
            threads: 2,
            case: Case {
                prompt: 512,
                new: 100,
            },
            half,
            peer,
            ours,
            limits,
            load: None,
        }
    }

    #[test]
    fn medians_ratios_and_shares() {
        let row = row(Half::Write, side(&[0.2, 0.5, 0.1]), side(&[0.1]));
        let json = row.json();
        assert_eq!(json["llama.cpp"]["tok_s"], 50.0);
        assert_eq!(
            (json["ratio"].clone(), json["depth"].clone()),
            (json!(2.0), json!(512))
        );
        assert_eq!(json["llmc"]["share"], 1.0);
        let text = table(&[row]);
        assert!(
            text.contains(
                "| m | 2 | tg100 | 50.0 | 10.0, 50 % | 100.0 | 20.0, 100 % | 2.00 | 20 GB/s |"
            ),
            "{text}"
        );
        assert!(text.contains("| 2 | 20.0 | 100 | – | 400 |"), "{text}");
    }

    #[test]
    fn a_side_that_failed_is_told_and_has_no_ratio() {
        let row = row(Half::Read, side(&[1.0]), Some(Side::Failed("no".into())));
        let json = row.json();
        assert_eq!(json["llmc"]["error"], "no");
        assert!(json.get("ratio").is_none());
        assert!(table(&[row]).contains("| failed | – | – |"));
    }
}

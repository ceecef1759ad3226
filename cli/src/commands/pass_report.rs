//! What passes did, on standard error: dumps, statistics and missed remarks, times.

use std::{
    fmt::Write as _,
    io::{Write as _, stderr},
};

use llmc_passes::Report;

use crate::args::PassArgs;

/// Prints the dumps of a report.
pub fn dumps(report: &Report) {
    let mut out = String::new();
    for dump in &report.dumps {
        let _ = writeln!(out, "// after {}\n{}", dump.after, dump.module);
    }
    write(&out);
}

/// Prints what was asked for besides dumps.
pub fn tell(report: &Report, args: &PassArgs) {
    write(&text(report, args));
}

fn write(text: &str) {
    // Nobody is left to hear of an error on standard error.
    let _ = stderr().lock().write_all(text.as_bytes());
}

fn text(report: &Report, args: &PassArgs) -> String {
    let mut out = String::new();
    if args.stats {
        for run in &report.runs {
            let _ = writeln!(out, "{:>20}: {} rewrites", run.pass, run.stats.rewrites);
        }
        for remark in &report.remarks {
            let _ = writeln!(out, "{remark}");
        }
    }
    if args.time_passes {
        let mut total = 0.0;
        for run in &report.runs {
            let ms = run.time.as_secs_f64() * 1e3;
            total += ms;
            let _ = writeln!(out, "{:>20}: {ms:9.3} ms", run.pass);
        }
        let _ = writeln!(out, "{:>20}: {total:9.3} ms", "all passes");
    }
    out
}

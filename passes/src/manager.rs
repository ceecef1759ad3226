//! Runs a list of passes over a module.
//!
//! in: a module that verifies, a list of passes → out: the rewritten module, and a [`Report`] of
//! what each pass did, how long it took, what it missed, and the dumps that were asked for.
//!
//! Invariant: the module verifies after every pass; a violation is a bug of the pass and ends the
//! run with its name. Deliberately not here: printing. Dumps are modules, times are durations.

use std::time::{Duration, Instant};

use llmc_ir::{
    Module,
    verify::{Violation, verify},
};

use crate::{Pass, PassError, Remark, Remarks, Stats};

/// Runs passes, with the hooks that were asked for.
#[derive(Clone, Default)]
pub struct Manager {
    print_after: Vec<String>,
    print_after_all: bool,
    stop_after: Option<String>,
}

/// One pass that ran.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PassRun {
    pub pass: &'static str,
    pub stats: Stats,
    /// Time in the pass itself, verification excluded.
    pub time: Duration,
}

/// The module after a pass.
#[derive(Clone, PartialEq, Debug)]
pub struct Dump {
    pub after: &'static str,
    pub module: Module,
}

/// What happened in a run.
#[derive(Clone, Debug, Default)]
pub struct Report {
    pub runs: Vec<PassRun>,
    pub remarks: Vec<Remark>,
    pub dumps: Vec<Dump>,
}

/// Why a run ended early.
#[derive(Clone, Debug, thiserror::Error)]
pub enum PipelineError {
    /// The module did not verify to begin with.
    #[error("the module does not verify:\n{}", lines(.0))]
    Input(Vec<Violation>),
    /// A pass could not do its work.
    #[error("{pass}: {error}")]
    Pass {
        pass: &'static str,
        error: PassError,
    },
    /// A bug of the compiler: the module does not verify after a pass.
    #[error("the module does not verify after {pass}:\n{}", lines(violations))]
    Invalid {
        pass: &'static str,
        violations: Vec<Violation>,
        /// What the pass was given: `llmc opt --passes=<pass>` over its dump shows the bug.
        before: Box<Module>,
    },
}

/// One violation a line.
fn lines(violations: &[Violation]) -> String {
    let lines: Vec<String> = violations.iter().map(ToString::to_string).collect();
    lines.join("\n")
}

impl Manager {
    /// No hooks.
    pub fn new() -> Manager {
        Manager::default()
    }

    /// Dumps the module after every pass called `name`.
    pub fn print_after(mut self, name: impl Into<String>) -> Manager {
        self.print_after.push(name.into());
        self
    }

    /// Dumps the module after every pass.
    pub fn print_after_all(mut self) -> Manager {
        self.print_after_all = true;
        self
    }

    /// Ends the run after the first pass called `name`.
    pub fn stop_after(mut self, name: impl Into<String>) -> Manager {
        self.stop_after = Some(name.into());
        self
    }

    /// Runs `passes` in order.
    pub fn run(
        &self,
        passes: &[Box<dyn Pass>],
        module: &mut Module,
    ) -> Result<Report, PipelineError> {
        let violations = verify(module);
        if !violations.is_empty() {
            return Err(PipelineError::Input(violations));
        }
        let mut report = Report::default();
        let mut remarks = Remarks::new();
        for pass in passes {
            let name = pass.name();
            remarks.enter(name);
            let before = module.clone();
            let start = Instant::now();
            let stats = pass
                .run(module, &mut remarks)
                .map_err(|error| PipelineError::Pass { pass: name, error })?;
            report.runs.push(PassRun {
                pass: name,
                stats,
                time: start.elapsed(),
            });
            let violations = verify(module);
            if !violations.is_empty() {
                return Err(PipelineError::Invalid {
                    pass: name,
                    violations,
                    before: Box::new(before),
                });
            }
            if self.print_after_all || self.print_after.iter().any(|p| p == name) {
                report.dumps.push(Dump {
                    after: name,
                    module: module.clone(),
                });
            }
            if self.stop_after.as_deref() == Some(name) {
                break;
            }
        }
        report.remarks = remarks.list().to_vec();
        Ok(report)
    }
}

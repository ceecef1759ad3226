//! Runs a list of passes over a module.
//!
//! in: a module that verifies, a list of passes → out: the rewritten module, and a [`Report`] of
//! what each pass did, how long it took, what it missed, and the dumps that were asked for.
//!
//! Invariant: the module verifies after every pass; a violation is a bug of the pass and ends the
//! run with its name. Deliberately not here: printing. Dumps are modules, times are durations.

use std::time::{Duration, Instant};

use llmc_ir::Module;

use crate::{Pass, PassError, Remark, Remarks, Stats};

/// Checks a module and tells every violation.
pub type Verify = fn(&Module) -> Vec<String>;

/// Runs passes, with the hooks that were asked for.
#[derive(Clone)]
pub struct Manager {
    verify: Verify,
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
    /// A pass could not do its work.
    #[error("{pass}: {error}")]
    Pass {
        pass: &'static str,
        error: PassError,
    },
    /// A bug of the compiler: the module does not verify after a pass.
    #[error("the module does not verify after {pass}:\n{}", violations.join("\n"))]
    Invalid {
        pass: &'static str,
        violations: Vec<String>,
        /// What the pass left.
        module: Box<Module>,
    },
}

fn violations(module: &Module) -> Vec<String> {
    let list = llmc_ir::verify::verify(module);
    list.iter().map(ToString::to_string).collect()
}

impl Default for Manager {
    fn default() -> Self {
        Manager {
            verify: violations,
            print_after: Vec::new(),
            print_after_all: false,
            stop_after: None,
        }
    }
}

impl Manager {
    /// No hooks; modules are checked by the IR's verifier.
    pub fn new() -> Manager {
        Manager::default()
    }

    /// Checks modules with `verify` instead.
    pub fn verify(mut self, verify: Verify) -> Manager {
        self.verify = verify;
        self
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

    /// Runs `passes` in order over a module that verifies.
    pub fn run(
        &self,
        passes: &[Box<dyn Pass>],
        module: &mut Module,
    ) -> Result<Report, PipelineError> {
        let mut report = Report::default();
        let mut remarks = Remarks::new();
        for pass in passes {
            let name = pass.name();
            remarks.enter(name);
            let start = Instant::now();
            let stats = pass
                .run(module, &mut remarks)
                .map_err(|error| PipelineError::Pass { pass: name, error })?;
            report.runs.push(PassRun {
                pass: name,
                stats,
                time: start.elapsed(),
            });
            let violations = (self.verify)(module);
            if !violations.is_empty() {
                return Err(PipelineError::Invalid {
                    pass: name,
                    violations,
                    module: Box::new(module.clone()),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::passes_by_name;

    const TEXT: &str = r#"
        module "m" {stage = model}
        dims N: 1..=8, R: 0..=1, B: 1..=1, T: 1..=8
        weight @embed : f32[10, 16] from "embed"
        weight @w : f32[16, 16] from "w"
        func @forward(%ids: i32[N], %pos: i32[N], %step: step) {
          %x = gather %ids, @embed
          %y = linear %x, @w
          %a = activation %y {kind = relu}
          %b = activation %y {kind = relu}
          %z = add %a, %b
          %u = linear %x, @w
          return y = %z
        }"#;

    fn run(manager: Manager, passes: &str) -> (Module, Result<Report, PipelineError>) {
        let mut module = llmc_ir::parse::parse(TEXT).unwrap();
        let passes = passes_by_name(passes).unwrap();
        let report = manager.run(&passes, &mut module);
        (module, report)
    }

    #[test]
    fn tells_what_ran() {
        let (_, report) = run(Manager::new(), "fuse-activation,cse,dce,fuse-activation");
        let report = report.unwrap();
        let runs = report.runs.iter().map(|r| (r.pass, r.stats.rewrites));
        let expected = [
            ("fuse-activation", 0),
            ("cse", 2),
            ("dce", 0),
            ("fuse-activation", 1),
        ];
        assert!(runs.eq(expected), "{:?}", report.runs);
        let remarks: Vec<String> = report.remarks.iter().map(ToString::to_string).collect();
        let why = "the linear's result has other uses";
        assert_eq!(
            remarks,
            [format!("missed: fuse-activation: @forward: %y: {why}")]
        );
    }

    #[test]
    fn dumps_and_stops() {
        let manager = Manager::new().print_after("cse").stop_after("dce");
        let (module, report) = run(manager, "dce,cse");
        let report = report.unwrap();
        assert_eq!((report.runs.len(), report.dumps.len()), (1, 0));
        assert_eq!(module.funcs[0].body.len(), 5);
        let (module, report) = run(Manager::new().print_after_all(), "dce,cse");
        let dumps = report.unwrap().dumps;
        assert_eq!(
            dumps.iter().map(|d| d.after).collect::<Vec<_>>(),
            ["dce", "cse"]
        );
        assert_eq!(dumps[1].module, module);
    }

    #[test]
    fn names_the_pass_that_stopped() {
        let (_, report) = run(Manager::new(), "plan-memory");
        let error = report.unwrap_err().to_string();
        assert!(
            error.starts_with("plan-memory: @forward: the kernels"),
            "{error}"
        );
    }
}

//! What a pass is, and what it says: statistics, remarks, errors.
//!
//! A pass takes a module that verifies and leaves one that verifies. Where it could not do its work
//! at a place that looked right, it leaves a *missed* remark saying why; that is not an error. What it
//! decided about single weights it tells in *notes*.

use llmc_ir::Module;

/// One rewrite of a module.
pub trait Pass {
    /// The name in `--passes=…`: verb first, with hyphens.
    fn name(&self) -> &'static str;

    /// Rewrites the module.
    fn run(&self, module: &mut Module, remarks: &mut Remarks) -> Result<Stats, PassError>;
}

/// What a pass did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Stats {
    /// Places at which it changed the module.
    pub rewrites: usize,
}

impl Stats {
    /// `n` rewrites.
    pub fn of(rewrites: usize) -> Stats {
        Stats { rewrites }
    }
}

/// Why a pass stopped.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PassError {
    /// The model asks for something that makes no sense.
    #[error("@{func}: {what}")]
    Refused { func: String, what: String },
    /// The model asks for something that this compiler cannot do (yet).
    #[error("@{func}: {what} (not supported)")]
    Unsupported { func: String, what: String },
    /// An earlier pass has not run, or the module does not verify.
    #[error("@{func}: {what}")]
    OutOfOrder { func: String, what: String },
}

impl PassError {
    /// The model makes no sense here.
    pub fn refused(func: &str, what: impl Into<String>) -> PassError {
        PassError::Refused {
            func: func.into(),
            what: what.into(),
        }
    }

    /// Not supported (yet).
    pub fn unsupported(func: &str, what: impl Into<String>) -> PassError {
        PassError::Unsupported {
            func: func.into(),
            what: what.into(),
        }
    }

    /// Something that an earlier pass should have done is missing.
    pub fn out_of_order(func: &str, what: impl Into<String>) -> PassError {
        PassError::OutOfOrder {
            func: func.into(),
            what: what.into(),
        }
    }
}

/// What a pass has to say beside its rewrites.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Remark {
    /// A place that a pass left alone although it looked right.
    Missed {
        pass: &'static str,
        func: String,
        /// The value at which it is, as `%name`.
        at: String,
        /// Why nothing was done.
        why: String,
    },
    /// What a pass decided about a weight or a state.
    Note {
        pass: &'static str,
        /// The weight or state, as `@name`.
        at: String,
        what: String,
    },
}

impl std::fmt::Display for Remark {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Remark::Missed {
                pass,
                func,
                at,
                why,
            } => write!(f, "missed: {pass}: @{func}: {at}: {why}"),
            Remark::Note { pass, at, what } => write!(f, "note: {pass}: {at}: {what}"),
        }
    }
}

/// The remarks of a run, in order; the same remark is kept once.
#[derive(Clone, Debug, Default)]
pub struct Remarks {
    pass: &'static str,
    list: Vec<Remark>,
}

impl Remarks {
    /// No remarks yet.
    pub fn new() -> Remarks {
        Remarks::default()
    }

    /// What follows is said by `pass`.
    pub fn enter(&mut self, pass: &'static str) {
        self.pass = pass;
    }

    /// `pass` left the value called `at` of `func` alone.
    pub fn missed(&mut self, func: &str, at: &str, why: impl Into<String>) {
        self.add(Remark::Missed {
            pass: self.pass,
            func: func.to_string(),
            at: format!("%{at}"),
            why: why.into(),
        });
    }

    /// `what` was decided about the weight or state called `at`.
    pub fn note(&mut self, at: &str, what: impl Into<String>) {
        self.add(Remark::Note {
            pass: self.pass,
            at: format!("@{at}"),
            what: what.into(),
        });
    }

    fn add(&mut self, remark: Remark) {
        if !self.list.contains(&remark) {
            self.list.push(remark);
        }
    }

    /// All remarks, in order.
    pub fn list(&self) -> &[Remark] {
        &self.list
    }
}

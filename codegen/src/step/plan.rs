//! The step as plain data.

use llmc_abi::{Entry, Input, KvClass, Limits, Output, Taps, Work};

use crate::{kernel::KernelBuilder, kernels};

/// The steps of all entries of a module.
#[derive(Clone, Debug)]
pub struct StepPlan {
    /// The main entry first.
    pub entries: Vec<EntryPlan>,
    pub kv: Vec<KvClass>,
    /// Constants that kernels read: rotary frequencies.
    pub tables: Vec<Vec<f32>>,
    /// Bytes of the arena: the module's, then the kernels' workspace, then attention's partials.
    pub arena_bytes: u64,
    /// Where the workspace starts.
    pub workspace_at: u64,
    /// Where the partials start, which nothing else writes: they keep counters between calls.
    pub partials_at: u64,
    /// Bytes of scratch for each thread.
    pub scratch_bytes: u64,
}

/// The step of one entry.
#[derive(Clone, Debug)]
pub struct EntryPlan {
    pub entry: Entry,
    pub limits: Limits,
    /// Its layer classes in the module's order, then the entry.
    pub routines: Vec<Routine>,
    /// Routine and slot of every layer in order, for each `repeat`.
    pub repeats: Vec<Vec<(usize, u32)>>,
    /// The number of its first phase.
    pub phases_from: usize,
    pub inputs: Vec<Input>,
    pub outputs: Vec<Output>,
    /// Of the first `repeat`.
    pub taps: Taps,
    /// Where the residual stream is at layer boundaries, and where HF's last hidden state is.
    pub stream_at: Option<u64>,
    pub last_hidden_at: Option<u64>,
    /// Whose rows' largest entries a step tells when asked.
    pub logits: Option<Logits>,
}

/// Rows of logits in the arena.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Logits {
    pub at: u64,
    pub width: u32,
    /// Floats a row.
    pub stride: u32,
    /// Most rows.
    pub rows: u32,
}

impl StepPlan {
    /// The phases as the manifest tells them, in the order of their numbers.
    pub fn phases(&self) -> Vec<llmc_abi::Phase> {
        self.entries.iter().flat_map(EntryPlan::phases).collect()
    }
}

impl EntryPlan {
    /// The routines' phases one after another, then the greedy choice.
    pub fn phases(&self) -> Vec<llmc_abi::Phase> {
        let of = |r: &Routine| {
            let named = |p: &Phase| llmc_abi::Phase {
                name: p.name.clone(),
                work: p.work.clone(),
            };
            r.phases.iter().map(named).collect::<Vec<_>>()
        };
        let mut all: Vec<_> = self.routines.iter().flat_map(of).collect();
        if self.logits.is_some() {
            let entry = self.routines.last().map_or("", |r| &r.name);
            all.push(llmc_abi::Phase {
                name: format!("{entry}.best"),
                work: Vec::new(),
            });
        }
        all
    }

    /// The number of the first phase of a routine, or behind all of them.
    pub fn first_phase(&self, routine: usize) -> usize {
        let before = self.routines.iter().take(routine);
        self.phases_from + before.map(|r| r.phases.len()).sum::<usize>()
    }

    /// Layers of the first `repeat`.
    pub fn layers(&self) -> u32 {
        self.repeats.first().map_or(0, |r| r.len() as u32)
    }
}

/// One function of the module.
#[derive(Clone, Debug)]
pub struct Routine {
    pub name: String,
    pub phases: Vec<Phase>,
}

/// Calls without a barrier between them; there is one behind them.
#[derive(Clone, Debug)]
pub struct Phase {
    pub name: String,
    pub calls: Vec<Call>,
    /// What one call reads and computes, for measurements.
    pub work: Vec<Work>,
}

/// What a phase does.
#[derive(Clone, Debug)]
#[allow(
    clippy::large_enum_variant,
    reason = "nearly all calls are kernels, and a plan has few"
)]
pub enum Call {
    Kernel {
        kernel: Kernel,
        args: Vec<Arg>,
    },
    /// The layers of one of the entry's `repeat`s; a phase of its own.
    Layers(usize),
}

/// An argument of a kernel, in the order of its signature behind `thread, threads`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arg {
    /// How many rows there are: i64.
    Rows(Extent),
    /// Memory at a fixed place of the arena.
    Arena(u64),
    /// Memory of the workspace, at an offset.
    Workspace(u64),
    /// A number of the workspace, an i32 at an offset, as i64.
    WorkspaceInt(u64),
    /// The partials.
    Partials,
    /// The weight's entry for the slot of the running layer: its offset and slot stride.
    Weight {
        offset: u64,
        slot_stride: u64,
    },
    /// A field of the batch: pointer.
    Batch(BatchField),
    /// The pages of a KV class for the slot of the running layer.
    KvPages(usize),
    /// The block table of a KV class, and the entries of one of its rows (i64).
    KvTable(usize),
    KvTableStride(usize),
    /// One of the plan's constant tables.
    Table(usize),
    /// The thread's scratch.
    Scratch,
}

/// A symbolic extent's current value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    Tokens,
    Rows,
    Sequences,
}

/// A pointer of `llmc_abi::Batch`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BatchField {
    Ids,
    Pos,
    Types,
    Seq,
    QStart,
    KvLen,
    RopeLength,
    SourceLen,
    Rows,
}

macro_rules! kernels {
    ($($name:ident),* $(,)?) => {
        /// A kernel with its parameters; one variant for each of `kernels/`.
        #[derive(Clone, Debug, PartialEq)]
        pub enum Kernel { $($name(kernels::$name)),* }

        impl Kernel {
            /// Emits the kernel's function, once for each set of parameters; returns its symbol.
            pub fn emit(&self, b: &mut KernelBuilder<'_>) -> String {
                match self { $(Kernel::$name(k) => k.emit(b)),* }
            }
        }
    };
}

kernels! {
    Attend,
    BlockGather,
    BlockLinear,
    Combine,
    Dispatch,
    Elementwise,
    Experts,
    Gather,
    KvAppend,
    L2Normalize,
    Linear,
    Norm,
    Pool,
    PositionIds,
    Quantize,
    Rope,
    RopeAngles,
    Route,
    SelectRows,
    Substitute,
    Unfold,
}

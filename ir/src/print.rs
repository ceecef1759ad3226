//! The text form of a module: `Display` for [`Module`], at any stage.
//!
//! ```text
//! module "tiny" {stage = model}
//! dims N: 1..=512, R: 0..=64, B: 1..=8, T: 1..=4096
//!
//! weight @layer.wq[24] : bf16[896, 896] from "model.layers.{layer}.self_attn.q_proj.weight"
//! weight @qkv[24] : f32[24, 8] from "a.{layer}"[0..8], "b.{layer}" transposed, "c.{layer}"
//! state @kv[24] : kv_cache<f16, heads = 2, k_dim = 64, v_dim = 64, window = 4096>
//!
//! func @layer(%x: f32[N, 896], %step: step) {
//!   %h = rms_norm %x, @layer.attn_norm {eps = 1e-6} : f32[N, 896]
//!   return x = %h
//! }
//! ```
//!
//! At stage `planned` there are besides: `arena 65536` bytes; a place behind a value's type
//! (`f32[N, 896] at 4096 stride 896 in 14x(32, 32)`); `pack panels<rows = …, cols = …>` behind a
//! weight's source; and `kernel @name { … }` around its instructions.
//!
//! Invariants: every module prints, also an illegal one (an id out of range prints as `%"?7"`);
//! what [`crate::parse`] reads back prints as the same text. Names that are not made of letters,
//! digits, `_`, `.` and `-` are quoted. Entries whose extents have bounds of their own tell them behind
//! the module's: `dims @encode N: …`. Values that no parameter and no instruction defines have no
//! text. Deliberately not here: choices about what to print; a dump is always whole.

use crate::{
    Dims, Func, Inst, Layout, Module, Operand, Pack, Place, Source, SourcePart, State, Sym,
    ValueId, Weight, attr::short,
};
use std::fmt;

/// A name behind its sigil, quoted where it must be; sigil `' '` is none, and then a name must start
/// with a letter or is quoted.
pub(crate) struct Name<'a>(pub char, pub &'a str);

/// Whether a character may stand in a name without quotes.
pub(crate) fn is_name_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-')
}

impl fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Name(sigil, name) = *self;
        let bare = sigil == ' ';
        if !bare {
            write!(f, "{sigil}")?;
        }
        let starts = |c: char| !bare || c.is_ascii_alphabetic() || c == '_';
        let plain = name.chars().next().is_some_and(starts)
            && name.chars().all(|c| is_name_char(c) && !(bare && c == '-'));
        if plain {
            f.write_str(name)
        } else {
            write!(f, "{}", Quoted(name))
        }
    }
}

/// A string between quotes, with escapes.
struct Quoted<'a>(&'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\"")?;
        for c in self.0.chars() {
            match c {
                '"' => f.write_str("\\\"")?,
                '\\' => f.write_str("\\\\")?,
                c if c.is_control() => write!(f, "\\u{{{:x}}}", c as u32)?,
                c => write!(f, "{c}")?,
            }
        }
        f.write_str("\"")
    }
}

fn value_name(func: &Func, id: ValueId) -> String {
    match func.values.get(id.index()) {
        Some(v) => Name('%', &v.name).to_string(),
        None => format!("%\"?{}\"", id.0),
    }
}

fn operand_name(module: &Module, func: &Func, operand: Operand) -> String {
    match operand {
        Operand::Value(v) => value_name(func, v),
        Operand::Weight(w) => match module.weights.get(w.index()) {
            Some(w) => Name('@', &w.name).to_string(),
            None => format!("@\"?{}\"", w.0),
        },
        Operand::State(s) => match module.states.get(s.index()) {
            Some(s) => Name('@', &s.name).to_string(),
            None => format!("@\"?{}\"", s.0),
        },
    }
}

fn typed(func: &Func, id: ValueId) -> String {
    match func.values.get(id.index()) {
        Some(v) => match &v.place {
            Some(place) => format!("{} {place}", v.ty),
            None => v.ty.to_string(),
        },
        None => "?".into(),
    }
}

/// The text of one instruction, as it stands in its function.
pub fn inst_text(module: &Module, func: &Func, inst: &Inst) -> String {
    let join = |parts: Vec<String>| parts.join(", ");
    let mut s = String::new();
    if !inst.results.is_empty() {
        s += &join(inst.results.iter().map(|&r| value_name(func, r)).collect());
        s += " = ";
    }
    s += inst.op.name();
    let operands: Vec<String> = inst
        .operands
        .iter()
        .map(|&o| operand_name(module, func, o))
        .collect();
    if !operands.is_empty() {
        s += " ";
        s += &join(operands);
    }
    let attrs = inst.op.attrs();
    if !attrs.0.is_empty() {
        s += &format!(" {{{attrs}}}");
    }
    if !inst.results.is_empty() {
        s += " : ";
        s += &join(inst.results.iter().map(|&r| typed(func, r)).collect());
    }
    s
}

/// The text of one function.
pub fn func_text(module: &Module, func: &Func) -> String {
    let params: Vec<String> = func
        .params
        .iter()
        .map(|&p| format!("{}: {}", value_name(func, p), typed(func, p)))
        .collect();
    let mut s = format!("func {}({}) {{\n", Name('@', &func.name), params.join(", "));
    let mut left = func.body.iter();
    for kernel in &func.kernels {
        s += &format!("  kernel {} {{\n", Name('@', &kernel.name));
        for inst in left.by_ref().take(kernel.len as usize) {
            s += &format!("    {}\n", inst_text(module, func, inst));
        }
        s += "  }\n";
    }
    for inst in left {
        s += &format!("  {}\n", inst_text(module, func, inst));
    }
    let results: Vec<String> = func
        .results
        .iter()
        .map(|(name, v)| format!("{} = {}", Name(' ', name), value_name(func, *v)))
        .collect();
    s += "  return";
    if !results.is_empty() {
        s += " ";
        s += &results.join(", ");
    }
    s += "\n}\n";
    s
}

impl fmt::Display for Dims {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, sym) in Sym::ALL.into_iter().enumerate() {
            let sep = if i > 0 { ", " } else { "" };
            let (least, most) = (sym.lower_bound(), self.bound(sym));
            write!(f, "{sep}{}: {least}..={most}", sym.name())?;
        }
        Ok(())
    }
}

impl fmt::Display for Module {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "module {} {{stage = {}}}",
            Quoted(&self.name),
            self.stage.name()
        )?;
        writeln!(f, "dims {}", self.dims)?;
        for (entry, dims) in &self.entry_dims {
            writeln!(f, "dims @{} {dims}", entry.name())?;
        }
        if let Some(bytes) = self.arena_bytes {
            writeln!(f, "arena {bytes}")?;
        }
        if !self.weights.is_empty() || !self.states.is_empty() {
            writeln!(f)?;
        }
        for w in &self.weights {
            writeln!(f, "{w}")?;
        }
        for s in &self.states {
            writeln!(f, "{s}")?;
        }
        for func in &self.funcs {
            write!(f, "\n{}", func_text(self, func))?;
        }
        Ok(())
    }
}

fn slots(slots: Option<u32>) -> String {
    slots.map_or(String::new(), |n| format!("[{n}]"))
}

impl fmt::Display for Weight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Name('@', &self.name);
        write!(
            f,
            "weight {name}{} : {} from {}",
            slots(self.slots),
            self.ty,
            self.source
        )?;
        match &self.pack {
            None => Ok(()),
            Some(pack) => write!(f, " pack {pack}"),
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        source_parts(f, &self.parts)?;
        let Some(through) = &self.projected else {
            return Ok(());
        };
        if let Some(norm) = &through.norm {
            let (weight, bias) = (Quoted(&norm.weight), Quoted(&norm.bias));
            write!(f, " normed({weight}, {bias}, {:?})", short(norm.eps))?;
        }
        f.write_str(" times(")?;
        source_parts(f, &through.matrix)?;
        f.write_str(")")?;
        if !through.bias.is_empty() {
            f.write_str(" plus(")?;
            source_parts(f, &through.bias)?;
            f.write_str(")")?;
        }
        Ok(())
    }
}

fn source_parts(f: &mut fmt::Formatter<'_>, parts: &[SourcePart]) -> fmt::Result {
    for (i, part) in parts.iter().enumerate() {
        let sep = if i > 0 { ", " } else { "" };
        write!(f, "{sep}{}", Quoted(&part.name))?;
        if let Some((start, end)) = part.rows {
            match part.every {
                1 => write!(f, "[{start}..{end}]")?,
                n => write!(f, "[{start}..{end} every {n}]")?,
            }
        }
        if part.transposed {
            f.write_str(" transposed")?;
        }
        if let Some(n) = part.experts {
            write!(f, " x {n}")?;
        }
    }
    Ok(())
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "state {}{} : kv_cache<{}, heads = {}, k_dim = {}, v_dim = {}",
            Name('@', &self.name),
            slots(self.slots),
            self.dtype.name(),
            self.heads,
            self.k_dim,
            self.v_dim
        )?;
        if let Some(window) = self.window {
            write!(f, ", window = {window}")?;
        }
        f.write_str(">")
    }
}

/// A layout, of which the empty one has a text too.
struct LayoutText<'a>(&'a Layout);

impl fmt::Display for LayoutText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.0.is_empty() {
            f.write_str("()")
        } else {
            write!(f, "{}", self.0)
        }
    }
}

impl fmt::Display for Pack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Pack::Panels { rows, cols, glu } => {
                write!(
                    f,
                    "panels<rows = {}, cols = {}",
                    LayoutText(rows),
                    LayoutText(cols)
                )?;
                if *glu {
                    f.write_str(", glu = true")?;
                }
                f.write_str(">")
            }
            Pack::Experts {
                count,
                rows,
                cols,
                glu,
            } => {
                let (rows, cols) = (LayoutText(rows), LayoutText(cols));
                write!(f, "experts<count = {count}, rows = {rows}, cols = {cols}")?;
                f.write_str(if *glu { ", glu = true>" } else { ">" })
            }
            Pack::Rows { cols } => write!(f, "rows<cols = {}>", LayoutText(cols)),
            Pack::Vector { layout } => write!(f, "vector<layout = {}>", LayoutText(layout)),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "at {} stride {} in {}",
            self.at,
            self.stride,
            LayoutText(&self.layout)
        )
    }
}

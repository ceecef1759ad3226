//! The paged KV cache: who owns which page.
//!
//! Input: sequences that open, grow, fork, shrink and close. Output: per step, the `KvState`s and
//! block tables that kernels read.
//!
//! Invariants: a page id is valid in every slot (layer) of its class; a page belongs to the
//! sequences that count it in `refs`, and is written by a sequence only while that is 1 (a shared
//! page that would be written is copied first); in classes with a window, pages wholly behind it
//! are freed and their table entries never read; classes marked `scratch` own no page between
//! steps; those marked `source` hold what an encoder has left of a sequence's source, which is shared by
//! forks and never grows. No allocation after [`KvCache::new`], forks aside.
//! Not here: what is in a page; kernels know.

use crate::memory::Region;
use crate::{Error, Result};
use llmc_abi::{KvClass, KvState, Limits, PAGE_TOKENS};

/// How much cache a task may need: the bound of the virtual reservation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KvPlan {
    /// Sequences open at once.
    pub sequences: usize,
    /// Tokens of the longest one.
    pub tokens: usize,
    /// Tokens of the longest source; 0 where the model has none.
    pub source: usize,
}

/// An open sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeqId(pub(crate) u32);

struct Class {
    info: KvClass,
    memory: Region,
    pages: usize,
    /// Sequences that hold each page `[pages]`.
    refs: Vec<u32>,
    free: Vec<i32>,
    /// The step's block table `[max_seqs, table_stride]`.
    staged: Vec<i32>,
    table_stride: usize,
    /// Scratch classes: pages handed out in this step.
    used: usize,
}

/// A sequence's pages in one class.
#[derive(Clone, Default)]
struct Table {
    pages: Vec<i32>,
    /// Pages before this one are freed.
    first: usize,
}

struct Sequence {
    open: bool,
    /// Tokens in the cache.
    len: usize,
    /// Tokens of the source.
    source: usize,
    tables: Vec<Table>,
}

/// All KV state of a model.
pub struct KvCache {
    classes: Vec<Class>,
    sequences: Vec<Sequence>,
    states: Vec<KvState>,
}

// SAFETY: the pointers in `states` point into memory that this value owns.
unsafe impl Send for KvCache {}

/// Pages that one sequence of `tokens` tokens may hold at once in a class.
fn pages_per_sequence(class: &KvClass, limits: &Limits, tokens: usize) -> usize {
    let all = tokens.div_ceil(PAGE_TOKENS);
    match class.window {
        // The window, the tokens of a step, and the two ends that pages do not align with.
        Some(window) => {
            all.min((window as usize + limits.max_tokens as usize).div_ceil(PAGE_TOKENS) + 2)
        }
        None => all,
    }
}

/// Bytes that a class reserves for a plan, all its slots together.
pub fn reserved_bytes(class: &KvClass, limits: &Limits, plan: KvPlan) -> u64 {
    let slots = if class.scratch {
        1
    } else {
        u64::from(class.slots)
    };
    class_pages(class, limits, plan) as u64 * class.page_bytes * slots
}

fn class_pages(class: &KvClass, limits: &Limits, plan: KvPlan) -> usize {
    if class.scratch {
        // Every sequence of a step may end in a page that it does not fill.
        (limits.max_tokens as usize).div_ceil(PAGE_TOKENS) + limits.max_seqs as usize
    } else {
        plan.sequences * pages_per_sequence(class, limits, longest(class, limits, plan))
    }
}

/// Tokens of the longest sequence that a class may hold.
fn longest(class: &KvClass, limits: &Limits, plan: KvPlan) -> usize {
    match (class.scratch, class.source) {
        (true, _) => limits.max_tokens as usize,
        (false, true) => plan.source,
        (false, false) => plan.tokens,
    }
}

impl KvCache {
    /// Reserves address space for the plan.
    pub fn new(classes: &[KvClass], limits: &Limits, plan: KvPlan) -> Result<KvCache> {
        let max_seqs = limits.max_seqs as usize;
        let build = |info: &KvClass| -> Result<Class> {
            let pages = class_pages(info, limits, plan);
            let longest = longest(info, limits, plan);
            let table_stride = longest.div_ceil(PAGE_TOKENS).max(1);
            let memory = Region::new(reserved_bytes(info, limits, plan), "the KV cache")?;
            Ok(Class {
                info: info.clone(),
                memory,
                pages,
                refs: vec![0; pages],
                free: (0..pages as i32).rev().collect(),
                staged: vec![0; max_seqs * table_stride],
                table_stride,
                used: 0,
            })
        };
        let classes = classes.iter().map(build).collect::<Result<Vec<_>>>()?;
        let state = |c: &Class| KvState {
            base: c.memory.ptr(),
            slot_stride: if c.info.scratch {
                0
            } else {
                c.pages as u64 * c.info.page_bytes
            },
            table: c.staged.as_ptr(),
            table_stride: c.table_stride as u64,
        };
        let states = classes.iter().map(state).collect();
        let table = |c: &Class| Table {
            pages: Vec::with_capacity(c.table_stride),
            first: 0,
        };
        let sequence = || Sequence {
            open: false,
            len: 0,
            source: 0,
            tables: classes.iter().map(table).collect(),
        };
        let sequences = (0..plan.sequences).map(|_| sequence()).collect();
        Ok(KvCache {
            classes,
            sequences,
            states,
        })
    }

    /// One state per class, for `StepCtx::kv`.
    pub fn states(&self) -> &[KvState] {
        &self.states
    }

    /// Opens an empty sequence.
    pub fn open(&mut self) -> Result<SeqId> {
        let index = self.sequences.iter().position(|s| !s.open).ok_or_else(|| {
            Error::Run(format!(
                "more than {} sequences are open",
                self.sequences.len()
            ))
        })?;
        let sequence = &mut self.sequences[index];
        sequence.open = true;
        sequence.len = 0;
        sequence.source = 0;
        Ok(SeqId(index as u32))
    }

    /// Opens a sequence that shares all pages of `seq`.
    pub fn fork(&mut self, seq: SeqId) -> Result<SeqId> {
        let fork = self.open()?;
        for (index, class) in self.classes.iter_mut().enumerate() {
            let from = std::mem::take(&mut self.sequences[seq.0 as usize].tables[index]);
            for &page in &from.pages[from.first..] {
                class.refs[page as usize] += 1;
            }
            let to = &mut self.sequences[fork.0 as usize].tables[index];
            to.pages.clear();
            to.pages.extend_from_slice(&from.pages);
            to.first = from.first;
            self.sequences[seq.0 as usize].tables[index] = from;
        }
        self.sequences[fork.0 as usize].len = self.len(seq);
        self.sequences[fork.0 as usize].source = self.source_len(seq);
        Ok(fork)
    }

    /// Closes a sequence and gives its pages back.
    pub fn close(&mut self, seq: SeqId) {
        self.truncate(seq, 0);
        self.drop_source(seq);
        self.sequences[seq.0 as usize].open = false;
    }

    /// Tokens of a sequence's source.
    pub fn source_len(&self, seq: SeqId) -> usize {
        self.sequences[seq.0 as usize].source
    }

    /// Makes room for a source of `tokens` tokens, in place of the one that the sequence had; those
    /// that share the old one keep it.
    pub fn reserve_source(&mut self, seq: SeqId, tokens: usize) -> Result<()> {
        self.drop_source(seq);
        let sequence = &mut self.sequences[seq.0 as usize];
        for (class, table) in self.classes.iter_mut().zip(&mut sequence.tables) {
            if !class.info.source {
                continue;
            }
            let wanted = tokens.div_ceil(PAGE_TOKENS);
            if wanted > class.table_stride {
                return Err(class.full());
            }
            while table.pages.len() < wanted {
                let page = class.take()?;
                table.pages.push(page);
            }
        }
        sequence.source = tokens;
        Ok(())
    }

    fn drop_source(&mut self, seq: SeqId) {
        let sequence = &mut self.sequences[seq.0 as usize];
        for (class, table) in self.classes.iter_mut().zip(&mut sequence.tables) {
            if class.info.source {
                table.pages.drain(..).for_each(|page| class.release(page));
            }
        }
        sequence.source = 0;
    }

    /// Tokens that a sequence has in the cache.
    pub fn len(&self, seq: SeqId) -> usize {
        self.sequences[seq.0 as usize].len
    }

    /// True if a sequence has no token in the cache.
    pub fn is_empty(&self, seq: SeqId) -> bool {
        self.len(seq) == 0
    }

    /// Shortens a sequence to `len` tokens; false, and nothing done, where pages that it would
    /// need again are freed already (sliding windows). Zero always succeeds.
    pub fn truncate(&mut self, seq: SeqId, len: usize) -> bool {
        let sequence = &mut self.sequences[seq.0 as usize];
        let keeps = |c: &Class, t: &Table| first_needed(&c.info, len) >= t.first;
        if len > sequence.len
            || len > 0
                && !self
                    .classes
                    .iter()
                    .zip(&sequence.tables)
                    .all(|(c, t)| keeps(c, t))
        {
            return false;
        }
        for (class, table) in self.classes.iter_mut().zip(&mut sequence.tables) {
            if class.info.source {
                continue;
            }
            let keep = len.div_ceil(PAGE_TOKENS);
            while table.pages.len() > keep {
                let index = table.pages.len() - 1;
                if let Some(page) = table.pages.pop()
                    && index >= table.first
                {
                    class.release(page);
                }
            }
            table.first = table.first.min(table.pages.len());
        }
        sequence.len = len;
        true
    }

    /// Makes room for `tokens` more tokens of a sequence: frees what the window has left behind,
    /// copies a shared last page, takes new pages.
    pub fn reserve(&mut self, seq: SeqId, tokens: usize) -> Result<()> {
        let sequence = &mut self.sequences[seq.0 as usize];
        let past = sequence.len;
        for (class, table) in self.classes.iter_mut().zip(&mut sequence.tables) {
            if class.info.scratch || class.info.source {
                continue;
            }
            let needed = first_needed(&class.info, past).min(table.pages.len());
            for entry in &mut table.pages[table.first.min(needed)..needed] {
                class.release(*entry);
                *entry = 0;
            }
            table.first = table.first.max(needed);
            if !past.is_multiple_of(PAGE_TOKENS)
                && let Some(&last) = table.pages.last()
                && class.refs[last as usize] > 1
            {
                let copy = class.take()?;
                class.copy_page(last, copy);
                class.release(last);
                if let Some(entry) = table.pages.last_mut() {
                    *entry = copy;
                }
            }
            let wanted = (past + tokens).div_ceil(PAGE_TOKENS);
            if wanted > class.table_stride {
                return Err(class.full());
            }
            while table.pages.len() < wanted {
                let page = class.take()?;
                table.pages.push(page);
            }
        }
        Ok(())
    }

    /// Counts tokens that a step has written.
    pub fn advance(&mut self, seq: SeqId, tokens: usize) {
        self.sequences[seq.0 as usize].len += tokens;
    }

    /// Starts a step: scratch pages of the last one are free again.
    pub fn begin_step(&mut self) {
        for class in &mut self.classes {
            class.used = 0;
        }
    }

    /// Puts the tables of the sequence at `index` of the batch in place; `seq` is none for
    /// sequences that live in scratch classes only, `tokens` is how many these hold of it.
    pub fn stage(&mut self, index: usize, seq: Option<SeqId>, tokens: usize) -> Result<()> {
        for (c, class) in self.classes.iter_mut().enumerate() {
            let at = index * class.table_stride;
            if class.info.scratch {
                let pages = tokens.div_ceil(PAGE_TOKENS);
                if class.used + pages > class.pages || pages > class.table_stride {
                    return Err(class.full());
                }
                for (j, entry) in class.staged[at..at + pages].iter_mut().enumerate() {
                    *entry = (class.used + j) as i32;
                }
                class.used += pages;
            } else if let Some(seq) = seq {
                let pages = &self.sequences[seq.0 as usize].tables[c].pages;
                class.staged[at..at + pages.len()].copy_from_slice(pages);
            }
        }
        Ok(())
    }

    /// Pages in use, by class.
    #[cfg(test)]
    fn used_pages(&self) -> Vec<usize> {
        self.classes
            .iter()
            .map(|c| c.pages - c.free.len())
            .collect()
    }
}

/// The first page that a query at position `past` reads.
fn first_needed(class: &KvClass, past: usize) -> usize {
    class
        .window
        .map_or(0, |w| (past + 1).saturating_sub(w as usize) / PAGE_TOKENS)
}

impl Class {
    fn full(&self) -> Error {
        Error::KvFull {
            class: self.info.name.clone(),
            pages: self.pages,
        }
    }

    fn take(&mut self) -> Result<i32> {
        let page = self.free.pop().ok_or_else(|| self.full())?;
        self.refs[page as usize] = 1;
        Ok(page)
    }

    fn release(&mut self, page: i32) {
        let refs = &mut self.refs[page as usize];
        *refs -= 1;
        if *refs == 0 {
            self.free.push(page);
        }
    }

    fn copy_page(&mut self, from: i32, to: i32) {
        let bytes = self.info.page_bytes as usize;
        let stride = self.pages * bytes;
        let slots = self.info.slots as usize;
        let memory = self.memory.bytes_mut();
        for slot in 0..slots {
            let start = slot * stride + from as usize * bytes;
            memory.copy_within(start..start + bytes, slot * stride + to as usize * bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(name: &str, window: Option<u32>, scratch: bool) -> KvClass {
        KvClass {
            name: name.into(),
            dtype: "f32".into(),
            slots: 2,
            kv_heads: 1,
            k_width: 16,
            v_width: 16,
            page_bytes: 256,
            window,
            scratch,
            source: false,
        }
    }

    fn limits() -> Limits {
        Limits {
            max_tokens: 128,
            max_seqs: 4,
            max_rows: 8,
            max_context: 1024,
        }
    }

    fn cache(classes: &[KvClass], sequences: usize, tokens: usize) -> KvCache {
        let source = 200;
        let plan = KvPlan {
            sequences,
            tokens,
            source,
        };
        KvCache::new(classes, &limits(), plan).unwrap()
    }

    fn grow(kv: &mut KvCache, seq: SeqId, tokens: usize) {
        kv.reserve(seq, tokens).unwrap();
        kv.advance(seq, tokens);
    }

    #[test]
    fn pages_come_and_go_with_tokens() {
        let mut kv = cache(&[class("full", None, false)], 2, 256);
        let a = kv.open().unwrap();
        grow(&mut kv, a, 1);
        assert_eq!(kv.used_pages(), [1]);
        grow(&mut kv, a, 63);
        assert_eq!(kv.used_pages(), [1]);
        grow(&mut kv, a, 1);
        assert_eq!(kv.used_pages(), [2]);
        assert!(kv.truncate(a, 64));
        assert_eq!(kv.used_pages(), [1]);
        kv.close(a);
        assert_eq!(kv.used_pages(), [0]);
    }

    #[test]
    fn running_out_is_an_error() {
        let mut kv = cache(&[class("full", None, false)], 1, 128);
        let a = kv.open().unwrap();
        grow(&mut kv, a, 128);
        let e = kv.reserve(a, 1).unwrap_err();
        assert!(matches!(e, Error::KvFull { .. }), "{e}");
        assert!(kv.open().is_err());
    }

    #[test]
    fn forks_share_until_they_write() {
        let mut kv = cache(&[class("full", None, false)], 2, 256);
        let a = kv.open().unwrap();
        grow(&mut kv, a, 100);
        let last = kv.sequences[0].tables[0].pages[1] as usize;
        let stride = kv.classes[0].pages * 256;
        kv.classes[0].memory.bytes_mut()[last * 256 + 5] = 7;
        kv.classes[0].memory.bytes_mut()[stride + last * 256 + 5] = 9;
        let b = kv.fork(a).unwrap();
        assert_eq!((kv.used_pages(), kv.len(b)), (vec![2], 100));
        grow(&mut kv, b, 1);
        assert_eq!(kv.used_pages(), [3]);
        let copy = kv.sequences[1].tables[0].pages[1] as usize;
        assert_ne!(copy, last);
        assert_eq!(kv.classes[0].memory.bytes()[copy * 256 + 5], 7);
        assert_eq!(kv.classes[0].memory.bytes()[stride + copy * 256 + 5], 9);
        grow(&mut kv, a, 1);
        assert_eq!(kv.used_pages(), [3], "the last owner writes in place");
        kv.close(a);
        assert_eq!(kv.used_pages(), [2]);
        kv.close(b);
        assert_eq!(kv.used_pages(), [0]);
    }

    #[test]
    fn windows_leave_pages_behind() {
        let mut kv = cache(
            &[class("full", None, false), class("w", Some(100), false)],
            1,
            1024,
        );
        let a = kv.open().unwrap();
        let mut peak = 0;
        for _ in 0..1024 {
            grow(&mut kv, a, 1);
            let table = &kv.sequences[0].tables[1];
            // The query that was just written still needs keys len - 100 ..
            assert!(table.first * PAGE_TOKENS <= kv.len(a).saturating_sub(100));
            peak = peak.max(kv.used_pages()[1]);
        }
        assert_eq!(peak, 3);
        assert_eq!(kv.used_pages()[0], 16);
        assert!(!kv.truncate(a, 500), "the window behind 500 is gone");
        assert!(kv.truncate(a, 1020));
        assert!(kv.truncate(a, 0));
        assert_eq!(kv.used_pages(), [0, 0]);
        grow(&mut kv, a, 128);
    }

    #[test]
    fn sources_are_shared_and_do_not_grow() {
        let source = KvClass {
            source: true,
            ..class("cross", None, false)
        };
        let mut kv = cache(&[class("own", None, false), source], 3, 256);
        let a = kv.open().unwrap();
        kv.reserve_source(a, 130).unwrap();
        assert_eq!((kv.used_pages(), kv.source_len(a)), (vec![0, 3], 130));
        grow(&mut kv, a, 65);
        let b = kv.fork(a).unwrap();
        grow(&mut kv, b, 1);
        assert_eq!((kv.used_pages(), kv.source_len(b)), (vec![3, 3], 130));
        // A sequence that starts again keeps its source; one that gets another leaves it to the rest.
        assert!(kv.truncate(a, 0));
        assert_eq!((kv.used_pages(), kv.source_len(a)), (vec![2, 3], 130));
        kv.reserve_source(a, 64).unwrap();
        assert_eq!((kv.used_pages()[1], kv.source_len(b)), (4, 130));
        kv.close(b);
        assert_eq!(kv.used_pages(), [0, 1]);
        let e = kv.reserve_source(a, 257).unwrap_err();
        assert!(matches!(e, Error::KvFull { .. }), "{e}");
        kv.close(a);
        assert_eq!(kv.used_pages(), [0, 0]);
        let c = kv.open().unwrap();
        assert_eq!(kv.source_len(c), 0);
    }

    #[test]
    fn scratch_pages_live_for_a_step() {
        let mut kv = cache(&[class("s", None, true)], 0, 0);
        assert_eq!(kv.states()[0].slot_stride, 0);
        for _ in 0..3 {
            kv.begin_step();
            kv.stage(0, None, 65).unwrap();
            kv.stage(1, None, 3).unwrap();
            let stride = kv.classes[0].table_stride;
            assert_eq!(kv.classes[0].staged[..2], [0, 1]);
            assert_eq!(kv.classes[0].staged[stride], 2);
        }
    }
}

//! A double-array trie: texts to numbers, by exact match and by prefix, read in place.
//!
//! ```text
//! node i = (link u32, parent u32)      child of i by code c: node link(i) + c, if its parent is i
//! codes: 0 ends a text here, byte + 1 otherwise
//! link with bit 31: the rest of one text only; its number is in the lower bits
//! ```
//! A branch that leads to one text alone is not spelled out: the rest is compared with the text
//! itself, which `texts` gives by number. So there are about as many nodes as texts.
//! In: distinct texts with their numbers. Out: the nodes' bytes; lookups in them.
//! Invariant: a lookup reads at most one node for each byte of its input, whatever the nodes say.

use super::section::{Strings, Words};

const ROOT: u32 = 0;
/// Link: a number rather than a place. Numbers are below it.
const NUMBER: u32 = 1 << 31;
/// Parent of the root and of free places.
const NONE: u32 = u32::MAX;
/// Free places that do not fit before the search begins further on.
const PATIENCE: usize = 64;

/// Nodes and the texts behind their numbers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Trie<'a> {
    nodes: Words<'a>,
    texts: Strings<'a>,
}

impl<'a> Trie<'a> {
    pub fn new(nodes: Words<'a>, texts: Strings<'a>) -> Trie<'a> {
        Trie { nodes, texts }
    }

    fn link(&self, node: u32) -> Option<u32> {
        self.nodes.get(node as usize * 2)
    }

    fn child(&self, node: u32, link: u32, code: u32) -> Option<u32> {
        let child = link.checked_add(code)?;
        (self.nodes.get(child as usize * 2 + 1)? == node).then_some(child)
    }

    /// The texts that `input` begins with: lengths and numbers, shortest first.
    pub fn prefixes(self, input: &[u8]) -> Prefixes<'a, '_> {
        Prefixes {
            trie: self,
            input,
            node: Some(ROOT),
            depth: 0,
            ended: false,
        }
    }

    /// The number of a text.
    pub fn get(self, text: &[u8]) -> Option<u32> {
        let mut node = ROOT;
        for depth in 0..=text.len() {
            let link = self.link(node)?;
            if link & NUMBER != 0 {
                let number = link & !NUMBER;
                let rest = self.texts.bytes(number)?.get(depth..)?;
                return (rest == &text[depth..]).then_some(number);
            }
            match text.get(depth) {
                Some(&byte) => node = self.child(node, link, u32::from(byte) + 1)?,
                None => return self.ends_at(node, link),
            }
        }
        None
    }

    fn ends_at(&self, node: u32, link: u32) -> Option<u32> {
        let end = self.link(self.child(node, link, 0)?)?;
        (end & NUMBER != 0).then_some(end & !NUMBER)
    }
}

/// Iterator of [`Trie::prefixes`].
pub(super) struct Prefixes<'a, 'i> {
    trie: Trie<'a>,
    input: &'i [u8],
    node: Option<u32>,
    depth: usize,
    /// The text that ends at `node` was given out.
    ended: bool,
}

impl Iterator for Prefixes<'_, '_> {
    type Item = (usize, u32);

    fn next(&mut self) -> Option<(usize, u32)> {
        loop {
            let node = self.node?;
            let link = self.trie.link(node)?;
            if link & NUMBER != 0 {
                self.node = None;
                let number = link & !NUMBER;
                let rest = self.trie.texts.bytes(number)?.get(self.depth..)?;
                let found = self.input.get(self.depth..)?.starts_with(rest);
                return found.then_some((self.depth + rest.len(), number));
            }
            if !self.ended {
                self.ended = true;
                if let Some(number) = self.trie.ends_at(node, link) {
                    return Some((self.depth, number));
                }
            }
            let byte = *self.input.get(self.depth)?;
            self.node = self.trie.child(node, link, u32::from(byte) + 1);
            self.depth += 1;
            self.ended = false;
        }
    }
}

/// Builds the nodes. Numbers are below 2^31; of equal texts the last one counts.
pub(super) fn build(mut texts: Vec<(&[u8], u32)>) -> Vec<u32> {
    texts.reverse();
    texts.sort_by_key(|(text, _)| *text);
    texts.dedup_by_key(|(text, _)| *text);
    let mut places = Places {
        nodes: vec![(0, NONE)],
        used: vec![true],
        from: 1,
    };
    let mut todo = vec![(ROOT, texts.as_slice(), 0)];
    if texts.is_empty() {
        todo.clear();
    }
    while let Some((node, texts, depth)) = todo.pop() {
        if let [(_, number)] = texts {
            places.nodes[node as usize].0 = NUMBER | number;
            continue;
        }
        let code = |text: &[u8]| text.get(depth).map_or(0, |&byte| u32::from(byte) + 1);
        let groups: Vec<_> = texts
            .chunk_by(|(a, _), (b, _)| code(a) == code(b))
            .collect();
        let codes: Vec<u32> = groups.iter().map(|group| code(group[0].0)).collect();
        let link = places.find(&codes);
        places.nodes[node as usize].0 = link;
        for (code, group) in codes.into_iter().zip(groups) {
            places.take(link + code, node);
            todo.push((link + code, group, depth + usize::from(code != 0)));
        }
    }
    places.nodes.into_iter().flat_map(|(a, b)| [a, b]).collect()
}

/// Where nodes are free.
struct Places {
    nodes: Vec<(u32, u32)>,
    used: Vec<bool>,
    /// Places before it are not tried.
    from: usize,
}

impl Places {
    fn is_used(&self, place: usize) -> bool {
        self.used.get(place).copied().unwrap_or(false)
    }

    /// A link such that the places of all codes (ascending) are free.
    fn find(&mut self, codes: &[u32]) -> u32 {
        let first = codes.first().copied().unwrap_or(0) as usize;
        let mut tried = 0;
        let mut place = self.from.max(first);
        loop {
            if !self.is_used(place) {
                let link = place - first;
                if codes.iter().all(|&c| !self.is_used(link + c as usize)) {
                    return link as u32;
                }
                tried += 1;
                if tried == PATIENCE {
                    self.from = place;
                }
            }
            place += 1;
        }
    }

    fn take(&mut self, place: u32, parent: u32) {
        let place = place as usize;
        if self.nodes.len() <= place {
            self.nodes.resize(place + 1, (0, NONE));
            self.used.resize(place + 1, false);
        }
        self.nodes[place] = (0, parent);
        self.used[place] = true;
        while self.is_used(self.from) {
            self.from += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::section::{Part, Section, Writer};
    use super::*;

    const TEXTS: (Part, Part) = (Part::TokenStarts, Part::TokenText);

    /// Every text is found, alone and as a prefix, and nothing else is.
    fn check(texts: &[&str]) {
        let numbered = texts.iter().enumerate();
        let nodes = build(numbered.map(|(i, t)| (t.as_bytes(), i as u32)).collect());
        let mut writer = Writer::default();
        writer.set_strings(TEXTS, texts.iter().map(|t| Some(*t)));
        writer.set_words(Part::Vocabulary, nodes);
        let bytes = writer.finish();
        let section = Section::open(&bytes).unwrap();
        let trie = Trie::new(section.words(Part::Vocabulary), section.strings(TEXTS));
        let number = |text: &[u8]| texts.iter().rposition(|t| t.as_bytes() == text);
        let probes = texts.iter().flat_map(|t| {
            [
                t.to_string(),
                format!("{t}x"),
                format!("{t}\0"),
                format!("x{t}"),
            ]
        });
        for probe in probes.chain(["".into(), "abracadabra".into()]) {
            let bytes = probe.as_bytes();
            for end in 0..=bytes.len() {
                let found = trie.get(&bytes[..end]).map(|n| n as usize);
                assert_eq!(found, number(&bytes[..end]), "{probe:?}");
            }
            let expected: Vec<_> = (0..=bytes.len())
                .filter_map(|end| Some((end, number(&bytes[..end])? as u32)))
                .collect();
            assert_eq!(
                trie.prefixes(bytes).collect::<Vec<_>>(),
                expected,
                "{probe:?}"
            );
        }
    }

    #[test]
    fn texts_are_found_exactly_and_by_prefix() {
        check(&[]);
        check(&[""]);
        check(&["a"]);
        check(&["", "a", "ab", "abc", "abcd", "abd"]);
        check(&["\0", "\0\0", "a\0b", "a"]);
        check(&["abra", "abracadabra", "cad", "é", "è", "日本", "日"]);
        check(&["same", "other", "same"]);
        let many: Vec<String> = (0..3000u64)
            .map(|i| format!("{:x}", i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (i % 50)))
            .collect();
        check(&many.iter().map(String::as_str).collect::<Vec<_>>());
    }

    #[test]
    fn there_are_about_as_many_nodes_as_texts() {
        let many: Vec<String> = (0..20_000u64)
            .map(|i| format!("{:x}", i.wrapping_mul(0x9e37_79b9_7f4a_7c15)))
            .collect();
        let numbered = many.iter().enumerate();
        let nodes = build(numbered.map(|(i, t)| (t.as_bytes(), i as u32)).collect());
        assert!(nodes.len() / 2 < 2 * many.len(), "{}", nodes.len() / 2);
    }
}

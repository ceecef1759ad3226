//! Addresses for blocks of memory that live for a while.
//!
//! in: blocks with a size and the first and last moment of their life → out: an address for each, such
//! that no two blocks that live at one moment overlap, and the high-water mark. Each block takes the
//! lowest address at which it fits, in the order given; addresses are multiples of [`ALIGN`].

/// Alignment of every block, in bytes.
pub const ALIGN: u64 = 64;

/// A block to place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Block {
    pub bytes: u64,
    /// First and last moment at which it is in use.
    pub first: usize,
    pub last: usize,
}

impl Block {
    fn lives_with(&self, other: &Block) -> bool {
        self.first <= other.last && other.first <= self.last
    }
}

/// The address of every block, and the number of bytes in all.
pub fn place(blocks: &[Block]) -> (Vec<u64>, u64) {
    let mut at: Vec<u64> = Vec::with_capacity(blocks.len());
    let mut total = 0;
    for (i, block) in blocks.iter().enumerate() {
        let mut busy: Vec<(u64, u64)> = (0..i)
            .filter(|&j| blocks[j].lives_with(block))
            .map(|j| (at[j], at[j] + blocks[j].bytes))
            .collect();
        busy.sort_unstable();
        let mut address = 0;
        for (start, end) in busy {
            if address + block.bytes <= start {
                break;
            }
            address = address.max(end.next_multiple_of(ALIGN));
        }
        at.push(address);
        total = total.max((address + block.bytes).next_multiple_of(ALIGN));
    }
    (at, total)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(blocks: &[(u64, usize, usize)], expected: &[u64], total: u64) {
        let blocks: Vec<Block> = blocks
            .iter()
            .map(|&(bytes, first, last)| Block { bytes, first, last })
            .collect();
        assert_eq!(place(&blocks), (expected.to_vec(), total));
    }

    #[test]
    fn reuses_memory_of_the_dead() {
        check(&[(128, 0, 1), (64, 1, 2), (100, 2, 3)], &[0, 128, 0], 192);
        check(&[(10, 0, 0), (10, 0, 0)], &[0, 64], 128);
    }

    #[test]
    fn fills_holes_from_the_lowest() {
        check(
            &[(64, 0, 9), (64, 0, 1), (64, 0, 9), (128, 2, 3), (64, 2, 3)],
            &[0, 64, 128, 192, 64],
            320,
        );
    }

    #[test]
    fn places_nothing() {
        check(&[], &[], 0);
        check(&[(0, 0, 0), (64, 0, 0)], &[0, 0], 64);
    }
}

//! `llmc targets`: what code can be generated for.

use llmc::Result;
use llmc_codegen::targets;

use super::stdout;

/// Prints each target with its CPU levels and what those need.
pub fn run() -> Result<()> {
    let mut text = String::new();
    for target in targets::ALL {
        text += &format!("{}\n", target.triple);
        for level in target.levels {
            text += &format!("  {:<12} {}\n", level.name, level.requires.join(" "));
        }
    }
    stdout::print(&text)
}

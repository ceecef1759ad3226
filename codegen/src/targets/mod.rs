//! The known targets, one file each. Data only.

pub mod x86_64;

use crate::target::Target;

/// All targets; the first is the default.
pub const ALL: &[&Target] = &[&x86_64::X86_64_LINUX];

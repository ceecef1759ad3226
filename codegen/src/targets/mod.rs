//! The known targets, one file each. Data only.

pub mod x86_64;

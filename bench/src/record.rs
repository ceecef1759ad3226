//! The file of JSON lines, one for each line of the table.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::error::Error;

pub struct Record {
    path: PathBuf,
    file: File,
}

impl Record {
    /// Replaces the file.
    pub fn create(path: &Path) -> Result<Record, Error> {
        let io = |e| Error::Io(path.into(), e);
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(io)?;
        }
        Ok(Record {
            path: path.into(),
            file: File::create(path).map_err(io)?,
        })
    }

    /// Adds a line.
    pub fn add(&mut self, line: &serde_json::Value) -> Result<(), Error> {
        writeln!(self.file, "{line}").map_err(|e| Error::Io(self.path.clone(), e))
    }
}

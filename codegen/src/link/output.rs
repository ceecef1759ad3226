//! An output file that appears whole or not at all.

use std::{
    fs::File,
    io::{self, BufWriter, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use tempfile::NamedTempFile;

/// A temporary file beside the output, or the output itself where that is no regular file.
pub enum Output {
    Renamed {
        file: BufWriter<NamedTempFile>,
        path: PathBuf,
    },
    Direct(BufWriter<File>),
}

impl Output {
    /// Checks that the output can be created, before any work is done for it.
    pub fn check(path: &Path) -> io::Result<()> {
        if path.is_dir() {
            return Err(io::Error::new(
                io::ErrorKind::IsADirectory,
                "it is a directory",
            ));
        }
        let parent = path.parent().filter(|p| !p.as_os_str().is_empty());
        let parent = parent.unwrap_or(Path::new("."));
        if !std::fs::metadata(parent)?.is_dir() {
            let what = format!("`{}` is no directory", parent.display());
            return Err(io::Error::new(io::ErrorKind::NotADirectory, what));
        }
        Ok(())
    }

    /// Opens the output for writing.
    pub fn create(path: &Path) -> io::Result<Output> {
        let special = std::fs::metadata(path).is_ok_and(|m| !m.is_file() && !m.is_dir());
        if special {
            let file = File::options().write(true).open(path)?;
            return Ok(Output::Direct(BufWriter::with_capacity(1 << 20, file)));
        }
        Output::check(path)?;
        let parent = path.parent().filter(|p| !p.as_os_str().is_empty());
        let file = NamedTempFile::new_in(parent.unwrap_or(Path::new(".")))?;
        let file = BufWriter::with_capacity(1 << 20, file);
        Ok(Output::Renamed {
            file,
            path: path.to_path_buf(),
        })
    }

    /// Where to write.
    pub fn writer(&mut self) -> &mut dyn Write {
        match self {
            Output::Renamed { file, .. } => file,
            Output::Direct(file) => file,
        }
    }

    /// Flushes, and gives the file its name and mode.
    pub fn finish(self, executable: bool) -> io::Result<()> {
        match self {
            Output::Renamed { file, path } => {
                let file = file.into_inner().map_err(|e| e.into_error())?;
                let mode = if executable { 0o755 } else { 0o644 };
                file.as_file()
                    .set_permissions(std::fs::Permissions::from_mode(mode))?;
                file.persist(path).map_err(|e| e.error)?;
                Ok(())
            }
            Output::Direct(mut file) => file.flush(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_left_when_writing_stops() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out");
        let mut out = Output::create(&path).unwrap();
        out.writer().write_all(b"half").unwrap();
        drop(out);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_device_is_written_directly() {
        let mut out = Output::create(Path::new("/dev/null")).unwrap();
        out.writer().write_all(b"x").unwrap();
        out.finish(true).unwrap();
        assert!(!std::fs::metadata("/dev/null").unwrap().is_file());
    }
}

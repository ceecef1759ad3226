//! Writes a safetensors file whose tensors are filled in place, in any order.
//!
//! Input: names and shapes, then rows of numbers. Output: the file; what was never written is
//! zero. A regular file is mapped under a temporary name and renamed when complete, so a failed
//! run leaves nothing; anything else (a device, a pipe) is written directly at the end.
//! One i64 tensor may come first, whose last dimension may turn out smaller than planned.

use crate::memory::Region;
use crate::{Error, Result};
use memmap2::{MmapMut, MmapOptions};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

/// A tensor to be: name and shape.
pub type Spec = (String, Vec<usize>);

enum Data {
    /// A file under a temporary name.
    Mapped { map: MmapMut, temporary: PathBuf },
    /// For outputs that cannot be mapped.
    Memory(Region),
}

/// A file being written.
pub struct TensorFile {
    path: PathBuf,
    ids: Option<Spec>,
    floats: Vec<Spec>,
    /// Where each of `floats` starts within the data, in bytes.
    starts: Vec<usize>,
    header_len: usize,
    data_len: usize,
    data: Data,
    done: bool,
}

fn elements(shape: &[usize]) -> Option<usize> {
    shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d))
}

/// The header, padded with spaces to `pad` bytes (or to a multiple of 8).
fn header(ids: Option<&Spec>, floats: &[Spec], pad: usize) -> Result<Vec<u8>> {
    let mut entries = serde_json::Map::new();
    let mut offset = 0;
    let typed = ids.map(|s| ("I64", 8, s)).into_iter();
    for (dtype, size, (name, shape)) in typed.chain(floats.iter().map(|s| ("F32", 4, s))) {
        let too_large = || Error::Input(format!("the output `{name}` would be too large"));
        let bytes = elements(shape)
            .and_then(|n| n.checked_mul(size))
            .ok_or_else(too_large)?;
        let end = offset + bytes;
        entries.insert(
            name.clone(),
            serde_json::json!({"dtype": dtype, "shape": shape, "data_offsets": [offset, end]}),
        );
        offset = end;
    }
    let mut json = serde_json::Value::Object(entries).to_string().into_bytes();
    json.resize(
        json.len().next_multiple_of(8).max(pad.saturating_sub(8)),
        b' ',
    );
    let mut out = (json.len() as u64).to_le_bytes().to_vec();
    out.extend_from_slice(&json);
    Ok(out)
}

impl TensorFile {
    /// Creates the file for f32 tensors and, before them, at most one i64 tensor.
    pub fn create(path: &Path, ids: Option<Spec>, floats: Vec<Spec>) -> Result<TensorFile> {
        let header_len = header(ids.as_ref(), &floats, 0)?.len();
        let ids_len = ids.as_ref().and_then(|(_, s)| elements(s)).unwrap_or(0) * 8;
        let mut starts = Vec::new();
        let mut data_len = ids_len;
        for (_, shape) in &floats {
            starts.push(data_len);
            data_len += elements(shape).unwrap_or(0) * 4;
        }
        let direct = std::fs::metadata(path).is_ok_and(|m| !m.is_file());
        let data = if direct {
            Data::Memory(Region::new(data_len as u64, "the outputs")?)
        } else {
            map_temporary(path, header_len + data_len)?
        };
        let path = path.to_owned();
        Ok(TensorFile {
            path,
            ids,
            floats,
            starts,
            header_len,
            data_len,
            data,
            done: false,
        })
    }

    fn bytes(&mut self) -> &mut [u8] {
        match &mut self.data {
            Data::Mapped { map, .. } => &mut map[self.header_len..],
            Data::Memory(region) => region.bytes_mut(),
        }
    }

    /// Writes `values` into a float tensor, from element `at` on.
    pub fn write(&mut self, tensor: usize, at: usize, values: &[f32]) {
        let start = self.starts[tensor] + at * 4;
        let target = &mut self.bytes()[start..start + values.len() * 4];
        for (to, v) in target.chunks_exact_mut(4).zip(values) {
            to.copy_from_slice(&v.to_le_bytes());
        }
    }

    /// Completes the file. `ids` are the rows of the i64 tensor, all of one width.
    pub fn finish(mut self, ids: &[Vec<i64>]) -> Result<()> {
        if let Some((_, shape)) = &mut self.ids {
            let planned = elements(shape).unwrap_or(0) * 8;
            let width = ids.first().map_or(0, Vec::len);
            *shape = vec![ids.len(), width];
            let used = ids.len() * width * 8;
            let len = self.data_len;
            let bytes = self.bytes();
            if used < planned {
                bytes.copy_within(planned..len, used);
            }
            for (to, id) in bytes[..used].chunks_exact_mut(8).zip(ids.iter().flatten()) {
                to.copy_from_slice(&id.to_le_bytes());
            }
            self.data_len -= planned - used;
        }
        let header = header(self.ids.as_ref(), &self.floats, self.header_len)?;
        let len = self.data_len;
        let failed = |e| Error::io(self.path.display(), e);
        match &mut self.data {
            Data::Mapped { map, temporary } => {
                map[..header.len()].copy_from_slice(&header);
                let file = OpenOptions::new()
                    .write(true)
                    .open(&*temporary)
                    .map_err(failed)?;
                file.set_len((header.len() + len) as u64).map_err(failed)?;
                std::fs::rename(&*temporary, &self.path).map_err(failed)?;
            }
            Data::Memory(region) => {
                let mut file = OpenOptions::new()
                    .write(true)
                    .open(&self.path)
                    .map_err(failed)?;
                file.write_all(&header).map_err(failed)?;
                file.write_all(&region.bytes()[..len]).map_err(failed)?;
            }
        }
        self.done = true;
        Ok(())
    }
}

impl Drop for TensorFile {
    fn drop(&mut self) {
        if let (Data::Mapped { temporary, .. }, false) = (&self.data, self.done) {
            let _ = std::fs::remove_file(temporary);
        }
    }
}

fn map_temporary(path: &Path, len: usize) -> Result<Data> {
    let failed = |e| Error::io(path.display(), e);
    let name = path
        .file_name()
        .ok_or_else(|| Error::Usage(format!("{} is no file name", path.display())))?;
    let mut hidden = std::ffi::OsString::from(".");
    hidden.push(name);
    hidden.push(format!(".{}.tmp", std::process::id()));
    let temporary = path.with_file_name(hidden);
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(&temporary)
        .map_err(failed)?;
    let mapped = allocate(&file, len).and_then(|()| {
        // SAFETY: the file is ours alone, under a name that nobody else knows.
        unsafe { MmapOptions::new().len(len).map_mut(&file) }
    });
    match mapped {
        Ok(map) => Ok(Data::Mapped { map, temporary }),
        Err(e) => {
            let _ = std::fs::remove_file(&temporary);
            Err(failed(e))
        }
    }
}

/// Takes the space now: a full disk is an error here, but a SIGBUS in a mapping.
fn allocate(file: &File, len: usize) -> std::io::Result<()> {
    let len = libc::off_t::try_from(len).map_err(|_| std::io::ErrorKind::FileTooLarge)?;
    // SAFETY: a plain call on an open file.
    match unsafe { libc::posix_fallocate(file.as_raw_fd(), 0, len) } {
        0 => Ok(()),
        e => Err(std::io::Error::from_raw_os_error(e)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use safetensors::SafeTensors;

    fn spec(name: &str, shape: &[usize]) -> Spec {
        (name.into(), shape.to_vec())
    }

    #[test]
    fn what_is_written_is_read_and_the_rest_is_zero() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out.safetensors");
        for width in [0, 2, 100] {
            let floats = vec![spec("a", &[2, 3]), spec("b", &[1])];
            let mut file = TensorFile::create(&path, Some(spec("ids", &[1, 100])), floats).unwrap();
            file.write(0, 3, &[1.0, 2.0, 3.0]);
            file.write(1, 0, &[4.0]);
            file.finish(&[(0..width).collect()]).unwrap();
            let bytes = std::fs::read(&path).unwrap();
            let tensors = SafeTensors::deserialize(&bytes).unwrap();
            let a: Vec<f32> = tensors
                .tensor("a")
                .unwrap()
                .data()
                .chunks(4)
                .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
                .collect();
            assert_eq!(a, [0.0, 0.0, 0.0, 1.0, 2.0, 3.0]);
            assert_eq!(tensors.tensor("b").unwrap().data(), 4f32.to_le_bytes());
            let ids = tensors.tensor("ids").unwrap();
            assert_eq!(ids.shape(), [1, width as usize]);
            assert!(
                ids.data()
                    .chunks(8)
                    .zip(0i64..)
                    .all(|(b, i)| b == i.to_le_bytes())
            );
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn an_unfinished_file_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out");
        drop(TensorFile::create(&path, None, vec![spec("a", &[10])]).unwrap());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        let huge = vec![spec("a", &[usize::MAX, 2])];
        assert!(TensorFile::create(&path, None, huge).is_err());
        assert!(TensorFile::create(Path::new("/nowhere/x"), None, vec![]).is_err());
        TensorFile::create(Path::new("/dev/null"), None, vec![spec("a", &[3])])
            .unwrap()
            .finish(&[])
            .unwrap();
    }
}

//! A writer of GGUF files.
//!
//! Everything can be set, so that broken files can be written too. `golden`: the golden models as llama.cpp's
//! converter would write them; `tiny`: the smallest models of each architecture.

mod experts;
mod fused;
mod golden;
mod t5;
mod tiny;

use std::path::Path;

pub use golden::Elements;

/// A metadata value.
#[derive(Clone, Debug)]
pub enum Value {
    U8(u8),
    U16(u16),
    U32(u32),
    I32(i32),
    F32(f32),
    Bool(bool),
    Text(String),
    U64(u64),
    Texts(Vec<String>),
    F32s(Vec<f32>),
    I32s(Vec<i32>),
    Bools(Vec<bool>),
    /// Any type and any bytes.
    Raw(u32, Vec<u8>),
}

impl Value {
    fn write(&self, out: &mut Vec<u8>) {
        let ty: u32 = match self {
            Self::U8(_) => 0,
            Self::U16(_) => 2,
            Self::U32(_) => 4,
            Self::I32(_) => 5,
            Self::F32(_) => 6,
            Self::Bool(_) => 7,
            Self::Text(_) => 8,
            Self::Texts(_) | Self::F32s(_) | Self::I32s(_) | Self::Bools(_) => 9,
            Self::U64(_) => 10,
            Self::Raw(ty, _) => *ty,
        };
        out.extend(ty.to_le_bytes());
        let mut array = |ty: u32, len: usize, bytes: Vec<u8>| {
            out.extend(ty.to_le_bytes());
            out.extend((len as u64).to_le_bytes());
            out.extend(bytes);
        };
        match self {
            Self::Texts(texts) => {
                let mut bytes = Vec::new();
                texts
                    .iter()
                    .for_each(|text| string(&mut bytes, text.as_bytes()));
                array(8, texts.len(), bytes);
            }
            Self::F32s(v) => array(6, v.len(), v.iter().flat_map(|x| x.to_le_bytes()).collect()),
            Self::I32s(v) => array(5, v.len(), v.iter().flat_map(|x| x.to_le_bytes()).collect()),
            Self::Bools(v) => array(7, v.len(), v.iter().map(|x| u8::from(*x)).collect()),
            Self::U8(x) => out.push(*x),
            Self::U16(x) => out.extend(x.to_le_bytes()),
            Self::U32(x) => out.extend(x.to_le_bytes()),
            Self::I32(x) => out.extend(x.to_le_bytes()),
            Self::F32(x) => out.extend(x.to_le_bytes()),
            Self::Bool(x) => out.push((*x).into()),
            Self::U64(x) => out.extend(x.to_le_bytes()),
            Self::Text(text) => string(out, text.as_bytes()),
            Self::Raw(_, bytes) => out.extend(bytes),
        }
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.into())
    }
}

fn string(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend((bytes.len() as u64).to_le_bytes());
    out.extend(bytes);
}

/// A tensor.
#[derive(Clone, Debug)]
pub struct Tensor {
    pub name: Vec<u8>,
    /// Innermost first.
    pub dims: Vec<u64>,
    /// ggml's number.
    pub ty: u32,
    pub data: Vec<u8>,
    /// Where the header says that it is; by default where it is.
    pub offset: Option<u64>,
}

/// A file.
#[derive(Clone, Debug)]
pub struct Gguf {
    pub version: u32,
    pub keys: Vec<(Vec<u8>, Value)>,
    pub tensors: Vec<Tensor>,
    /// How the data is aligned, whatever the keys say.
    pub alignment: usize,
    /// What the header says, if not the truth.
    pub tensor_count: Option<u64>,
    pub key_count: Option<u64>,
}

impl Default for Gguf {
    fn default() -> Self {
        Self {
            version: 3,
            keys: Vec::new(),
            tensors: Vec::new(),
            alignment: 32,
            tensor_count: None,
            key_count: None,
        }
    }
}

impl Gguf {
    /// Sets a key, which may be there.
    pub fn set(&mut self, key: &str, value: impl Into<Value>) {
        self.remove(key);
        self.keys.push((key.into(), value.into()));
    }

    /// Removes a key.
    pub fn remove(&mut self, key: &str) {
        self.keys.retain(|(other, _)| other != key.as_bytes());
    }

    /// A tensor that is there.
    pub fn tensor(&mut self, name: &str) -> &mut Tensor {
        let found = self.tensors.iter_mut().find(|t| t.name == name.as_bytes());
        found.unwrap_or_else(|| panic!("no tensor {name}"))
    }

    /// The bytes of the header and of the whole file.
    pub fn bytes(&self) -> (usize, Vec<u8>) {
        let mut out = b"GGUF".to_vec();
        out.extend(self.version.to_le_bytes());
        out.extend(
            self.tensor_count
                .unwrap_or(self.tensors.len() as u64)
                .to_le_bytes(),
        );
        out.extend(
            self.key_count
                .unwrap_or(self.keys.len() as u64)
                .to_le_bytes(),
        );
        for (key, value) in &self.keys {
            string(&mut out, key);
            value.write(&mut out);
        }
        let mut offset = 0;
        for tensor in &self.tensors {
            string(&mut out, &tensor.name);
            out.extend((tensor.dims.len() as u32).to_le_bytes());
            tensor
                .dims
                .iter()
                .for_each(|dim| out.extend(dim.to_le_bytes()));
            out.extend(tensor.ty.to_le_bytes());
            out.extend(tensor.offset.unwrap_or(offset as u64).to_le_bytes());
            offset += tensor.data.len().next_multiple_of(self.alignment);
        }
        let header = out.len();
        for tensor in &self.tensors {
            out.resize(out.len().next_multiple_of(self.alignment), 0);
            out.extend(&tensor.data);
        }
        (header, out)
    }

    /// Writes the file.
    pub fn write(&self, path: &Path) {
        std::fs::write(path, self.bytes().1).unwrap();
    }

    /// The file in parts: `NAME-00001-of-00003.gguf`; the first has the keys and no tensors, as gguf-split does it
    /// on request. Returns their paths.
    pub fn write_parts(&self, folder: &Path, name: &str, count: usize) -> Vec<std::path::PathBuf> {
        let share = self.tensors.len().div_ceil(count - 1);
        let paths = (0..count).map(|number| {
            let mut part = Gguf {
                tensors: Vec::new(),
                ..self.clone()
            };
            if number > 0 {
                part.keys.clear();
                let tensors = self.tensors.iter().skip((number - 1) * share).take(share);
                part.tensors = tensors.cloned().collect();
            }
            part.set("split.no", Value::U16(number as u16));
            part.set("split.count", Value::U16(count as u16));
            part.set("split.tensors.count", Value::I32(self.tensors.len() as i32));
            let path = folder.join(format!("{name}-{:05}-of-{count:05}.gguf", number + 1));
            part.write(&path);
            path
        });
        paths.collect()
    }

    /// Adds a tensor; dimensions are innermost first.
    pub fn add(&mut self, name: &str, dims: &[u64], ty: u32, data: Vec<u8>) {
        self.tensors.push(Tensor {
            name: name.into(),
            dims: dims.to_vec(),
            ty,
            data,
            offset: None,
        });
    }
}

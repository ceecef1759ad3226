//! Writes the packed weights, in the plan's order, a panel at a time.

use std::{borrow::Cow, io::Write, ops::Range};

use llmc_ir::{
    DType, Module, SourcePart, TensorSource, ops::RelativeBias, quant::rows::store_rows,
    source::to_f32,
};

use super::{
    PackError,
    blocks::pack_strip,
    form::{Form, PANEL},
    plan::WeightPlan,
};
use crate::blocks::{Blocks, STRIP};

/// Columns that are transposed at a time, so that reads and writes stay in cache.
const BLOCK: usize = 16;
/// Bytes of strips that a thread packs at a time.
const BATCH: usize = 4 << 20;
/// Columns of a panel that are held at a time: bounds memory for very long rows.
const CHUNK: usize = 1 << 15;

/// Writes all weights; `progress` is told the bytes written so far.
pub fn write(
    module: &Module,
    plan: &WeightPlan,
    source: &dyn TensorSource,
    out: &mut dyn Write,
    progress: &mut dyn FnMut(u64),
) -> Result<(), PackError> {
    let mut sink = Sink {
        out,
        written: 0,
        progress,
    };
    for (weight, stored) in module.weights.iter().zip(&plan.weights) {
        for (slot, layer) in stored.layers.iter().enumerate() {
            sink.zeros(stored.offset + slot as u64 * stored.slot_stride - sink.written)?;
            let dims = weight.ty.fixed_dims().unwrap_or_default();
            let open = || Tensor::open(source, &weight.source.parts, *layer, &dims);
            match &stored.form {
                Form::Blocks {
                    dtype,
                    form,
                    rows,
                    cols,
                } => strips(&mut sink, &open()?, *dtype, form, rows, *cols)?,
                Form::Panels { dtype, rows, cols } => {
                    panels(&mut sink, &open()?, *dtype, rows, cols)?
                }
                Form::Rows { dtype, count, cols } => {
                    let tensor = open()?;
                    let mut row = vec![0u8; cols.len() * dtype.row_bytes(1) as usize];
                    for r in 0..*count {
                        let from = tensor.row(r, 0..tensor.cols, *dtype)?;
                        scatter(&from, cols, 0, dtype.row_bytes(1) as usize, &mut row);
                        sink.bytes(&row)?;
                    }
                }
                Form::Vector { map } => sink.bytes(&open()?.vector(map)?)?,
                Form::Relative {
                    bias,
                    heads,
                    origin,
                    stride,
                } => {
                    sink.bytes(&open()?.relative(bias, *heads, *origin, *stride)?)?;
                }
                Form::Positions(table) => {
                    let from = &weight.source;
                    table.write(source, from, *layer, &dims, |bytes| sink.bytes(bytes))?;
                }
            }
        }
    }
    sink.zeros(plan.bytes - sink.written)
}

/// The output, and how much of it there is.
struct Sink<'a> {
    out: &'a mut dyn Write,
    written: u64,
    progress: &'a mut dyn FnMut(u64),
}

impl Sink<'_> {
    fn bytes(&mut self, bytes: &[u8]) -> Result<(), PackError> {
        self.out.write_all(bytes)?;
        self.written += bytes.len() as u64;
        (self.progress)(self.written);
        Ok(())
    }

    fn zeros(&mut self, mut count: u64) -> Result<(), PackError> {
        while count > 0 {
            let some = count.min(4096);
            self.bytes(&[0u8; 4096][..some as usize])?;
            count -= some;
        }
        Ok(())
    }
}

/// Strips of a matrix in a block format or int8, packed by two threads.
fn strips(
    sink: &mut Sink<'_>,
    tensor: &Tensor<'_>,
    dtype: DType,
    form: &Blocks,
    rows: &[Option<u32>],
    cols: u32,
) -> Result<(), PackError> {
    let strip = STRIP as usize;
    let bytes = form.strip_bytes(i64::from(cols)) as usize;
    let pack = |rows: &[Option<u32>], out: &mut [u8]| -> Result<(), PackError> {
        for (rows, out) in rows.chunks(strip).zip(out.chunks_mut(bytes)) {
            let rows = rows
                .iter()
                .map(|row| row.map(|r| tensor.stored(r, dtype)).transpose())
                .collect::<Result<Vec<_>, _>>()?;
            let rows: Vec<Option<&[u8]>> = rows.iter().map(|r| r.as_deref()).collect();
            pack_strip(dtype, &rows, cols as usize, out);
        }
        Ok(())
    };
    let batch = (BATCH / bytes).max(1);
    for rows in rows.chunks(2 * batch * strip) {
        let mut out = vec![0u8; rows.len() / strip * bytes];
        let (here, there) = rows.split_at(rows.len().min(batch * strip));
        let (low, high) = out.split_at_mut(here.len() / strip * bytes);
        std::thread::scope(|scope| {
            let other = scope.spawn(|| pack(there, high));
            let done = pack(here, low);
            let other = other.join().expect("packing does not panic");
            done.and(other)
        })?;
        sink.bytes(&out)?;
        tensor.release_rows(rows);
    }
    Ok(())
}

fn panels(
    sink: &mut Sink<'_>,
    tensor: &Tensor<'_>,
    dtype: DType,
    rows: &[Option<u32>],
    cols: &[Option<u32>],
) -> Result<(), PackError> {
    let (panel, size) = (PANEL as usize, dtype.row_bytes(1) as usize);
    for outputs in rows.chunks(panel) {
        for cols in cols.chunks(CHUNK) {
            let mut out = vec![0u8; cols.len() * panel * size];
            // A piece of one row of the checkpoint in stored order, for each output of the panel.
            let mut lines = vec![0u8; panel * cols.len() * size];
            let first = cols.iter().flatten().min().copied().unwrap_or(0);
            let end = cols.iter().flatten().max().map_or(0, |c| c + 1);
            for (line, row) in lines.chunks_exact_mut(cols.len() * size).zip(outputs) {
                if let Some(row) = row {
                    scatter(
                        &tensor.row(*row, first..end, dtype)?,
                        cols,
                        first,
                        size,
                        line,
                    );
                }
            }
            for k0 in (0..cols.len()).step_by(BLOCK) {
                for r in 0..panel {
                    for k in k0..(k0 + BLOCK).min(cols.len()) {
                        let (to, from) = ((k * panel + r) * size, (r * cols.len() + k) * size);
                        out[to..to + size].copy_from_slice(&lines[from..from + size]);
                    }
                }
            }
            sink.bytes(&out)?;
        }
        tensor.release_rows(outputs);
    }
    Ok(())
}

/// Puts the elements of `from`, the first of which is logical element `first`, where `map` says;
/// padding keeps what `to` holds there (zeros).
fn scatter(from: &[u8], map: &[Option<u32>], first: u32, size: usize, to: &mut [u8]) {
    if map.len() * size == from.len() && map.last().is_some_and(Option::is_some) {
        to.copy_from_slice(from);
        return;
    }
    for (place, logical) in to.chunks_exact_mut(size).zip(map) {
        if let Some(l) = logical {
            place.copy_from_slice(&from[(l - first) as usize * size..][..size]);
        }
    }
}

/// The tensors that make up one slot of a weight, as one logical matrix (a vector is one row).
pub(super) struct Tensor<'a> {
    source: &'a dyn TensorSource,
    parts: Vec<Part>,
    cols: u32,
}

struct Part {
    name: String,
    dtype: DType,
    /// Rows of the logical matrix that this part gives, and its own first row.
    rows: u32,
    first: u32,
    /// Steps from one row to the next.
    every: u32,
    transposed: bool,
    /// Rows of one of the tensor's matrices, for transposed access.
    each: u32,
}

impl Part {
    /// What [`Tensor::read`] gives: blocks are dequantised.
    fn plain(&self) -> DType {
        match self.dtype {
            DType::Block(_) => DType::F32,
            other => other,
        }
    }
}

impl<'a> Tensor<'a> {
    pub(super) fn open(
        source: &'a dyn TensorSource,
        from: &[SourcePart],
        layer: Option<u32>,
        dims: &[u32],
    ) -> Result<Self, PackError> {
        let vector = dims.len() == 1;
        let cols = if vector {
            1
        } else {
            dims[1..].iter().product()
        };
        let mut parts = Vec::new();
        let tensors = from
            .iter()
            .flat_map(|p| p.tensors(layer).map(move |name| (p, name)));
        for (p, name) in tensors {
            let Some(info) = source.info(&name) else {
                return Err(PackError::Read {
                    tensor: name,
                    message: "is not there".into(),
                });
            };
            let mut shape = info.dims.clone();
            let last = shape.len().saturating_sub(2);
            if p.transposed {
                shape[last..].reverse();
            }
            let each = shape.get(last).copied().unwrap_or(1);
            let flat = shape
                .iter()
                .skip(1)
                .try_fold(1u32, |n, d| n.checked_mul(*d));
            let deeper = shape.len() > dims.len() && dims.len() == 2 && !p.transposed;
            if deeper && flat == Some(cols) {
                shape = vec![shape[0], cols];
            } else if shape.len() == dims.len() + 1 {
                // Matrices over one another in one tensor.
                let count = shape.remove(0);
                shape[0] = shape[0].saturating_mul(count);
            }
            let (all, width) = match shape.as_slice() {
                [] => (1, 1),
                [n] => (*n, 1),
                [n, rest @ ..] => (*n, rest.iter().product()),
            };
            let (first, end) = p.rows.unwrap_or((0, all));
            if width != cols || end > all || first > end {
                let expected = dims.to_vec();
                return Err(PackError::Shape {
                    tensor: name,
                    found: info.dims,
                    expected,
                });
            }
            parts.push(Part {
                name,
                dtype: info.dtype,
                rows: p.count().unwrap_or(end - first),
                first,
                every: p.every.max(1),
                transposed: p.transposed,
                each,
            });
        }
        let rows: u32 = parts.iter().map(|p| p.rows).sum();
        if rows != dims[0] {
            let tensor = parts.first().map(|p| p.name.clone()).unwrap_or_default();
            return Err(PackError::Shape {
                tensor,
                found: vec![rows, cols],
                expected: dims.to_vec(),
            });
        }
        Ok(Tensor {
            source,
            parts,
            cols,
        })
    }

    /// The part that gives logical row `row`, and the row within the tensor.
    fn part(&self, mut row: u32) -> (&Part, u32) {
        for p in &self.parts {
            if row < p.rows {
                return (p, p.first + row * p.every);
            }
            row -= p.rows;
        }
        unreachable!("row maps stay within the weight's type")
    }

    fn bytes(&self, part: &Part, range: Range<u64>) -> Result<Cow<'_, [u8]>, PackError> {
        self.source
            .read(&part.name, range)
            .map_err(|message| PackError::Read {
                tensor: part.name.clone(),
                message,
            })
    }

    /// `count` elements from element `at` on, of type [`Part::plain`].
    fn read(&self, part: &Part, at: u64, count: u64) -> Result<Vec<u8>, PackError> {
        let size = part.dtype.row_bytes(1);
        let DType::Block(format) = part.dtype else {
            let bytes = self.bytes(part, at * size..(at + count) * size)?;
            return Ok(bytes.into_owned());
        };
        // Whole blocks, of which some are cut.
        let len = format.block_len() as u64;
        let (first, end) = (at / len, (at + count).div_ceil(len));
        let size = format.block_bytes() as u64;
        let values = format.dequantize(&self.bytes(part, first * size..end * size)?);
        let skip = (at - first * len) as usize;
        let values = values[skip..skip + count as usize].iter();
        Ok(values.flat_map(|v| v.to_le_bytes()).collect())
    }

    /// One whole row as a weight of type `dtype` stores it.
    fn stored(&self, row: u32, dtype: DType) -> Result<Cow<'_, [u8]>, PackError> {
        let (part, r) = self.part(row);
        if part.transposed {
            let values = self.row(row, 0..self.cols, DType::F32)?;
            return self.convert(part, DType::F32, dtype, values.into());
        }
        let bytes = part.dtype.row_bytes(u64::from(self.cols));
        let row = self.bytes(part, u64::from(r) * bytes..u64::from(r + 1) * bytes)?;
        self.convert(part, part.dtype, dtype, row)
    }

    /// Elements of a row of `part`, whole blocks where there are blocks, as `to`.
    fn convert<'b>(
        &self,
        part: &Part,
        from: DType,
        to: DType,
        bytes: Cow<'b, [u8]>,
    ) -> Result<Cow<'b, [u8]>, PackError> {
        store_rows(from, to, self.cols as usize, bytes).map_err(|message| PackError::Read {
            tensor: part.name.clone(),
            message,
        })
    }

    /// Columns `cols` of one row as `dtype`.
    fn row(&self, row: u32, cols: Range<u32>, dtype: DType) -> Result<Vec<u8>, PackError> {
        let (part, r) = self.part(row);
        let bytes = if part.transposed {
            let mut column = Vec::new();
            for k in cols {
                let (matrix, r) = (u64::from(r / part.each), u64::from(r % part.each));
                let each = u64::from(part.each);
                let at = matrix * each * u64::from(self.cols) + u64::from(k) * each + r;
                column.extend_from_slice(&self.read(part, at, 1)?);
            }
            column
        } else {
            let at = u64::from(r) * u64::from(self.cols) + u64::from(cols.start);
            self.read(part, at, cols.len() as u64)?
        };
        let bytes = self.convert(part, part.plain(), dtype, bytes.into())?;
        Ok(bytes.into_owned())
    }

    /// Elements of a row.
    pub(super) fn cols(&self) -> u32 {
        self.cols
    }

    /// One row as f32.
    pub(super) fn values(&self, row: u32) -> Result<Vec<f32>, PackError> {
        let bytes = self.row(row, 0..self.cols, DType::F32)?;
        Ok(to_f32(DType::F32, &bytes))
    }

    /// All elements as f32.
    pub(super) fn all(&self) -> Result<Vec<f32>, PackError> {
        let mut out = Vec::new();
        for row in 0..self.parts.iter().map(|p| p.rows).sum() {
            let (part, r) = self.part(row);
            if self.cols == 1 && !part.transposed {
                out.extend(to_f32(part.plain(), &self.read(part, r.into(), 1)?));
            } else {
                out.extend(self.values(row)?);
            }
        }
        Ok(out)
    }

    fn vector(&self, map: &[Option<u32>]) -> Result<Vec<u8>, PackError> {
        let values = self.all()?;
        Ok(map
            .iter()
            .flat_map(|i| i.map_or(0.0, |i| values[i as usize]).to_le_bytes())
            .collect())
    }

    fn relative(
        &self,
        bias: &RelativeBias,
        heads: u32,
        origin: u32,
        stride: u32,
    ) -> Result<Vec<u8>, PackError> {
        let table = self.all()?;
        let value = |head: u32, i: u32| {
            let bucket = bias.bucket(i64::from(i) - i64::from(origin));
            table[(bucket * heads + head) as usize]
        };
        Ok((0..heads)
            .flat_map(|h| (0..stride).flat_map(move |i| value(h, i).to_le_bytes()))
            .collect())
    }

    /// The rows of a panel have been read: where they follow one another, their pages go at once.
    fn release_rows(&self, rows: &[Option<u32>]) {
        let mut run: Option<(&Part, Range<u64>)> = None;
        for row in rows.iter().flatten() {
            let (part, r) = self.part(*row);
            if part.transposed {
                continue;
            }
            let bytes = part.dtype.row_bytes(u64::from(self.cols));
            let range = u64::from(r) * bytes..u64::from(r + 1) * bytes;
            match &mut run {
                Some((p, open)) if std::ptr::eq(*p, part) && open.end == range.start => {
                    open.end = range.end;
                }
                _ => {
                    if let Some((p, done)) = run.replace((part, range)) {
                        self.source.release(&p.name, done);
                    }
                }
            }
        }
        if let Some((p, done)) = run {
            self.source.release(&p.name, done);
        }
    }
}

impl Drop for Tensor<'_> {
    /// What has been read of it will not be read again soon.
    fn drop(&mut self) {
        for p in &self.parts {
            let cols = if p.transposed { 1 } else { self.cols };
            let bytes = p
                .dtype
                .row_bytes(u64::from(p.first + p.rows * p.every) * u64::from(cols));
            self.source.release(&p.name, 0..bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::borrow::Cow;

    use llmc_ir::{
        Dims, FuncBuilder, Layout, Operand, Pack, Source, Sym, TensorType, Type, Weight,
        ops::Linear, source::TensorInfo,
    };

    /// Tensor `name` holds its own element indices.
    struct Counting(Vec<(&'static str, DType, Vec<u32>)>);

    impl TensorSource for Counting {
        fn info(&self, name: &str) -> Option<TensorInfo> {
            let (_, dtype, dims) = self.0.iter().find(|t| t.0 == name)?;
            Some(TensorInfo {
                dtype: *dtype,
                dims: dims.clone(),
            })
        }

        fn read(&self, name: &str, range: Range<u64>) -> Result<Cow<'_, [u8]>, String> {
            let dtype = self.info(name).ok_or("no such tensor")?.dtype;
            let size = dtype.row_bytes(1);
            let values = (range.start / size..range.end / size).map(|i| i as f32);
            Ok(match dtype {
                DType::BF16 => values
                    .flat_map(|v| half::bf16::from_f32(v).to_le_bytes())
                    .collect(),
                _ => values.flat_map(f32::to_le_bytes).collect(),
            })
        }

        fn release(&self, _: &str, _: Range<u64>) {}
    }

    fn weight(name: &str, dims: &[u32], source: Source, pack: Pack) -> Weight {
        let ty = TensorType::weight(DType::F32, dims);
        Weight {
            name: name.into(),
            slots: None,
            ty,
            source,
            pack: Some(pack),
        }
    }

    #[test]
    fn panels_hold_rows_across_and_padding_is_zero() {
        let mut module = Module::new(
            "m",
            Dims {
                n: 4,
                r: 4,
                b: 1,
                t: 8,
            },
        );
        let (rows, cols) = (Layout::plain(70), Layout::heads(2, &[3]));
        let mut source = Source::tensor("a");
        source.parts.extend(Source::tensor("b").parts);
        let w = weight(
            "w",
            &[70, 6],
            source,
            Pack::Panels {
                rows: rows.clone(),
                cols,
                glu: false,
            },
        );
        let w = module.add_weight(w);
        let bias = weight(
            "b",
            &[70],
            Source::tensor("bias"),
            Pack::Vector { layout: rows },
        );
        let bias = module.add_weight(bias);
        let mut f = FuncBuilder::new(&mut module, "forward");
        let x = f.param("x", Type::f32(&[Sym::N.into(), 6.into()]));
        let op = Linear {
            bias: true,
            ..Linear::default()
        };
        let operands: [Operand; 3] = [x.into(), w.into(), bias.into()];
        let y = f.push1("y", op, &operands).unwrap();
        f.finish(&[("y", y)]);
        let plan = WeightPlan::new(&module).unwrap();
        let source = Counting(vec![
            ("a", DType::F32, vec![10, 6]),
            ("b", DType::BF16, vec![60, 6]),
            ("bias", DType::F32, vec![70]),
        ]);
        let mut out = Vec::new();
        write(&module, &plan, &source, &mut out, &mut |_| ()).unwrap();
        assert_eq!(out.len() as u64, plan.bytes);
        let out = to_f32(DType::F32, &out);
        // Columns 0..3 are stored at 0..3, 3..6 at 16..19; 32 in all. Two panels.
        let at = |row: usize, k: usize| out[(row / 64) * 32 * 64 + k * 64 + row % 64];
        assert_eq!((at(0, 1), at(9, 18), at(9, 3)), (1.0, 59.0, 0.0));
        assert_eq!((at(10, 0), at(11, 2), at(69, 17)), (0.0, 8.0, bf16(358.0)));
        assert_eq!(at(70, 0), 0.0);
        let bias = &out[plan.weights[1].offset as usize / 4..];
        assert_eq!((bias[69], bias[70], bias.len()), (69.0, 0.0, 128));
    }

    fn bf16(x: f32) -> f32 {
        half::bf16::from_f32(x).to_f32()
    }
}

//! The tables of attention's position terms, as the kernel reads them.
//!
//! In: a table `[2·span, heads·d]`, stored or computed of other tensors ([`llmc_ir::Projected`]). Out:
//! the row of every distance, i32, then the table in f32, head by head: keys `[heads][width][rows]`,
//! queries `[heads][rows][width]`.
//!
//! A computed table is never held whole: rows of its source come a block at a time, and of what is
//! computed a head at a time.

use llmc_ir::{
    Projected, Source, SourcePart, TensorSource, ops::Disentangled, ops::layer_norm_row,
    source::tensor_name,
};

use super::{PackError, write::Tensor};
use crate::kernels::Terms;

/// Rows of the source that are held at a time.
const BLOCK: usize = 1024;

/// Rows by distance, for sequences of up to `context` tokens.
#[derive(Clone, PartialEq, Debug)]
pub struct PositionRows {
    pub terms: Disentangled,
    pub context: u32,
}

impl PositionRows {
    /// The least distance has this index 0: the keys of the last page go on behind the context.
    fn origin(&self) -> u32 {
        self.context.next_multiple_of(64)
    }

    /// Row numbers, with what fills them up.
    fn entries(&self) -> u32 {
        (self.origin() + self.context).next_multiple_of(16)
    }

    /// Rows of the table, with what fills them up.
    pub fn padded(&self) -> u32 {
        (2 * self.terms.span).next_multiple_of(32)
    }

    /// The row of every distance.
    fn numbers(&self) -> impl Iterator<Item = u32> {
        let origin = i64::from(self.origin());
        (0..self.entries()).map(move |i| self.terms.row(i64::from(i) - origin))
    }

    /// Bytes in front of the table.
    pub fn number_bytes(&self) -> u64 {
        u64::from(self.entries()) * 4
    }

    /// What the kernel has to know.
    pub fn kernel(&self) -> Terms {
        let rows: Vec<u32> = self.numbers().collect();
        let spread = Terms::SPREAD as usize;
        let reach = |i: usize| rows[(i + spread).min(rows.len() - 1)] - rows[i] + 1;
        Terms {
            c2p: self.terms.c2p,
            p2c: self.terms.p2c,
            entries: i64::from(self.entries()),
            origin: i64::from(self.origin()),
            rows: i64::from(self.padded()),
            near: (0..rows.len()).map(reach).max().map_or(1, i64::from),
        }
    }
}

/// How a table is stored.
#[derive(Clone, PartialEq, Debug)]
pub struct PositionTable {
    pub rows: PositionRows,
    /// The table of queries, not that of keys.
    pub queries: bool,
    pub heads: u32,
    /// The element of a head that each stored lane holds.
    pub head: Vec<Option<u32>>,
}

impl PositionTable {
    /// Bytes of one slot.
    pub fn bytes(&self) -> u64 {
        let width = self.head.len() as u64;
        let table = u64::from(self.heads) * u64::from(self.rows.padded()) * width * 4;
        self.rows.number_bytes() + table
    }

    /// Writes one slot, piece by piece; `dims` are those of the weight.
    pub(super) fn write(
        &self,
        source: &dyn TensorSource,
        from: &Source,
        layer: Option<u32>,
        dims: &[u32],
        mut sink: impl FnMut(&[u8]) -> Result<(), PackError>,
    ) -> Result<(), PackError> {
        let numbers: Vec<u8> = self.rows.numbers().flat_map(u32::to_le_bytes).collect();
        sink(&numbers)?;
        let columns = Columns::open(source, from, layer, dims)?;
        let dim = self.head.iter().flatten().count() as u32;
        let (width, padded) = (self.head.len(), self.rows.padded() as usize);
        let mut block = None;
        for head in 0..self.heads {
            let values = columns.of(head * dim..(head + 1) * dim, &mut block)?;
            let mut out = vec![0f32; width * padded];
            for (r, row) in values.chunks_exact(dim as usize).enumerate() {
                for (lane, element) in self.head.iter().enumerate() {
                    let at = match self.queries {
                        true => r * width + lane,
                        false => lane * padded + r,
                    };
                    out[at] = element.map_or(0.0, |e| row[e as usize]);
                }
            }
            sink(&out.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<_>>())?;
        }
        Ok(())
    }
}

/// A table that gives some of its columns at a time.
struct Columns<'a> {
    table: Tensor<'a>,
    rows: u32,
    through: Option<Through<'a>>,
}

/// What the rows of the table go through.
struct Through<'a> {
    /// Weight, bias, eps.
    norm: Option<(Vec<f32>, Vec<f32>, f32)>,
    matrix: Tensor<'a>,
    bias: Vec<f32>,
}

/// Rows of the source, as the product reads them, and the first one's number.
type Block = Option<(u32, Vec<f32>)>;

impl<'a> Columns<'a> {
    fn open(
        source: &'a dyn TensorSource,
        from: &Source,
        layer: Option<u32>,
        dims: &[u32],
    ) -> Result<Self, PackError> {
        let &[rows, columns] = dims else {
            return Err(PackError::Shape {
                tensor: String::new(),
                found: dims.to_vec(),
                expected: vec![0, 0],
            });
        };
        let Some(through) = &from.projected else {
            let table = Tensor::open(source, &from.parts, layer, dims)?;
            return Ok(Columns {
                table,
                rows,
                through: None,
            });
        };
        let width = source_width(source, &from.parts, layer)?;
        Ok(Columns {
            table: Tensor::open(source, &from.parts, layer, &[rows, width])?,
            rows,
            through: Some(Through::open(source, through, layer, [columns, width])?),
        })
    }

    /// All rows of some columns; `block` keeps what was read last.
    fn of(&self, columns: std::ops::Range<u32>, block: &mut Block) -> Result<Vec<f32>, PackError> {
        let Some(through) = &self.through else {
            let mut out = Vec::new();
            for r in 0..self.rows {
                let row = self.table.values(r)?;
                out.extend_from_slice(&row[columns.start as usize..columns.end as usize]);
            }
            return Ok(out);
        };
        let lines = columns
            .clone()
            .map(|c| through.matrix.values(c))
            .collect::<Result<Vec<_>, _>>()?;
        let bias = &through.bias[columns.start as usize..columns.end as usize];
        let mut out = Vec::with_capacity(self.rows as usize * lines.len());
        for first in (0..self.rows).step_by(BLOCK) {
            let held = block.as_ref().is_some_and(|(held, _)| *held == first);
            if !held {
                *block = Some((first, self.block(through, first)?));
            }
            let Some((_, rows)) = block else { continue };
            let width = self.table.cols() as usize;
            let rows: Vec<&[f32]> = rows.chunks_exact(width.max(1)).collect();
            let (here, there) = rows.split_at(rows.len() / 2);
            std::thread::scope(|scope| {
                let other = scope.spawn(|| products(there, &lines, bias));
                out.extend(products(here, &lines, bias));
                out.extend(other.join().expect("products do not panic"));
            });
        }
        Ok(out)
    }

    /// Rows of the table from `first` on, normalised.
    fn block(&self, through: &Through<'_>, first: u32) -> Result<Vec<f32>, PackError> {
        let mut out = Vec::new();
        for r in first..self.rows.min(first + BLOCK as u32) {
            let row = self.table.values(r)?;
            match &through.norm {
                None => out.extend(row),
                Some((w, b, eps)) => out.extend(layer_norm_row(&row, w, b, *eps)),
            }
        }
        Ok(out)
    }
}

impl<'a> Through<'a> {
    fn open(
        source: &'a dyn TensorSource,
        of: &Projected,
        layer: Option<u32>,
        [columns, width]: [u32; 2],
    ) -> Result<Self, PackError> {
        let vector = |parts: &[SourcePart], length: u32| {
            Tensor::open(source, parts, layer, &[length])?.all()
        };
        let norm = match &of.norm {
            None => None,
            Some(norm) => {
                let [w, b] = [&norm.weight, &norm.bias].map(|name| {
                    let part = SourcePart::tensor(name.as_str());
                    vector(std::slice::from_ref(&part), width)
                });
                Some((w?, b?, norm.eps))
            }
        };
        let bias = match of.bias.as_slice() {
            [] => vec![0.0; columns as usize],
            parts => vector(parts, columns)?,
        };
        Ok(Through {
            norm,
            matrix: Tensor::open(source, &of.matrix, layer, &[columns, width])?,
            bias,
        })
    }
}

/// Columns of the tensor that the rows come from.
fn source_width(
    source: &dyn TensorSource,
    parts: &[SourcePart],
    layer: Option<u32>,
) -> Result<u32, PackError> {
    let part = parts
        .first()
        .map(|p| (tensor_name(&p.name, layer), p.transposed));
    let (name, transposed) = part.unwrap_or_default();
    let dims = source.info(&name).map(|info| info.dims).unwrap_or_default();
    match (dims.as_slice(), transposed) {
        (&[_, width], false) | (&[width, _], true) => Ok(width),
        _ => Err(PackError::Read {
            tensor: name.into_owned(),
            message: "is no matrix".into(),
        }),
    }
}

/// `row · line + bias` for every row and line.
fn products(rows: &[&[f32]], lines: &[Vec<f32>], bias: &[f32]) -> Vec<f32> {
    let mut out = Vec::with_capacity(rows.len() * lines.len());
    for row in rows {
        for (line, b) in lines.iter().zip(bias) {
            out.push((dot(row, line) + f64::from(*b)) as f32);
        }
    }
    out
}

/// A dot product in an order of its own: lanes of short runs in f32, runs in f64.
fn dot(a: &[f32], b: &[f32]) -> f64 {
    const RUN: usize = 128;
    const LANES: usize = 16;
    let mut sum = 0.0;
    for (a, b) in a.chunks(RUN).zip(b.chunks(RUN)) {
        let mut lanes = [0f32; LANES];
        let (xs, ys) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
        let rest = xs.remainder().iter().zip(ys.remainder());
        sum += rest
            .map(|(x, y)| f64::from(*x) * f64::from(*y))
            .sum::<f64>();
        for (x, y) in xs.zip(ys) {
            for (lane, (x, y)) in lanes.iter_mut().zip(x.iter().zip(y)) {
                *lane += x * y;
            }
        }
        sum += lanes.iter().map(|x| f64::from(*x)).sum::<f64>();
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_reaches_every_row() {
        for (span, max_distance, context) in [
            (8, Some(64), 64),
            (64, None, 64),
            (4, None, 300),
            (256, Some(512), 512),
            (3, None, 1),
        ] {
            let terms = Disentangled {
                c2p: true,
                p2c: true,
                span,
                max_distance,
            };
            let rows = PositionRows { terms, context };
            let facts = rows.kernel();
            let numbers: Vec<u32> = rows.numbers().collect();
            assert_eq!(numbers.len() as i64, facts.entries);
            assert!(facts.entries >= facts.origin + i64::from(context));
            assert!(numbers.is_sorted() && facts.rows >= 2 * i64::from(span));
            for (i, first) in numbers.iter().enumerate() {
                let last = numbers[(i + Terms::SPREAD as usize).min(numbers.len() - 1)];
                assert!(i64::from(last - first) < facts.near);
            }
        }
    }
}

//! Embeddings: the sum of tables' rows.
//!
//! In: ids `[N]`, positions `[N]`, token types `[N]`. Out: the residual stream `[N, hidden]`.
//!
//! Not here: the tied head, which shares the first table (`decoder`).

use llmc_ir::ops::{Add, Gather};
use llmc_ir::{ValueId, WeightId};

use super::Scope;
use crate::error::Result;

/// A table of rows of the residual stream.
#[derive(Clone, Copy, Debug)]
pub struct Table {
    /// The tensor, with `.weight`.
    pub tensor: &'static str,
    /// Its rows.
    pub rows: u32,
    /// The field that says so.
    pub field: &'static str,
}

/// The tables of a model; rows are summed in this order.
#[derive(Clone, Copy, Debug)]
pub struct Embeddings {
    /// Width of the residual stream.
    pub hidden: u32,
    /// Of tokens.
    pub tokens: Table,
    /// What token rows are multiplied with.
    pub scale: f32,
    /// Of token types.
    pub types: Option<Table>,
    /// Of positions.
    pub positions: Option<Table>,
}

impl Embeddings {
    /// The sum, and the token table.
    pub fn apply(
        &self,
        scope: &mut Scope,
        ids: ValueId,
        types: Option<ValueId>,
        positions: Option<ValueId>,
    ) -> Result<(ValueId, WeightId)> {
        let tokens = self.table(scope, "embed", self.tokens);
        let mut sum = scope.op(
            "e",
            Gather { scale: self.scale },
            &[ids.into(), tokens.into()],
        )?;
        let parts = [
            ("embed_types", self.types, types),
            ("embed_positions", self.positions, positions),
        ];
        for (name, table, index) in parts {
            if let (Some(table), Some(index)) = (table, index) {
                let table = self.table(scope, name, table);
                let row = scope.op("e", Gather { scale: 1.0 }, &[index.into(), table.into()])?;
                sum = scope.op("e", Add, &[sum.into(), row.into()])?;
            }
        }
        Ok((sum, tokens))
    }

    fn table(&self, scope: &mut Scope, name: &str, table: Table) -> WeightId {
        let why = format!(
            "rows = {} ({}), columns = hidden_size ({})",
            table.field, table.rows, self.hidden
        );
        scope.matrix(name, table.tensor, [table.rows, self.hidden], why)
    }
}

//! Embeddings: the sum of tables' rows.
//!
//! In: ids `[N]`, positions `[N]`, token types `[N]`. Out: the residual stream `[N, hidden]`. Where a prompt may hold
//! pictures, rows that the caller gives stand for tokens of type 1, and only of those are they read.
//!
//! Not here: the tied head, which shares the first table (`decoder`).

use llmc_ir::ops::{Add, Gather, Substitute};
use llmc_ir::{Sym, Type, ValueId, WeightId};

use super::{Projection, Scope};
use crate::error::Result;

/// The name of an entry's parameter for the rows of pictures.
pub const IMAGE_FEATURES: &str = "image_features";
/// The type of the tokens that they stand for.
pub const IMAGE_TYPE: u32 = 1;

/// A table of rows of the residual stream.
#[derive(Clone, Copy, Debug)]
pub struct Table {
    /// The tensor, with `.weight`.
    pub tensor: &'static str,
    /// The rows that are looked up.
    pub rows: u32,
    /// Rows of the tensor before them, which nobody reads (OPT's positions).
    pub skip: u32,
    /// The field that says so.
    pub field: &'static str,
}

/// Token rows narrower than the residual stream (OPT's `word_embed_proj_dim`).
#[derive(Clone, Debug)]
pub struct Narrow {
    /// Their width.
    pub width: u32,
    /// `[hidden, width]`, on the way in.
    pub into: Projection,
    /// `[width, hidden]`, before the head.
    pub out: Projection,
}

impl Narrow {
    const WHY: &'static str = "hidden_size and word_embed_proj_dim (or the reverse)";

    /// `[N, hidden] → [N, width]`.
    pub fn leave(&self, scope: &mut Scope, x: ValueId, hidden: u32) -> Result<ValueId> {
        let shape = [self.width, hidden];
        self.out
            .apply(scope, x, ("w_project_out", ""), shape, Self::WHY)
    }
}

/// The tables of a model; rows are summed in this order.
#[derive(Clone, Debug)]
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
    /// Where token rows are narrower than the residual stream.
    pub narrow: Option<Narrow>,
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
        let (sum, tokens) = self.of_tokens(scope, ids)?;
        Ok((self.add_tables(scope, sum, types, positions)?, tokens))
    }

    /// The same, where pictures may stand in the text: the parameters `types` and [`IMAGE_FEATURES`] are added.
    pub fn apply_pictured(
        &self,
        scope: &mut Scope,
        ids: ValueId,
        positions: Option<ValueId>,
    ) -> Result<(ValueId, WeightId)> {
        let types = scope.param("types", Type::ids());
        let rows = Type::f32(&[Sym::N.into(), self.hidden.into()]);
        let rows = scope.param(IMAGE_FEATURES, rows);
        let (sum, tokens) = self.of_tokens(scope, ids)?;
        let given = Substitute { id: IMAGE_TYPE };
        let sum = scope.op("e", given, &[sum.into(), rows.into(), types.into()])?;
        Ok((self.add_tables(scope, sum, None, positions)?, tokens))
    }

    /// The rows of tokens, and their table.
    fn of_tokens(&self, scope: &mut Scope, ids: ValueId) -> Result<(ValueId, WeightId)> {
        let tokens = self.table(scope, "embed", self.tokens, self.token_width());
        let mut sum = scope.op(
            "e",
            Gather { scale: self.scale },
            &[ids.into(), tokens.into()],
        )?;
        if let Some(narrow) = &self.narrow {
            let shape = [self.hidden, narrow.width];
            sum = narrow
                .into
                .apply(scope, sum, ("w_project_in", ""), shape, Narrow::WHY)?;
        }
        Ok((sum, tokens))
    }

    /// The rows of the other tables added to `sum`.
    fn add_tables(
        &self,
        scope: &mut Scope,
        mut sum: ValueId,
        types: Option<ValueId>,
        positions: Option<ValueId>,
    ) -> Result<ValueId> {
        let parts = [
            ("embed_types", self.types, types),
            ("embed_positions", self.positions, positions),
        ];
        for (name, table, index) in parts {
            if let (Some(table), Some(index)) = (table, index) {
                let table = self.table(scope, name, table, self.hidden);
                let row = scope.op("e", Gather { scale: 1.0 }, &[index.into(), table.into()])?;
                sum = scope.op("e", Add, &[sum.into(), row.into()])?;
            }
        }
        Ok(sum)
    }

    /// Columns of the token table.
    pub fn token_width(&self) -> u32 {
        self.narrow
            .as_ref()
            .map_or(self.hidden, |narrow| narrow.width)
    }

    fn table(&self, scope: &mut Scope, name: &str, table: Table, width: u32) -> WeightId {
        let why = format!(
            "rows = {} ({}), columns = hidden_size ({width})",
            table.field, table.rows
        );
        let shape = [table.rows, width];
        match table.skip {
            0 => scope.matrix(name, table.tensor, shape, why),
            skip => scope.table_behind(name, table.tensor, shape, skip, why),
        }
    }
}

//! Types, layouts, places, packs and sources. Tokens → their values.

use super::{
    ParseError,
    cursor::{Cursor, error_at},
    lexer::Tok,
};
use crate::{
    DType, Dim, Layout, Pack, Place, Projected, Segment, Source, SourceNorm, SourcePart, State,
    Sym, TensorType, Type,
};

fn dtype(c: &mut Cursor) -> Result<DType, ParseError> {
    let pos = c.pos();
    let name = c.word("an element type")?;
    match DType::from_name(&name) {
        Some(d) => Ok(d),
        None => error_at(
            pos,
            format!("expected an element type (f32, f16, bf16, i32, q8_0, …), found `{name}`"),
        ),
    }
}

pub(super) fn tensor_type(c: &mut Cursor) -> Result<TensorType, ParseError> {
    let dtype = dtype(c)?;
    c.sign('[')?;
    let mut dims = Vec::new();
    while !c.is_sign(']') {
        let pos = c.pos();
        dims.push(match c.peek() {
            Tok::Word(_) => match Sym::from_name(&c.word("an extent")?) {
                Some(s) => Dim::Sym(s),
                None => return error_at(pos, "expected an extent: a number, N, R, B or T"),
            },
            _ => Dim::Fixed(c.int("an extent")?),
        });
        if !c.eat(',') {
            break;
        }
    }
    c.sign(']')?;
    Ok(TensorType { dtype, dims })
}

pub(super) fn value_type(c: &mut Cursor) -> Result<Type, ParseError> {
    if c.eat_word("step") {
        return Ok(Type::Step);
    }
    if !c.eat_word("kv_view") {
        return Ok(Type::Tensor(tensor_type(c)?));
    }
    c.sign('<')?;
    let heads = c.int("a number of heads")?;
    c.sign(',')?;
    let k_dim = c.int("the elements of a key")?;
    c.sign(',')?;
    let v_dim = c.int("the elements of a value")?;
    c.sign('>')?;
    Ok(Type::KvView {
        heads,
        k_dim,
        v_dim,
    })
}

/// `at 4096 stride 896 in 14x(32, 32)`, where it is next.
pub(super) fn place(c: &mut Cursor) -> Result<Option<Place>, ParseError> {
    if !c.eat_word("at") {
        return Ok(None);
    }
    let at = c.int("a place in bytes")?;
    c.keyword("stride")?;
    let stride = c.int("a stride")?;
    c.keyword("in")?;
    Ok(Some(Place {
        at,
        stride,
        layout: layout(c)?,
    }))
}

/// `1x(896) + 14x(32, 32)`, or `()`.
fn layout(c: &mut Cursor) -> Result<Layout, ParseError> {
    if c.eat('(') {
        c.sign(')')?;
        return Ok(Layout::default());
    }
    if !matches!(c.peek(), Tok::Int(_)) {
        return c.expected("a layout, such as 14x(32, 32)");
    }
    let mut segments = Vec::new();
    loop {
        let count = c.int("a count of groups")?;
        c.keyword("x")?;
        c.sign('(')?;
        let mut parts = Vec::new();
        while !c.is_sign(')') {
            parts.push(c.int("a length")?);
            if !c.eat(',') {
                break;
            }
        }
        c.sign(')')?;
        segments.push(Segment { count, parts });

        if !c.eat('+') {
            return Ok(Layout(segments));
        }
    }
}

pub(super) fn slots(c: &mut Cursor) -> Result<Option<u32>, ParseError> {
    if !c.eat('[') {
        return Ok(None);
    }
    let n = c.int("a number of slots")?;
    c.sign(']')?;
    Ok(Some(n))
}

/// `"a", "b" normed("w", "b", 1e-7) times("m") plus("c")`: parts, and what they go through.
pub(super) fn source(c: &mut Cursor) -> Result<Source, ParseError> {
    let parts = source_parts(c)?;
    let norm = match c.eat_word("normed") {
        false => None,
        true => {
            c.sign('(')?;
            let weight = c.string("a tensor's name")?;
            c.sign(',')?;
            let bias = c.string("a tensor's name")?;
            c.sign(',')?;
            let eps = c.float("a number")? as f32;
            c.sign(')')?;
            Some(SourceNorm { weight, bias, eps })
        }
    };
    if !c.eat_word("times") {
        return match norm {
            None => Ok(Source::rows(parts)),
            Some(_) => c.expected("`times`"),
        };
    }
    let matrix = enclosed_parts(c)?;
    let bias = match c.eat_word("plus") {
        true => enclosed_parts(c)?,
        false => Vec::new(),
    };
    Ok(Source {
        parts,
        projected: Some(Projected { norm, matrix, bias }),
    })
}

fn enclosed_parts(c: &mut Cursor) -> Result<Vec<SourcePart>, ParseError> {
    c.sign('(')?;
    let parts = source_parts(c)?;
    c.sign(')')?;
    Ok(parts)
}

/// `"a"[0..8 every 2] transposed, "b.{expert}" x 8`: as many parts as there are.
fn source_parts(c: &mut Cursor) -> Result<Vec<SourcePart>, ParseError> {
    let mut parts = Vec::new();
    while matches!(c.peek(), Tok::Str(_)) {
        let name = c.string("a tensor's name")?;
        let (mut rows, mut every) = (None, 1);
        if c.eat('[') {
            let start = c.int("a row")?;
            if *c.peek() != Tok::Range {
                return c.expected("`..`");
            }
            c.bump();
            rows = Some((start, c.int("a row")?));
            if c.eat_word("every") {
                every = c.int("a number of rows")?;
            }
            c.sign(']')?;
        }
        let transposed = c.eat_word("transposed");
        let experts = match c.eat_word("x") {
            true => Some(c.int("a number of experts")?),
            false => None,
        };
        parts.push(SourcePart {
            name,
            rows,
            every,
            transposed,
            experts,
        });
        if !c.eat(',') {
            break;
        }
    }
    Ok(parts)
}

/// `panels<rows = …, cols = …, glu = true>`, `experts<count = …, rows = …, cols = …, glu = true>`,
/// `rows<cols = …>` or `vector<layout = …>`.
pub(super) fn pack(c: &mut Cursor) -> Result<Pack, ParseError> {
    let pos = c.pos();
    let name = c.word("a packing")?;
    c.sign('<')?;
    let field = |c: &mut Cursor, key: &str| {
        c.keyword(key)?;
        c.sign('=')?;
        layout(c)
    };
    let matrix = |c: &mut Cursor| {
        let rows = field(c, "rows")?;
        c.sign(',')?;
        let cols = field(c, "cols")?;
        let glu = c.eat(',');
        if glu {
            c.keyword("glu")?;
            c.sign('=')?;
            c.keyword("true")?;
        }
        Ok((rows, cols, glu))
    };
    let pack = match name.as_str() {
        "panels" => {
            let (rows, cols, glu) = matrix(c)?;
            Pack::Panels { rows, cols, glu }
        }
        "experts" => {
            c.keyword("count")?;
            c.sign('=')?;
            let count = c.int("a number of experts")?;
            c.sign(',')?;
            let (rows, cols, glu) = matrix(c)?;
            Pack::Experts {
                count,
                rows,
                cols,
                glu,
            }
        }
        "rows" => Pack::Rows {
            cols: field(c, "cols")?,
        },
        "vector" => Pack::Vector {
            layout: field(c, "layout")?,
        },
        _ => {
            return error_at(
                pos,
                format!("expected panels, experts, rows or vector, found `{name}`"),
            );
        }
    };
    c.sign('>')?;
    Ok(pack)
}

/// Behind `state`: `@kv[24] : kv_cache<f16, heads = 2, k_dim = 64, v_dim = 64, window = 4096>`.
pub(super) fn state(c: &mut Cursor) -> Result<State, ParseError> {
    let name = c.global("the state's name")?;
    let slots = slots(c)?;
    c.sign(':')?;
    c.keyword("kv_cache")?;
    c.sign('<')?;
    let dtype = dtype(c)?;
    let field = |c: &mut Cursor, key: &str| {
        c.keyword(key)?;
        c.sign('=')?;
        c.int(key)
    };
    let extent = |c: &mut Cursor, key: &str| {
        c.sign(',')?;
        field(c, key)
    };
    let (heads, k_dim, v_dim) = (
        extent(c, "heads")?,
        extent(c, "k_dim")?,
        extent(c, "v_dim")?,
    );
    let window = if c.eat(',') {
        Some(field(c, "window")?)
    } else {
        None
    };
    c.sign('>')?;
    Ok(State {
        name,
        slots,
        dtype,
        heads,
        k_dim,
        v_dim,
        window,
    })
}

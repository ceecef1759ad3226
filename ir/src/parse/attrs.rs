//! Attributes: `key = value, …`. Tokens → [`Attrs`].
//!
//! A value is a number, `true`, `false`, a word, a list, `name<key = value>`, `(@class, slot)` or a
//! mask. Depth is bounded by `MAX_DEPTH`.

use super::{
    ParseError,
    cursor::{Cursor, error_at},
    lexer::Tok,
};
use crate::{
    Mask,
    attr::{AttrValue, Attrs},
};

/// How deep lists, structures and masks may nest.
const MAX_DEPTH: u32 = 32;

/// Reads up to, not with, `close`.
pub(super) fn attr_list(c: &mut Cursor, close: char) -> Result<Attrs, ParseError> {
    nested_attrs(c, close, 0)
}

fn nested_attrs(c: &mut Cursor, close: char, depth: u32) -> Result<Attrs, ParseError> {
    let mut attrs = Attrs::new();
    if c.is_sign(close) {
        return Ok(attrs);
    }
    loop {
        let key = c.word("an attribute's name")?;
        c.sign('=')?;
        let value = value(c, depth)?;
        attrs.0.push((key, value));
        if !c.eat(',') {
            return Ok(attrs);
        }
    }
}

fn value(c: &mut Cursor, depth: u32) -> Result<AttrValue, ParseError> {
    if depth > MAX_DEPTH {
        return error_at(c.pos(), format!("attributes nest deeper than {MAX_DEPTH}"));
    }
    match c.peek().clone() {
        Tok::Int(_) => Ok(AttrValue::Int(c.int("a number")?)),
        Tok::Float(x) => {
            c.bump();
            Ok(AttrValue::Float(x))
        }
        Tok::Sign('[') => {
            c.bump();
            let mut list = Vec::new();
            while !c.is_sign(']') {
                list.push(value(c, depth + 1)?);
                if !c.eat(',') {
                    break;
                }
            }
            c.sign(']')?;
            Ok(AttrValue::List(list))
        }
        Tok::Sign('(') if matches!(c.peek2(), Tok::Global(_)) => {
            c.bump();
            let class = c.global("a layer class")?;
            c.sign(',')?;
            let slot = c.int("a slot")?;
            c.sign(')')?;
            Ok(AttrValue::Layer(class, slot))
        }
        Tok::Sign('(') => Ok(AttrValue::Mask(mask(c, depth)?)),
        Tok::Word(w) => match w.as_str() {
            "true" | "false" => {
                c.bump();
                Ok(AttrValue::Bool(w == "true"))
            }
            "band" | "bidirectional" | "causal" | "fixed" | "stride" | "window" => {
                Ok(AttrValue::Mask(mask(c, depth)?))
            }
            _ => {
                c.bump();
                if !c.eat('<') {
                    return Ok(AttrValue::Word(w));
                }
                let attrs = nested_attrs(c, '>', depth + 1)?;
                c.sign('>')?;
                Ok(AttrValue::Struct(w, attrs))
            }
        },
        _ => c.expected("an attribute's value"),
    }
}

/// One mask, or several joined by one kind of sign.
fn mask(c: &mut Cursor, depth: u32) -> Result<Mask, ParseError> {
    let first = mask_term(c, depth)?;
    let sign = match c.peek() {
        Tok::Sign(s @ ('&' | '|')) => *s,
        _ => return Ok(first),
    };
    let mut masks = vec![first];
    while c.eat(sign) {
        masks.push(mask_term(c, depth)?);
    }
    if c.is_sign('&') || c.is_sign('|') {
        return c.expected("parentheses where `&` and `|` mix");
    }
    Ok(if sign == '&' {
        Mask::And(masks)
    } else {
        Mask::Or(masks)
    })
}

fn mask_term(c: &mut Cursor, depth: u32) -> Result<Mask, ParseError> {
    if depth > MAX_DEPTH {
        return error_at(c.pos(), format!("masks nest deeper than {MAX_DEPTH}"));
    }
    if c.eat('(') {
        let m = mask(c, depth + 1)?;
        c.sign(')')?;
        return Ok(m);
    }
    if c.eat_word("causal") {
        Ok(Mask::Causal)
    } else if c.eat_word("bidirectional") {
        Ok(Mask::Bidirectional)
    } else if c.eat_word("window") {
        let [w, _] = numbers(c, None)?;
        Ok(Mask::Window(w))
    } else if c.eat_word("band") {
        let [w, _] = numbers(c, None)?;
        Ok(Mask::Band(w))
    } else if c.eat_word("stride") {
        let [every, block] = numbers(c, Some(1))?;
        Ok(Mask::Stride { every, block })
    } else if c.eat_word("fixed") {
        let [span, last] = numbers(c, Some(1))?;
        Ok(Mask::Fixed { span, last })
    } else {
        c.expected(
            "a mask: `causal`, `bidirectional`, `window(…)`, `band(…)`, `stride(…)`, `fixed(…)` or `(…)`",
        )
    }
}

/// `(n)`, or `(n, m)` where there is a `second`, which is what m is when it is left out.
fn numbers(c: &mut Cursor, second: Option<u32>) -> Result<[u32; 2], ParseError> {
    c.sign('(')?;
    let first = c.int("a number of positions")?;
    let second = match second {
        Some(_) if c.eat(',') => c.int("a number of positions")?,
        other => other.unwrap_or(0),
    };
    c.sign(')')?;
    Ok([first, second])
}

//! Splits the text form into tokens with their position. Text → [`Token`]s, ended by `Tok::End`.
//!
//! Invariants: tokens take memory in proportion to the text; positions count lines and characters
//! from 1. Deliberately not here: what a token means.

use super::ParseError;
use crate::print::is_name_char;
use std::fmt;

#[derive(Clone, PartialEq, Debug)]
pub(super) enum Tok {
    /// A bare word; it starts with a letter or `_`.
    Word(String),
    /// `%name`.
    Value(String),
    /// `@name`.
    Global(String),
    Str(String),
    Int(i128),
    Float(f64),
    /// `( ) { } [ ] < > , : = & | +`
    Sign(char),
    /// `..`
    Range,
    /// `..=`
    RangeTo,
    End,
}

impl fmt::Display for Tok {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let short = |s: &str| s.chars().take(40).collect::<String>();
        match self {
            Tok::Word(w) => write!(f, "`{}`", short(w)),
            Tok::Value(n) => write!(f, "`%{}`", short(n)),
            Tok::Global(n) => write!(f, "`@{}`", short(n)),
            Tok::Str(s) => write!(f, "\"{}\"", short(s)),
            Tok::Int(i) => write!(f, "`{i}`"),
            Tok::Float(x) => write!(f, "`{x:?}`"),
            Tok::Sign(c) => write!(f, "`{c}`"),
            Tok::Range => f.write_str("`..`"),
            Tok::RangeTo => f.write_str("`..=`"),
            Tok::End => f.write_str("the end of the text"),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Pos {
    pub line: u32,
    pub column: u32,
}

#[derive(Clone, Debug)]
pub(super) struct Token {
    pub tok: Tok,
    pub pos: Pos,
}

struct Lexer<'a> {
    left: std::iter::Peekable<std::str::Chars<'a>>,
    pos: Pos,
}

pub(super) fn tokens(text: &str) -> Result<Vec<Token>, ParseError> {
    let mut lexer = Lexer {
        left: text.chars().peekable(),
        pos: Pos { line: 1, column: 1 },
    };
    let mut out = Vec::new();
    loop {
        lexer.skip_blank()?;
        let pos = lexer.pos;
        let tok = lexer.token()?;
        let end = tok == Tok::End;
        out.push(Token { tok, pos });
        if end {
            return Ok(out);
        }
    }
}

impl Lexer<'_> {
    fn error<T>(&self, pos: Pos, message: impl Into<String>) -> Result<T, ParseError> {
        Err(ParseError {
            line: pos.line,
            column: pos.column,
            message: message.into(),
        })
    }

    fn next(&mut self) -> Option<char> {
        let c = self.left.next()?;
        if c == '\n' {
            self.pos = Pos {
                line: self.pos.line.saturating_add(1),
                column: 1,
            };
        } else {
            self.pos.column = self.pos.column.saturating_add(1);
        }
        Some(c)
    }

    fn eat(&mut self, c: char) -> bool {
        let found = self.left.peek() == Some(&c);
        if found {
            self.next();
        }
        found
    }

    fn peek2(&self) -> Option<char> {
        let mut ahead = self.left.clone();
        ahead.next();
        ahead.next()
    }

    fn skip_blank(&mut self) -> Result<(), ParseError> {
        while let Some(&c) = self.left.peek() {
            if c.is_whitespace() {
                self.next();
            } else if c == '/' {
                let pos = self.pos;
                self.next();
                if !self.eat('/') {
                    return self.error(pos, "expected `//`, found `/`");
                }
                while self.left.peek().is_some_and(|&c| c != '\n') {
                    self.next();
                }
            } else {
                break;
            }
        }
        Ok(())
    }

    fn token(&mut self) -> Result<Tok, ParseError> {
        let pos = self.pos;
        let Some(&c) = self.left.peek() else {
            return Ok(Tok::End);
        };
        match c {
            '%' | '@' => {
                self.next();
                let name = if self.left.peek() == Some(&'"') {
                    self.string()?
                } else {
                    self.chars_while(is_name_char)
                };
                Ok(if c == '%' {
                    Tok::Value(name)
                } else {
                    Tok::Global(name)
                })
            }
            '"' => Ok(Tok::Str(self.string()?)),
            '0'..='9' | '-' => self.number(),
            '.' => {
                self.next();
                if !self.eat('.') {
                    return self.error(pos, "expected `..`, found `.`");
                }
                Ok(if self.eat('=') {
                    Tok::RangeTo
                } else {
                    Tok::Range
                })
            }
            '(' | ')' | '{' | '}' | '[' | ']' | '<' | '>' | ',' | ':' | '=' | '&' | '|' | '+' => {
                self.next();
                Ok(Tok::Sign(c))
            }
            c if c.is_ascii_alphabetic() || c == '_' => {
                let word = self.chars_while(|c| is_name_char(c) && c != '-');
                Ok(match word.as_str() {
                    "inf" => Tok::Float(f64::INFINITY),
                    "NaN" => Tok::Float(f64::NAN),
                    _ => Tok::Word(word),
                })
            }
            c => self.error(pos, format!("unexpected character {c:?}")),
        }
    }

    fn chars_while(&mut self, keep: impl Fn(char) -> bool) -> String {
        let mut s = String::new();
        while let Some(&c) = self.left.peek()
            && keep(c)
        {
            s.push(c);
            self.next();
        }
        s
    }

    /// `12`, `-3`, `1.5`, `1e-5`, `-inf`; `1..` is a number and a range.
    fn number(&mut self) -> Result<Tok, ParseError> {
        let pos = self.pos;
        let mut s = String::new();
        if self.eat('-') {
            if self.left.peek() == Some(&'i') && self.chars_while(|c| c.is_alphabetic()) == "inf" {
                return Ok(Tok::Float(f64::NEG_INFINITY));
            }
            s.push('-');
        }
        s += &self.chars_while(|c| c.is_ascii_digit());
        let mut float = false;
        if self.left.peek() == Some(&'.') && self.peek2().is_some_and(|c| c.is_ascii_digit()) {
            float = true;
            self.next();
            s.push('.');
            s += &self.chars_while(|c| c.is_ascii_digit());
        }
        if self.left.peek() == Some(&'e')
            && self.peek2().is_some_and(|c| c.is_ascii_digit() || c == '-')
        {
            float = true;
            self.next();
            s.push('e');
            if self.eat('-') {
                s.push('-');
            }
            s += &self.chars_while(|c| c.is_ascii_digit());
        }
        let tok = if float {
            s.parse().ok().map(Tok::Float)
        } else {
            s.parse().ok().map(Tok::Int)
        };
        match tok {
            Some(tok) => Ok(tok),
            None => self.error(pos, "expected a number"),
        }
    }

    fn string(&mut self) -> Result<String, ParseError> {
        let pos = self.pos;
        self.next();
        let mut s = String::new();
        loop {
            let at = self.pos;
            match self.next() {
                None | Some('\n') => return self.error(pos, "this string has no end on its line"),
                Some('"') => return Ok(s),
                Some('\\') => match self.escape() {
                    Some(c) => s.push(c),
                    None => return self.error(at, "expected `\\\"`, `\\\\` or `\\u{…}`"),
                },
                Some(c) => s.push(c),
            }
        }
    }

    fn escape(&mut self) -> Option<char> {
        match self.next()? {
            c @ ('"' | '\\') => Some(c),
            'u' => {
                if !self.eat('{') {
                    return None;
                }
                let digits = self.chars_while(|c| c.is_ascii_hexdigit());
                let c = u32::from_str_radix(&digits, 16)
                    .ok()
                    .and_then(char::from_u32)?;
                self.eat('}').then_some(c)
            }
            _ => None,
        }
    }
}

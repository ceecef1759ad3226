//! A cursor over the tokens: what is next, and errors that say what was expected there.

use super::{
    ParseError,
    lexer::{Pos, Tok, Token},
};

pub(super) struct Cursor {
    tokens: Vec<Token>,
    next: usize,
}

impl Cursor {
    /// Reads `tokens`, the last of which is `Tok::End`.
    pub fn new(tokens: Vec<Token>) -> Cursor {
        Cursor { tokens, next: 0 }
    }

    fn at(&self, ahead: usize) -> &Tok {
        self.tokens
            .get(self.next + ahead)
            .map_or(&Tok::End, |t| &t.tok)
    }

    /// The next token.
    pub fn peek(&self) -> &Tok {
        self.at(0)
    }

    /// The token after the next.
    pub fn peek2(&self) -> &Tok {
        self.at(1)
    }

    /// Where the next token stands.
    pub fn pos(&self) -> Pos {
        let last = Pos { line: 1, column: 1 };
        self.tokens
            .get(self.next)
            .or(self.tokens.last())
            .map_or(last, |t| t.pos)
    }

    /// Takes the next token.
    pub fn bump(&mut self) -> Tok {
        let tok = match self.tokens.get_mut(self.next) {
            Some(t) => std::mem::replace(&mut t.tok, Tok::End),
            None => return Tok::End,
        };
        if self.next + 1 < self.tokens.len() {
            self.next += 1;
        }
        tok
    }

    /// An error at the next token.
    pub fn expected<T>(&self, what: &str) -> Result<T, ParseError> {
        error_at(
            self.pos(),
            format!("expected {what}, found {}", self.peek()),
        )
    }

    pub fn is_sign(&self, c: char) -> bool {
        *self.peek() == Tok::Sign(c)
    }

    pub fn is_word(&self, word: &str) -> bool {
        matches!(self.peek(), Tok::Word(w) if w == word)
    }

    /// Takes the sign where it is next.
    pub fn eat(&mut self, c: char) -> bool {
        let found = self.is_sign(c);
        if found {
            self.bump();
        }
        found
    }

    /// Takes the word where it is next.
    pub fn eat_word(&mut self, word: &str) -> bool {
        let found = self.is_word(word);
        if found {
            self.bump();
        }
        found
    }

    pub fn sign(&mut self, c: char) -> Result<(), ParseError> {
        if self.eat(c) {
            Ok(())
        } else {
            self.expected(&format!("`{c}`"))
        }
    }

    pub fn keyword(&mut self, word: &str) -> Result<(), ParseError> {
        if self.eat_word(word) {
            Ok(())
        } else {
            self.expected(&format!("`{word}`"))
        }
    }

    pub fn word(&mut self, what: &str) -> Result<String, ParseError> {
        match self.peek() {
            Tok::Word(_) => match self.bump() {
                Tok::Word(w) => Ok(w),
                _ => self.expected(what),
            },
            _ => self.expected(what),
        }
    }

    pub fn string(&mut self, what: &str) -> Result<String, ParseError> {
        match self.peek() {
            Tok::Str(_) => match self.bump() {
                Tok::Str(s) => Ok(s),
                _ => self.expected(what),
            },
            _ => self.expected(what),
        }
    }

    /// `@name`.
    pub fn global(&mut self, what: &str) -> Result<String, ParseError> {
        match self.peek() {
            Tok::Global(_) => match self.bump() {
                Tok::Global(s) => Ok(s),
                _ => self.expected(what),
            },
            _ => self.expected(what),
        }
    }

    /// `%name`.
    pub fn value(&mut self, what: &str) -> Result<String, ParseError> {
        match self.peek() {
            Tok::Value(_) => match self.bump() {
                Tok::Value(s) => Ok(s),
                _ => self.expected(what),
            },
            _ => self.expected(what),
        }
    }

    /// A number with a point or an exponent.
    pub fn float(&mut self, what: &str) -> Result<f64, ParseError> {
        let Tok::Float(x) = *self.peek() else {
            return self.expected(what);
        };
        self.bump();
        Ok(x)
    }

    /// A whole number that fits `T`.
    pub fn int<T: TryFrom<i128>>(&mut self, what: &str) -> Result<T, ParseError> {
        let Tok::Int(i) = *self.peek() else {
            return self.expected(what);
        };
        match T::try_from(i) {
            Ok(n) => {
                self.bump();
                Ok(n)
            }
            Err(_) => self.expected(&format!("{what} in range")),
        }
    }
}

pub(super) fn error_at<T>(pos: Pos, message: impl Into<String>) -> Result<T, ParseError> {
    Err(ParseError {
        line: pos.line,
        column: pos.column,
        message: message.into(),
    })
}

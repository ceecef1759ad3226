//! What a run is: a prompt into an empty cache, then new tokens one by one behind it.

use std::fmt;
use std::str::FromStr;

/// `prompt` tokens in one piece, then `new` single ones; one of them may be 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Case {
    pub prompt: usize,
    pub new: usize,
}

/// Seconds of a run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Times {
    pub read: f64,
    pub write: f64,
}

/// The half of a run that a line of the table is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Half {
    Read,
    Write,
}

impl FromStr for Case {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        let parsed = match s.split_once('+') {
            Some((p, n)) => p.parse().ok().zip(n.parse().ok()),
            None => s.parse().ok().map(|p| (p, 0)),
        };
        parsed
            .map(|(prompt, new)| Case { prompt, new })
            .filter(|c| (1..=1 << 20).contains(&(c.prompt.saturating_add(c.new))))
            .ok_or_else(|| format!("`{s}` is not PROMPT+NEW or PROMPT"))
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.pad(&format!("{}+{}", self.prompt, self.new))
    }
}

impl Case {
    /// The halves that hold tokens.
    pub fn halves(&self) -> impl Iterator<Item = Half> {
        let some = move |half: &Half| self.tokens(*half) > 0;
        [Half::Read, Half::Write].into_iter().filter(some)
    }

    pub fn tokens(&self, half: Half) -> usize {
        match half {
            Half::Read => self.prompt,
            Half::Write => self.new,
        }
    }

    /// `pp512`, `tg128`.
    pub fn test(&self, half: Half) -> String {
        match half {
            Half::Read => format!("pp{}", self.prompt),
            Half::Write => format!("tg{}", self.new),
        }
    }

    /// Tokens a second of one half.
    pub fn rate(&self, half: Half, times: &Times) -> f64 {
        match half {
            Half::Read => self.prompt as f64 / times.read,
            Half::Write => self.new as f64 / times.write,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cases_parse_and_print() {
        let case = |prompt, new| Ok(Case { prompt, new });
        assert_eq!("512+128".parse(), case(512, 128));
        assert_eq!("128".parse(), case(128, 0));
        assert_eq!("0+5".parse(), case(0, 5));
        for bad in ["", "+", "0", "0+0", "1+", "-1+2", "18446744073709551615+1"] {
            assert!(bad.parse::<Case>().is_err(), "{bad}");
        }
    }

    #[test]
    fn halves_have_names_and_rates() {
        let case = Case {
            prompt: 512,
            new: 0,
        };
        assert_eq!(case.halves().collect::<Vec<_>>(), [Half::Read]);
        let case = Case { prompt: 8, new: 4 };
        let times = Times {
            read: 2.0,
            write: 0.5,
        };
        let found: Vec<_> = case
            .halves()
            .map(|h| (case.test(h), case.rate(h, &times)))
            .collect();
        assert_eq!(found, [("pp8".into(), 4.0), ("tg4".into(), 8.0)]);
    }
}

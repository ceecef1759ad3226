//! Where the time of a run goes, from the process's first instruction of ours on.
//!
//! In: a mark after each part. Out: the parts, for standard error. Not here: what the parts do.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Times of a run's parts, in order.
#[derive(Debug)]
pub struct Timings {
    start: Instant,
    /// Each part and when it ended.
    parts: Mutex<Vec<(&'static str, Duration)>>,
}

impl Default for Timings {
    fn default() -> Timings {
        Timings {
            start: Instant::now(),
            parts: Mutex::new(Vec::new()),
        }
    }
}

impl Timings {
    /// Time since the start.
    pub fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    /// Ends a part: what happened since the last mark was `name`.
    pub fn mark(&self, name: &'static str) {
        let mut parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        parts.push((name, self.elapsed()));
    }

    /// The parts so far and what each took.
    pub fn parts(&self) -> Vec<(&'static str, Duration)> {
        let parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        let mut last = Duration::ZERO;
        let mut took = |&(name, end): &(&'static str, Duration)| {
            let time = end.saturating_sub(last);
            last = end;
            (name, time)
        };
        parts.iter().map(&mut took).collect()
    }
}

/// A line of the table.
pub fn line(name: &str, time: Duration, what: &str) -> String {
    let line = format!("{name:>12} {:10.2} ms  {what}", time.as_secs_f64() * 1e3);
    line.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_add_up() {
        let timings = Timings::default();
        timings.mark("a");
        std::thread::sleep(Duration::from_millis(2));
        timings.mark("b");
        let parts = timings.parts();
        assert_eq!((parts[0].0, parts[1].0), ("a", "b"));
        assert!(parts[1].1 >= Duration::from_millis(2));
        assert!(parts[0].1 + parts[1].1 <= timings.elapsed());
        assert_eq!(
            line("a", Duration::from_micros(1500), ""),
            "           a       1.50 ms"
        );
    }
}

//! Progress on standard error: a bar for each long phase, nothing when that is no terminal.

use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Shows bars, or nothing.
pub struct Progress {
    shown: bool,
}

impl Progress {
    /// Shows bars unless `quiet` or standard error is no terminal.
    pub fn new(quiet: bool) -> Progress {
        Progress {
            shown: !quiet && std::io::stderr().is_terminal(),
        }
    }

    /// A bar over `bytes`.
    pub fn bytes(&self, what: &'static str, bytes: u64) -> ProgressBar {
        let style = ProgressStyle::with_template(
            "{msg:>9} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec}",
        );
        self.bar(ProgressBar::new(bytes), what, style)
    }

    /// A spinner for a phase without a measure.
    pub fn spinner(&self, what: &'static str) -> ProgressBar {
        let bar = self.bar(
            ProgressBar::new_spinner(),
            what,
            ProgressStyle::with_template("{msg:>9} {spinner} {elapsed}"),
        );
        bar.enable_steady_tick(std::time::Duration::from_millis(120));
        bar
    }

    fn bar(
        &self,
        bar: ProgressBar,
        what: &'static str,
        style: Result<ProgressStyle, indicatif::style::TemplateError>,
    ) -> ProgressBar {
        if !self.shown {
            bar.set_draw_target(ProgressDrawTarget::hidden());
        }
        if let Ok(style) = style {
            bar.set_style(style);
        }
        bar.with_message(what)
    }
}

//! What was measured, beside the bar that it must clear.

use std::fmt;

/// One measured number and its bar.
pub struct Row {
    /// What was measured.
    pub what: &'static str,
    /// The number.
    pub measured: f64,
    /// What it must be.
    pub bar: Bar,
    /// The numbers that it was made of.
    pub detail: String,
}

/// What a number must be.
#[derive(Clone, Copy)]
pub enum Bar {
    /// At least this.
    AtLeast(f64),
    /// At most this.
    AtMost(f64),
    /// It was not compared with anything.
    Nothing,
}

impl Row {
    /// Whether the number clears its bar; one that could not be computed does not.
    pub fn passes(&self) -> bool {
        match self.bar {
            Bar::AtLeast(bar) => bar <= self.measured,
            Bar::AtMost(bar) => self.measured <= bar,
            Bar::Nothing => true,
        }
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bar = match self.bar {
            Bar::AtLeast(bar) => format!(">= {bar}"),
            Bar::AtMost(bar) => format!("<= {bar}"),
            Bar::Nothing => String::new(),
        };
        let verdict = match (self.bar, self.passes()) {
            (Bar::Nothing, _) => "",
            (_, true) => "ok",
            (_, false) => "MISSED",
        };
        write!(
            f,
            "{:<52} {:>9.2} {bar:>8}  {verdict:<6}  {}",
            self.what, self.measured, self.detail
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_passes_on_the_right_side_of_its_bar_only() {
        let cases = [
            (0.6, Bar::AtLeast(0.6), true),
            (0.59, Bar::AtLeast(0.6), false),
            (80.0, Bar::AtMost(80.0), true),
            (80.1, Bar::AtMost(80.0), false),
            (f64::NAN, Bar::AtMost(80.0), false),
            (f64::NAN, Bar::AtLeast(0.6), false),
            (f64::NAN, Bar::Nothing, true),
        ];
        for (measured, bar, passes) in cases {
            let row = Row {
                what: "x",
                measured,
                bar,
                detail: String::new(),
            };
            assert_eq!(row.passes(), passes, "{row}");
        }
    }
}

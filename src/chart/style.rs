//! What all pictures look like: colours of words and grid, marker shapes, lines that can be told apart.
//!
//! Colours are of the Okabe-Ito palette, which colour-blind readers can tell apart; shape and dash say the same again,
//! so that a black and white print loses nothing.

/// Shape of a marker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    Circle,
    Square,
    Diamond,
    Triangle,
}

/// Words and axes.
pub(crate) const INK: &str = "#222222";
/// Notes and tick labels.
pub(crate) const FAINT: &str = "#555555";
/// Grid lines.
pub(crate) const GRID: &str = "#e3e3e3";

/// Colour and dash of the nth line of a chart.
pub(crate) fn line(nth: usize) -> (&'static str, &'static str) {
    const COLOURS: [&str; 6] = ["#0072B2", "#D55E00", "#007a58", "#111111", "#a8487f", "#9a6b00"];
    const DASHES: [&str; 4] = ["", "7 3", "2 3", "9 3 2 3"];
    // The dash moves on with every line and again with every round of colours: 24 lines before one repeats.
    let dash = (nth + nth / (COLOURS.len() * 2)) % DASHES.len();
    (COLOURS[nth % COLOURS.len()], DASHES[dash])
}

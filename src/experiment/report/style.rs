//! How the methods look and what they are called: one place for colours, marker shapes, dashes and names.
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

/// How one method is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Style {
    /// Colour of markers and lines.
    pub colour: &'static str,
    /// A darker one for words, which need more contrast than markers.
    pub ink: &'static str,
    pub shape: Shape,
    /// `stroke-dasharray`; empty is a whole line.
    pub dash: &'static str,
}

/// Words and axes.
pub(crate) const INK: &str = "#222222";
/// Notes and tick labels.
pub(crate) const FAINT: &str = "#555555";
/// Grid lines.
pub(crate) const GRID: &str = "#e3e3e3";

const DPO: Style = Style { colour: "#0072B2", ink: "#004f7d", shape: Shape::Circle, dash: "" };
const PPO: Style = Style { colour: "#D55E00", ink: "#963f00", shape: Shape::Square, dash: "9 3 2 3" };
const SFT: Style = Style { colour: "#111111", ink: "#111111", shape: Shape::Diamond, dash: "6 5" };
const OTHER: Style = Style { colour: "#7a3f66", ink: "#5c2f4d", shape: Shape::Triangle, dash: "3 3" };

/// The style of a method, by its lower-case name.
pub(crate) fn of(method: &str) -> Style {
    match method {
        "dpo" => DPO,
        "ppo" => PPO,
        "sft" => SFT,
        _ => OTHER,
    }
}

/// Colour and dash of the nth line of a chart.
pub(crate) fn line(nth: usize) -> (&'static str, &'static str) {
    const COLOURS: [&str; 6] = ["#0072B2", "#D55E00", "#007a58", "#111111", "#a8487f", "#9a6b00"];
    const DASHES: [&str; 4] = ["", "7 3", "2 3", "9 3 2 3"];
    // The dash moves on with every line and again with every round of colours: 24 lines before one repeats.
    let dash = (nth + nth / (COLOURS.len() * 2)) % DASHES.len();
    (COLOURS[nth % COLOURS.len()], DASHES[dash])
}

/// A method as readers know it.
pub(crate) fn name(method: &str) -> String {
    method.to_uppercase()
}

/// A setting as the picture and the tables write it: `beta=0.1` is `β=0.1`, `kl_coef=0.05` is `coef 0.05`.
pub(crate) fn setting(method: &str, setting: &str, value: Option<f64>) -> String {
    if !setting.trim().is_empty() {
        return setting.trim().replace("kl_coef=", "coef ").replace("beta=", "β=");
    }
    match (method, value) {
        ("dpo", Some(value)) => format!("β={value}"),
        ("ppo", Some(value)) => format!("coef {value}"),
        (_, Some(value)) => value.to_string(),
        (_, None) => String::new(),
    }
}

/// What the method's knob is called in a sentence.
pub(crate) fn knob(method: &str) -> &'static str {
    match method {
        "dpo" => "β",
        "ppo" => "the KL coefficient",
        _ => "the setting",
    }
}

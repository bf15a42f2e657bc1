//! How the methods look and what they are called: one place for their colours, marker shapes, dashes and names.
use crate::chart::style::Shape;

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

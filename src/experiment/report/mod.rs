//! The report of an experiment that compares DPO with PPO: data, pictures, sentences and the page.
//!
//! Everything here is a pure function of [`Report`]: no file, no network, no clock. The caller writes what comes back.
mod axis;
mod compare;
mod curves;
mod data;
mod html;
mod labels;
mod marks;
mod panel;
mod plot;
mod png;
mod style;
mod svg;
mod tables;
mod words;

pub use curves::chart_svg;
pub use data::{Chart, Completion, Fact, Part, Point, Report, SampleSet, Series};
pub use html::{html, page};
pub use labels::{Placed, Rect};
pub use plot::{frontier_svg, label_boxes};
pub use png::png_of_svg;
pub(crate) use svg::escape;
pub use words::sentences;

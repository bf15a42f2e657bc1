//! The report of an experiment that compares DPO with PPO: data, pictures, sentences and the page.
//!
//! Everything here is a pure function of [`Report`]: no file, no network, no clock. The caller writes what comes back.
mod compare;
mod curves;
mod data;
mod html;
mod marks;
mod plot;
mod style;
mod tables;
mod words;

pub(crate) use crate::chart::svg::escape;
pub use crate::chart::{Placed, Rect, png_of_svg};
pub use curves::chart_svg;
pub use data::{Chart, Completion, Fact, Part, Point, Report, SampleSet, Series};
pub use html::{html, page};
pub use plot::{frontier_svg, label_boxes};
pub use words::sentences;

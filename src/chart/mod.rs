//! Pictures: SVG, axes, frames, room for labels, and the PNG of an SVG. Knows no experiment and no ranking.
//!
//! Everything here is a pure function: no file, no network, no clock. Imports nothing of ours.
pub(crate) mod axis;
pub(crate) mod labels;
pub(crate) mod panel;
mod png;
pub(crate) mod style;
pub(crate) mod svg;

pub use labels::{Placed, Rect};
pub use png::png_of_svg;

//! The frame that charts share: grid, ticks, tick labels and the names of the axes.
use super::axis::{self, Axis};
use super::labels::Rect;
use super::style::{FAINT, GRID, INK};
use super::svg::{self, Hold, Pen, Svg, Words};

/// A pair of axes and the area they span.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Panel {
    pub area: Rect,
    pub x: Axis,
    pub y: Axis,
}

/// Words about a panel, and their size in units of the picture.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Names<'a> {
    pub x: &'a str,
    pub y: &'a str,
    pub size: f64,
}

impl Panel {
    /// The place of a pair of values.
    pub(crate) fn at(&self, (x, y): (f64, f64)) -> (f64, f64) {
        (self.x.place(x), self.y.place(y))
    }

    /// Draws the frame. It needs four lines of words below the area and the room to its left that [`left_room`] tells.
    pub(crate) fn frame(&self, svg: &mut Svg, names: Names<'_>) {
        let Rect { left, top, right, bottom } = self.area;
        let size = names.size;
        let words = Words { size: size - 1.0, colour: FAINT, hold: Hold::Middle, bold: false };
        let grid = Pen { colour: GRID, width: 1.0, dash: "" };
        let edge = Pen { colour: "#888888", width: 1.0, dash: "" };
        let across = ((right - left) / (size * 6.0)) as usize;
        let x_ticks = self.x.ticks(across.clamp(2, 10), size * 3.4);
        for (tick, label) in x_ticks.iter().zip(axis::tick_labels(&x_ticks, self.x.spread)) {
            let x = self.x.place(*tick);
            svg.line((x, top), (x, bottom), grid);
            svg.line((x, bottom), (x, bottom + 4.0), edge);
            svg.text((x, bottom + size + 5.0), &label, words);
        }
        let y_ticks = self.y_ticks(size);
        for (tick, label) in y_ticks.iter().zip(axis::tick_labels(&y_ticks, self.y.spread)) {
            let y = self.y.place(*tick);
            svg.line((left, y), (right, y), grid);
            svg.line((left - 4.0, y), (left, y), edge);
            svg.text((left - 7.0, y + size * 0.33), &label, Words { hold: Hold::End, ..words });
        }
        svg.path(&[(left, top), (left, bottom), (right, bottom)], edge);
        let words = Words { size, colour: INK, hold: Hold::Middle, bold: false };
        let name = svg::fit(names.x, size, right - left + size * 4.0);
        svg.text(((left + right) / 2.0, bottom + size * 2.4 + 6.0), &name, words);
        self.name_y(svg, names, words);
    }

    /// The y axis's name, in two lines where one is longer than the axis.
    fn name_y(&self, svg: &mut Svg, names: Names<'_>, words: Words<'_>) {
        let mut lines = svg::wrap(names.y, names.size, self.area.bottom - self.area.top + 8.0);
        if lines.len() > 2 {
            let rest = lines.split_off(1).join(" ");
            lines.push(svg::fit(&rest, names.size, self.area.bottom - self.area.top));
        }
        let middle = (self.area.top + self.area.bottom) / 2.0;
        let last = self.area.left - self.left_labels(names.size) - names.size * 0.9;
        for (nth, line) in lines.iter().rev().enumerate() {
            let x = last - nth as f64 * names.size * 1.25;
            svg.text_turned((x, middle), -90.0, line, words);
        }
    }

    fn y_ticks(&self, size: f64) -> Vec<f64> {
        let down = ((self.area.bottom - self.area.top) / (size * 2.8)) as usize;
        self.y.ticks(down.clamp(2, 10), size * 1.5)
    }

    fn left_labels(&self, size: f64) -> f64 {
        let ticks = self.y_ticks(size);
        axis::tick_labels(&ticks, self.y.spread).iter().map(|l| svg::width(l, size - 1.0)).fold(0.0, f64::max) + 8.0
    }

    /// Room that the y axis's labels and a name of two lines need, in units of the picture.
    pub(crate) fn left_room(&self, size: f64) -> f64 {
        self.left_labels(size) + size * 3.8
    }

    /// Moves the left edge, keeping what the x axis holds between it and zero.
    pub(crate) fn with_left(mut self, left: f64) -> Self {
        let inset = self.x.from - self.area.left;
        self.area.left = left;
        self.x.from = left + inset;
        self
    }
}

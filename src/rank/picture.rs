//! The ranking as a picture: every item's rating with its interval, and for few items the probabilities between them.
//! A pure function; draws with `chart`.
use super::ranking::{Estimate, Ranking};
use super::show::{self, Scale};
use crate::chart::axis::{self, Axis, Spread};
use crate::chart::style::{FAINT, GRID, INK, Shape};
use crate::chart::svg::{self, Hold, Pen, Svg, Words};

const WIDTH: f64 = 900.0;
const MARGIN: f64 = 20.0;
const TOP: f64 = 74.0;
const SIZE: f64 = 12.5;
const COLOUR: &str = "#0072B2";
/// All rows together are no higher than this, so that a thousand items are a picture still.
const HIGHEST: f64 = 1500.0;
const ROW: f64 = 24.0;
/// Names and numbers need so much height.
const LEGIBLE: f64 = 14.0;
/// In lower rows points would touch: a line joins the ratings instead.
const POINTS: f64 = 8.0;
/// The most items between whom probabilities are drawn.
const MATRIX: usize = 16;
const CELL: f64 = 46.0;

/// The picture as SVG, 900 units wide.
pub fn ranking_svg(ranking: &Ranking, scale: Scale) -> String {
    let plan = Plan::new(ranking, scale);
    let matrix = ranking.items.len() <= MATRIX;
    let below = plan.bottom + 58.0;
    let cell = plan.cell();
    let height = if matrix { below + 62.0 + cell * ranking.items.len() as f64 + MARGIN } else { below };
    let mut svg = Svg::new(WIDTH, height);
    svg.text((MARGIN, 30.0), &format!("Ratings of {} items", show::grouped(ranking.items.len())), bold(17.0));
    svg.text((MARGIN, 52.0), &svg::fit(&show::headline(ranking), SIZE, WIDTH - 2.0 * MARGIN), faint(SIZE, Hold::Start));
    plan.frame(&mut svg);
    plan.rows(&mut svg);
    if matrix {
        plan.matrix(&mut svg, below, cell);
    }
    svg.finish(&format!("{}: ratings with confidence intervals, best first", show::headline(ranking)))
}

fn bold(size: f64) -> Words<'static> {
    Words { size, colour: INK, hold: Hold::Start, bold: true }
}

fn faint(size: f64, hold: Hold) -> Words<'static> {
    Words { size, colour: FAINT, hold, bold: false }
}

fn ink(hold: Hold) -> Words<'static> {
    Words { size: SIZE, colour: INK, hold, bold: false }
}

/// Where everything lies.
struct Plan<'a> {
    ranking: &'a Ranking,
    scale: Scale,
    /// Names as shown.
    names: Vec<String>,
    /// Room for places and names.
    left: f64,
    right: f64,
    /// Height of a row.
    row: f64,
    bottom: f64,
    x: Axis,
}

impl<'a> Plan<'a> {
    fn new(ranking: &'a Ranking, scale: Scale) -> Self {
        let count = ranking.items.len();
        let row = (HIGHEST / count as f64).min(ROW);
        let names: Vec<String> =
            ranking.items.iter().map(|item| svg::fit(&show::name(&item.item, 200), SIZE, 250.0)).collect();
        let widest = names.iter().map(|name| svg::width(name, SIZE)).fold(40.0, f64::max);
        let left = MARGIN + 44.0 + widest + 12.0;
        let right = WIDTH - if row >= LEGIBLE { 205.0 } else { MARGIN };
        let ends = ranking.items.iter().flat_map(|item| [item.rating.lower, item.rating.upper, item.rating.value]);
        let (low, high) =
            ends.map(|end| scale.of(end)).fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(v), h.max(v)));
        let (low, high) = axis::padded(low, high, 0.03);
        let x = Axis { low, high, from: left, to: right, spread: Spread::Even };
        Self { ranking, scale, names, left, right, row, bottom: TOP + row * count as f64, x }
    }

    /// The side of a matrix cell.
    fn cell(&self) -> f64 {
        ((WIDTH - MARGIN - self.left) / self.ranking.items.len() as f64).min(CELL)
    }

    fn frame(&self, svg: &mut Svg) {
        let ticks = self.x.ticks(((self.right - self.left) / 75.0) as usize, 40.0);
        let edge = Pen { colour: "#888888", width: 1.0, dash: "" };
        for (tick, label) in ticks.iter().zip(axis::tick_labels(&ticks, self.x.spread)) {
            let x = self.x.place(*tick);
            svg.line((x, TOP), (x, self.bottom), Pen { colour: GRID, width: 1.0, dash: "" });
            svg.line((x, self.bottom), (x, self.bottom + 4.0), edge);
            svg.text((x, self.bottom + SIZE + 5.0), &label, faint(SIZE - 1.0, Hold::Middle));
        }
        let middle = self.x.place(self.scale.of(0.0));
        svg.line((middle, TOP), (middle, self.bottom), Pen { colour: "#999999", width: 1.0, dash: "4 3" });
        svg.line((self.left, self.bottom), (self.right, self.bottom), edge);
        let unit = match self.scale {
            Scale::Natural => "rating (natural-log strength, mean 0)",
            Scale::Elo => "Elo (mean 1500)",
        };
        let text = format!("{unit}, with {} intervals", show::percent(self.ranking.intervals.confidence));
        svg.text(((self.left + self.right) / 2.0, self.bottom + SIZE * 2.4 + 6.0), &text, ink(Hold::Middle));
    }

    fn rows(&self, svg: &mut Svg) {
        // Where rows are too low for words, every so many of them are named.
        let every = (LEGIBLE / self.row).ceil().max(1.0) as usize;
        let mut values = Vec::with_capacity(self.names.len());
        for (place, item) in self.ranking.items.iter().enumerate() {
            let y = TOP + self.row * (place as f64 + 0.5);
            let [lower, value, upper] =
                [item.rating.lower, item.rating.value, item.rating.upper].map(|v| self.x.place(self.scale.of(v)));
            let pen = Pen { colour: COLOUR, width: (self.row * 0.3).clamp(0.4, 1.6), dash: "" };
            svg.line((lower, y), (upper, y), pen);
            values.push((value, y));
            if self.row >= POINTS {
                svg.marker((value, y), Shape::Circle, self.row.min(22.0) * 0.22, COLOUR, false);
            }
            let base = y + SIZE * 0.35;
            if place % every == 0 {
                svg.text((MARGIN + 36.0, base), &(place + 1).to_string(), faint(SIZE - 1.0, Hold::End));
                svg.text((MARGIN + 44.0, base), &self.names[place], ink(Hold::Start));
            }
            if self.row >= LEGIBLE {
                svg.text((self.right + 12.0, base), &self.figures(item.rating), faint(SIZE - 0.5, Hold::Start));
            }
        }
        if self.row < POINTS {
            svg.path(&values, Pen { colour: INK, width: 1.2, dash: "" });
        }
    }

    fn figures(&self, rating: Estimate) -> String {
        let decimals = self.scale.decimals().min(2);
        let [value, lower, upper] =
            [rating.value, rating.lower, rating.upper].map(|v| axis::fixed(self.scale.of(v), decimals));
        format!("{value}  [{lower}, {upper}]")
    }

    fn matrix(&self, svg: &mut Svg, top: f64, cell: f64) {
        let tied = self.ranking.nu.is_some_and(|nu| nu.value > 0.0);
        let rest = if tied { "; the rest to 100 is a tie" } else { "" };
        svg.text((MARGIN, top + 16.0), "Probability that the row beats the column, %", bold(14.0));
        let wide = svg::width("Probability that the row beats the column, %", 14.0 * 1.12);
        svg.text((MARGIN + wide + 4.0, top + 16.0), rest.trim_start_matches("; "), faint(SIZE, Hold::Start));
        let (first, size) = (top + 52.0, if cell < 30.0 { SIZE - 3.0 } else { SIZE - 1.0 });
        for (row, name) in self.names.iter().enumerate() {
            let y = first + cell * row as f64;
            let (x, base) = (self.left + cell * (row as f64 + 0.5), y + cell * 0.5 + SIZE * 0.35);
            svg.text((x, first - 7.0), &(row + 1).to_string(), faint(SIZE - 1.0, Hold::Middle));
            svg.text((MARGIN + 36.0, base), &(row + 1).to_string(), faint(SIZE - 1.0, Hold::End));
            svg.text((MARGIN + 44.0, base), name, ink(Hold::Start));
            for column in 0..self.names.len() {
                let win = self.ranking.probability(row, column).0;
                let x = self.left + cell * column as f64;
                let fill = if column == row { "#f2f2f2".to_owned() } else { shade(win) };
                svg.rect((x + 0.5, y + 0.5, cell - 1.0, cell - 1.0), &fill);
                if column == row {
                    continue;
                }
                let words = Words { size, ..ink(Hold::Middle) };
                svg.text((x + cell * 0.5, y + cell * 0.5 + size * 0.35), &format!("{:.0}", 100.0 * win), words);
            }
        }
    }
}

/// From orange (never) over white (even) to blue (always), light enough everywhere for dark figures.
fn shade(probability: f64) -> String {
    let (full, share) = if probability < 0.5 {
        ([226.0, 144.0, 66.0], 1.0 - 2.0 * probability)
    } else {
        ([78.0, 158.0, 208.0], 2.0 * probability - 1.0)
    };
    let part = |channel: f64| (255.0 + (channel - 255.0) * share.clamp(0.0, 1.0)).round() as u8;
    let [red, green, blue] = full.map(part);
    format!("#{red:02x}{green:02x}{blue:02x}")
}

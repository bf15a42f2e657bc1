//! Training curves: one small chart of lines.
use super::data::Chart;
use crate::chart::axis::{self, Axis, Spread};
use crate::chart::labels::Rect;
use crate::chart::panel::{Names, Panel};
use crate::chart::style::{self, INK};
use crate::chart::svg::{self, Hold, Pen, Svg, Words};

const WIDTH: f64 = 440.0;
const HEIGHT: f64 = 220.0;
const SIZE: f64 = 11.0;
/// A line is thinned to the extremes of this many stretches of x: more than the chart has room to show.
const STRETCHES: usize = 160;
/// A series of dots has the colour of the series so many before it.
const MARKS_AFTER: usize = 4;

/// The chart as SVG, 440 units wide. Values that are not finite leave a gap in their line.
pub fn chart_svg(chart: &Chart) -> String {
    let rows = legend_rows(chart);
    let top = 32.0 + rows.len() as f64 * 16.0;
    let area = Rect { left: 60.0, top, right: WIDTH - 12.0, bottom: top + HEIGHT };
    let all = || chart.series.iter().flat_map(|s| &s.points).filter(|p| shows(chart, **p));
    let x = bounds(all().map(|p| p.0)).unwrap_or((1.0, 2.0));
    let x = if x.0 < x.1 { x } else { (x.0 - 0.5, x.1 + 0.5) };
    let spread = if chart.log { Spread::Log } else { Spread::Even };
    let y = bounds(all().map(|p| p.1)).map_or((1.0, 2.0), |(low, high)| match chart.log {
        true => (low / 1.2, high * 1.2),
        false => axis::padded(low, high, 0.06),
    });
    let panel = Panel {
        area,
        x: Axis { low: x.0, high: x.1, from: area.left + 4.0, to: area.right - 10.0, spread },
        y: Axis { low: y.0, high: y.1, from: area.bottom, to: area.top, spread },
    };
    let panel = panel.with_left(panel.left_room(SIZE));
    let mut svg = Svg::new(WIDTH, area.bottom + 40.0);
    let words = Words { size: 13.0, colour: INK, hold: Hold::Start, bold: true };
    // Bold letters are about a tenth wider than the table of widths says.
    svg.text((8.0, 19.0), &svg::fit(&chart.title, 13.0 * 1.12, WIDTH - 16.0), words);
    legend(&mut svg, &rows);
    panel.frame(&mut svg, Names { x: &chart.x_label, y: &chart.y_label, size: SIZE });
    for (nth, series) in chart.series.iter().enumerate() {
        if series.marks {
            let (colour, _) = style::line(nth.saturating_sub(MARKS_AFTER));
            for point in series.points.iter().filter(|p| shows(chart, **p)) {
                svg.marker(panel.at(*point), style::Shape::Circle, 2.2, colour, true);
            }
            continue;
        }
        let (colour, dash) = style::line(nth);
        for run in series.points.split(|p| !shows(chart, *p)).filter(|run| !run.is_empty()) {
            let line: Vec<_> = thinned(run).into_iter().map(|p| panel.at(p)).collect();
            match line[..] {
                [only] => svg.marker(only, style::Shape::Circle, 2.5, colour, false),
                _ => svg.path(&line, Pen { colour, width: 1.4, dash }),
            }
        }
    }
    if all().next().is_none() {
        let middle = ((panel.area.left + panel.area.right) / 2.0, (panel.area.top + panel.area.bottom) / 2.0);
        svg.text(
            middle,
            "nothing recorded",
            Words { size: 12.0, colour: style::FAINT, hold: Hold::Middle, bold: false },
        );
    }
    svg.finish(&format!("{}: {} against {}", chart.title, chart.y_label, chart.x_label))
}

fn bounds(values: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    values.fold(None, |seen, v| Some(seen.map_or((v, v), |(l, h): (f64, f64)| (l.min(v), h.max(v)))))
}

/// The legend's rows: (x, index of the series, name).
fn legend_rows(chart: &Chart) -> Vec<Vec<(f64, usize, String)>> {
    let mut rows: Vec<Vec<(f64, usize, String)>> = Vec::new();
    let mut x = f64::INFINITY;
    for (nth, series) in chart.series.iter().enumerate().filter(|(_, s)| !s.label.trim().is_empty()) {
        let name = svg::fit(series.label.trim(), SIZE, WIDTH - 70.0);
        let need = 30.0 + svg::width(&name, SIZE) + 14.0;
        if x + need > WIDTH {
            rows.push(Vec::new());
            x = 12.0;
        }
        if let Some(row) = rows.last_mut() {
            row.push((x, nth, name));
        }
        x += need;
    }
    rows
}

fn legend(svg: &mut Svg, rows: &[Vec<(f64, usize, String)>]) {
    for (row, entries) in rows.iter().enumerate() {
        let y = 37.0 + row as f64 * 16.0;
        for (x, nth, name) in entries {
            let (colour, dash) = style::line(*nth);
            svg.line((*x, y - 4.0), (x + 24.0, y - 4.0), Pen { colour, width: 1.8, dash });
            svg.text((x + 29.0, y), name, Words { size: SIZE, colour: INK, hold: Hold::Start, bold: false });
        }
    }
}

/// Whether a point has a place in the chart.
fn shows(chart: &Chart, (x, y): (f64, f64)) -> bool {
    x.is_finite() && y.is_finite() && (!chart.log || (x > 0.0 && y > 0.0))
}

/// Lowest and highest point of each stretch: the line looks the same and the page stays small.
fn thinned(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    if points.len() <= STRETCHES * 3 {
        return points.to_vec();
    }
    let mut kept = vec![points[0]];
    for chunk in points[1..points.len() - 1].chunks(points.len().div_ceil(STRETCHES)) {
        let by = |a: &&(f64, f64), b: &&(f64, f64)| a.1.total_cmp(&b.1);
        let ends: Vec<(f64, f64)> =
            chunk.iter().min_by(by).into_iter().chain(chunk.iter().max_by(by)).copied().collect();
        let ordered = ends[0].0 <= ends[1].0;
        kept.extend(if ordered { [ends[0], ends[1]] } else { [ends[1], ends[0]] });
    }
    kept.push(points[points.len() - 1]);
    kept
}

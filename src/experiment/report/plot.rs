//! The frontier picture: gold reward against KL from the SFT model, with the proxy reward beneath.
use super::data::Point;
use super::marks::{Mark, Marks};
use super::style;
use crate::chart::axis::{self, Axis, Spread};
use crate::chart::labels::{self, Obstacles, Placed, Rect, Wanted};
use crate::chart::panel::{Names, Panel};
use crate::chart::style::{FAINT, INK, Shape};
use crate::chart::svg::{self, Hold, Pen, Svg, Words};

const WIDTH: f64 = 900.0;
const GOLD_HEIGHT: f64 = 400.0;
const PROXY_HEIGHT: f64 = 230.0;
const TOP: f64 = 78.0;
/// From the foot of one panel to the head of the next: tick labels, axis name and a title.
const BETWEEN: f64 = 92.0;
/// Size of the axes' words; labels of points are as large.
const SIZE: f64 = 12.5;
/// Room between the left edge and KL 0, so that SFT's marker does not sit on the edge.
const INSET: f64 = 16.0;
const RADIUS: f64 = 6.0;
/// A largest KL of more than this many times the smallest calls for a square-root axis.
const WIDE: f64 = 12.0;

/// The picture as SVG: gold reward against exact KL from the SFT model, one line a method, and beneath it what the
/// proxy reward and the gold reward gained over SFT, where both are known.
pub fn frontier_svg(points: &[Point]) -> String {
    let marks = Marks::new(points);
    let gains = gains(&marks);
    let (gold, proxy) = panels(&marks, &gains);
    let placed = place_gold(&marks, &gold);
    let notes = notes(&marks, placed.len());
    let bottom = proxy.map_or(TOP + GOLD_HEIGHT, |p| p.area.bottom) + 48.0;
    let mut svg = Svg::new(WIDTH, bottom + notes.len() as f64 * 17.0 + 6.0);
    title(&mut svg, 28.0, "Gold reward against distance from the SFT model", 17.0);
    legend(&mut svg, &marks, gold.area.left);
    draw_gold(&mut svg, &marks, &gold, &placed);
    if let Some(proxy) = proxy {
        draw_proxy(&mut svg, &marks, &proxy, &gains);
    }
    for (nth, note) in notes.iter().enumerate() {
        let words = Words { size: 11.5, colour: FAINT, hold: Hold::Start, bold: false };
        svg.text((20.0, bottom + 12.0 + nth as f64 * 17.0), note, words);
    }
    svg.finish("Gold reward against exact sequence KL from the SFT model, for DPO and PPO")
}

/// Each label of the upper panel with the box it fills, and the area they must keep to.
pub fn label_boxes(points: &[Point]) -> (Vec<(String, Rect)>, Rect) {
    let marks = Marks::new(points);
    let (gold, _) = panels(&marks, &gains(&marks));
    let placed = place_gold(&marks, &gold);
    (placed.into_iter().map(|p| (label(&marks.all[p.index]), p.area)).collect(), gold.area)
}

/// The upper panel, and the lower one where there is a gain to show; their left edges are in line.
fn panels(marks: &Marks, gains: &[(usize, f64, f64)]) -> (Panel, Option<Panel>) {
    let gold = panel(marks, TOP, GOLD_HEIGHT, gold_range(marks));
    let proxy = (!gains.is_empty()).then(|| {
        let (top, range) = (TOP + GOLD_HEIGHT + BETWEEN, gain_range(gains));
        panel(marks, top, PROXY_HEIGHT, range)
    });
    let left = [Some(gold), proxy].iter().flatten().map(|p| p.left_room(SIZE)).fold(70.0, f64::max);
    (gold.with_left(left), proxy.map(|p| p.with_left(left)))
}

fn panel(marks: &Marks, top: f64, height: f64, (low, high): (f64, f64)) -> Panel {
    let area = Rect { left: 70.0, top, right: WIDTH - 22.0, bottom: top + height };
    let kls = || marks.all.iter().filter(|m| m.method != "sft").map(|m| m.kl.mean).filter(|k| *k > 1e-6);
    let reach = |m: &Mark| m.runs.iter().map(|r| r.0).fold(m.kl.mean + m.kl.se.max(0.0), f64::max);
    let most = marks.all.iter().map(reach).fold(0.0, f64::max);
    let wide = kls().fold(0.0, f64::max) > WIDE * kls().fold(f64::INFINITY, f64::min);
    let most = if most > 0.0 { most * 1.05 } else { 1.0 };
    let spread = if wide { Spread::Root } else { Spread::Even };
    Panel {
        area,
        x: Axis { low: 0.0, high: most, from: area.left + INSET, to: area.right, spread },
        y: Axis { low, high, from: area.bottom, to: area.top, spread: Spread::Even },
    }
}

fn range(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (low, high) =
        values.filter(|v| v.is_finite()).fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(v), h.max(v)));
    if low > high { (0.0, 1.0) } else { axis::padded(low, high, 0.09) }
}

fn gold_range(marks: &Marks) -> (f64, f64) {
    range(marks.all.iter().flat_map(|m| {
        let se = m.gold.se.max(0.0);
        m.runs.iter().map(|r| r.1).chain([m.gold.mean - se, m.gold.mean + se])
    }))
}

fn gain_range(gains: &[(usize, f64, f64)]) -> (f64, f64) {
    range(gains.iter().flat_map(|(_, gold, proxy)| [0.0, *gold, *proxy]))
}

/// (index of the mark, gold gain, proxy gain) over SFT, where both rewards and SFT's are known.
fn gains(marks: &Marks) -> Vec<(usize, f64, f64)> {
    let Some(sft) = marks.sft() else { return Vec::new() };
    let all = marks.all.iter().enumerate().filter(|(_, m)| m.method != "sft");
    all.map(|(i, m)| (i, m.gold.mean - sft.gold.mean, m.proxy.mean - sft.proxy.mean))
        .filter(|(_, _, proxy)| proxy.is_finite())
        .collect()
}

fn title(svg: &mut Svg, y: f64, text: &str, size: f64) {
    svg.text((20.0, y), text, Words { size, colour: INK, hold: Hold::Start, bold: true });
}

fn x_name(panel: &Panel) -> &'static str {
    match panel.x.spread {
        Spread::Root => "exact sequence KL from the SFT model (nats, square-root scale)",
        _ => "exact sequence KL from the SFT model (nats)",
    }
}

fn legend(svg: &mut Svg, marks: &Marks, left: f64) {
    let (y, words) = (53.0, Words { size: SIZE, colour: INK, hold: Hold::Start, bold: false });
    let mut x = left;
    let methods = marks.sft().map(|_| "sft").into_iter().chain(marks.methods());
    for method in methods {
        let (style, name) = (style::of(method), style::name(method));
        let pen = Pen { colour: style.colour, width: 1.6, dash: style.dash };
        svg.line((x, y - 4.0), (x + 38.0, y - 4.0), pen);
        svg.marker((x + 19.0, y - 4.0), style.shape, RADIUS, style.colour, false);
        svg.text((x + 45.0, y), &name, words);
        x += 45.0 + svg::width(&name, SIZE) + 26.0;
    }
    if !marks.all.is_empty() {
        svg.line((x, y - 4.0), (x + 22.0, y - 4.0), bar_pen(INK));
        svg.line((x + 11.0, y - 13.0), (x + 11.0, y + 5.0), bar_pen(INK));
        svg.text((x + 29.0, y), "±1 standard error", words);
    }
}

fn bar_pen(colour: &str) -> Pen<'_> {
    Pen { colour, width: 1.1, dash: "" }
}

fn label(mark: &Mark) -> String {
    // A method without a style of its own is told by its name: all such look alike.
    let stranger = !matches!(mark.method.as_str(), "sft" | "dpo" | "ppo") && mark.label != style::name(&mark.method);
    let name = if stranger { format!("{} ", style::name(&mark.method)) } else { String::new() };
    svg::fit(&format!("{name}{}", mark.label), SIZE, 240.0)
}

/// The ends of a mark's error bars, across and upright.
fn bars(mark: &Mark, panel: &Panel) -> Vec<((f64, f64), (f64, f64))> {
    let (kl, gold) = (mark.kl, mark.gold);
    let across = (kl.se > 0.0)
        .then(|| (panel.at(((kl.mean - kl.se).max(0.0), gold.mean)), panel.at((kl.mean + kl.se, gold.mean))));
    let upright =
        (gold.se > 0.0).then(|| (panel.at((kl.mean, gold.mean - gold.se)), panel.at((kl.mean, gold.mean + gold.se))));
    across.into_iter().chain(upright).collect()
}

fn wanted(text: &str, at: (f64, f64)) -> Wanted {
    Wanted { at, size: (svg::width(text, SIZE) + 2.0, SIZE + 2.5) }
}

/// Places for the labels; an index is that of the mark.
fn place_gold(marks: &Marks, panel: &Panel) -> Vec<Placed> {
    let mut obstacles = Obstacles::default();
    for mark in &marks.all {
        obstacles.boxes.push(Rect::about(panel.at((mark.kl.mean, mark.gold.mean)), RADIUS + 1.0));
        if mark.runs.len() > 1 {
            obstacles.boxes.extend(mark.runs.iter().map(|r| Rect::about(panel.at(*r), 4.0)));
        }
        obstacles.lines.extend(bars(mark, panel));
    }
    for method in marks.methods() {
        let line: Vec<_> = marks.of(method).iter().map(|m| panel.at((m.kl.mean, m.gold.mean))).collect();
        obstacles.lines.extend(line.windows(2).map(|w| (w[0], w[1])));
    }
    if let Some(sft) = marks.sft() {
        let y = panel.y.place(sft.gold.mean);
        obstacles.lines.push(((panel.area.left, y), (panel.area.right, y)));
    }
    let labels: Vec<Wanted> = marks.all.iter().map(|m| wanted(&label(m), panel.at((m.kl.mean, m.gold.mean)))).collect();
    labels::place(&labels, &obstacles, panel.area)
}

fn draw_labels(svg: &mut Svg, texts: &[(String, &str, (f64, f64))], placed: &[Placed]) {
    for place in placed {
        let (text, colour, at) = &texts[place.index];
        if place.far {
            svg.line(*at, labels::nearest(&place.area, *at), Pen { colour: "#777777", width: 0.8, dash: "" });
        }
        let words = Words { size: SIZE, colour, hold: Hold::Start, bold: false };
        svg.text((place.area.left + 1.0, place.area.bottom - 4.0), text, words);
    }
}

fn draw_gold(svg: &mut Svg, marks: &Marks, panel: &Panel, placed: &[Placed]) {
    let names = Names { x: x_name(panel), y: "gold reward (SD of the judge's training texts)", size: SIZE };
    panel.frame(svg, names);
    if marks.all.is_empty() {
        let middle = ((panel.area.left + panel.area.right) / 2.0, (panel.area.top + panel.area.bottom) / 2.0);
        svg.text(middle, "no point to draw", Words { size: 15.0, colour: FAINT, hold: Hold::Middle, bold: false });
    }
    if let Some(sft) = marks.sft() {
        sft_line(svg, panel, sft.gold.mean);
    }
    for method in marks.methods() {
        let style = style::of(method);
        let line: Vec<_> = marks.of(method).iter().map(|m| panel.at((m.kl.mean, m.gold.mean))).collect();
        svg.path(&line, Pen { colour: style.colour, width: 1.3, dash: style.dash });
    }
    for mark in &marks.all {
        let colour = style::of(&mark.method).colour;
        for (from, to) in bars(mark, panel) {
            svg.line(from, to, bar_pen(colour));
            caps(svg, from, to, colour);
        }
    }
    let texts: Vec<_> =
        (marks.all.iter()).map(|m| (label(m), style::of(&m.method).ink, panel.at((m.kl.mean, m.gold.mean)))).collect();
    // Joining lines go beneath the markers, words on top of all.
    draw_labels(svg, &texts, placed);
    for mark in &marks.all {
        let style = style::of(&mark.method);
        if mark.runs.len() > 1 {
            mark.runs.iter().for_each(|r| svg.marker(panel.at(*r), style.shape, 3.0, style.colour, true));
        }
        svg.marker(panel.at((mark.kl.mean, mark.gold.mean)), style.shape, RADIUS, style.colour, false);
    }
}

fn sft_line(svg: &mut Svg, panel: &Panel, value: f64) {
    let (y, style) = (panel.y.place(value), style::of("sft"));
    let pen = Pen { colour: style.colour, width: 1.1, dash: style.dash };
    svg.line((panel.area.left, y), (panel.area.right, y), pen);
}

/// Short strokes across the ends of an error bar.
fn caps(svg: &mut Svg, from: (f64, f64), to: (f64, f64), colour: &str) {
    let (dx, dy) = if from.1 == to.1 { (0.0, 3.0) } else { (3.0, 0.0) };
    for (x, y) in [from, to] {
        svg.line((x - dx, y - dy), (x + dx, y + dy), bar_pen(colour));
    }
}

fn draw_proxy(svg: &mut Svg, marks: &Marks, panel: &Panel, gains: &[(usize, f64, f64)]) {
    let head = panel.area.top - 14.0;
    title(svg, head, "Proxy reward beside gold reward, both as gains over SFT", 14.0);
    let words = Words { size: SIZE - 1.0, colour: FAINT, hold: Hold::End, bold: false };
    svg.text((panel.area.right, head), "hollow: proxy reward, filled: gold reward, line: their gap", words);
    let names = Names { x: x_name(panel), y: "gain over SFT (SD of each judge's training texts)", size: SIZE };
    panel.frame(svg, names);
    sft_line(svg, panel, 0.0);
    let mut obstacles = Obstacles::default();
    let mut texts = Vec::new();
    for (index, gold, proxy) in gains {
        let mark = &marks.all[*index];
        let (gold, proxy) = (panel.at((mark.kl.mean, *gold)), panel.at((mark.kl.mean, *proxy)));
        svg.line(gold, proxy, Pen { colour: style::of(&mark.method).colour, width: 1.3, dash: "" });
        obstacles.boxes.extend([gold, proxy].map(|at| Rect::about(at, RADIUS + 1.0)));
        obstacles.lines.push((gold, proxy));
        texts.push((label(mark), style::of(&mark.method).ink, proxy));
    }
    let zero = panel.y.place(0.0);
    obstacles.lines.push(((panel.area.left, zero), (panel.area.right, zero)));
    let labels: Vec<Wanted> = texts.iter().map(|(text, _, at)| wanted(text, *at)).collect();
    draw_labels(svg, &texts, &labels::place(&labels, &obstacles, panel.area));
    svg.marker(panel.at((0.0, 0.0)), Shape::Diamond, RADIUS, style::of("sft").colour, false);
    for (index, gold, proxy) in gains {
        let mark = &marks.all[*index];
        let style = style::of(&mark.method);
        svg.marker(panel.at((mark.kl.mean, *gold)), style.shape, RADIUS - 1.5, style.colour, false);
        svg.marker(panel.at((mark.kl.mean, *proxy)), style.shape, RADIUS - 0.5, style.colour, true);
    }
}

/// What the picture cannot show by itself.
fn notes(marks: &Marks, labelled: usize) -> Vec<String> {
    let mut notes = Vec::new();
    let count = |n: usize| if n == 1 { "1 point".to_string() } else { format!("{n} points") };
    if marks.left_out > 0 {
        let out = count(marks.left_out);
        notes
            .push(format!("Left out: {out} whose gold reward or KL is not a finite number (or whose KL is negative)."));
    }
    if marks.no_error > 0 {
        notes.push(format!("No standard error is known for {}.", count(marks.no_error)));
    }
    if marks.all.iter().any(|m| m.runs.len() > 1) {
        let most = marks.all.iter().map(|m| m.runs.len()).max().unwrap_or(0);
        notes.push(format!("Small hollow marks are single seeds (up to {most} a setting), large ones their mean."));
    }
    if labelled < marks.all.len() {
        let missing = marks.all.len() - labelled;
        notes.push(format!("{} without a label for lack of room; the table names all.", count(missing)));
    }
    notes
}

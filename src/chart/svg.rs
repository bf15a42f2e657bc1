//! Writes SVG: shapes, words and their widths. Knows nothing of charts.
use super::style::Shape;
use std::fmt::Write;

/// DejaVu Sans first: the PNG carries it. A browser without it takes Verdana, whose letters are as wide.
pub(crate) const FONT: &str = "'DejaVu Sans', Verdana, sans-serif";

/// A picture in the making.
pub(crate) struct Svg {
    body: String,
    width: f64,
    height: f64,
}

/// Where a text hangs on its x.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hold {
    Start,
    Middle,
    End,
}

/// How words look.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Words<'a> {
    pub size: f64,
    pub colour: &'a str,
    pub hold: Hold,
    pub bold: bool,
}

/// How a line looks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pen<'a> {
    pub colour: &'a str,
    pub width: f64,
    pub dash: &'a str,
}

impl Svg {
    /// An empty white picture.
    pub(crate) fn new(width: f64, height: f64) -> Self {
        let mut svg = Svg { body: String::new(), width, height };
        svg.rect((0.0, 0.0, width, height), "#ffffff");
        svg
    }

    /// The whole text; `title` is what a screen reader says.
    pub(crate) fn finish(self, title: &str) -> String {
        let (w, h, title) = (self.width, self.height, escape(title));
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {w} {h}\" width=\"{w}\" height=\"{h}\" \
             role=\"img\" aria-label=\"{title}\" font-family=\"{FONT}\">\n{}</svg>\n",
            self.body
        )
    }

    fn add(&mut self, args: std::fmt::Arguments<'_>) {
        // Writing to a String cannot fail.
        let _ = self.body.write_fmt(args);
        self.body.push('\n');
    }

    /// A filled rectangle (x, y, width, height).
    pub(crate) fn rect(&mut self, (x, y, w, h): (f64, f64, f64, f64), fill: &str) {
        self.add(format_args!("<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{w:.1}\" height=\"{h:.1}\" fill=\"{fill}\"/>"));
    }

    /// A straight line.
    pub(crate) fn line(&mut self, from: (f64, f64), to: (f64, f64), pen: Pen<'_>) {
        self.path(&[from, to], pen);
    }

    /// A line through points.
    pub(crate) fn path(&mut self, points: &[(f64, f64)], pen: Pen<'_>) {
        let list: Vec<String> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let dash = if pen.dash.is_empty() { String::new() } else { format!(" stroke-dasharray=\"{}\"", pen.dash) };
        self.add(format_args!(
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{}\" stroke-width=\"{}\" stroke-linejoin=\"round\"{dash}/>",
            list.join(" "),
            pen.colour,
            pen.width
        ));
    }

    /// Words, with their baseline at y.
    pub(crate) fn text(&mut self, (x, y): (f64, f64), text: &str, words: Words<'_>) {
        self.text_turned((x, y), 0.0, text, words);
    }

    /// Words turned by degrees about their place.
    pub(crate) fn text_turned(&mut self, (x, y): (f64, f64), degrees: f64, text: &str, words: Words<'_>) {
        let anchor = match words.hold {
            Hold::Start => "start",
            Hold::Middle => "middle",
            Hold::End => "end",
        };
        let bold = if words.bold { " font-weight=\"bold\"" } else { "" };
        let turn =
            if degrees == 0.0 { String::new() } else { format!(" transform=\"rotate({degrees} {x:.1} {y:.1})\"") };
        self.add(format_args!(
            "<text x=\"{x:.1}\" y=\"{y:.1}\" font-size=\"{}\" fill=\"{}\" text-anchor=\"{anchor}\"{bold}{turn}>\
             {}</text>",
            words.size,
            words.colour,
            escape(text)
        ));
    }

    /// A marker about a point; hollow ones are white inside, so that they show on lines.
    pub(crate) fn marker(&mut self, (x, y): (f64, f64), shape: Shape, radius: f64, colour: &str, hollow: bool) {
        let fill = if hollow { "#ffffff" } else { colour };
        // The white rim of a filled marker tells it from one that it touches.
        let (stroke, width) = if hollow { (colour, 1.7) } else { ("#ffffff", 1.0) };
        let paint = format!("fill=\"{fill}\" stroke=\"{stroke}\" stroke-width=\"{width}\"");
        let r = radius;
        let corners = match shape {
            Shape::Circle => {
                self.add(format_args!("<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{r}\" {paint}/>"));
                return;
            }
            Shape::Square => {
                let s = r * 0.9;
                vec![(x - s, y - s), (x + s, y - s), (x + s, y + s), (x - s, y + s)]
            }
            Shape::Diamond => vec![(x, y - r * 1.3), (x + r * 1.3, y), (x, y + r * 1.3), (x - r * 1.3, y)],
            Shape::Triangle => vec![(x, y - r * 1.2), (x + r * 1.1, y + r * 0.9), (x - r * 1.1, y + r * 0.9)],
        };
        let list: Vec<String> = corners.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        self.add(format_args!("<polygon points=\"{}\" {paint}/>", list.join(" ")));
    }
}

/// Text as it may stand in HTML, in XML and in an attribute: markup is escaped, and characters that XML forbids, or
/// that a terminal would obey, become the replacement character.
pub(crate) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\n' | '\t' => out.push(c),
            '\u{fffe}' | '\u{ffff}' => out.push('\u{fffd}'),
            c if c.is_control() => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

/// Width of a text in DejaVu Sans, in the unit of `size`. Letters outside ASCII count as wide, to clip nothing.
pub(crate) fn width(text: &str, size: f64) -> f64 {
    // Advance widths of the characters 32 to 126, in thousandths of the font size.
    const ADVANCE: [u16; 95] = [
        318, 401, 460, 838, 636, 950, 780, 275, 390, 390, 500, 838, 318, 361, 318, 337, 636, 636, 636, 636, 636, 636,
        636, 636, 636, 636, 337, 337, 838, 838, 838, 531, 1000, 684, 686, 698, 770, 632, 575, 775, 752, 295, 295, 656,
        557, 863, 748, 787, 603, 787, 695, 635, 611, 732, 684, 989, 685, 611, 685, 390, 337, 390, 838, 500, 500, 613,
        635, 550, 635, 615, 352, 635, 634, 278, 278, 579, 278, 974, 634, 612, 635, 635, 411, 521, 392, 634, 592, 818,
        592, 592, 525, 636, 337, 636, 838,
    ];
    let thousandths: f64 = text
        .chars()
        .map(|c| match c {
            ' '..='~' => f64::from(ADVANCE[c as usize - 32]),
            'β' => 638.0,
            '±' | '−' => 838.0,
            _ => 1000.0,
        })
        .sum();
    thousandths * size / 1000.0
}

/// The start of a text that fits a width, with an ellipsis where it was cut.
pub(crate) fn fit(text: &str, size: f64, room: f64) -> String {
    if width(text, size) <= room {
        return text.to_string();
    }
    let mut cut = String::new();
    for c in text.chars() {
        if width(&cut, size) + width(&c.to_string(), size) + size > room {
            break;
        }
        cut.push(c);
    }
    cut.push('…');
    cut
}

/// A text in lines that fit a width, broken at spaces; a word too long for a line keeps one of its own, cut.
pub(crate) fn wrap(text: &str, size: f64, room: f64) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if width(line, size) + width(word, size) + width(" ", size) <= room => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(fit(word, size, room)),
        }
    }
    lines
}

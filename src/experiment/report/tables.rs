//! The tables of the page: points, samples side by side, settings and times.
use super::data::{Completion, Part, Point, Report, SampleSet};
use super::style;
use crate::chart::axis::{fixed, with_error};
use crate::chart::svg::escape;
use std::fmt::Write;

/// Columns of completions that fit beside each other at 900 pixels and on paper.
const SIDE_BY_SIDE: usize = 4;

/// All points, one a row, in the order given.
pub(crate) fn points(points: &[Point]) -> String {
    if points.is_empty() {
        return "<p>No model was measured.</p>\n".to_string();
    }
    let mut out = String::from(
        "<table class=\"numbers\"><thead><tr><th class=\"word\">method</th>\
         <th class=\"word\">setting<br><small>run</small></th><th>gold reward<br><small>SD</small></th>\
         <th>exact KL<br><small>nats; by log-ratio</small></th>\
         <th>proxy reward<br><small>SD</small></th><th>win rate<br><small>% against SFT</small></th>\
         <th>length<br><small>tokens</small></th><th>ended by<br>itself <small>%</small></th><th>training</th>\
         <th>seed<br><small>step</small></th></tr></thead>\n<tbody>\n",
    );
    for point in points {
        out.push_str(&point_row(point));
    }
    out.push_str("</tbody></table>\n");
    out
}

fn point_row(p: &Point) -> String {
    let method = p.method.trim().to_lowercase();
    let setting = style::setting(&method, &p.setting, p.value);
    let setting = if setting.is_empty() { "–".to_string() } else { setting };
    let percent = |v: f64| v * 100.0;
    format!(
        "<tr><td class=\"word\">{}</td><td class=\"word\">{}<br><small class=\"run\">{}</small></td><td>{}</td>\
         <td>{}<br><small>{}</small></td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td>\
         <td>{}<br><small>{}</small></td></tr>\n",
        escape(&style::name(&method)),
        escape(&setting),
        escape(&p.run),
        with_error(p.gold_reward, p.gold_reward_se),
        with_error(p.kl, p.kl_se),
        fixed(p.kl_log_ratio, 2),
        with_error(p.proxy_reward, p.proxy_reward_se),
        with_error(percent(p.win_rate), percent(p.win_rate_se)),
        fixed(p.completion_tokens, 1),
        fixed(percent(p.finished), 1),
        duration(p.train_seconds),
        p.seed,
        p.step
    )
}

/// Samples: for each prompt, the models side by side.
pub(crate) fn samples(sets: &[SampleSet]) -> String {
    let mut out = String::new();
    for set in sets {
        let _ = writeln!(
            out,
            "<section class=\"sample\"><p class=\"prompt\" dir=\"auto\"><b>Prompt:</b> {}</p>",
            escape(&set.prompt)
        );
        // Rows of about equal length: five models are three and two, not four and one.
        let rows = set.completions.len().div_ceil(SIDE_BY_SIDE).max(1);
        for row in set.completions.chunks(set.completions.len().div_ceil(rows).max(1)) {
            out.push_str(&sample_row(row));
        }
        out.push_str("</section>\n");
    }
    out
}

fn sample_row(completions: &[Completion]) -> String {
    let cells = |tag: &str, of: &dyn Fn(&Completion) -> String| -> String {
        completions.iter().map(|c| format!("<{tag}>{}</{}>", of(c), tag.split(' ').next().unwrap_or(tag))).collect()
    };
    let heads = cells("th", &|c| escape(&c.label.replace("kl_coef=", "coef ").replace("beta=", "β=")));
    let texts = cells("td class=\"text\" dir=\"auto\"", &|c| match c.text.trim().is_empty() {
        true => "<i>(nothing)</i>".to_string(),
        false => escape(&c.text),
    });
    let rewards = cells("td class=\"reward\"", &|c| format!("gold reward {}", fixed(c.gold_reward, 2)));
    format!(
        "<table class=\"side\"><thead><tr>{heads}</tr></thead>\
         <tbody><tr>{texts}</tr><tr>{rewards}</tr></tbody></table>\n"
    )
}

/// The settings of each part, folded away.
pub(crate) fn settings(parts: &[Part]) -> String {
    parts
        .iter()
        .filter(|p| !p.settings.trim().is_empty())
        .map(|p| {
            format!(
                "<details><summary>{}</summary><pre>{}</pre></details>\n",
                escape(&p.name),
                escape(p.settings.trim_end())
            )
        })
        .collect()
}

/// What was run, and how long it took.
pub(crate) fn times(report: &Report) -> String {
    let mut out = String::from(
        "<table class=\"times\"><thead><tr><th class=\"word\">part</th><th>time</th>\
         <th class=\"word\">command</th></tr></thead>\n<tbody>\n",
    );
    for part in &report.parts {
        let reused = if part.reused { "<br><small>reused</small>" } else { "" };
        let _ = writeln!(
            out,
            "<tr><td class=\"word\">{}</td><td>{}{reused}</td><td class=\"word\"><code>{}</code></td></tr>",
            escape(&part.name),
            duration(part.seconds),
            escape(&part.command)
        );
    }
    let _ = writeln!(
        out,
        "<tr class=\"total\"><td class=\"word\">whole experiment</td><td>{}</td><td></td></tr>\n</tbody></table>",
        duration(report.total_seconds)
    );
    if report.parts.iter().any(|p| p.reused) {
        out.push_str("<p>Reused: an earlier result was taken instead of doing the part again.</p>\n");
    }
    out
}

/// A time as readers say it.
pub(crate) fn duration(seconds: f64) -> String {
    if !(seconds.is_finite() && seconds >= 0.0) {
        return "–".to_string();
    }
    let whole = seconds.round() as u64;
    match whole {
        0..10 => format!("{seconds:.1} s"),
        10..60 => format!("{whole} s"),
        60..3600 => format!("{} min {:02} s", whole / 60, whole % 60),
        _ => format!("{} h {:02} min", whole / 3600, whole % 3600 / 60),
    }
}

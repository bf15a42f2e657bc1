//! The page: one file that stands alone. It asks for nothing from outside and runs no script.
use super::data::Report;
use super::{curves, plot, tables, words};
use crate::chart::svg::escape;

/// Nothing may be loaded or run, even if an escape were missed.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; img-src data:";

const STYLE: &str = "
:root { color-scheme: light; }
body { margin: 0 auto; padding: 24px 20px 60px; max-width: 960px; background: #fff; color: #1a1a1a;
  font: 15px/1.5 Verdana, 'DejaVu Sans', sans-serif; }
h1 { font-size: 24px; line-height: 1.25; margin: 0 0 12px; }
h2 { font-size: 18px; margin: 36px 0 10px; border-bottom: 1px solid #ccc; padding-bottom: 4px; break-after: avoid; }
p, ul { margin: 8px 0; }
ul { padding-left: 22px; }
.lead p { font-size: 16px; font-weight: bold; line-height: 1.45; }
.facts { display: grid; grid-template-columns: auto 1fr; gap: 2px 16px; margin: 14px 0; font-size: 13.5px; }
.facts dt { color: #444; }
.facts dd { margin: 0; }
figure { margin: 18px 0; break-inside: avoid; }
svg { display: block; max-width: 100%; height: auto; }
.curves { display: grid; grid-template-columns: 1fr 1fr; gap: 14px; }
@media (max-width: 700px) { .curves { grid-template-columns: 1fr; } }
.curves figure { margin: 0; }
table { border-collapse: collapse; width: 100%; font-size: 12px; line-height: 1.35; }
th, td { border-bottom: 1px solid #d5d5d5; padding: 4px 5px; text-align: right; vertical-align: top; }
th { border-bottom: 1.5px solid #777; vertical-align: bottom; }
th.word, td.word { text-align: left; }
.numbers td { white-space: nowrap; font-variant-numeric: tabular-nums; }
.numbers .run { white-space: normal; overflow-wrap: anywhere; display: inline-block; max-width: 125px; }
small { color: #555; font-size: 10.5px; font-weight: normal; }
.sample { margin: 20px 0 28px; }
.prompt { background: #f2f2f2; border-left: 4px solid #888; padding: 6px 10px; font-size: 13.5px; white-space: pre-wrap;
  overflow-wrap: anywhere; break-after: avoid; }
.side { table-layout: fixed; break-inside: avoid; margin-bottom: 10px; }
.side th, .side td { text-align: left; border: 1px solid #ccc; padding: 6px 8px; overflow-wrap: anywhere; }
.side .text { white-space: pre-wrap; unicode-bidi: isolate; }
.side .reward { color: #333; font-weight: bold; }
.times td { white-space: nowrap; }
.times td.word { white-space: normal; overflow-wrap: anywhere; }
.times .total td { font-weight: bold; border-top: 1.5px solid #777; }
details { margin: 6px 0; }
summary { cursor: pointer; }
pre { background: #f6f6f6; border: 1px solid #ddd; padding: 8px 10px; font-size: 12px; white-space: pre-wrap;
  overflow-wrap: anywhere; }
@page { margin: 14mm; }
@media print {
  body { padding: 0; max-width: none; font-size: 10.5pt; }
  h1 { font-size: 16pt; }
  .lead p { font-size: 11pt; }
  li, .facts { font-size: 9.5pt; }
  .frontier svg { max-height: 140mm; margin: 0 auto; }
  table { font-size: 8pt; }
  small { font-size: 7pt; }
  .numbers th, .numbers td { padding: 2px 3px; }
  tr { break-inside: avoid; }
  thead { display: table-header-group; }
  .curves { grid-template-columns: 1fr 1fr; }
}
";

const HOW_TO_READ: &str = "\
<p><b>Gold reward</b> is the mean score that the held-out prompts' completions get from the gold judge, a reward \
model whose training texts no other stage saw; its unit is the standard deviation (SD) of its scores on those \
texts, with their mean at 0. <b>Proxy reward</b> is the score of the reward model that PPO was trained against, in \
its own SD, so a proxy reward that rises without the gold reward tells that PPO found its weaknesses. <b>Exact \
KL</b> is how far a model has moved from the SFT model: at each token of its own completions the divergence of its \
next-token distribution from SFT's is summed over the whole vocabulary, these are added up over the completion \
(nats), and the mean over completions is given.</p>\n<p>Every ± is one standard error. A difference counts where \
it exceeds two standard errors, with the two sides taken as independent. At equal KL, the gold reward between two \
settings is interpolated linearly, and the error of the KL itself is not counted. The highest of several settings \
is flattered by chance. The gains of proxy and gold reward are each in their own SD, so the growth of their gap \
says more than its size. Where a setting was run with several seeds, its error is the larger of the spread between \
the seeds and the error within one.</p>\n";

/// The whole page.
pub fn html(report: &Report) -> String {
    let mut body = lead(report);
    body.push_str(&facts(report));
    body.push_str(&format!("<figure class=\"frontier\">{}</figure>\n", plot::frontier_svg(&report.points)));
    section(&mut body, "All points", &tables::points(&report.points));
    section(&mut body, "Samples", &tables::samples(&report.samples));
    section(&mut body, "Training curves", &curves(report));
    section(&mut body, "How to read this", HOW_TO_READ);
    section(&mut body, "Settings", &tables::settings(&report.parts));
    section(&mut body, "Commands and times", &tables::times(report));
    page(&report.title, &body)
}

/// A page of that title that stands alone; `body` is HTML.
pub fn page(title: &str, body: &str) -> String {
    let title = escape(title);
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"{POLICY}\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<h1>{title}</h1>\n{body}</body>\n</html>\n"
    )
}

/// A heading and what belongs to it; nothing at all where there is nothing to show.
fn section(page: &mut String, heading: &str, body: &str) {
    if !body.is_empty() {
        page.push_str(&format!("<h2>{heading}</h2>\n{body}"));
    }
}

/// The findings: against SFT and against each other in large type, the others as a list.
fn lead(report: &Report) -> String {
    let said: Vec<String> = words::sentences(&report.points).iter().map(|s| escape(s)).collect();
    let (lead, rest) = said.split_at(said.len().min(2));
    let mut out = format!("<section class=\"lead\"><p>{}</p></section>\n", lead.join("</p>\n<p>"));
    if !rest.is_empty() {
        out.push_str(&format!("<ul>\n<li>{}</li>\n</ul>\n", rest.join("</li>\n<li>")));
    }
    out
}

fn facts(report: &Report) -> String {
    if report.facts.is_empty() {
        return String::new();
    }
    let rows: String =
        report.facts.iter().map(|f| format!("<dt>{}</dt><dd>{}</dd>\n", escape(&f.name), escape(&f.value))).collect();
    format!("<dl class=\"facts\">\n{rows}</dl>\n")
}

fn curves(report: &Report) -> String {
    if report.charts.is_empty() {
        return String::new();
    }
    let charts: String = report.charts.iter().map(|c| format!("<figure>{}</figure>\n", curves::chart_svg(c))).collect();
    format!("<div class=\"curves\">\n{charts}</div>\n")
}

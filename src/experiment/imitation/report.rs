//! What the runs show: exponents, pictures, sentences and the page.
use super::Measured;
use super::fit::{PowerLaw, power_law};
use crate::config::{ImitationConfig, Method};
use crate::durable;
use crate::error::{Error, Result};
use crate::experiment::parts::Runner;
use crate::experiment::report::{Chart, Series, chart_svg, escape, page, png_of_svg};
use serde_json::{Value, json};
use std::path::Path;

/// What one method was found to do.
struct Found {
    name: &'static str,
    /// (T, errors a trajectory) of each run; of a run without any error, half an error in all its trajectories.
    points: Vec<(f64, f64)>,
    /// Means over seeds.
    means: Vec<(f64, f64)>,
    /// None: too few points.
    law: Option<PowerLaw>,
    /// The same of the last round, not the best.
    last: Option<PowerLaw>,
    /// How many runs made no error at all.
    without: usize,
}

impl Found {
    fn of(method: Method, name: &'static str, config: &ImitationConfig, measured: &[Measured]) -> Self {
        let own: Vec<&Measured> = measured.iter().filter(|run| run.method == method.name()).collect();
        let floor = |run: &&Measured| run.errors.max(0.5 / run.rollouts as f64);
        let points: Vec<(f64, f64)> = own.iter().map(|run| (run.horizon as f64, floor(run))).collect();
        let mean = |&horizon: &usize| {
            let errors: Vec<f64> = own.iter().filter(|run| run.horizon == horizon).map(|run| run.errors).collect();
            (horizon as f64, errors.iter().sum::<f64>() / errors.len() as f64)
        };
        let means = config.experiment.horizons.iter().map(mean).collect();
        let without = own.iter().filter(|run| run.errors == 0.0).count();
        let last = |run: &&Measured| {
            let errors = run.rounds.last().copied().unwrap_or(f64::NAN);
            // A round is judged on a quarter of the rollouts.
            (run.horizon as f64, errors.max(2.0 / run.rollouts as f64))
        };
        let last = power_law(&own.iter().map(last).collect::<Vec<_>>());
        Found { name, law: power_law(&points), last, points, means, without }
    }

    fn json(&self) -> Value {
        let law = self.law.map(|law| json!(law)).unwrap_or_else(|| json!({}));
        let mut law = law.as_object().cloned().unwrap_or_default();
        law.insert("last_round".into(), json!(self.last));
        law.insert("errors".into(), json!(self.means.iter().map(|(_, errors)| errors).collect::<Vec<_>>()));
        law.insert("runs_without_error".into(), json!(self.without));
        Value::Object(law)
    }

    fn exponent(&self) -> String {
        law(self.law)
    }
}

fn law(law: Option<PowerLaw>) -> String {
    match law {
        Some(law) => format!("{:.2} (95%: {:.2} to {:.2})", law.exponent, law.lower, law.upper),
        None => "that was not fitted: too few runs".into(),
    }
}

/// Writes imitation.json, errors.svg and .png, rounds.svg and .png, and report.html; prints what they say.
pub fn write(config: &ImitationConfig, measured: &[Measured], runner: &Runner) -> Result<()> {
    let output = Path::new(&config.experiment.output);
    let cloning = Found::of(Method::Cloning, "behavioural cloning", config, measured);
    let dagger = Found::of(Method::Dagger, "DAgger", config, measured);
    let rate = rate(measured);
    let (errors, rounds) = (errors_chart(&cloning, &dagger, rate, config), rounds_chart(config, measured));
    let sentences = sentences(&cloning, &dagger, rate, config);
    let pictures = [("errors", chart_svg(&errors)), ("rounds", chart_svg(&rounds))];
    for (name, svg) in &pictures {
        let png = png_of_svg(svg, 3.0)
            .map_err(|message| Error::file(output, format!("{name}.png: {message}"), "please report this"))?;
        durable::write_file(&output.join(format!("{name}.svg")), svg.as_bytes())?;
        durable::write_file(&output.join(format!("{name}.png")), &png)?;
    }
    let json = json!({
        "bc": cloning.json(), "dagger": dagger.json(), "horizons": config.experiment.horizons,
        "error_rate_expert": rate, "runs": measured, "experiment": config.experiment, "task": config.task,
    });
    durable::write_file(&output.join("imitation.json"), &serde_json::to_vec_pretty(&json).expect("plain data"))?;
    let seconds: f64 = runner.done.iter().map(|part| part.seconds).sum();
    let html = body(&sentences, &pictures, &cloning, &dagger, config, seconds);
    durable::write_file(
        &output.join("report.html"),
        page("Imitation: behavioural cloning and DAgger", &html).as_bytes(),
    )?;
    sentences.iter().for_each(|sentence| println!("{sentence}"));
    println!("report: {}", output.join("report.html").display());
    Ok(())
}

/// epsilon: how often behavioural cloning is wrong where the expert goes, over all runs.
fn rate(measured: &[Measured]) -> f64 {
    let rates: Vec<f64> =
        measured.iter().filter(|run| run.method == Method::Cloning.name()).map(|run| run.error_rate_expert).collect();
    rates.iter().sum::<f64>() / rates.len() as f64
}

fn errors_chart(cloning: &Found, dagger: &Found, rate: f64, config: &ImitationConfig) -> Chart {
    let theory = |label: &str, power: i32| Series {
        label: format!("{label}, ε = {rate:.4}"),
        points: config.experiment.horizons.iter().map(|&t| (t as f64, rate * (t as f64).powi(power))).collect(),
        marks: false,
    };
    let of = |found: &Found| Series {
        label: format!("{}: exponent {}", found.name, found.exponent()),
        points: found.means.clone(),
        marks: false,
    };
    let runs = |found: &Found| Series { label: String::new(), points: found.points.clone(), marks: true };
    Chart {
        title: "Errors of the learner's own rollouts".into(),
        x_label: "horizon T (actions)".into(),
        y_label: "wrong actions a trajectory".into(),
        // Dots have the colours of their lines.
        series: vec![of(cloning), of(dagger), theory("ε T", 1), theory("ε T²", 2), runs(cloning), runs(dagger)],
        log: true,
    }
}

fn rounds_chart(config: &ImitationConfig, measured: &[Measured]) -> Chart {
    let line = |method: Method, horizon: usize| {
        let own: Vec<&Measured> =
            measured.iter().filter(|run| run.method == method.name() && run.horizon == horizon).collect();
        let mean = |round: usize| own.iter().map(|run| run.rounds[round]).sum::<f64>() / own.len() as f64;
        let points = (0..config.experiment.rounds).map(|round| ((round + 1) as f64, mean(round) / horizon as f64));
        let name = if method == Method::Dagger { "DAgger" } else { "cloning" };
        Series { label: format!("{name}, T = {horizon}"), points: points.collect(), marks: false }
    };
    // Three of the horizons: more lines would hide each other.
    let horizons = &config.experiment.horizons;
    let shown = [horizons[0], horizons[horizons.len() / 2], horizons[horizons.len() - 1]];
    let mut lines = Vec::new();
    for method in [Method::Dagger, Method::Cloning] {
        for (at, &horizon) in shown.iter().enumerate() {
            if !shown[..at].contains(&horizon) {
                lines.push(line(method, horizon));
            }
        }
    }
    Chart {
        title: "Round after round".into(),
        x_label: "round (the expert acts in the first one of both)".into(),
        y_label: "share of wrong actions, own rollouts".into(),
        series: lines,
        log: false,
    }
}

fn sentences(cloning: &Found, dagger: &Found, rate: f64, config: &ImitationConfig) -> Vec<String> {
    let e = &config.experiment;
    let mut said = Vec::new();
    let growth = |found: &Found| format!("errors of {} grow as T to the power {}", found.name, found.exponent());
    said.push(format!(
        "Over T = {} to {}, the {}; those of {} as T to the power {}.",
        e.horizons[0],
        e.horizons[e.horizons.len() - 1],
        growth(cloning),
        dagger.name,
        dagger.exponent()
    ));
    if let (Some((longest, by_cloning)), Some((_, by_dagger))) = (cloning.means.last(), dagger.means.last()) {
        said.push(format!(
            "At T = {longest} a trajectory has {by_cloning:.2} wrong actions after behavioural cloning and {by_dagger:.2} after DAgger, with as many labels, updates and rounds each."
        ));
    }
    said.push(format!(
        "A run's policy is that of its best round by errors on held-out rollouts of its own ({} states a round, whose labels are not counted). The last round's errors grow as T to the power {} in behavioural cloning and {} in DAgger.",
        e.states / 4, law(cloning.last), law(dagger.last)
    ));
    said.push(format!("Where the expert goes, behavioural cloning is wrong in {:.2}% of all states.", 100.0 * rate));
    for found in [cloning, dagger] {
        if found.without > 0 {
            said.push(format!("{} of {}'s runs made no error at all; in the fit they count as half an error over all their trajectories.", found.without, found.name));
        }
    }
    said.push("The task was made so that one mistake leads to states that the expert never shows: it illustrates the theory (Ross, Gordon and Bagnell 2011: ε T² against ε T) and says nothing of how often that is so in text.".into());
    said
}

fn body(
    sentences: &[String],
    pictures: &[(&str, String)],
    cloning: &Found,
    dagger: &Found,
    config: &ImitationConfig,
    seconds: f64,
) -> String {
    let (lead, rest) = sentences.split_at(sentences.len().min(2));
    let said = |list: &[String]| list.iter().map(|s| escape(s)).collect::<Vec<_>>();
    let mut out = format!(
        "<section class=\"lead\"><p>{}</p></section>\n<ul><li>{}</li></ul>\n",
        said(lead).join("</p>\n<p>"),
        said(rest).join("</li>\n<li>")
    );
    out.push_str("<div class=\"curves\">\n");
    for (_, svg) in pictures {
        out.push_str(&format!("<figure>{svg}</figure>\n"));
    }
    out.push_str("</div>\n<h2>Errors a trajectory</h2>\n<table class=\"numbers\"><thead><tr><th>T</th><th>behavioural cloning</th><th>DAgger</th></tr></thead>\n<tbody>\n");
    for ((horizon, by_cloning), (_, by_dagger)) in cloning.means.iter().zip(&dagger.means) {
        out.push_str(&format!("<tr><td>{horizon}</td><td>{by_cloning:.4}</td><td>{by_dagger:.4}</td></tr>\n"));
    }
    let e = &config.experiment;
    let task = &config.task;
    out.push_str(&format!(
        "</tbody></table>\n<h2>The task</h2>\n<p>Observation and action alternate. On the road one of {} symbols is seen, {} of them common, the rest in {:.2}% of all states together; the expert does what a fixed table says, one of {} actions. A wrong action leads off the road to one side, where only that side's kerb is seen and one action leads back. Each run has about {} labels of the expert, as many in either method; {} seeds; errors are counted on {} states of fresh rollouts; intervals are Student's, from the scatter of all runs about the line. The whole took {:.0} s.</p>\n",
        task.symbols, task.common, 100.0 * task.rare, task.actions, e.labels, e.seeds, e.states, seconds
    ));
    out
}

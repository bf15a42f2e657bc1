//! `collimate experiment imitation`: the task, the fit, and that errors grow as the theory says.
#![allow(clippy::unwrap_used)]
use crate::support::assert_number;
use crate::support::sandbox::{Ran, Sandbox};
use collimate::config::TaskSection;
use collimate::experiment::imitation::fit::power_law;
use collimate::experiment::imitation::road::Road;
use collimate::rollout::mixture::World;
use serde_json::Value;

fn road() -> (Road, TaskSection) {
    let task = TaskSection::default();
    (Road::new(&task), task)
}

/// Observations, each followed by what `acts` does about it.
fn drive(road: &Road, actions: usize, acts: impl Fn(usize, i64) -> i64) -> Vec<i64> {
    let mut prefix = vec![0];
    for place in 0..actions {
        // Numbers that go through [0, 1) evenly.
        let seen = road.next(&prefix, (place as f64 * 0.618_033_988_749_895).fract()).unwrap();
        prefix.push(seen);
        assert_eq!(road.next(&prefix, 0.5), None, "an action is due");
        prefix.push(acts(place, seen));
    }
    prefix
}

#[test]
fn the_expert_stays_on_the_road_and_sees_what_the_task_says() {
    let (road, task) = road();
    let seen = drive(&road, 20_000, |_, seen| road.right_action(seen));
    let seen: Vec<i64> = seen.iter().skip(1).step_by(2).copied().collect();
    assert!(seen.iter().all(|&token| (1..=task.symbols as i64).contains(&token)), "a kerb was seen");
    let rare = seen.iter().filter(|&&token| token > task.common as i64).count() as f64 / 20_000.0;
    assert_number("share of rare symbols", rare, task.rare, 2e-4);
    for common in 1..=task.common as i64 {
        let share = seen.iter().filter(|&&token| token == common).count() as f64 / 20_000.0;
        assert_number("share of a common symbol", share, (1.0 - task.rare) / task.common as f64, 2e-3);
    }
}

#[test]
fn a_wrong_action_leads_off_the_road_until_the_kerb_is_answered() {
    let (road, task) = road();
    let kerb = task.symbols as i64 + 1;
    let other = |seen: i64| kerb + 2 + (road.right_action(seen) - kerb - 2 + 1) % task.actions as i64;
    // Wrong at place 3, wrong again at 4 and 5, right from 6 on.
    let prefix = drive(&road, 12, |place, seen| match place {
        3..=5 => other(seen),
        _ => road.right_action(seen),
    });
    let seen: Vec<i64> = prefix.iter().skip(1).step_by(2).copied().collect();
    for (place, token) in seen.iter().enumerate() {
        assert_eq!(*token >= kerb, (4..=6).contains(&place), "place {place}: {seen:?}");
    }
    assert!(seen[4] == seen[5] && seen[5] == seen[6], "the side changed: {seen:?}");
    assert_ne!(road.right_action(kerb), road.right_action(kerb + 1));
    // What is no action at all is wrong too, and does not shift the order of turns.
    let prefix = drive(&road, 3, |place, seen| if place == 0 { 1 } else { road.right_action(seen) });
    assert!(prefix[3] >= kerb && prefix[5] < kerb);
}

/// scipy.stats.linregress on the logarithms, and its slope's interval with t.ppf(0.975, n - 2).
#[test]
fn a_power_law_is_fitted_as_scipy_does() {
    let points =
        [(8.0, 0.11), (16.0, 0.35), (32.0, 1.9), (64.0, 6.1), (8.0, 0.09), (16.0, 0.52), (32.0, 1.4), (64.0, 7.7)];
    let law = power_law(&points).unwrap();
    assert_number("exponent", law.exponent, 2.025_274_311_702_428_8, 1e-9);
    assert_number("lower", law.lower, 1.833_624_817_433_798, 1e-6);
    assert_number("upper", law.upper, 2.216_923_805_971_059_6, 1e-6);
    assert_number("factor", law.factor, 0.001_498_109_885_245_516, 1e-9);
    let exact: Vec<(f64, f64)> = [1.0, 2.0, 4.0].iter().map(|&x: &f64| (x, 3.0 * x.powf(1.5))).collect();
    let law = power_law(&exact).unwrap();
    assert_number("exponent", law.exponent, 1.5, 1e-9);
    assert!(law.upper - law.lower < 1e-6);
    assert!(power_law(&exact[..2]).is_none() && power_law(&[(2.0, 1.0); 5]).is_none());
    assert!(power_law(&[(1.0, 1.0), (2.0, 0.0), (3.0, 4.0)]).is_none());
}

/// A road of few symbols and a student of one block: seconds.
fn small(sandbox: &Sandbox, overrides: &[&str]) -> Ran {
    sandbox.write(
        "imitation.toml",
        format!(
            "[experiment]\noutput = \"out\"\ndevice = \"{}\"\nseeds = 2\nhorizons = [4, 8]\nlabels = 64\nrounds = 2\n\
             update_labels = 32\nstates = 512\n\n[task]\nsymbols = 12\ncommon = 4\nrare = 0.2\nactions = 4\n\n\
             [dagger.model.config]\nmodel_type = \"gpt2\"\nn_embd = 16\nn_layer = 1\nn_head = 2\n\n\
             [dagger.train]\nsteps = 8\nlearning_rate = 1e-2\n",
            crate::support::device_name()
        ),
    );
    sandbox.run(&[&["experiment", "imitation", "imitation.toml"], overrides].concat())
}

#[test]
fn it_leaves_figures_pictures_and_a_page_and_is_not_done_twice() {
    let sandbox = Sandbox::new();
    let first = small(&sandbox, &[]).ok();
    assert!(first.stdout.contains("report: out/report.html"), "{}", first.stdout);
    let json: Value = serde_json::from_slice(&std::fs::read(sandbox.path("out/imitation.json")).unwrap()).unwrap();
    assert_eq!(json["horizons"], serde_json::json!([4, 8]));
    assert_eq!(json["runs"].as_array().unwrap().len(), 8);
    for method in ["bc", "dagger"] {
        let of = |name: &str| json[method][name].as_f64().unwrap();
        assert!(of("lower") <= of("exponent") && of("exponent") <= of("upper"), "{}", json[method]);
        assert_eq!(json[method]["errors"].as_array().unwrap().len(), 2);
    }
    for run in json["runs"].as_array().unwrap() {
        assert_eq!(run["labels"], 64, "as many labels each: {run}");
        assert_eq!(run["rounds"].as_array().unwrap().len(), 2);
    }
    for (file, start) in [
        ("errors.png", &b"\x89PNG"[..]),
        ("rounds.png", b"\x89PNG"),
        ("errors.svg", b"<svg"),
        ("report.html", b"<!doctype html>"),
    ] {
        assert!(std::fs::read(sandbox.path(&format!("out/{file}"))).unwrap().starts_with(start), "{file}");
    }
    // Where labels do not divide: as many still.
    small(&sandbox, &["experiment.output=odd", "experiment.labels=60", "experiment.rounds=3"]).ok();
    let odd: Value = serde_json::from_slice(&std::fs::read(sandbox.path("odd/imitation.json")).unwrap()).unwrap();
    for run in odd["runs"].as_array().unwrap() {
        let horizon = run["horizon"].as_u64().unwrap();
        assert_eq!(run["labels"].as_u64().unwrap(), 60 / horizon / 3 * 3 * horizon, "{run}");
    }
    let page = std::fs::read_to_string(sandbox.path("out/report.html")).unwrap();
    assert!(page.contains("illustrates the theory") && !page.contains("NaN"), "{page}");
    let before = sandbox.snapshot();
    let again = small(&sandbox, &[]).ok();
    assert_eq!(again.stderr.matches("(done before, inputs unchanged)").count(), 9, "{}", again.stderr);
    for file in ["out/imitation.json", "out/errors.svg", "out/bc-T4-seed0/model.safetensors"] {
        assert!(before[&sandbox.path(file)] == std::fs::read(sandbox.path(file)).unwrap(), "{file} changed");
    }
    // One more seed: only its runs are new.
    let more = small(&sandbox, &["experiment.seeds=3"]).ok();
    assert_eq!(more.stderr.matches("(done before, inputs unchanged)").count(), 9, "{}", more.stderr);
}

#[test]
fn what_cannot_be_is_refused() {
    let sandbox = Sandbox::new();
    for (overrides, said) in [
        (&["experiment.horizons=[8]"][..], "experiment.horizons: must be two different numbers"),
        (&["experiment.horizons=[8,4]"], "experiment.horizons: must rise"),
        (&["experiment.labels=8"], "experiment.labels: must be at least 8 a round"),
        (&["task.common=12"], "task.common: must be at least 1 and below task.symbols"),
        (&["task.rare=1.5"], "task.rare: must lie in [0, 1)"),
        (&["dagger.train.batch_size=3"], "dagger.train.batch_size: the experiment decides this; remove it"),
        (&["dagger.dagger.teacher=x"], "the task has an expert of its own"),
        (&["dagger.train.steps=1"], "must be at least dagger.rounds"),
    ] {
        let ran = small(&sandbox, overrides);
        assert!(ran.code == 2 && ran.stderr.contains(said), "{overrides:?}: {}", ran.stderr);
    }
    assert!(!sandbox.path("out").exists());
}

/// Ross, Gordon and Bagnell 2011: errors of behavioural cloning grow with the square of the horizon, those of DAgger with the
/// horizon itself.
#[test]
fn errors_grow_faster_without_the_learner_s_own_states() {
    let sandbox = Sandbox::new();
    let task = ["task.symbols=128", "task.common=16", "task.rare=0.004", "task.actions=8"];
    let runs =
        ["experiment.horizons=[8,64]", "experiment.labels=2048", "experiment.rounds=4", "experiment.states=32768"];
    let train = ["dagger.train.steps=240", "experiment.update_labels=256", "dagger.train.learning_rate=3e-3"];
    let model = ["dagger.model.config.n_embd=48", "dagger.model.config.n_layer=2", "dagger.train.adam_beta2=0.99"];
    small(&sandbox, &[&task[..], &runs, &train, &model].concat()).ok();
    let json: Value = serde_json::from_slice(&std::fs::read(sandbox.path("out/imitation.json")).unwrap()).unwrap();
    let of = |method: &str, name: &str| json[method][name].as_f64().unwrap();
    assert!(of("bc", "exponent") > of("dagger", "exponent") + 0.5, "{} {}", json["bc"], json["dagger"]);
    let last = |method: &str| json[method]["errors"][1].as_f64().unwrap();
    assert!(last("bc") > 4.0 * last("dagger"), "{} {}", json["bc"], json["dagger"]);
}

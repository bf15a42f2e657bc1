//! PPO from outside: its first ratio, its metrics, what it saves, its rewards from a program, its settings.
#![allow(clippy::unwrap_used)]
use crate::support::sandbox::{Sandbox, json_lines};
use crate::support::{golden, tensors};
use collimate::loss::gae::{gae, whiten};
use serde_json::{Map, Value, json};
use std::time::Instant;

/// A reward program: one Python statement that makes `reward` of `row`.
fn program(sandbox: &Sandbox, name: &str, body: &str) -> String {
    let text = format!("import json, os, sys, time\nfor line in sys.stdin:\n    row = json.loads(line)\n    {body}\n");
    let path = sandbox.write(name, text);
    format!("ppo.reward_command=[\"python3\", {path:?}]")
}

/// Overrides that take the reward from `program` instead of the model.
fn by_program<'a>(program: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    [&[program, "ppo.max_new_tokens=6", "train.steps=2", "train.log_every=1"], more].concat()
}

/// `ppo.toml` without its reward model.
fn without_model(sandbox: &Sandbox) {
    let text = std::fs::read_to_string(sandbox.path("ppo.toml")).unwrap();
    let kept: Vec<&str> = text.lines().filter(|line| !line.starts_with("reward_model")).collect();
    sandbox.write("ppo.toml", kept.join("\n"));
}

fn lines(sandbox: &Sandbox, file: &str) -> Vec<Map<String, Value>> {
    json_lines(&sandbox.path(file))
}

fn number(line: &Map<String, Value>, name: &str) -> f64 {
    line.get(name).and_then(Value::as_f64).unwrap_or_else(|| panic!("no {name} in {line:?}"))
}

#[test]
fn before_the_first_update_the_ratio_is_1_and_nothing_is_clipped() {
    for more in [&["train.micro_batch_size=3"][..], &["ppo.temperature=0.7", "ppo.gae_lambda=1.0"]] {
        let sandbox = Sandbox::with_stages();
        let one = ["ppo.epochs=1", "train.steps=1", "train.batch_size=10"];
        sandbox.stage("ppo", &[&one, more].concat()).ok();
        let line = &lines(&sandbox, "run/metrics.jsonl")[0];
        assert!((number(line, "val/ratio") - 1.0).abs() < 1e-5, "{line:?}");
        assert!(number(line, "policy/approxkl_avg") < 1e-9, "{line:?}");
        for name in ["policy/clipfrac_avg", "val/clipfrac_avg", "val/ratio_var"] {
            assert!(number(line, name).abs() < 1e-9, "{name}: {line:?}");
        }
        // The reference is the policy itself.
        assert!(number(line, "objective/kl").abs() < 1e-4, "{line:?}");
        // Whitened advantages have mean 0, and the ratio is 1: the surrogate is 0.
        assert!(number(line, "loss/policy_avg").abs() < 1e-4, "{line:?}");
    }
}

#[test]
fn a_step_is_a_whole_iteration_and_its_figures_have_trl_s_names() {
    let sandbox = Sandbox::with_stages();
    let overrides = ["train.steps=4", "train.log_every=2", "ppo.minibatches=2", "data.eval=pairs.jsonl"];
    sandbox.stage("ppo", &overrides).ok();
    let all = lines(&sandbox, "run/metrics.jsonl");
    let logged: Vec<&Map<String, Value>> = all.iter().filter(|line| line.contains_key("loss")).collect();
    let steps: Vec<f64> = logged.iter().map(|line| number(line, "step")).collect();
    assert_eq!(steps, [2.0, 4.0]);
    for name in [
        "objective/kl",
        "objective/entropy",
        "objective/non_score_reward",
        "objective/rlhf_reward",
        "objective/scores",
        "policy/approxkl_avg",
        "policy/clipfrac_avg",
        "policy/entropy_avg",
        "loss/policy_avg",
        "loss/value_avg",
        "val/clipfrac_avg",
        "val/ratio",
        "val/ratio_var",
        "val/num_eos_tokens",
        "episode",
        "epoch",
        "grad_norm",
        "learning_rate",
        "num_tokens",
        "step_seconds",
        "tokens_per_second",
        "peak_memory_mb",
    ] {
        assert!(number(logged[1], name).is_finite(), "{name}");
    }
    // 4 episodes an iteration out of 10 prompts; the rate falls by iterations: lr (1 - k / 4) for k = 2 and 3.
    assert_eq!((number(logged[1], "episode"), number(logged[1], "epoch")), (16.0, 1.6));
    assert!((number(logged[1], "learning_rate") - 1e-3 * (0.5 + 0.25) / 2.0).abs() < 1e-12);
    let sum = number(logged[1], "objective/scores") + number(logged[1], "objective/non_score_reward");
    assert!((number(logged[1], "objective/rlhf_reward") - sum).abs() < 1e-6);
    let judged = all.iter().find(|line| line.contains_key("eval_objective/scores")).unwrap();
    assert!(number(judged, "eval_objective/kl") > 0.0);
    assert!(all.last().unwrap().contains_key("train_runtime"));
    // Rollouts to look at: 4 at each logged line, 8 at the evaluation.
    let samples = lines(&sandbox, "run/samples.jsonl");
    let of = |split: &str| samples.iter().filter(|s| s["split"] == split).count();
    assert_eq!((of("train"), of("eval")), (8, 8));
    for sample in &samples {
        assert!(sample["prompt"].is_string() && sample["completion"].is_string() && sample["score"].is_number());
    }
    let events = std::fs::read(sandbox.path("run/events.out.tfevents.collimate")).unwrap();
    let has = |text: &[u8]| events.windows(text.len()).any(|window| window == text);
    assert!(has(b"samples/eval") && has(b"objective/kl"), "TensorBoard has texts and scalars");
}

#[test]
fn the_value_head_is_saved_beside_the_model_and_not_in_it() {
    let sandbox = Sandbox::with_stages();
    sandbox.stage("ppo", &["train.steps=2"]).ok();
    let head = tensors(&sandbox.path("run/value_head.safetensors"));
    assert_eq!(head.keys().collect::<Vec<_>>(), ["value_head.bias", "value_head.weight"]);
    assert!(head["value_head.weight"].abs().max().double_value(&[]) > 0.0, "the head learnt nothing");
    let model = tensors(&sandbox.path("run/model.safetensors"));
    let start = tensors(&golden("models/gpt2-tiny/model.safetensors"));
    assert_eq!(model.keys().collect::<Vec<_>>(), start.keys().collect::<Vec<_>>());
}

#[test]
fn a_program_s_rewards_are_used_and_it_is_kept_running() {
    let sandbox = Sandbox::with_stages();
    without_model(&sandbox);
    let log =
        "open('starts', 'a').write('.') if not os.environ.setdefault('SEEN', '') else 0; os.environ['SEEN'] = '1'";
    let reward = program(
        &sandbox,
        "r.py",
        &format!("{log}; print(json.dumps({{'reward': len(row['completion'])}}), flush=True)"),
    );
    sandbox.stage("ppo", &by_program(&reward, &[])).ok();
    assert_eq!(std::fs::read_to_string(sandbox.path("starts")).unwrap(), ".", "started once for both iterations");
    // As a line it is the same program.
    let line = "ppo.reward_command=python3 r.py";
    sandbox.stage("ppo", &by_program(line, &["train.output=line"])).ok();
    let samples = |run: &str| lines(&sandbox, &format!("{run}/samples.jsonl"));
    assert_eq!(samples("run"), samples("line"));
    for sample in lines(&sandbox, "run/samples.jsonl") {
        let length = sample["completion"].as_str().unwrap().chars().count() as f64;
        assert_eq!(number(&sample, "score"), length);
    }
}

#[test]
fn a_program_that_dies_is_started_again_once_and_its_run_changes_nothing() {
    let sandbox = Sandbox::with_stages();
    without_model(&sandbox);
    let good = program(&sandbox, "good.py", "print(len(row['completion']), flush=True)");
    // It dies in the middle of a number: the half of it is no reward.
    let body = "os.path.exists('died') or (open('died', 'w'), os.write(1, b'4'), os._exit(3)); \
                print(len(row['completion']), flush=True)";
    let dying = program(&sandbox, "dying.py", body);
    sandbox.stage("ppo", &by_program(&good, &["train.output=good"])).ok();
    let ran = sandbox.stage("ppo", &by_program(&dying, &["train.output=dying"])).ok();
    assert!(ran.stderr.contains("exit status: 3") && ran.stderr.contains("starting it again"), "{}", ran.stderr);
    let bytes = |run: &str| std::fs::read(sandbox.path(run).join("model.safetensors")).unwrap();
    assert!(bytes("good") == bytes("dying"), "the restart changed what was learnt");
}

#[test]
fn a_program_that_cannot_be_used_ends_the_run_with_one_clear_line() {
    let cases = [
        ("always.py", "sys.exit(7)", 1, "ended twice (exit status: 7)"),
        ("nan.py", "print('NaN', flush=True)", 1, "a line that is not JSON"),
        ("infinite.py", "print('1e999', flush=True)", 1, "1e999"),
        ("null.py", "print('null', flush=True)", 1, "a line without a number"),
        ("words.py", "print('good film', flush=True)", 1, "\"good film\""),
        ("object.py", "print(json.dumps({'points': 3}), flush=True)", 1, "a line without a number"),
        ("hang.py", "time.sleep(600)", 1, "gave 0 of 4 rewards in 1 s"),
        ("huge.py", "print(1e300, flush=True)", 1, "the reward of a completion is 1e300"),
        ("long.py", "print('9' * 2000000, flush=True)", 1, "a line longer than 1048576 bytes"),
        ("twice.py", "print(1, flush=True); print(2, flush=True)", 1, "more lines than it was given rows"),
    ];
    for (name, body, code, expected) in cases {
        let sandbox = Sandbox::with_stages();
        without_model(&sandbox);
        let reward = program(&sandbox, name, body);
        let begun = Instant::now();
        // Short only where it is what the case is about: Python takes its time to start on a busy machine.
        let timeout = if name == "hang.py" { "ppo.reward_timeout=1" } else { "ppo.reward_timeout=60" };
        let ran = sandbox.stage("ppo", &by_program(&reward, &[timeout]));
        let errors: Vec<&str> = ran.stderr.lines().filter(|line| line.starts_with("error: ")).collect();
        assert_eq!((ran.code, errors.len()), (code, 1), "{name}: {}", ran.stderr);
        assert!(errors[0].contains(expected), "{name}: {}", errors[0]);
        assert!(begun.elapsed().as_secs() < 60, "{name} held the run up");
        assert!(!sandbox.path("run/model.safetensors").exists(), "{name}: a final model of a failed run");
    }
}

#[test]
fn a_completion_that_did_not_end_is_scored_as_configured() {
    let scores = |more: &[&str]| {
        let sandbox = Sandbox::with_stages();
        without_model(&sandbox);
        let reward = program(&sandbox, "r.py", "print(2.5, flush=True)");
        // Of one token: hardly any ends by itself.
        let overrides = [&by_program(&reward, more)[..], &["ppo.max_new_tokens=1", "train.steps=1"]].concat();
        sandbox.stage("ppo", &overrides).ok();
        let samples = lines(&sandbox, "run/samples.jsonl");
        let unfinished = samples.into_iter().filter(|s| s["finished"] == false);
        unfinished.map(|s| number(&s, "score")).collect::<Vec<_>>()
    };
    for (more, expected) in
        [(&[][..], 2.5), (&["ppo.missing_eos_penalty=1.5"], 1.0), (&["ppo.missing_eos_score=-3"], -3.0)]
    {
        let found = scores(more);
        assert!(!found.is_empty() && found.iter().all(|score| *score == expected), "{more:?}: {found:?}");
    }
}

#[test]
fn what_would_bias_the_kl_or_be_ignored_is_refused_with_the_reason() {
    let sandbox = Sandbox::with_stages();
    let before = sandbox.snapshot();
    for (overrides, expected) in [
        (&["ppo.top_k=50"][..], "ppo.top_k: must stay off"),
        (&["ppo.top_p=0.9"], "ppo.top_p: must stay off"),
        (&["model.dropout=0.1"], "model.dropout"),
        (&["ppo.kl_horizon=100"], "only read with ppo.target_kl"),
        (&["ppo.target_kl=2", "ppo.kl_coef=0"], "a coefficient of 0 stays 0"),
        (&["ppo.reward_command=[\"true\"]"], "one source of rewards only"),
        (&["ppo.reward_timeout=1e20"], "at most 86400 seconds"),
        (&["ppo.reference=x"], "ppo.reference: unknown key"),
        (&["ppo.minibatches=5"], "must not exceed train.batch_size (4)"),
        (&["ppo.missing_eos_penalty=1", "ppo.missing_eos_score=1"], "remove one"),
        (&["data.max_length=12"], "must exceed ppo.max_new_tokens (12)"),
        (&["data.boundary=separate"], "ppo reads prompts only"),
        (&["model.init=config"], "ppo starts from a trained model"),
        (&["ppo.reward_model=nowhere"], "nowhere"),
        (&["model.path=nowhere"], "nowhere"),
    ] {
        let message = sandbox.stage("ppo", overrides).refused(2);
        assert!(message.contains(expected), "{overrides:?}: {message}");
    }
    without_model(&sandbox);
    let message = sandbox.stage("ppo", &["ppo.reward_command=[\"no-such-program\"]"]).refused(2);
    assert!(message.contains("\"no-such-program\" cannot be started"), "{message}");
    let message = sandbox.stage("ppo", &[]).refused(2);
    assert!(message.contains("ppo.reward_model: missing"), "{message}");
    let mut after = sandbox.snapshot();
    after.insert(sandbox.path("ppo.toml"), before[&sandbox.path("ppo.toml")].clone());
    assert!(after == before, "something was written");
}

#[test]
fn a_three_token_episode_by_hand() {
    // delta = (-1 + 0.5 - 1, 0 + 2 - 0.5, 4 - 2) = (-1.5, 1.5, 2); with gamma 1 and lambda 0.5 backwards:
    // A_3 = 2, A_2 = 1.5 + 0.5 * 2 = 2.5, A_1 = -1.5 + 0.5 * 2.5 = -0.25.
    let (advantages, returns) = gae(&[-1.0, 0.0, 4.0], &[1.0, 0.5, 2.0], 1.0, 0.5);
    assert_eq!((advantages, returns), (vec![-0.25, 2.5, 2.0], vec![0.75, 3.0, 4.0]));
}

#[test]
fn a_constant_in_the_scores_leaves_whitened_advantages_alone_without_discount() {
    let values = [vec![0.3, -0.2, 0.9], vec![1.5], vec![0.0, 0.4]];
    let advantages = |constant: f64| {
        let mut all: Vec<Vec<f64>> = Vec::new();
        for (at, values) in values.iter().enumerate() {
            let mut rewards = vec![-0.01 * at as f64; values.len()];
            *rewards.last_mut().unwrap() += [0.7, -1.1, 2.0][at] + constant;
            all.push(gae(&rewards, values, 1.0, 1.0).0);
        }
        whiten(&mut all, true);
        all
    };
    for (a, b) in advantages(0.0).iter().flatten().zip(advantages(25.0).iter().flatten()) {
        assert!((a - b).abs() < 1e-9, "{a} and {b}");
    }
}

#[test]
fn a_reward_model_of_another_tokenizer_reads_the_text() {
    let sandbox = Sandbox::with_stages();
    // A tokenizer with a BOS; the policy's has none.
    for file in ["tokenizer.json", "tokenizer_config.json"] {
        sandbox.write(&format!("other/{file}"), std::fs::read(golden("tokenizer/bos").join(file)).unwrap());
    }
    let shape =
        json!({"model_type": "gpt2", "n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 64, "vocab_size": 403});
    sandbox.write("other/config.json", shape.to_string());
    sandbox.stage("reward", &["model.path=other", "model.init=config", "train.steps=2", "train.output=judge"]).ok();
    sandbox.stage("ppo", &["ppo.reward_model=judge", "train.steps=1"]).ok();
    let samples = lines(&sandbox, "run/samples.jsonl");
    sandbox.rows("samples.jsonl", &samples);
    let scored = sandbox.run(&["score", "--model", "judge", "--data", "samples.jsonl"]).ok().stdout;
    for (sample, line) in samples.iter().zip(scored.lines()) {
        let reward = serde_json::from_str::<Value>(line).unwrap()["reward"].as_f64().unwrap();
        assert!((number(sample, "score") - reward).abs() < 1e-5, "{sample:?}: score says {reward}");
    }
    assert!(samples.iter().any(|s| number(s, "score").abs() > 1e-3), "every score is 0");
}

#[test]
fn minibatches_are_as_many_as_asked_for_and_micro_batches_change_nothing() {
    let run = |micro: &str| {
        let sandbox = Sandbox::with_stages();
        // 8 episodes in 3 parts: 2, 3 and 3.
        let overrides = ["train.batch_size=8", "ppo.minibatches=3", "ppo.epochs=2", "train.steps=1", micro];
        sandbox.stage("ppo", &overrides).ok();
        let state = std::fs::read(sandbox.path("run/trainer_state.json")).unwrap();
        let state: Value = serde_json::from_slice(&state).unwrap();
        assert_eq!(state["updates"], json!(6), "2 passes of 3 updates");
        lines(&sandbox, "run/metrics.jsonl")[0].clone()
    };
    let (whole, split) = (run("train.micro_batch_size=8"), run("train.micro_batch_size=1"));
    for (name, value) in &whole {
        if ["step_seconds", "tokens_per_second", "peak_memory_mb"].contains(&name.as_str()) {
            continue;
        }
        let (a, b) = (value.as_f64().unwrap(), number(&split, name));
        assert!((a - b).abs() < 2e-5 * a.abs().max(1.0), "{name}: {a} and {b}");
    }
    assert!(number(&whole, "val/ratio_var") > 0.0);
}

#[test]
fn another_reward_or_reference_on_resume_is_refused() {
    let sandbox = Sandbox::with_stages();
    sandbox.stage("ppo", &["train.steps=4", "train.save_every=2"]).ok();
    for name in ["manifest.json", "trainer_state.json", "model.safetensors"] {
        std::fs::remove_file(sandbox.path("run").join(name)).unwrap();
    }
    let path = sandbox.path("rewarder/config.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    config["collimate"] = json!({"bias": 5.0});
    std::fs::write(&path, config.to_string()).unwrap();
    let message = sandbox.stage("ppo", &["train.steps=4", "train.save_every=2", "train.resume=true"]).refused(2);
    assert!(message.contains("checkpoint-4: the run began with other contents of: reward"), "{message}");
}

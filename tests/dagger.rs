//! DAgger: who acts, what is labelled, what is kept, and that a round on the expert's own states is SFT on its data.
#![allow(clippy::unwrap_used)]
use crate::support::sandbox::{Sandbox, copy_dir, json_lines, row};
use crate::support::{assert_number, device, golden, tensors};
use crate::train::resume::assert_same_run;
use collimate::data::{Micro, Prompt, RowId};
use collimate::model::{CausalLm, LoadOptions};
use collimate::rollout::disagreement::{Play, errors};
use collimate::rollout::expert::{Expert, Rule, Teacher};
use collimate::rollout::mixture::{Actor, Mixture, MixtureOptions, Rollout, World};
use collimate::rollout::{GenerateOptions, Sampling, generate};
use serde_json::{Map, Value, json};
use std::path::Path;
use tch::Kind;

const VOCAB: i64 = 20;
/// Passes of a few rollouts each.
const SOME: Micro = Micro { rows: 4, tokens: Some(40) };

fn model() -> CausalLm {
    let options =
        LoadOptions { device: device(), compute: Kind::Float, trainable: false, mapped: false, checkpointing: false };
    CausalLm::from_pretrained(&golden("models/gpt2-tiny"), &options).unwrap()
}

fn prompts(count: usize) -> Vec<Prompt> {
    let prompt = |i: usize| Prompt {
        tokens: (0..1 + i as i64 % 5).map(|t| (3 + 7 * i as i64 + t) % VOCAB).collect(),
        text: String::new(),
        messages: None,
        id: RowId::line(Path::new("prompts"), i + 1),
    };
    (0..count).map(prompt).collect()
}

fn options(beta: f64) -> MixtureOptions<'static> {
    let sampling = Sampling::default();
    MixtureOptions { beta, sampling, max_new_tokens: 12, eos: None, seed: 9, batch_size: 7, world: None }
}

/// The expert's action in each state.
fn actions(mixture: &Mixture<'_>, rollouts: &[Rollout]) -> Vec<Vec<i64>> {
    mixture.label(rollouts, &|| Ok(())).unwrap().into_iter().map(|said| said.actions).collect()
}

/// An action that names its state: every prefix has another one than its neighbours.
fn says(prefix: &[i64]) -> i64 {
    let sum: i64 = prefix.iter().enumerate().map(|(at, token)| (at as i64 + 1) * (token + 3)).sum();
    sum % VOCAB
}

#[test]
fn the_expert_acts_as_often_as_beta_says_and_each_one_does_what_it_would() {
    let (student, expert) = (model(), Rule(says));
    for beta in [0.0, 0.3, 0.75, 1.0] {
        let mixture = Mixture { student: &student, expert: &expert, options: options(beta) };
        let rollouts = mixture.roll_out(&prompts(120), &|| Ok(())).unwrap();
        let (mut acted, mut all) = (0.0, 0.0);
        for rollout in &rollouts {
            assert_eq!((rollout.actors.len(), rollout.tokens.len() - rollout.prompt_len), (12, 12));
            for state in rollout.states() {
                all += 1.0;
                if rollout.actors[state - rollout.prompt_len] == Actor::Expert {
                    acted += 1.0;
                    assert_eq!(rollout.tokens[state], says(&rollout.tokens[..state]), "state {state} of {rollout:?}");
                }
            }
        }
        // Four standard deviations of 1,440 coins.
        let allowed = 4.0 * (beta * (1.0 - beta) / all).sqrt();
        assert!((acted / all - beta).abs() <= allowed, "beta {beta}: the expert acted in {} of {all} states", acted);
    }
}

#[test]
fn the_student_acts_as_it_does_alone() {
    let (student, expert) = (model(), Rule(says));
    let greedy = MixtureOptions { sampling: Sampling::greedy(), ..options(0.0) };
    let mixture = Mixture { student: &student, expert: &expert, options: greedy };
    let prompts = prompts(9);
    let rollouts = mixture.roll_out(&prompts, &|| Ok(())).unwrap();
    let ids: Vec<Vec<i64>> = prompts.iter().map(|prompt| prompt.tokens.clone()).collect();
    let alone = GenerateOptions { max_new_tokens: 12, sampling: Sampling::greedy(), eos: None, seed: 0, batch_size: 3 };
    let expected = generate(&student, &ids, &alone, |_| Ok(())).unwrap();
    for (rollout, expected) in rollouts.iter().zip(expected) {
        assert_eq!(rollout.tokens[rollout.prompt_len..], expected);
    }
}

/// A label that belongs to the prefix before or after would be another action.
#[test]
fn labels_belong_to_the_visited_prefix_whoever_acted() {
    let (student, rule) = (model(), Rule(says));
    let teacher = Teacher::new(model(), Sampling::greedy(), 0, SOME);
    for expert in [&rule as &dyn Expert, &teacher] {
        let mixture = Mixture { student: &student, expert, options: options(0.4) };
        let rollouts = mixture.roll_out(&prompts(10), &|| Ok(())).unwrap();
        let labels = actions(&mixture, &rollouts);
        let one =
            GenerateOptions { max_new_tokens: 1, sampling: Sampling::greedy(), eos: None, seed: 0, batch_size: 64 };
        for (rollout, labels) in rollouts.iter().zip(&labels) {
            let states: Vec<Vec<i64>> = rollout.states().map(|state| rollout.tokens[..state].to_vec()).collect();
            let expected: Vec<i64> = match expert.model() {
                Some(model) => generate(model, &states, &one, |_| Ok(())).unwrap().concat(),
                None => states.iter().map(|state| says(state)).collect(),
            };
            assert_eq!(*labels, expected, "{rollout:?}");
        }
    }
}

#[test]
fn a_drawn_label_is_the_action_that_the_expert_takes_there() {
    let (student, expert) = (model(), Teacher::new(model(), Sampling::default(), 0, SOME));
    let mixture = Mixture { student: &student, expert: &expert, options: options(1.0) };
    let rollouts = mixture.roll_out(&prompts(10), &|| Ok(())).unwrap();
    // Of the expert alone: not what was noted of who acted.
    let mut forgotten = rollouts.clone();
    forgotten.iter_mut().for_each(|rollout| rollout.actors.fill(Actor::Student));
    let labels = actions(&mixture, &forgotten);
    for (rollout, labels) in rollouts.iter().zip(labels) {
        assert_eq!(rollout.tokens[rollout.prompt_len..], labels);
    }
}

/// Rows that end leave the batch, of the student and of the teacher alike: what the others do is what they do alone.
#[test]
fn who_ends_early_changes_nothing_for_the_others() {
    let student = model();
    let teacher = Teacher::new(model(), Sampling { temperature: 1.5, ..Sampling::default() }, 0, SOME);
    let prompts = prompts(24);
    let all = |batch_size: usize, eos: Option<i64>, beta: f64| {
        let options = MixtureOptions { batch_size, eos, max_new_tokens: 20, ..options(beta) };
        let mixture = Mixture { student: &student, expert: &teacher, options };
        mixture.roll_out(&prompts, &|| Ok(())).unwrap()
    };
    for beta in [0.0, 0.5, 1.0] {
        // The token that is chosen most often ends rollouts: they end all over.
        let mut counts = std::collections::BTreeMap::new();
        for rollout in all(24, None, beta) {
            rollout.tokens[rollout.prompt_len..].iter().for_each(|token| *counts.entry(*token).or_insert(0) += 1);
        }
        let eos = counts.iter().max_by_key(|(_, count)| **count).map(|(token, _)| *token);
        let [together, alone] = [24, 1].map(|batch_size| all(batch_size, eos, beta));
        let lengths: std::collections::BTreeSet<usize> = together.iter().map(|r| r.actors.len()).collect();
        assert!(lengths.len() > 3, "beta {beta}: rollouts end at {lengths:?}");
        assert_eq!(together, alone, "beta {beta}");
    }
}

/// After an action below 8 the world says the action plus 10.
struct Echo;

impl World for Echo {
    fn next(&self, prefix: &[i64], _number: f64) -> Option<i64> {
        let last = *prefix.last().unwrap();
        (last < 8).then_some(last + 10)
    }
}

#[test]
fn the_world_s_tokens_are_nobody_s_actions_and_have_no_labels() {
    let (student, expert) = (model(), Rule(|prefix: &[i64]| (says(prefix)) % 8));
    let mixture =
        Mixture { student: &student, expert: &expert, options: MixtureOptions { world: Some(&Echo), ..options(1.0) } };
    let rollouts = mixture.roll_out(&prompts(12), &|| Ok(())).unwrap();
    let labels = actions(&mixture, &rollouts);
    for (rollout, labels) in rollouts.iter().zip(&labels) {
        for (place, actor) in rollout.actors.iter().enumerate() {
            let at = rollout.prompt_len + place;
            let before = rollout.tokens[at - 1];
            assert_eq!(*actor == Actor::World, before < 8, "{rollout:?}");
            if *actor == Actor::World {
                assert_eq!(rollout.tokens[at], before + 10);
            }
        }
        assert_eq!(labels.len(), rollout.states().count());
        let targets: Vec<usize> = rollout.sequence().target_positions().collect();
        assert_eq!(targets, rollout.states().collect::<Vec<_>>());
    }
}

#[test]
fn errors_are_the_distance_of_the_two_policies_summed_over_the_states() {
    let (student, rule) = (model(), Rule(says));
    let mixture = Mixture { student: &student, expert: &rule, options: options(0.5) };
    let rollouts = mixture.roll_out(&prompts(6), &|| Ok(())).unwrap();
    let labels = actions(&mixture, &rollouts);
    let warm = Sampling { temperature: 0.6, ..Sampling::default() };
    let found = errors(&student, &warm, &rollouts, Play::Actions(&labels), SOME, &|| Ok(())).unwrap();
    let greedy = errors(&student, &Sampling::greedy(), &rollouts, Play::Actions(&labels), SOME, &|| Ok(())).unwrap();
    // A student that is the expert: no distance.
    let same = errors(&student, &warm, &rollouts, Play::Drawn(&student), SOME, &|| Ok(())).unwrap();
    for (i, rollout) in rollouts.iter().enumerate() {
        let (mut sum, mut wrong) = (0.0, 0.0);
        for (state, label) in rollout.states().zip(&labels[i]) {
            let logits = last_logits(&student, &rollout.tokens[..state]);
            sum += 1.0 - (logits.shallow_clone() / 0.6).softmax(-1, Kind::Double).double_value(&[*label]);
            wrong += f64::from(u8::from(logits.argmax(-1, false).int64_value(&[]) != *label));
        }
        assert_number("errors", found[i], sum, 1e-5);
        assert_number("greedy errors", greedy[i], wrong, 1e-6);
        assert!(same[i].abs() < 1e-5);
    }
}

fn last_logits(model: &CausalLm, prefix: &[i64]) -> tch::Tensor {
    let input = collimate::model::ModelInput::from_sequences(&[prefix], device()).unwrap();
    let hidden = tch::no_grad(|| model.hidden_states(&input, None)).unwrap();
    model.logits(&hidden.narrow(0, prefix.len() as i64 - 1, 1)).unwrap().squeeze_dim(0)
}

/// A tokenizer of words, a student from random weights, prompts, and an expert program that ends
/// after six words: `dagger.toml` and `sft.toml`.
fn words() -> Sandbox {
    let sandbox = Sandbox::new();
    let mut vocab = Map::new();
    for (id, word) in ["</s>", "<unk>", "a", "b", "c", "d", "e", "f", "g", "h"].iter().enumerate() {
        vocab.insert((*word).to_owned(), json!(id));
    }
    let added = |id: usize, content: &str| {
        json!({ "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": true })
    };
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "normalizer": null, "post_processor": null,
        "decoder": null, "added_tokens": [added(0, "</s>"), added(1, "<unk>")],
        "pre_tokenizer": { "type": "WhitespaceSplit" },
        "model": { "type": "WordLevel", "vocab": vocab, "unk_token": "<unk>" },
    });
    sandbox.write("words/tokenizer.json", tokenizer.to_string());
    let names = json!({ "eos_token": "</s>", "unk_token": "<unk>", "tokenizer_class": "PreTrainedTokenizerFast" });
    sandbox.write("words/tokenizer_config.json", names.to_string());
    let letters = ["a", "b", "c", "d", "e", "f", "g", "h"];
    let prompt = |i: usize| -> Vec<&str> { (0..2 + i % 3).map(|t| letters[(5 * i + 3 * t * t) % 8]).collect() };
    let rows = |from: usize, count: usize| -> Vec<Map<String, Value>> {
        (from..from + count).map(|i| row(json!({ "prompt": prompt(i).join(" ") }))).collect()
    };
    sandbox.rows("prompts.jsonl", &rows(0, 12));
    sandbox.rows("held_out.jsonl", &rows(12, 5));
    // The last word, moved on by the length, and the end once there are six.
    let program = sandbox.write(
        "expert.py",
        "import json, sys\nfor line in sys.stdin:\n    row = json.loads(line)\n    actions = []\n    \
         for length in row['prefixes']:\n        tokens = row['tokens'][:length]\n        \
         asked = [t for t in tokens if t > 1]\n        \
         actions.append((asked[-1] + length) % 8 + 2 if length < 6 else 0)\n    \
         print(json.dumps(actions), flush=True)\n",
    );
    let common = format!(
        "[model]\npath = \"words\"\ninit = \"config\"\ndevice = \"{}\"\n\n[model.config]\nmodel_type = \"gpt2\"\n\
         n_embd = 16\nn_layer = 1\nn_head = 2\nn_positions = 32\n\n[train]\noutput = \"run\"\nbatch_size = 4\n\
         learning_rate = 1e-2\nlog_every = 1\nmicro_batch_size = 3\n\n",
        crate::support::device_name()
    );
    let data = "[data]\ntrain = \"prompts.jsonl\"\neval = \"held_out.jsonl\"\nmax_length = 32\n\n";
    let dagger = format!(
        "[dagger]\nexpert_command = [\"python3\", {program:?}]\nrounds = 3\nrollouts = 8\nmax_new_tokens = 9\n"
    );
    sandbox.write("dagger.toml", format!("{common}{data}{dagger}"));
    sandbox.write("sft.toml", format!("{common}[data]\ntrain = \"own.jsonl\"\nmax_length = 32\n"));
    sandbox
}

fn round(sandbox: &Sandbox, number: usize) -> Vec<Map<String, Value>> {
    json_lines(&sandbox.path(&format!("run/dataset/round-{number}.jsonl")))
}

fn numbers(value: &Value) -> Vec<i64> {
    value.as_array().unwrap().iter().map(|id| id.as_i64().unwrap()).collect()
}

/// The rows of rounds as SFT reads them; every rollout of theirs is the expert's and ended by itself.
fn as_sft_rows(sandbox: &Sandbox, rounds: &[usize]) -> Vec<Map<String, Value>> {
    let letters = ["</s>", "<unk>", "a", "b", "c", "d", "e", "f", "g", "h"];
    let text = |ids: &[i64]| ids.iter().map(|&id| letters[id as usize]).collect::<Vec<_>>().join(" ");
    let sft = |row: Map<String, Value>| {
        let (tokens, prompt) = (numbers(&row["tokens"]), row["prompt_len"].as_u64().unwrap() as usize);
        assert!(row["actors"].as_array().unwrap().iter().all(|actor| actor == "E"), "{row:?}");
        assert_eq!(tokens.last(), Some(&0), "a rollout that did not end: {row:?}");
        let completion = format!(" {}", text(&tokens[prompt..tokens.len() - 1]));
        crate::support::sandbox::row(json!({ "prompt": text(&tokens[..prompt]), "completion": completion }))
    };
    rounds.iter().flat_map(|&n| round(sandbox, n)).map(sft).collect()
}

/// Loss, gradient norm and rate of every step.
fn steps(run: &Path) -> Vec<[f64; 3]> {
    let lines = json_lines(&run.join("metrics.jsonl"));
    let figures =
        |line: &Map<String, Value>| ["loss", "grad_norm", "learning_rate"].map(|name| line[name].as_f64().unwrap());
    lines.iter().filter(|line| line.contains_key("loss")).map(figures).collect()
}

#[test]
fn with_beta_1_a_round_is_sft_on_the_expert_s_data_step_for_step() {
    let sandbox = words();
    sandbox.stage("dagger", &["dagger.rounds=1", "dagger.beta=[1]", "train.epochs=3", "dagger.rollouts=10"]).ok();
    sandbox.rows("own.jsonl", &as_sft_rows(&sandbox, &[1]));
    sandbox.stage("sft", &["train.output=sft", "train.epochs=3"]).ok();
    assert_eq!(steps(&sandbox.path("run")), steps(&sandbox.path("sft")));
    let [ours, sft] = ["run", "sft"].map(|run| std::fs::read(sandbox.path(run).join("model.safetensors")).unwrap());
    assert!(ours == sft, "the weights differ");
}

#[test]
fn restarted_rounds_are_sft_on_the_union_from_the_first_weights() {
    let sandbox = words();
    let both = ["dagger.rounds=2", "dagger.beta=[1,1]", "dagger.restart=true", "train.warmup_steps=1"];
    sandbox.stage("dagger", &[&both[..], &["train.epochs=2"]].concat()).ok();
    sandbox.rows("own.jsonl", &as_sft_rows(&sandbox, &[1, 2]));
    sandbox.stage("sft", &["train.output=sft", "train.epochs=2", "train.warmup_steps=1"]).ok();
    // 8 rows, then 16, in batches of 4, twice.
    let all = steps(&sandbox.path("run"));
    assert_eq!(all.len(), 4 + 8);
    assert_eq!(all[4..], steps(&sandbox.path("sft")));
}

#[test]
fn the_data_grows_by_union_and_every_label_is_the_program_s() {
    let sandbox = words();
    sandbox.stage("dagger", &["dagger.beta=linear", "dagger.temperature=0.8"]).ok();
    let mut share = Vec::new();
    for number in 1..=3 {
        let rows = round(&sandbox, number);
        assert_eq!(rows.len(), 8);
        let (mut experts, mut all) = (0, 0);
        for row in &rows {
            assert_eq!(row["round"], number);
            let (tokens, prompt) = (numbers(&row["tokens"]), row["prompt_len"].as_u64().unwrap() as usize);
            let labels = numbers(&row["labels"]);
            assert_eq!(labels.len(), tokens.len() - prompt);
            for (place, label) in labels.iter().enumerate() {
                let prefix = &tokens[..prompt + place];
                let last = prefix.iter().rev().find(|id| **id > 1);
                let expected = match prefix.len() {
                    length if length < 6 => (last.unwrap() + length as i64) % 8 + 2,
                    _ => 0,
                };
                assert_eq!(*label, expected, "{row:?} at {place}");
                let expert = row["actors"][place] == "E";
                assert!(!expert || tokens[prompt + place] == expected);
                experts += i32::from(expert);
                all += 1;
            }
        }
        share.push(f64::from(experts) / f64::from(all));
    }
    assert!(share[0] == 1.0 && share[2] == 0.0 && (0.2..0.8).contains(&share[1]), "{share:?}");
    let lines = json_lines(&sandbox.path("run/metrics.jsonl"));
    let rows: Vec<f64> = lines.iter().filter_map(|line| line.get("rows")?.as_f64()).collect();
    assert_eq!(rows, [[8.0; 2].to_vec(), [16.0; 4].to_vec(), [24.0; 6].to_vec()].concat());
    let judged = json_lines(&sandbox.path("run/rounds.jsonl"));
    let of = |name: &str| -> Vec<f64> { judged.iter().map(|line| line[name].as_f64().unwrap()).collect() };
    assert_eq!((of("round"), of("beta")), (vec![1.0, 2.0, 3.0], vec![1.0, 0.5, 0.0]));
    assert_eq!((of("rows"), of("step")), (vec![8.0, 16.0, 24.0], vec![2.0, 6.0, 12.0]));
    for name in ["error_rate", "error_rate_expert", "errors"] {
        assert!(of(name).iter().all(|value| value.is_finite() && *value >= 0.0), "{name}: {judged:?}");
    }
}

/// An expert that says anything once it has labelled the rollouts of two rounds: the third one's model is the worst.
#[test]
fn the_run_ends_with_the_model_of_its_best_round() {
    let sandbox = words();
    let sane = std::fs::read_to_string(sandbox.path("expert.py")).unwrap();
    let mad = sane
        .replace("import json, sys\n", "import json, random, sys\nlabelled = 0\n")
        .replace("    actions = []\n", "    actions = []\n    labelled += len(row['prefixes']) > 1\n")
        .replace(
            "    print(",
            "    if labelled > 31:\n        actions = [random.randrange(2, 10) for _ in actions]\n    print(",
        );
    sandbox.write("expert.py", mad);
    sandbox.stage("dagger", &["train.epochs=20", "train.keep=1"]).ok();
    let judged = json_lines(&sandbox.path("run/rounds.jsonl"));
    let rate = |line: &Map<String, Value>| line["error_rate"].as_f64().unwrap();
    let best = judged.iter().min_by(|a, b| rate(a).total_cmp(&rate(b))).unwrap();
    assert!(best["round"] != 3, "{judged:?}");
    let kept = tensors(&sandbox.path(&format!("run/checkpoint-{}/model.safetensors", best["step"])));
    let last = tensors(&sandbox.path("run/model.safetensors"));
    let third = tensors(&sandbox.path(&format!("run/checkpoint-{}/model.safetensors", judged[2]["step"])));
    for (name, tensor) in &kept {
        assert!(tensor.equal(&last[name]), "{name} is not round {}'s", best["round"]);
    }
    assert!(kept.iter().any(|(name, tensor)| !tensor.equal(&third[name])), "the third round changed nothing");
}

/// What a process that was killed after a checkpoint leaves: files of later rounds too, no final model.
fn as_if_killed(run: &Path, to: &Path, step: u64) {
    copy_dir(run, to);
    for entry in std::fs::read_dir(to).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let later = name.strip_prefix("checkpoint-").is_some_and(|n| n.parse::<u64>().unwrap() > step);
        if later {
            std::fs::remove_dir_all(&path).unwrap();
        } else if path.is_file()
            && !["metrics.jsonl", "samples.jsonl", "config.toml", "rounds.jsonl"].contains(&name.as_str())
        {
            std::fs::remove_file(&path).unwrap();
        }
    }
}

#[test]
fn a_run_that_was_killed_within_or_between_rounds_goes_on_bit_for_bit() {
    for more in
        [&["dagger.beta=linear"][..], &["dagger.restart=true", "dagger.beta=exponential", "train.warmup_steps=1"]]
    {
        let sandbox = words();
        let overrides = [more, &["train.save_every=1", "train.keep=99", "dagger.temperature=0.7"]].concat();
        sandbox.stage("dagger", &overrides).ok();
        let whole = sandbox.path("run");
        for step in [1, 2, 4, 6, 9, 12] {
            let to = format!("killed-{step}");
            as_if_killed(&whole, &sandbox.path(&to), step);
            // As if the kill had come while the next round's file was not there yet.
            if step == 6 {
                std::fs::remove_file(sandbox.path(&format!("{to}/dataset/round-3.jsonl"))).unwrap();
            }
            let output = format!("train.output={to}");
            sandbox.stage("dagger", &[&overrides[..], &[&output, "train.resume=true"]].concat()).ok();
            assert_same_run(&format!("{more:?} from {step}"), &sandbox.path(&to), &whole, Some("checkpoint-12"));
            for file in ["rounds.jsonl", "dataset/round-1.jsonl", "dataset/round-2.jsonl", "dataset/round-3.jsonl"] {
                let [ours, reference] = [&sandbox.path(&to), &whole].map(|run| std::fs::read(run.join(file)).unwrap());
                assert!(ours == reference, "{more:?} from {step}: {file} differs");
            }
        }
    }
}

#[test]
fn data_that_was_altered_is_not_gone_on_with() {
    let sandbox = words();
    sandbox.stage("dagger", &["train.save_every=1", "train.keep=99"]).ok();
    as_if_killed(&sandbox.path("run"), &sandbox.path("killed"), 4);
    let file = sandbox.path("killed/dataset/round-1.jsonl");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replacen("\"labels\":[", "\"labels\":[3,", 1)).unwrap();
    let resume = ["train.output=killed", "train.resume=true", "train.save_every=1", "train.keep=99"];
    let error = sandbox.stage("dagger", &resume).refused(2);
    assert!(error.contains("killed/dataset: is not what the run wrote there"), "{error}");
}

#[test]
fn distributions_of_a_teacher_are_learnt() {
    let sandbox = words();
    // A teacher with opinions: trained on the program's rollouts.
    sandbox.stage("dagger", &["train.epochs=20", "train.output=teacher", "train.seed=5"]).ok();
    let by_teacher = |output: &str, more: &[&str]| {
        let text = std::fs::read_to_string(sandbox.path("dagger.toml")).unwrap();
        let kept: Vec<&str> = text.lines().filter(|line| !line.starts_with("expert_command")).collect();
        sandbox.write("taught.toml", kept.join("\n"));
        let output = format!("train.output={output}");
        let common = ["dagger", "taught.toml", "dagger.teacher=teacher", "train.epochs=15", &output];
        sandbox.run(&[&common[..], more].concat()).ok();
        let judged = json_lines(&sandbox.path(&format!("{}/rounds.jsonl", &output["train.output=".len()..])));
        let of = |line: &Map<String, Value>| line["error_rate"].as_f64().unwrap();
        (of(&judged[0]), judged.iter().map(of).fold(f64::INFINITY, f64::min), judged[0]["expert_perplexity"].as_f64())
    };
    let distribution = "dagger.labels=distribution";
    for more in [
        &[distribution][..],
        &[distribution, "dagger.loss=reverse_kl"],
        &[distribution, "dagger.loss=jensen_shannon", "dagger.js_weight=0.3"],
        &[distribution, "dagger.top_k=4"],
        &[distribution, "dagger.top_k=4", "dagger.loss=jensen_shannon"],
        &["dagger.labels=sample", "dagger.beta=exponential"],
    ] {
        let (first, best, perplexity) = by_teacher(&more.join("-").replace("dagger.", ""), more);
        // Total variation between random weights and a sure teacher is about 0.9.
        assert!(best <= first && best < 0.6, "{more:?}: {first} to {best}");
        assert!(perplexity.unwrap() >= 1.0);
    }
    // All actions kept are the whole distribution: the same losses.
    by_teacher("whole", &[distribution]);
    by_teacher("kept", &[distribution, "dagger.top_k=10"]);
    for (whole, kept) in steps(&sandbox.path("whole")).iter().zip(steps(&sandbox.path("kept"))) {
        assert_number("loss", kept[0], whole[0], 1e-4);
    }
}

#[test]
fn what_cannot_be_is_refused_before_anything_is_written() {
    let sandbox = words();
    sandbox.stage("dagger", &["train.output=teacher"]).ok();
    let other = golden("models/gpt2-tiny");
    let other = format!("dagger.teacher={}", other.display());
    let without = std::fs::read_to_string(sandbox.path("dagger.toml")).unwrap();
    let without: Vec<&str> = without.lines().filter(|line| !line.starts_with("expert_command")).collect();
    sandbox.write("taught.toml", without.join("\n"));
    for (file, overrides, said) in [
        ("taught.toml", &[other.as_str()][..], "dagger.teacher has"),
        ("taught.toml", &[], "dagger.teacher: missing; name a model, or a program in dagger.expert_command"),
        ("dagger.toml", &["dagger.teacher=teacher"], "one expert only"),
        ("dagger.toml", &["dagger.labels=sample"], "a program says one action a state"),
        ("dagger.toml", &["dagger.beta=[1,0]"], "has 2 numbers for 3 rounds"),
        ("dagger.toml", &["dagger.beta=[1,2,0]"], "must lie in [0, 1]"),
        ("dagger.toml", &["dagger.beta=square"], "expected \"indicator\", \"linear\", \"exponential\" or a list"),
        ("dagger.toml", &["dagger.loss=forward_kl"], "single labels have \"cross_entropy\" alone"),
        ("dagger.toml", &["dagger.rounds=100000000000"], "dagger.rounds: must lie in 1 to 10000"),
        (
            "taught.toml",
            &["dagger.teacher=teacher", "dagger.labels=distribution", "dagger.top_k=11"],
            "dagger.top_k is 11, and there are 10 actions",
        ),
        ("dagger.toml", &["dagger.top_k=3"], "only read with dagger.labels = \"distribution\""),
        ("dagger.toml", &["train.eval_every=2"], "judges its policy at the end of each round"),
        ("dagger.toml", &["train.steps=2"], "must be at least dagger.rounds (3)"),
        ("dagger.toml", &["data.max_length=64", "dagger.max_new_tokens=31"], "model.path holds 32 tokens"),
        (
            "taught.toml",
            &["dagger.teacher=teacher", "dagger.labels=distribution", "dagger.loss=reverse_kl", "dagger.top_k=2"],
            "infinite",
        ),
        ("taught.toml", &["dagger.teacher=teacher", "dagger.labels=sample", "dagger.temperature=0"], "drawn with it"),
    ] {
        let ran = sandbox.run(&[&["dagger", file][..], overrides].concat());
        assert!(ran.code == 2 && ran.stderr.contains(said), "{overrides:?}: {}", ran.stderr);
        assert!(!sandbox.path("run").exists(), "{overrides:?} left something");
    }
    let without_eval =
        std::fs::read_to_string(sandbox.path("dagger.toml")).unwrap().replace("eval = \"held_out.jsonl\"\n", "");
    sandbox.write("blind.toml", without_eval);
    let ran = sandbox.run(&["dagger", "blind.toml"]);
    assert!(ran.stderr.contains("data.eval: missing; name prompts that are not trained on"), "{}", ran.stderr);
}

#[test]
fn a_program_that_says_too_little_or_too_much_stops_the_run() {
    for (body, said) in [
        ("print('[1]', flush=True)", "actions for"),
        ("print('{}', flush=True)", "a line that is not a list"),
        ("print([77] * len(row['prefixes']), flush=True)", "not an id of the vocabulary"),
        ("sys.exit(3)", "ended twice"),
    ] {
        let sandbox = words();
        let text = format!("import json, sys\nfor line in sys.stdin:\n    row = json.loads(line)\n    {body}\n");
        sandbox.write("expert.py", text);
        let ran = sandbox.stage("dagger", &["dagger.beta=[0,0,0]"]);
        assert!(ran.code == 1 && ran.stderr.contains(said), "{body}: {} {}", ran.code, ran.stderr);
        assert!(ran.stderr.contains("dagger.expert_command: the program"), "{}", ran.stderr);
    }
}

/// A round's rollouts are there to look at, however rarely lines are logged, and after a resume as without.
#[test]
fn rollouts_are_shown_and_survive_a_resume() {
    let sandbox = words();
    let rare = ["train.log_every=5", "train.save_every=1", "train.keep=99"];
    sandbox.stage("dagger", &rare).ok();
    let samples = json_lines(&sandbox.path("run/samples.jsonl"));
    let steps: Vec<u64> =
        samples.iter().filter(|s| s["split"] == "train").map(|s| s["step"].as_u64().unwrap()).collect();
    assert_eq!(steps, [[5; 4], [10; 4]].concat(), "{samples:?}");
    // Between the first step of round 2 and the line that shows its rollouts.
    as_if_killed(&sandbox.path("run"), &sandbox.path("killed"), 4);
    sandbox.stage("dagger", &[&rare[..], &["train.output=killed", "train.resume=true"]].concat()).ok();
    assert_same_run("rare lines", &sandbox.path("killed"), &sandbox.path("run"), Some("checkpoint-12"));
}

#[test]
fn a_signal_does_not_wait_for_a_slow_program() {
    let sandbox = words();
    sandbox.write(
        "expert.py",
        "import sys, time\nfor line in sys.stdin:\n    open('asked', 'w').close()\n    time.sleep(600)\n",
    );
    let mut run = sandbox.start("dagger", &["dagger.expert_timeout=900"]);
    run.wait_for(|| sandbox.path("asked").exists());
    let begun = std::time::Instant::now();
    run.signal("TERM");
    run.signal("TERM");
    assert_eq!(run.finish().code, 143);
    assert!(begun.elapsed().as_secs() < 60, "{:?}", begun.elapsed());
}

#[test]
fn validate_says_what_dagger_would() {
    let sandbox = words();
    let shown = sandbox.run(&["validate", "dagger.toml"]).ok();
    assert!(shown.stdout.contains("stage             dagger"), "{}", shown.stdout);
    for (overrides, said) in [
        (["data.max_length=64", "dagger.max_new_tokens=31"], "model.path holds 32 tokens"),
        (["data.max_length=600", "dagger.max_new_tokens=500"], "model.path holds 32 tokens"),
        (["dagger.expert_command=no-such-program", "dagger.rounds=2"], "no-such-program"),
    ] {
        let error = sandbox.run(&[&["validate", "dagger.toml"], &overrides[..]].concat()).refused(2);
        assert!(error.contains(said), "{error}");
    }
}

#[test]
fn rollout_of_the_dataset_reads_back() {
    let id = RowId::line(Path::new("p.jsonl"), 3);
    let actors = vec![Actor::Expert, Actor::World, Actor::Student];
    let rollout = Rollout { tokens: vec![5, 6, 7, 8], prompt_len: 1, actors, id };
    assert_eq!(rollout.states().collect::<Vec<_>>(), [1, 3]);
    assert_eq!(rollout.sequence().targets, [1..2, 3..4]);
}

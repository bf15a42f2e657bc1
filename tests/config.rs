//! Configurations: every problem at once, each with file, line, key and remedy; overrides; DESIGN.md's defaults.
#![allow(clippy::unwrap_used)]
use crate::support::sandbox::Sandbox;
use collimate::config::{
    self, CollectConfig, DaggerConfig, DpoConfig, ImitationConfig, PpoConfig, RewardConfig, SentimentConfig, SftConfig,
    StageConfig,
};
use std::path::Path;

const WHOLE: &str = "[model]\npath = \"m\"\n\n[data]\ntrain = \"t.jsonl\"\n\n[train]\noutput = \"run\"\n";

/// Loads `text` as a configuration with overrides; the message of a refusal with the directory taken out.
fn load<C: StageConfig>(text: &str, overrides: &[&str]) -> Result<C, String> {
    let sandbox = Sandbox::new();
    let path = sandbox.write("c.toml", text);
    let overrides: Vec<String> = overrides.iter().map(|o| (*o).to_owned()).collect();
    config::load(&path, &overrides).map_err(|error| {
        assert_eq!(error.exit_code(), 2);
        error.to_string().replace(&format!("{}/", path.parent().unwrap().display()), "")
    })
}

fn problems<C: StageConfig>(text: &str, overrides: &[&str]) -> Vec<String> {
    match load::<C>(text, overrides) {
        Ok(_) => Vec::new(),
        Err(message) => message.lines().map(str::to_owned).collect(),
    }
}

/// The one problem of a configuration.
#[track_caller]
fn problem<C: StageConfig>(text: &str, overrides: &[&str]) -> String {
    let found = problems::<C>(text, overrides);
    assert_eq!(found.len(), 1, "{found:#?}");
    found[0].clone()
}

#[test]
fn every_problem_is_reported_at_once_with_file_line_and_key() {
    let text = "[model]\npth = \"m\"\npath = \"m\"\ndropout = 0.1\n\n[data]\ntrain = \"t\"\nmax_length = \"long\"\n\n\
                [train]\nsteps = 0\nbatch_size = 4\nmicro_batch_size = 8\nlearning_rate = -1.0\nschedule = \"steps\"\n\n\
                [dpo]\nbeta = 0\nlabel_smoothing = 0.7\n\n[rewards]\nmargin = 1\n";
    let found = problems::<DpoConfig>(text, &[]);
    let starts = [
        "c.toml:21: rewards: unknown section for dpo",
        "c.toml:2: model.pth: unknown key, did you mean \"path\"?",
        "c.toml:8: data.max_length: invalid type: string \"long\"",
        "c.toml:15: train.schedule: unknown variant `steps`",
        "c.toml:4: model.dropout: only SFT trains with dropout",
        "c.toml:10: train.output: missing",
        "c.toml:11: train.steps: must be greater than 0",
        "c.toml:13: train.micro_batch_size: must not exceed train.batch_size (4)",
        "c.toml:14: train.learning_rate: must be 0 or greater",
        "c.toml:18: dpo.beta: must be greater than 0",
        "c.toml:19: dpo.label_smoothing: must lie in [0, 0.5)",
    ];
    for start in starts {
        assert!(found.iter().any(|line| line.starts_with(start)), "{start:?} is not in {found:#?}");
    }
    assert_eq!(found.len(), starts.len(), "{found:#?}");
}

#[test]
fn an_unknown_key_names_the_near_one_and_the_section_s_keys() {
    let line = problem::<SftConfig>(&format!("{WHOLE}learnig_rate = 1e-4\n"), &[]);
    assert!(line.starts_with("c.toml:9: train.learnig_rate: unknown key, did you mean \"learning_rate\"?"), "{line}");
    assert!(line.contains("[train] has output, steps, epochs"), "{line}");
    let far = problem::<SftConfig>(&format!("{WHOLE}zzzzzz = 1\n"), &[]);
    assert!(far.starts_with("c.toml:9: train.zzzzzz: unknown key;") && !far.contains("did you mean"), "{far}");
}

#[test]
fn an_unknown_or_foreign_section_is_refused() {
    let line = problem::<SftConfig>(&format!("{WHOLE}\n[modle]\npath = \"x\"\n"), &[]);
    assert!(line.starts_with("c.toml:10: modle: unknown section for sft, did you mean \"model\"?"), "{line}");
    let line = problem::<SftConfig>(&format!("{WHOLE}\n[dpo]\nbeta = 1.0\n"), &[]);
    assert!(line.contains("dpo: unknown section for sft") && line.contains("[model], [data], [train]"), "{line}");
    let line = problem::<SftConfig>("train = 3\n[model]\npath = \"m\"\n[data]\ntrain = \"t\"\n", &[]);
    assert!(line.starts_with("c.toml:1: train: must be a section"), "{line}");
}

#[test]
fn wrong_types_are_named_with_what_was_expected() {
    for (key, value, expected) in [
        ("batch_size", "2.5", "floating point `2.5`"),
        ("batch_size", "-1", "integer `-1`"),
        ("shuffle", "\"yes\"", "expected a boolean"),
        ("learning_rate", "[1]", "invalid type: sequence"),
        ("save_dtype", "\"float16\"", "expected `float32` or `bfloat16`"),
        ("seed", "-3", "integer `-3`"),
    ] {
        let line = problem::<SftConfig>(WHOLE, &[&format!("train.{key}={value}")]);
        assert!(line.starts_with(&format!("on the command line: train.{key}: ")), "{line}");
        assert!(line.contains(expected), "{line}");
    }
}

#[test]
fn broken_toml_names_file_and_line() {
    for (text, line) in [
        ("[model]\npath = \n", 2),
        ("[model\npath = \"m\"\n", 1),
        ("[model]\npath = \"m\"\npath = \"n\"\n", 3),
        ("[model]\n[model]\n", 2),
    ] {
        let message = problem::<SftConfig>(text, &[]);
        assert!(message.starts_with(&format!("c.toml:{line}: broken TOML: ")), "{text:?}: {message}");
    }
}

#[test]
fn a_file_that_cannot_be_read_is_named_with_a_remedy() {
    let sandbox = Sandbox::new();
    let load = |path: &Path| config::load::<SftConfig>(path, &[]).unwrap_err();
    let error = load(&sandbox.path("none.toml"));
    assert_eq!(error.exit_code(), 2);
    assert!(error.to_string().contains("none.toml: no such configuration file; "), "{error}");
    let error = load(&sandbox.write("latin.toml", b"# caf\xe9\n"));
    assert_eq!(error.exit_code(), 2);
    assert!(error.to_string().contains("latin.toml: not valid UTF-8; "), "{error}");
    let error = load(&sandbox.path(""));
    assert_eq!(error.exit_code(), 2, "{error}");
    assert!(error.to_string().contains("is a directory; "), "{error}");
}

#[test]
fn overrides_replace_add_and_take_any_value() {
    let config: DpoConfig = load(
        WHOLE,
        &[
            "train.learning_rate=2e-6",
            "train.output=runs/a b=c",
            "data.train=\"quoted.jsonl\"",
            "dpo.loss=ipo",
            " dpo.beta = 1 ",
            "train.shuffle=false",
            "train.steps=7",
            "model.path=org/name@rev",
        ],
    )
    .unwrap();
    assert_eq!(config.train.learning_rate, 2e-6);
    assert_eq!(config.train.output, "runs/a b=c");
    assert_eq!(config.data.train, "quoted.jsonl".into());
    assert_eq!(config.dpo.loss, config::DpoLoss::Ipo);
    assert_eq!(config.dpo.beta, 1.0);
    assert!(!config.train.shuffle);
    assert_eq!(config.train.steps, Some(7));
    assert_eq!(config.model.path, "org/name@rev");
    let config: SftConfig = load(WHOLE, &["model.init=config", "model.config.n_layer=3"]).unwrap();
    assert_eq!(config.model.config.as_ref().unwrap()["n_layer"].as_integer(), Some(3));
    let words: SftConfig = load(WHOLE, &["train.output=2026-01-31", "model.path=nan", "data.train=7"]).unwrap();
    let (output, path, train) = (&words.train.output, &words.model.path, &words.data.train.files()[0].path);
    assert_eq!([output.as_str(), path, train], ["2026-01-31", "nan", "7"], "text that TOML would read otherwise");
    let last: SftConfig = load(WHOLE, &["train.seed=1", "train.seed=2"]).unwrap();
    assert_eq!(last.train.seed, 2);
}

#[test]
fn bad_overrides_are_refused_with_their_form() {
    for (item, message) in [
        ("train.resume", "override \"train.resume\" has no \"=\""),
        ("resume=true", "override \"resume=true\" names no section"),
        (".resume=true", "names no section"),
        ("train.=3", "names no section"),
        ("train.output.x=3", "output is not a section"),
    ] {
        let line = problem::<SftConfig>(WHOLE, &[item]);
        assert!(line.contains(message), "{item}: {line}");
        assert!(line.contains("; overrides look like train.learning_rate=1e-5"), "{item}: {line}");
    }
    let line = problem::<SftConfig>(&WHOLE.replace("\"run\"", "7"), &[]);
    assert_eq!(line, "c.toml:8: train.output: invalid type: integer `7`, expected a string");
    let line = problem::<SftConfig>(WHOLE, &["train.reume=true"]);
    assert!(line.starts_with("on the command line: train.reume: unknown key, did you mean \"resume\"?"), "{line}");
}

#[test]
fn settings_that_nothing_would_read_are_refused() {
    for (overrides, key) in [
        (&["model.reference=x"][..], "model.reference"),
        (&["model.config.n_layer=2"], "model.config"),
        (&["train.eval_every=5"], "train.eval_every"),
        (&["data.eval=e", "train.keep_best=true"], "train.keep_best"),
    ] {
        let line = problem::<SftConfig>(WHOLE, overrides);
        assert!(line.contains(&format!("{key}: ")), "{line}");
    }
    let line = problem::<RewardConfig>(WHOLE, &["data.completion_only=false"]);
    assert!(line.contains("data.completion_only: only read by sft"), "{line}");
    let line = problem::<DpoConfig>(WHOLE, &["dpo.ipo_length_normalised=false"]);
    assert!(line.contains("dpo.ipo_length_normalised: only read with dpo.loss = \"ipo\""), "{line}");
}

#[test]
fn defaults_are_the_design_s() {
    // DESIGN.md, section 4, the table of keys; `steps`, `eval`, `reference`, ... have no default.
    let shared = "[model]\npath = \"m\"\ninit = \"pretrained\"\ndtype = \"float32\"\ndevice = \"auto\"\ndropout = 0.0\n\
                  [data]\ntrain = \"t.jsonl\"\nmax_length = 512\non_bad_row = \"error\"\nboundary = \"joint\"\n\
                  completion_only = true\nassistant_only = false\nstreaming = false\n\
                  [train]\noutput = \"run\"\nepochs = 1.0\nbatch_size = 8\nlearning_rate = 5e-5\nschedule = \"linear\"\n\
                  warmup_steps = 0\nweight_decay = 0.0\nadam_beta1 = 0.9\nadam_beta2 = 0.999\nadam_epsilon = 1e-8\n\
                  max_grad_norm = 1.0\nseed = 0\nshuffle = true\nlog_every = 10\nkeep = 2\nkeep_best = false\n\
                  check_memory = false\ngradient_checkpointing = false\nresume = false\nsave_dtype = \"float32\"\nmax_shard_gb = 5.0\n";
    let expected = |more: &str| format!("{shared}{more}").parse::<toml::Table>().unwrap();
    assert_eq!(load::<SftConfig>(WHOLE, &[]).unwrap().to_table(), expected(""));
    let reward = "[reward]\npooling = \"last\"\nmargin = 0.0\ncentering = 0.0\nnormalize = false\n";
    assert_eq!(load::<RewardConfig>(WHOLE, &[]).unwrap().to_table(), expected(reward));
    let dpo = "[dpo]\nbeta = 0.1\nloss = \"sigmoid\"\nlabel_smoothing = 0.0\nipo_length_normalised = true\n";
    assert_eq!(load::<DpoConfig>(WHOLE, &[]).unwrap().to_table(), expected(dpo));
    let config = load::<SftConfig>(WHOLE, &[]).unwrap();
    assert_eq!(config.train.micro(), 8, "micro_batch_size is batch_size");
}

#[test]
fn a_resolved_configuration_loads_as_itself() {
    let overrides = ["dpo.beta=0.25", "train.steps=9", "data.eval=e.jsonl", "model.reference=r", "train.eval_every=3"];
    let config: DpoConfig = load(WHOLE, &overrides).unwrap();
    let saved = toml::to_string_pretty(&config.to_table()).unwrap();
    assert_eq!(load::<DpoConfig>(&saved, &[]).unwrap(), config);
}

#[test]
fn the_example_configurations_load() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs");
    let Ok(entries) = std::fs::read_dir(&dir) else { return };
    for entry in entries {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|e| e != "toml") {
            continue;
        }
        let table: toml::Table = std::fs::read_to_string(&path).unwrap().parse().unwrap();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        // The section says which stage it is for; sft has none of its own.
        let loaded = if table.contains_key("collect") {
            CollectConfig::load(&path, &[]).map(drop)
        } else if table.contains_key("task") {
            ImitationConfig::load(&path, &[]).map(drop)
        } else if table.contains_key("experiment") {
            SentimentConfig::load(&path, &[]).map(drop)
        } else if table.contains_key("ppo") {
            config::load::<PpoConfig>(&path, &[]).map(drop)
        } else if table.contains_key("dagger") {
            config::load::<DaggerConfig>(&path, &[]).map(drop)
        } else if table.contains_key("dpo") {
            config::load::<DpoConfig>(&path, &[]).map(drop)
        } else if table.contains_key("reward") {
            config::load::<RewardConfig>(&path, &[]).map(drop)
        } else {
            config::load::<SftConfig>(&path, &[]).map(drop)
        };
        loaded.unwrap_or_else(|error| panic!("configs/{name}.toml: {error}"));
    }
}

#[test]
fn a_reward_command_is_a_list_or_a_line() {
    let sandbox = Sandbox::new();
    let read = |value: &str| {
        let text = format!(
            "[model]\npath = \"m\"\n\n[data]\ntrain = \"d\"\n\n[train]\noutput = \"o\"\n\n[ppo]\nreward_command = {value}\n"
        );
        config::load::<PpoConfig>(&sandbox.write("ppo.toml", text), &[])
    };
    for value in ["[\"python3\", \"score.py\"]", "\"python3  score.py\""] {
        assert_eq!(read(value).unwrap().ppo.reward_command.unwrap(), ["python3", "score.py"]);
    }
    let message = read("7").expect_err("no command").to_string();
    assert!(
        message.contains("ppo.toml:11: ppo.reward_command: ") && message.contains("expected [\"program\""),
        "{message}"
    );
    assert!(read("\" \"").expect_err("no program").to_string().contains("names no program"));
}

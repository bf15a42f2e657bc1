//! `collimate validate`: everything that can be known before step 0, without a weight in memory. Owns the choice of the
//! stage and the order of the checks.
mod show;

use crate::config::{self, DaggerConfig, DpoConfig, Init, PpoConfig, RewardConfig, SftConfig, StageConfig};
use crate::data::fingerprint::Encoded;
use crate::data::set::{self, Source};
use crate::data::{Data, Encode, EncodeOptions, Pair, Prompt, Sequence, Wanted, columns};
use crate::error::{Error, Result};
use crate::hub;
use crate::model::{HfConfig, check_files};
use crate::tokenizer::Tokenizer;
use clap::{Args, ValueEnum};
use serde_json::{Map, Value, json};
use show::Shown;
use std::path::{Path, PathBuf};

/// What a configuration would train on, and whether it fits, without training.
#[derive(Debug, Args)]
#[command(
    after_help = "The stage is the one whose section the file has ([dagger], [reward], [dpo], [ppo]), else sft.\n\n\
    Examples:\n  collimate validate configs/dpo.toml\n  \
    collimate validate configs/sft.toml data.train=mine.jsonl --json"
)]
pub struct ValidateArgs {
    /// Configuration file of a stage
    #[arg(value_name = "CONFIG.toml")]
    config: PathBuf,
    /// Replace keys of the file
    #[arg(value_name = "section.key=value")]
    overrides: Vec<String>,
    /// The stage, where the file does not tell
    #[arg(long, value_enum)]
    stage: Option<StageName>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// A stage by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum StageName {
    /// Supervised fine-tuning
    Sft,
    /// Dataset aggregation
    Dagger,
    /// A reward model
    Reward,
    /// Direct preference optimization
    Dpo,
    /// Proximal policy optimization
    Ppo,
}

/// Runs the command.
pub fn run(args: &ValidateArgs) -> Result<()> {
    let report = match stage(args)? {
        StageName::Sft => validate::<SftConfig>(args)?,
        StageName::Dagger => validate::<DaggerConfig>(args)?,
        StageName::Reward => validate::<RewardConfig>(args)?,
        StageName::Dpo => validate::<DpoConfig>(args)?,
        StageName::Ppo => validate::<PpoConfig>(args)?,
    };
    if args.json {
        println!("{}", serde_json::to_string(&report).expect("JSON values serialise"));
    } else {
        print!("{}", show::text(&report));
    }
    Ok(())
}

fn stage(args: &ValidateArgs) -> Result<StageName> {
    if let Some(stage) = args.stage {
        return Ok(stage);
    }
    let sections = config::sections(&args.config, &args.overrides)?;
    for section in ["collect", "experiment"] {
        if sections.iter().any(|found| found == section) {
            let message = format!("is for `collimate {section}`, and no stage's configuration");
            return Err(Error::file(&args.config, message, "run that command, which checks it before any work"));
        }
    }
    let named = [
        ("dagger", StageName::Dagger),
        ("reward", StageName::Reward),
        ("dpo", StageName::Dpo),
        ("ppo", StageName::Ppo),
    ];
    let found: Vec<_> = named.iter().filter(|(name, _)| sections.iter().any(|section| section == name)).collect();
    match found.as_slice() {
        _ if sections.iter().any(|section| section == "experiment") => {
            let message = format!("{} is an experiment's configuration", args.config.display());
            Err(Error::usage(message, "validate the stages that it leaves in its output directory, or run it"))
        }
        [] => Ok(StageName::Sft),
        [(_, stage)] => Ok(*stage),
        _ => {
            let message = format!("{} has sections of several stages", args.config.display());
            Err(Error::usage(message, "say which is meant with --stage"))
        }
    }
}

/// What the command needs to know of a stage.
trait Validated: StageConfig {
    /// What its rows become.
    type Row: Encode + Encoded + Shown;

    /// How they are encoded.
    fn options(&self) -> EncodeOptions;

    /// Tokens that are added to a row before it is as long as it gets.
    fn grows(&self) -> usize {
        0
    }

    /// Other models: the key, the path, whether it must be a reward model.
    fn models(&self) -> Vec<(&'static str, &str, Option<bool>)> {
        Vec::new()
    }

    /// A program that is to be started: the key, its name.
    fn program(&self) -> Option<(&'static str, &str)> {
        None
    }

    /// Whether all logits of a row's targets are held at once.
    fn has_logits(&self) -> bool {
        true
    }
}

impl Validated for SftConfig {
    type Row = Sequence;

    fn options(&self) -> EncodeOptions {
        EncodeOptions::of(&self.data)
    }
}

impl Validated for DaggerConfig {
    type Row = Prompt;

    fn options(&self) -> EncodeOptions {
        EncodeOptions::prompts(&self.data, self.dagger.max_new_tokens)
    }

    fn grows(&self) -> usize {
        self.dagger.max_new_tokens
    }

    fn program(&self) -> Option<(&'static str, &str)> {
        Some(("dagger.expert_command", self.dagger.expert_command.as_ref()?.first()?))
    }

    fn models(&self) -> Vec<(&'static str, &str, Option<bool>)> {
        self.dagger.teacher.iter().map(|path| ("dagger.teacher", path.as_str(), Some(false))).collect()
    }
}

impl Validated for RewardConfig {
    type Row = Pair;

    fn options(&self) -> EncodeOptions {
        EncodeOptions::of(&self.data)
    }

    fn has_logits(&self) -> bool {
        false
    }
}

impl Validated for DpoConfig {
    type Row = Pair;

    fn options(&self) -> EncodeOptions {
        EncodeOptions::of(&self.data)
    }

    fn models(&self) -> Vec<(&'static str, &str, Option<bool>)> {
        self.model.reference.iter().map(|path| ("model.reference", path.as_str(), Some(false))).collect()
    }
}

impl Validated for PpoConfig {
    type Row = Prompt;

    fn options(&self) -> EncodeOptions {
        EncodeOptions::prompts(&self.data, self.ppo.max_new_tokens)
    }

    fn grows(&self) -> usize {
        self.ppo.max_new_tokens
    }

    fn program(&self) -> Option<(&'static str, &str)> {
        Some(("ppo.reward_command", self.ppo.reward_command.as_ref()?.first()?))
    }

    fn models(&self) -> Vec<(&'static str, &str, Option<bool>)> {
        let reference = ("model.reference", &self.model.reference, Some(false));
        let reward = ("ppo.reward_model", &self.ppo.reward_model, Some(true));
        let value = ("ppo.value_model", &self.ppo.value_model, None);
        let named = [reference, reward, value].into_iter();
        named.filter_map(|(key, path, reward)| Some((key, path.as_deref()?, reward))).collect()
    }
}

fn validate<C: Validated>(args: &ValidateArgs) -> Result<Value> {
    let config: C = config::load(&args.config, &args.overrides)?;
    check_columns::<C>(&config)?;
    check_program(&config)?;
    let model_dir = hub::resolve_model(&config.model.path)?;
    let tokenizer = set::open_tokenizer(&config.model, &config.data, &model_dir)?;
    let random = config.model.init == Init::Config;
    let model = match random {
        true => HfConfig::for_init(&model_dir, config.model.config.as_ref(), tokenizer.vocab_size())?,
        false => HfConfig::from_dir(&model_dir)?,
    };
    let dims = model.family.facts().dims;
    tokenizer.check_vocab(dims.vocab, &model_dir)?;
    let weights = if random { None } else { Some(check_files(&model_dir)?) };
    let mut models = vec![json!({
        "key": "model.path", "path": config.model.path, "model_type": model.spec().model_type, "parameters": weights,
        "vocab_size": dims.vocab, "context": dims.context, "tokenizer_vocab_size": tokenizer.vocab_size(),
    })];
    for (key, path, reward) in config.models() {
        models.push(other_model(key, path, reward, &tokenizer)?);
    }
    let data: Data<C::Row> = Data::load(&config.data, &tokenizer, &config.options(), |_| {})?;
    check_reward_reads(&config, &data)?;
    check_room(&config, &data, &[("model.path", &model)])?;
    let mut report = Map::new();
    report.insert("stage".into(), json!(C::STAGE));
    report.insert("models".into(), json!(models));
    for (key, set) in [("data.train", &data.train), ("data.eval", &data.eval)] {
        if set.is_empty() {
            continue;
        }
        let mut shapes = Vec::with_capacity(set.len());
        for row in set.iter() {
            shapes.push(row?.shape());
        }
        let sources: Vec<Value> = set.sources().iter().map(source).collect();
        let example = set.take(&[0])?[0].example(&tokenizer)?;
        let entry = json!({ "sources": sources, "lengths": show::lengths(&shapes), "example": example });
        if let (true, Some(weights)) = (key == "data.train", weights) {
            let vocab = if config.has_logits() { dims.vocab } else { 0 };
            report.insert("memory".into(), show::memory(&shapes, weights, vocab as u64, config.train.micro()));
        }
        report.insert(key.into(), entry);
    }
    Ok(Value::Object(report))
}

/// Rows that are too long for the model, with what is added to them.
fn check_room<C: Validated>(config: &C, data: &Data<C::Row>, models: &[(&str, &HfConfig)]) -> Result<()> {
    for (key, model) in models {
        let (most, new) = (model.family.facts().most_tokens, config.grows());
        if new == 0 {
            data.check_lengths(most, |row: &C::Row| row.shape().tokens)?;
            continue;
        }
        let mut longest = 0;
        for row in data.train.iter().chain(data.eval.iter()) {
            longest = longest.max(row?.shape().tokens + new);
        }
        if let Some(most) = most.filter(|most| longest as i64 > *most) {
            let message = format!("{key} holds {most} tokens; the longest prompt and {new} new ones are {longest}");
            let remedy = format!("lower data.max_length (prompts are cut) or {}.max_new_tokens", C::STAGE);
            return Err(Error::usage(message, remedy));
        }
    }
    Ok(())
}

/// A program that the shell would not find either.
fn check_program<C: Validated>(config: &C) -> Result<()> {
    let Some((key, program)) = config.program() else { return Ok(()) };
    let dirs = std::env::var_os("PATH").unwrap_or_default();
    let found = match program.contains('/') {
        true => Path::new(program).is_file(),
        false => std::env::split_paths(&dirs).any(|dir| dir.join(program).is_file()),
    };
    if found {
        return Ok(());
    }
    let message = format!("{key}: there is no program {program:?}");
    Err(Error::usage(message, "give the path of a program and its arguments as a list"))
}

/// Preference pairs are nobody's texts: the file's columns say when the wrong stage would read them.
fn check_columns<C: Validated>(config: &C) -> Result<()> {
    let Some(file) = config.data.train.files().first() else { return Ok(()) };
    let Some(first) = set::resolve(file)?.into_iter().next() else { return Ok(()) };
    let found = columns(&first)?;
    let has = |name: &str| found.iter().any(|column| column == name);
    if C::Row::WANTED == Wanted::Lm && has("chosen") && has("rejected") && !has("text") && !has("completion") {
        let message = format!("{} holds preference pairs, which sft does not read", first.display());
        return Err(Error::usage(message, "say --stage reward or --stage dpo, or add [reward] or [dpo] to the file"));
    }
    Ok(())
}

fn other_model(key: &str, path: &str, reward: Option<bool>, tokenizer: &Tokenizer) -> Result<Value> {
    let dir = hub::resolve_model(path)?;
    let config = HfConfig::from_dir(&dir)?;
    if reward.is_some_and(|wanted| wanted != config.is_reward()) {
        let message = if config.is_reward() { "is a reward model" } else { "is not a reward model" };
        return Err(Error::file(&dir, message, format!("name another model in {key}")));
    }
    let dims = config.family.facts().dims;
    let own = Tokenizer::from_dir(&dir)?;
    own.check_vocab(dims.vocab, &dir)?;
    let same = tokenizer.same_ids(&own);
    if reward != Some(true) && !same {
        let message = "has another tokenizer than the model that is trained";
        return Err(Error::file(&dir, message, format!("name a model with the same tokenizer.json in {key}")));
    }
    Ok(json!({
        "key": key, "path": path, "model_type": config.spec().model_type, "parameters": check_files(&dir)?,
        "vocab_size": dims.vocab, "context": dims.context, "same_tokenizer": same,
    }))
}

/// A reward model that has no chat template cannot read conversations.
fn check_reward_reads<C: Validated>(config: &C, data: &Data<C::Row>) -> Result<()> {
    if !data.train.take(&[0])?[0].is_conversation() {
        return Ok(());
    }
    for (key, path, _) in config.models().into_iter().filter(|(key, ..)| *key == "ppo.reward_model") {
        let dir = hub::resolve_model(path)?;
        if Tokenizer::from_dir(&dir)?.chat()?.is_none() {
            let message = format!("{key} has no chat template, and the prompts are conversations");
            return Err(Error::file(dir, message, "put chat_template.jinja beside its tokenizer.json"));
        }
    }
    Ok(())
}

fn source(source: &Source) -> Value {
    let report = &source.report;
    json!({
        "name": source.name, "rows": report.rows, "usable": report.usable(), "skipped": report.skipped,
        "tokens": report.tokens, "targets": report.targets, "truncated": report.truncated,
        "boundary_moved": report.boundary_moved, "boundary_example": report.boundary_example,
        "with_eos_target": report.with_eos_target,
    })
}

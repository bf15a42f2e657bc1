//! Runs a stage on synthetic rows: its own objective and batches in the one loop. Wiring only; owns no figures but their
//! gathering.
use super::args::{BenchArgs, Plan, StageArg};
use super::parts::{self, Record, Step, listen};
use super::rate::{Rate, Shapes};
use super::rows::Synthetic;
use super::work::{Costs, Load};
use crate::config::{DpoSection, PpoSection, TrainConfig};
use crate::data::{Data, Set, lm_batch, pair_batch};
use crate::error::Result;
use crate::model::{CausalLm, Critic, HfConfig, LoadOptions, Model, Pooling, RewardModel};
use crate::rollout::episode::Players;
use crate::rollout::scorer::RewardScorer;
use crate::rollout::{GenerateOptions, Sampling, Scorer, generate};
use crate::stages::dpo;
use crate::stages::ppo::objective::PpoObjective;
use crate::stages::ppo::source::RolloutSource;
use crate::stages::reference;
use crate::stages::reward::{self, RewardObjective};
use crate::stages::sft::{self, SftObjective};
use crate::train::{AdamW, Artifact, BatchSource, Job, Objective, train};
use crate::{hub, seed};
use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::time::Instant;
use tch::Tensor;

/// Where a model comes from.
pub struct Weights {
    dir: PathBuf,
    /// Its configuration.
    pub config: HfConfig,
    random: bool,
    seed: u64,
    /// How it is put into memory.
    pub options: LoadOptions,
}

impl Weights {
    /// Looks at the model that `args` name; reads its configuration only.
    ///
    /// # Errors
    /// No such model or device.
    pub fn locate(args: &BenchArgs) -> Result<Self> {
        let dir = hub::resolve_model(&args.model)?;
        let config = HfConfig::from_dir(&dir)?;
        Ok(Weights { dir, config, random: args.random, seed: args.seed, options: args.load_options()? })
    }

    fn causal(&self, options: &LoadOptions) -> Result<CausalLm> {
        match self.random {
            true => CausalLm::from_config(self.config.clone(), self.seed, options),
            false => CausalLm::from_pretrained(&self.dir, options),
        }
    }

    /// A reward model as it is, or a new one on a language model.
    fn reward(&self, options: &LoadOptions) -> Result<RewardModel> {
        let pooling = Pooling::Last;
        match (self.random, self.config.is_reward()) {
            (true, _) => RewardModel::from_config(self.config.clone(), self.seed, pooling, false, options),
            (false, true) => RewardModel::from_pretrained(&self.dir, options),
            (false, false) => RewardModel::from_causal(&self.dir, self.seed, pooling, false, options),
        }
    }
}

/// What was found out about a plan.
#[derive(Debug)]
pub struct Measured {
    /// Values of the model that is trained or samples.
    pub parameters: usize,
    /// What a step is made of; of decoding, [`Load::decoding`].
    pub load: Load,
    /// The least operations of a step.
    pub operations: f64,
    /// Operations a second of products alone, each time they were measured.
    pub rates: Vec<f64>,
    /// The steps that count.
    pub steps: Vec<Step>,
    /// Seconds from the start of the process to the first step's beginning.
    pub start_seconds: f64,
}

/// What a stage says of itself once it has run.
struct Outline {
    parameters: usize,
    load: Load,
    operations: f64,
    rates: Vec<f64>,
}

/// Runs `plan`; `run` is an empty directory for what the loop and the tokenizer write.
///
/// # Errors
/// Weights that cannot be opened; memory is short.
pub fn measure(plan: &Plan, weights: &Weights, run: &Path) -> Result<Measured> {
    let rows = Synthetic::new(plan, weights.config.family.facts().dims.vocab);
    let train = TrainConfig {
        steps: Some(plan.all_steps() as u64),
        batch_size: plan.batch,
        micro_batch_size: Some(plan.micro.into()),
        seed: plan.seed,
        // The rate of products is measured as an evaluation is made.
        eval_every: Some(1),
        ..TrainConfig::default()
    };
    let bench = Bench { plan, weights, run, rows, train };
    let (outline, mut record) = listen(weights.options.device, || match plan.stage {
        StageArg::Sft => bench.sft(),
        StageArg::Reward => bench.reward(),
        StageArg::Dpo => bench.dpo(),
        StageArg::Ppo => bench.ppo(),
        StageArg::Generate => bench.generate(),
    });
    let Outline { parameters, load, operations, rates } = outline?;
    share_out(&mut record, plan);
    let steps = record.steps.split_off(record.steps.len() - plan.steps);
    Ok(Measured { parameters, load, operations, rates, steps, start_seconds: record.start_seconds })
}

/// What was done before the first step, for all of them (dpo's reference), is part of each by its rows. Its first pass
/// does not count, as the first step does not.
fn share_out(record: &mut Record, plan: &Plan) {
    let Some((_, counted)) = record.apart.split_first() else { return };
    let rows = plan.batch * plan.all_steps() - plan.micro;
    for step in &mut record.steps {
        for (name, seconds) in counted {
            let share = seconds * plan.batch as f64 / rows as f64;
            step.seconds += share;
            *step.parts.entry(name).or_default() += share;
        }
    }
}

struct Bench<'a> {
    plan: &'a Plan,
    weights: &'a Weights,
    run: &'a Path,
    rows: Synthetic<'a>,
    train: TrainConfig,
}

impl Bench<'_> {
    fn sft(&self) -> Result<Outline> {
        let model = self.weights.causal(&self.weights.options)?;
        let rows = self.rows.sequences();
        let step = lm_batch(&rows[..self.plan.batch].iter().collect::<Vec<_>>());
        let load = Load::of(&step.flat, step.targets.len());
        let rows = Set::from(rows);
        let source = sft::source(&rows, &self.train, 0.0);
        let rates = self.trained(&SftObjective { model: &model }, source, model.params().iter(), &load)?;
        Ok(outline(&model, load, |costs| 3.0 * costs.forward(&load), rates))
    }

    fn reward(&self) -> Result<Outline> {
        let model = self.weights.reward(&self.weights.options)?;
        let rows = self.rows.pairs();
        let step = pair_batch(&rows[..self.plan.batch].iter().collect::<Vec<_>>());
        let load = Load::of(&step.flat, step.ends.len());
        let rows = Set::from(rows);
        let objective = RewardObjective { model: &model, centering: 0.0 };
        let rates = self.trained(&objective, reward::source(&rows, &self.train), model.params().iter(), &load)?;
        Ok(outline(&model, load, |costs| 3.0 * costs.backbone(&load), rates))
    }

    fn dpo(&self) -> Result<Outline> {
        let model = self.weights.causal(&self.weights.options)?;
        let rows = self.rows.pairs();
        let step = pair_batch(&rows[..self.plan.batch].iter().collect::<Vec<_>>());
        let load = Load::of(&step.flat, step.targets.len());
        let data = Data { train: Set::from(rows), eval: Set::from(Vec::new()) };
        let values = reference::compute(&model, &data, self.plan.micro)?;
        let source = dpo::source(&data.train, &values, &self.train);
        let objective = DpoSection::default().objective(&model);
        let rates = self.trained(&objective, source, model.params().iter(), &load)?;
        Ok(outline(&model, load, |costs| (1.0 + 3.0) * costs.forward(&load), rates))
    }

    fn ppo(&self) -> Result<Outline> {
        let Plan { batch, micro, prompt, epochs, .. } = *self.plan;
        let new_tokens = self.plan.new_tokens();
        let policy = self.weights.causal(&self.weights.options)?;
        let reference = policy.duplicate_frozen()?;
        let critic = Critic::zero_head(policy.dims().hidden, policy.device())?;
        let tokenizer = || self.rows.tokenizer(self.run);
        let judge = self.weights.reward(&self.weights.options.frozen())?;
        let scorer = RewardScorer::new(&self.weights.dir, judge, tokenizer()?, micro);
        let scorer: RefCell<Box<dyn Scorer>> = RefCell::new(Box::new(scorer));
        let settings = PpoSection { max_new_tokens: new_tokens, epochs: epochs as u64, ..PpoSection::default() };
        let sequences = self.rows.sequences();
        let step = lm_batch(&sequences[..batch].iter().collect::<Vec<_>>());
        let load = Load::of(&step.flat, step.targets.len());
        let (tokenizer, prompts) = (tokenizer()?, Set::from(self.rows.prompts()));
        let players = Players { policy: &policy, critic: &critic, reference: &reference, tokenizer: &tokenizer };
        let source = RolloutSource::new(players, &scorer, &prompts, &settings, &self.train);
        let objective = PpoObjective { policy: &policy, critic: &critic, settings: &settings };
        let critic = critic.named();
        let parameters = policy.params().iter().chain(critic.iter().map(|(name, tensor)| (name.as_str(), *tensor)));
        let rates = self.trained(&objective, source, parameters, &load)?;
        let sampled = Load::decoding(batch, prompt, new_tokens);
        let operations = |costs: &Costs| {
            // The reward model runs its backbone alone.
            let judged = costs.forward(&load) + costs.backbone(&load);
            costs.forward(&sampled) + judged + 3.0 * epochs as f64 * costs.forward(&load)
        };
        Ok(outline(&policy, load, operations, rates))
    }

    fn generate(&self) -> Result<Outline> {
        let Plan { batch, prompt, seed, .. } = *self.plan;
        let new_tokens = self.plan.new_tokens();
        let options = LoadOptions { mapped: true, ..self.weights.options.frozen() };
        let model = self.weights.causal(&options)?;
        let load = Load::decoding(batch, prompt, new_tokens);
        let costs = Costs::of(&model);
        let shapes = Shapes::decoding(batch, model.dims(), costs.token / 2.0, costs.target / 2.0);
        let rate = Rate::new(shapes, options.compute, options.device);
        let prompts: Vec<Vec<i64>> = self.rows.prompts().into_iter().map(|prompt| prompt.tokens).collect();
        for (step, prompts) in prompts.chunks(batch).enumerate() {
            let options = GenerateOptions {
                max_new_tokens: new_tokens,
                sampling: Sampling::default(),
                eos: None,
                seed: seed::derive(seed, "bench", &[step as u64]),
                batch_size: batch,
            };
            part!("step").in_scope(|| generate(&model, prompts, &options, |_| Ok(())))?;
            rate.measure()?;
        }
        Ok(outline(&model, load, |costs| costs.forward(&load), rate.measured()))
    }

    /// The one loop over all steps; what products alone were measured to reach after each of them.
    fn trained<'p, O: Objective>(
        &self,
        objective: &O,
        mut source: impl BatchSource<O::Batch>,
        parameters: impl Iterator<Item = (&'p str, &'p Tensor)>,
        load: &Load,
    ) -> Result<Vec<f64>> {
        let LoadOptions { compute, device, .. } = self.weights.options;
        let tokens = load.tokens * self.plan.micro / self.plan.batch;
        let rate = Rate::new(Shapes::step(tokens, self.weights.config.family.facts().dims), compute, device);
        train(Job {
            objective,
            source: &mut source,
            eval: Some(&rate),
            artifact: &Nothing,
            optimizer: AdamW::new(parameters, self.train.optim())?,
            config: &self.train,
            total_steps: self.plan.all_steps() as u64,
            run: self.run,
            resume_from: None,
            device,
            started: Instant::now(),
            best: None,
        })?;
        Ok(rate.measured())
    }
}

fn outline(model: &Model, load: Load, operations: impl Fn(&Costs) -> f64, rates: Vec<f64>) -> Outline {
    Outline { parameters: model.params().numel(), load, operations: operations(&Costs::of(model)), rates }
}

/// A run that is thrown away.
struct Nothing;

impl Artifact for Nothing {
    fn save(&self, _: &Path, _: bool) -> Result<()> {
        Ok(())
    }

    fn facts(&self) -> serde_json::Value {
        serde_json::Value::Null
    }
}

/// The names under which parts are shown, in the order of a step; those that are not named come last.
pub const ORDER: [&str; 8] =
    ["data", "generation", "reward", "reference", "forward", "backward", "optimizer", parts::OTHER];

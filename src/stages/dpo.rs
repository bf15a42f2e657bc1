//! Direct preference optimization: reference log-probs once, then the loss on pairs.
use super::card::{self, ModelArtifact};
use super::source::{RowSource, in_order, micro};
use super::{Parts, Session, Stage, memory, pair_length, reference};
use crate::config::{DpoConfig, DpoLoss, DpoSection, TrainConfig};
use crate::data::{Data, EncodeOptions, Pair, PairBatch, Set, pair_batch};
use crate::error::Result;
use crate::loss::dpo::{self, DpoSettings, Variant};
use crate::loss::logprobs;
use crate::model::CausalLm;
use crate::model::device;
use crate::rollout::forward::{index, target_logprobs};
use crate::train::{AdamW, Batch, LossOutput, Metric, Objective, Outcome};
use reference::Reference;
use serde_json::json;
use std::time::Instant;
use tch::{Kind, Tensor};

/// Pairs with their reference log-probs.
pub(crate) struct DpoBatch {
    pairs: PairBatch,
    /// Summed log-probs under the reference, chosen then rejected, [2P].
    reference: Vec<f64>,
}

impl DpoBatch {
    /// `values`: of each pair the reference's summed log-probs of chosen and rejected.
    fn new(pairs: &[&Pair], values: &[(f64, f64)]) -> Self {
        let reference = values.iter().map(|pair| pair.0).chain(values.iter().map(|pair| pair.1)).collect();
        Self { pairs: pair_batch(pairs), reference }
    }
}

impl Batch for DpoBatch {
    fn targets(&self) -> f64 {
        self.pairs.targets()
    }

    fn tokens(&self) -> u64 {
        self.pairs.tokens()
    }

    fn rows(&self) -> Vec<String> {
        self.pairs.rows()
    }
}

/// The DPO loss, summed over pairs.
pub(crate) struct DpoObjective<'a> {
    model: &'a CausalLm,
    settings: DpoSettings,
    /// Log-ratios are means over a completion's tokens (IPO as TRL has it).
    length_normalised: bool,
}

impl Objective for DpoObjective<'_> {
    type Batch = DpoBatch;

    fn loss(&self, batch: &DpoBatch) -> Result<LossOutput> {
        let (device, targets) = (self.model.device(), &batch.pairs.targets);
        let sequences = targets.sequences as i64;
        let pairs = sequences / 2;
        let sequence = index(&targets.sequence, device)?;
        let token_logps = target_logprobs(self.model, &batch.pairs.flat, targets, 1.0)?;
        let logps = logprobs::sum_by_sequence(&token_logps, &sequence, sequences)?;
        let ratios = logps.f_sub(&super::floats(&batch.reference, device)?)?;
        let scored = if self.length_normalised {
            let counts = logprobs::sum_by_sequence(&token_logps.detach().f_ones_like()?, &sequence, sequences)?;
            ratios.f_div(&counts.f_clamp_min(1.0)?)?
        } else {
            ratios.shallow_clone()
        };
        let margin = |values: &Tensor| -> Result<Tensor> {
            Ok(values.f_narrow(0, 0, pairs)?.f_sub(&values.f_narrow(0, pairs, pairs)?)?)
        };
        let preference = super::floats(&batch.pairs.preference, device)?;
        let losses = dpo::pair_losses(&margin(&scored)?, &preference, &self.settings)?;
        let rewards = ratios.detach().f_mul_scalar(self.settings.beta)?;
        let mut metrics = Vec::new();
        let halves = [("rewards/chosen", &rewards, 0), ("rewards/rejected", &rewards, pairs)];
        let logps = logps.detach();
        for (name, values, from) in
            halves.into_iter().chain([("logps/chosen", &logps, 0), ("logps/rejected", &logps, pairs)])
        {
            let sum = values.f_narrow(0, from, pairs)?.f_sum(Kind::Float)?;
            metrics.push((name, Metric::Mean { sum, weight: pairs as f64 }));
        }
        let gap = margin(&rewards)?;
        metrics.push(("rewards/margins", Metric::Mean { sum: gap.f_sum(Kind::Float)?, weight: pairs as f64 }));
        metrics.push(("rewards/accuracies", super::pair_accuracy(&gap, &batch.pairs.preference)?));
        Ok(LossOutput { sum: losses.f_sum(Kind::Float)?, metrics })
    }
}

/// Pairs with their reference log-probs (`values`, by the pair's number) as micro-batches, in the order of training.
pub(crate) fn source<'a>(
    rows: &'a Set<Pair>,
    values: &'a [(f64, f64)],
    train: &TrainConfig,
) -> RowSource<'a, Pair, DpoBatch> {
    RowSource::new(rows, train, Box::new(|numbers, pairs| collate(values, numbers, pairs)))
}

fn collate(values: &[(f64, f64)], numbers: &[usize], pairs: &[&Pair]) -> DpoBatch {
    DpoBatch::new(pairs, &numbers.iter().map(|&number| values[number]).collect::<Vec<_>>())
}

impl Stage for DpoConfig {
    fn run(&self, session: Session) -> Result<Outcome> {
        let tokenizer = &session.tokenizer;
        let started = Instant::now();
        let data: Data<Pair> = Data::load(&self.data, tokenizer, &EncodeOptions::of(&self.data), |_| {})?;
        let loading = Instant::now();
        let reference = Reference::locate(&self.model, &session, &data)?;
        let facts = json!({ "rows": data.fact()?, "reference": reference.fact() });
        let facts = session.facts(facts)?;
        let model = CausalLm::from_pretrained(session.weights_dir(), &session.options)?;
        data.check_lengths(model.most_tokens(), pair_length)?;
        let objective = self.dpo.objective(&model);
        let optimizer = AdamW::new(model.params().iter(), self.train.optim())?;
        // What the reference says of a pair takes no memory.
        let unjudged = |pairs: &[&Pair]| DpoBatch::new(pairs, &vec![(0.0, 0.0); pairs.len()]);
        let ladder = || memory::longest(&data.train, &self.train, unjudged);
        let fitted = session.fit(&self.train, &objective, optimizer, ladder)?;
        let train = &fitted.train;
        let started = started + loading.elapsed();

        let (resume_from, ids) = (session.resume_from.clone(), session.save_options(&self.train));
        let prepared = reference.prepare(&session, resume_from.is_none(), &data)?;
        let run = fitted.claim(session.run, &session.table)?;
        let values = reference.values(prepared, &model, &data, &run.path, train.micro())?;
        let (train_values, eval_values) = values.split_at(data.train.len());
        let source = source(&data.train, train_values, train);
        let eval = in_order(&data.eval, micro(train), |numbers, pairs| collate(eval_values, numbers, pairs))?;
        let artifact = ModelArtifact {
            save_model: Box::new(|dir, kind, _| model.save_pretrained(dir, kind, &ids)),
            tokenizer,
            final_kind: device::kind_of(self.train.save_dtype),
            card: card::text(self, "AutoModelForCausalLM", "A language model after direct preference optimization"),
            facts,
        };
        let parts = Parts { objective, source, eval, artifact, params: model.params(), device: model.device() };
        parts.train(train, &run, resume_from.as_deref(), started)
    }
}

impl DpoSection {
    /// The loss that the section asks for.
    pub(crate) fn objective<'a>(&self, model: &'a CausalLm) -> DpoObjective<'a> {
        let variant = match self.loss {
            DpoLoss::Sigmoid => Variant::Sigmoid,
            DpoLoss::Hinge => Variant::Hinge,
            DpoLoss::Ipo => Variant::Ipo,
            DpoLoss::Robust => Variant::Robust,
        };
        DpoObjective {
            model,
            settings: DpoSettings { variant, beta: self.beta, label_smoothing: self.label_smoothing },
            length_normalised: self.loss == DpoLoss::Ipo && self.ipo_length_normalised,
        }
    }
}

//! Supervised fine-tuning: behavioural cloning of completions or texts.
use super::card::{self, ModelArtifact};
use super::source::{RowSource, in_order, micro};
use super::{Parts, Session, Stage, memory};
use crate::config::{SftConfig, TrainConfig};
use crate::data::{Data, EncodeOptions, LmBatch, Sequence, Set, lm_batch};
use crate::error::Result;
use crate::loss::cross_entropy::{CrossEntropy, cross_entropy};
use crate::model::CausalLm;
use crate::model::device;
use crate::rollout::forward::{projection, target_hidden};
use crate::train::{AdamW, Batch, LossOutput, Metric, Objective, Outcome};
use serde_json::json;
use std::time::Instant;

/// A micro-batch of sequences and the dropout it is trained with.
pub(crate) struct SftBatch {
    rows: LmBatch,
    dropout: f64,
}

impl SftBatch {
    /// Rows that are trained with `dropout`.
    pub(crate) fn new(rows: LmBatch, dropout: f64) -> Self {
        Self { rows, dropout }
    }

    /// What it holds.
    pub(crate) fn sequences(&self) -> &LmBatch {
        &self.rows
    }
}

impl Batch for SftBatch {
    fn targets(&self) -> f64 {
        self.rows.targets.len() as f64
    }

    fn tokens(&self) -> u64 {
        self.rows.flat.row_tokens() as u64
    }

    fn rows(&self) -> Vec<String> {
        self.rows.ids.iter().map(ToString::to_string).collect()
    }
}

/// Cross-entropy over target tokens.
pub(crate) struct SftObjective<'a> {
    /// The model that is trained.
    pub model: &'a CausalLm,
}

impl Objective for SftObjective<'_> {
    type Batch = SftBatch;

    fn loss(&self, batch: &SftBatch) -> Result<LossOutput> {
        let (hidden, targets) = target_hidden(self.model, &batch.rows.flat, &batch.rows.targets, batch.dropout)?;
        let CrossEntropy { sum, entropy, correct } = cross_entropy(&hidden, projection(self.model), &targets)?;
        let weight = batch.targets();
        let entropy = Metric::Mean { sum: entropy, weight };
        let accuracy = Metric::Mean { sum: correct, weight };
        Ok(LossOutput { sum, metrics: vec![("entropy", entropy), ("mean_token_accuracy", accuracy)] })
    }
}

/// Sequences as micro-batches that are trained with `dropout`, in the order of training.
pub(crate) fn source<'a>(
    rows: &'a Set<Sequence>,
    train: &TrainConfig,
    dropout: f64,
) -> RowSource<'a, Sequence, SftBatch> {
    RowSource::new(rows, train, Box::new(move |_, rows| collate(rows, dropout)))
}

fn collate(rows: &[&Sequence], dropout: f64) -> SftBatch {
    SftBatch::new(lm_batch(rows), dropout)
}

impl Stage for SftConfig {
    fn run(&self, session: Session) -> Result<Outcome> {
        let tokenizer = &session.tokenizer;
        let started = Instant::now();
        let data: Data<Sequence> = Data::load(&self.data, tokenizer, &EncodeOptions::of(&self.data), |_| {})?;
        let loading = Instant::now();
        let model = session.open_policy(&self.model, self.train.seed)?;
        data.check_lengths(model.most_tokens(), |row| row.tokens.len())?;
        let (objective, dropout) = (SftObjective { model: &model }, self.model.dropout);
        let optimizer = AdamW::new(model.params().iter(), self.train.optim())?;
        let ladder = || memory::longest(&data.train, &self.train, move |rows| collate(rows, dropout));
        let fitted = session.fit(&self.train, &objective, optimizer, ladder)?;
        let train = &fitted.train;
        let started = started + loading.elapsed();

        let source = source(&data.train, train, dropout);
        let eval = in_order(&data.eval, micro(train), |_, rows| collate(rows, 0.0))?;
        let ids = session.save_options(&self.train);
        let artifact = ModelArtifact {
            save_model: Box::new(|dir, kind, _| model.save_pretrained(dir, kind, &ids)),
            tokenizer,
            final_kind: device::kind_of(self.train.save_dtype),
            card: card::text(self, "AutoModelForCausalLM", "A language model after supervised fine-tuning"),
            facts: session.facts(json!({ "rows": data.fact()? }))?,
        };
        let run = fitted.claim(session.run, &session.table)?;
        let resume_from = session.resume_from.as_deref();
        let parts = Parts { objective, source, eval, artifact, params: model.params(), device: model.device() };
        parts.train(train, &run, resume_from, started)
    }
}

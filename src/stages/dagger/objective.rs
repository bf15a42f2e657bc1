//! What a round of DAgger minimises: SFT's cross-entropy to the expert's actions, or a divergence from its distribution.
use super::data::Lesson;
use crate::config::{DaggerSection, ImitationLoss};
use crate::data::{LmBatch, Sequence, lm_batch};
use crate::error::Result;
use crate::loss::distill::{Distilled, Divergence, Expert, distill};
use crate::model::{CausalLm, upload};
use crate::rollout::forward::{projection, target_hidden};
use crate::stages::sft::{SftBatch, SftObjective};
use crate::train::{Batch, LossOutput, Metric, Objective};

/// Lessons as a micro-batch: SFT's, whose targets are the expert's actions.
pub struct DaggerBatch {
    sft: SftBatch,
    /// Ids and log p of the kept actions, K of each target.
    kept: Option<(Vec<i64>, Vec<f32>)>,
}

impl DaggerBatch {
    /// The labels of every visited state, whoever acted there.
    pub fn new(lessons: &[&Lesson]) -> Self {
        let sequences: Vec<Sequence> = lessons.iter().map(|lesson| lesson.rollout.sequence()).collect();
        let mut rows: LmBatch = lm_batch(&sequences.iter().collect::<Vec<_>>());
        rows.targets.tokens = lessons.iter().flat_map(|lesson| &lesson.labels).copied().collect();
        let mut kept = (Vec::new(), Vec::new());
        for known in lessons.iter().filter_map(|lesson| lesson.kept.as_ref()) {
            kept.0.extend(&known.ids);
            kept.1.extend(&known.logprobs);
        }
        let kept = (!kept.0.is_empty()).then_some(kept);
        DaggerBatch { sft: SftBatch::new(rows, 0.0), kept }
    }
}

impl Batch for DaggerBatch {
    fn targets(&self) -> f64 {
        self.sft.targets()
    }

    fn tokens(&self) -> u64 {
        self.sft.tokens()
    }

    fn rows(&self) -> Vec<String> {
        self.sft.rows()
    }
}

/// The loss by name, as the configuration has it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Imitation {
    /// SFT's, of single labels.
    CrossEntropy,
    /// Of distributions.
    Divergence(Divergence),
}

impl DaggerSection {
    /// What is minimised.
    pub(super) fn imitation(&self) -> Imitation {
        Imitation::Divergence(match self.loss() {
            ImitationLoss::CrossEntropy => return Imitation::CrossEntropy,
            ImitationLoss::ForwardKl => Divergence::ForwardKl,
            ImitationLoss::ReverseKl => Divergence::ReverseKl,
            ImitationLoss::JensenShannon => Divergence::JensenShannon { weight: self.js_weight },
        })
    }
}

/// SFT's objective, or a divergence in its place.
pub struct DaggerObjective<'a> {
    /// The model that is trained.
    pub student: &'a CausalLm,
    /// The expert's model, which whole distributions come from.
    pub teacher: Option<&'a CausalLm>,
    /// What is minimised.
    pub imitation: Imitation,
    /// What logits are divided by in a divergence.
    pub temperature: f64,
}

impl Objective for DaggerObjective<'_> {
    type Batch = DaggerBatch;

    fn loss(&self, batch: &DaggerBatch) -> Result<LossOutput> {
        let Imitation::Divergence(which) = self.imitation else {
            return SftObjective { model: self.student }.loss(&batch.sft);
        };
        let rows = batch.sft.sequences();
        let (hidden, _) = target_hidden(self.student, &rows.flat, &rows.targets, 0.0)?;
        let head = projection(self.student);
        let against = |expert: &Expert<'_>| distill(&hidden, head, expert, self.temperature, which);
        let Distilled { sum, entropy, correct } = match (&batch.kept, self.teacher) {
            (Some((ids, logprobs)), _) => {
                let shape = [rows.targets.len() as i64, -1];
                let ids = upload(ids, hidden.device())?.f_view(shape)?;
                let logprobs = upload(logprobs, hidden.device())?.f_view(shape)?;
                against(&Expert::Kept { ids: &ids, logprobs: &logprobs })?
            }
            (None, Some(teacher)) => {
                let states = {
                    let _guard = tch::no_grad_guard();
                    target_hidden(teacher, &rows.flat, &rows.targets, 0.0)?.0
                };
                against(&Expert::Model { hidden: &states, head: projection(teacher) })?
            }
            (None, None) => unreachable!("a distribution is a model's"),
        };
        let weight = batch.targets();
        let metrics = vec![
            ("entropy", Metric::Mean { sum: entropy, weight }),
            ("mean_token_accuracy", Metric::Mean { sum: correct, weight }),
        ];
        Ok(LossOutput { sum, metrics })
    }
}

//! Flat batches through a model: logits of targets, log-probs and rewards of sequences. Imports model, loss and data.
use crate::data::LmBatch;
use crate::data::{Actions, Flat, Targets};
use crate::error::Result;
use crate::loss::kl;
use crate::loss::logprobs::{self, HeadFigures, Projection};
use crate::model::{CausalLm, Critic, ModelInput, Pooling, RewardModel, upload};
use tch::{Device, Tensor};

/// Positions whose logits are there at once.
const KL_ROWS: i64 = 256;

/// What a policy and its critic say of a batch's completion tokens, M of them.
pub struct Judged {
    /// log pi of each token [M], nats, at the temperature, with entropy.
    pub tokens: HeadFigures,
    /// Values [M] of the states that the tokens were chosen in.
    pub values: Tensor,
}

/// One forward pass of policy and critic over completions that were sampled at `temperature`.
pub fn judge(policy: &CausalLm, critic: &Critic, batch: &LmBatch, temperature: f64) -> Result<Judged> {
    let device = policy.device();
    let input = model_input(&batch.flat, device)?;
    let rows = index(&batch.targets.hidden, device)?;
    let at = policy.states_at(&input, &rows, None)?;
    let targets = index(&batch.targets.tokens, device)?;
    let tokens = logprobs::of_targets(&at, projection(policy), &targets, temperature, true)?;
    let values = critic.values(&at, &input, &rows)?;
    Ok(Judged { tokens, values })
}

/// A model's head, for the losses.
pub fn projection(model: &CausalLm) -> Projection<'_> {
    Projection { weight: model.head_weight(), compute: model.compute() }
}

/// Hidden states [M, D] that a batch's targets are predicted from, and the target ids [M].
pub fn target_hidden(model: &CausalLm, flat: &Flat, targets: &Targets, dropout: f64) -> Result<(Tensor, Tensor)> {
    let input = model_input(flat, model.device())?.with_dropout(dropout);
    let hidden = model.states_at(&input, &index(&targets.hidden, model.device())?, None)?;
    Ok((hidden, index(&targets.tokens, model.device())?))
}

/// log pi of a batch's targets [M] float32, nats, logits divided by `temperature`; the head runs on those rows only.
pub fn target_logprobs(model: &CausalLm, flat: &Flat, targets: &Targets, temperature: f64) -> Result<Tensor> {
    let (hidden, ids) = target_hidden(model, flat, targets, 0.0)?;
    Ok(logprobs::of_targets(&hidden, projection(model), &ids, temperature, false)?.logprobs)
}

/// Full-vocabulary KL(policy || reference) [M] float32, nats, after their hidden states [M, D], logits divided by
/// `temperature`; in chunks of rows.
pub fn exact_kl(ours: (&CausalLm, &Tensor), theirs: (&CausalLm, &Tensor), temperature: f64) -> Result<Tensor> {
    let mut parts = Vec::new();
    for (p, q) in ours.1.f_split(KL_ROWS, 0)?.iter().zip(theirs.1.f_split(KL_ROWS, 0)?) {
        let logits = |model: &CausalLm, hidden: &Tensor| -> Result<Tensor> {
            Ok(model.logits(hidden)?.f_div_scalar(temperature)?)
        };
        parts.push(kl::exact(&logits(ours.0, p)?, &logits(theirs.0, &q)?)?);
    }
    Ok(Tensor::f_cat(&parts, 0)?)
}

/// Summed log-probs [S] float32 of a batch's sequences, in nats.
pub fn sequence_logprobs(model: &CausalLm, flat: &Flat, targets: &Targets) -> Result<Tensor> {
    let values = target_logprobs(model, flat, targets, 1.0)?;
    let sequence = index(&targets.sequence, model.device())?;
    logprobs::sum_by_sequence(&values, &sequence, targets.sequences as i64)
}

/// Rewards [S] float32 without the model's bias: at `ends` [S], or summed over `actions`, as the model pools.
pub fn sequence_rewards(model: &RewardModel, flat: &Flat, ends: &[i64], actions: &Actions) -> Result<Tensor> {
    match model.pooling() {
        Pooling::Last => scores_at(model, flat, ends),
        Pooling::Sum => {
            let values = action_scores(model, flat, actions)?;
            let sequence = index(&actions.sequence, model.device())?;
            logprobs::sum_by_sequence(&values, &sequence, actions.sequences as i64)
        }
    }
}

/// Scores [M] float32 of the completions' tokens, r(s, a) of a model that sums them; without its bias.
///
/// # Errors
/// [`crate::Error::Torch`] when memory is short.
pub fn action_scores(model: &RewardModel, flat: &Flat, actions: &Actions) -> Result<Tensor> {
    scores_at(model, flat, &actions.indices)
}

/// Scores [n] of n of a batch's tokens.
fn scores_at(model: &RewardModel, flat: &Flat, rows: &[i64]) -> Result<Tensor> {
    let input = model_input(flat, model.device())?;
    model.scores(&model.states_at(&input, &index(rows, model.device())?, None)?)
}

/// A flat batch on the model's device.
pub fn model_input(flat: &Flat, device: Device) -> Result<ModelInput> {
    ModelInput::new(&flat.tokens, &flat.positions, &flat.rows, device)
}

/// Ids or indices as an int64 tensor on `device`.
pub fn index(values: &[i64], device: Device) -> Result<Tensor> {
    upload(values, device)
}

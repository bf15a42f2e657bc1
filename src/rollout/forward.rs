//! Flat batches through a model: logits of targets, log-probs and rewards of sequences. Imports model, loss and data.
use crate::data::LmBatch;
use crate::data::{Actions, Flat, Targets};
use crate::error::Result;
use crate::loss::logprobs;
use crate::model::{CausalLm, Critic, ModelInput, Pooling, RewardModel};
use tch::{Device, Tensor};

/// What a policy and its critic say of a batch's completion tokens, M of them.
pub struct Judged {
    /// Logits [M, V] float32, divided by the temperature.
    pub logits: Tensor,
    /// log pi of each token [M], nats.
    pub logprobs: Tensor,
    /// Values [M] of the states that the tokens were chosen in.
    pub values: Tensor,
}

/// One forward pass of policy and critic over completions that were sampled at `temperature`.
pub fn judge(policy: &CausalLm, critic: &Critic, batch: &LmBatch, temperature: f64) -> Result<Judged> {
    let device = policy.device();
    let input = model_input(&batch.flat, device)?;
    let rows = index(&batch.targets.hidden, device)?;
    let hidden = policy.hidden_states(&input, None)?;
    let at = Tensor::f_embedding(&hidden, &rows, -1, false, false)?;
    let logits = policy.logits(&at)?;
    let logits = if temperature == 1.0 { logits } else { logits.f_div_scalar(temperature)? };
    let logprobs = logprobs::token_logprobs(&logits, &index(&batch.targets.tokens, device)?)?;
    let values = critic.values(&at, &input, &rows)?;
    Ok(Judged { logits, logprobs, values })
}

/// Logits [M, V] float32 of a batch's targets, and the target ids [M]; the head runs on those rows only.
pub fn target_logits(model: &CausalLm, flat: &Flat, targets: &Targets, dropout: f64) -> Result<(Tensor, Tensor)> {
    let input = model_input(flat, model.device())?.with_dropout(dropout);
    let hidden = model.hidden_states(&input, None)?;
    let logits = model.logits(&gather_rows(&hidden, &targets.hidden)?)?;
    Ok((logits, index(&targets.tokens, model.device())?))
}

/// Summed log-probs [S] float32 of a batch's sequences, in nats.
pub fn sequence_logprobs(model: &CausalLm, flat: &Flat, targets: &Targets) -> Result<Tensor> {
    let (logits, ids) = target_logits(model, flat, targets, 0.0)?;
    let values = logprobs::token_logprobs(&logits, &ids)?;
    let sequence = index(&targets.sequence, model.device())?;
    logprobs::sum_by_sequence(&values, &sequence, targets.sequences as i64)
}

/// Rewards [S] float32 without the model's bias: at `ends` [S], or summed over `actions`, as the model pools.
pub fn sequence_rewards(model: &RewardModel, flat: &Flat, ends: &[i64], actions: &Actions) -> Result<Tensor> {
    let input = model_input(flat, model.device())?;
    let hidden = model.hidden_states(&input, None)?;
    match model.pooling() {
        Pooling::Last => model.scores(&gather_rows(&hidden, ends)?),
        Pooling::Sum => {
            let values = model.scores(&gather_rows(&hidden, &actions.indices)?)?;
            let sequence = index(&actions.sequence, model.device())?;
            logprobs::sum_by_sequence(&values, &sequence, actions.sequences as i64)
        }
    }
}

/// A flat batch on the model's device.
pub fn model_input(flat: &Flat, device: Device) -> Result<ModelInput> {
    ModelInput::new(&flat.tokens, &flat.positions, &flat.rows, device)
}

/// Rows of `hidden` [N, D] at `rows` -> [M, D]; `embedding`'s backward is far cheaper than `index_select`'s.
pub fn gather_rows(hidden: &Tensor, rows: &[i64]) -> Result<Tensor> {
    Ok(Tensor::f_embedding(hidden, &index(rows, hidden.device())?, -1, false, false)?)
}

/// Ids or indices as an int64 tensor on `device`.
pub fn index(values: &[i64], device: Device) -> Result<Tensor> {
    Ok(Tensor::f_from_slice(values)?.f_to_device(device)?)
}

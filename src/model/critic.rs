//! Values of states for PPO: a head on the policy's backbone, or a network of its own. Owns their tensors and their file.
use std::path::Path;

use tch::{Device, Kind, Tensor};

use super::head::ScoreHead;
use super::input::ModelInput;
use super::reward::RewardModel;
use crate::error::{Error, Result};
use crate::tensors;

/// The critic's file, beside the policy and never inside it.
const VALUE_HEAD_FILE: &str = "value_head.safetensors";

/// Estimates what a state (a prefix) will earn.
pub enum Critic {
    /// `w h + b` on the hidden states of the policy's own backbone, all zero at first.
    Head {
        /// `[1, D]`.
        weight: Tensor,
        /// `[1]`.
        bias: Tensor,
    },
    /// A reward model's body and head, which start where that model stands.
    Network(Box<RewardModel>),
}

impl Critic {
    /// A head of zeros for hidden states of width `hidden`.
    ///
    /// # Errors
    /// [`Error::Torch`] when memory is short.
    pub fn zero_head(hidden: i64, device: Device) -> Result<Self> {
        let zeros = |shape: &[i64]| -> Result<Tensor> {
            Ok(Tensor::f_zeros(shape, (Kind::Float, device))?.set_requires_grad(true))
        };
        Ok(Critic::Head { weight: zeros(&[1, hidden])?, bias: zeros(&[1])? })
    }

    /// Values `[M]` float32 of the states whose last tokens stand at flat indices `rows [M]` of `input`;
    /// `policy_hidden [M, D]` are the policy's own hidden states there.
    ///
    /// # Errors
    /// [`Error::Torch`] when memory is short.
    pub fn values(&self, policy_hidden: &Tensor, input: &ModelInput, rows: &Tensor) -> Result<Tensor> {
        match self {
            Critic::Head { weight, bias } => head_values((weight, bias), policy_hidden),
            Critic::Network(model) => Self::network_values(model, input, rows),
        }
    }

    /// What [`Critic::values`] is for a network.
    ///
    /// # Errors
    /// [`Error::Torch`] when memory is short.
    pub fn network_values(model: &RewardModel, input: &ModelInput, rows: &Tensor) -> Result<Tensor> {
        Ok(model.scores(&model.states_at(input, rows, None)?)?.f_add_scalar(model.bias())?)
    }

    /// Values `[M]` float32 of states by the policy's hidden states `[M, D]`, where those are all that the critic looks at.
    ///
    /// # Errors
    /// [`Error::Torch`] when memory is short.
    pub fn values_of_hidden(&self, policy_hidden: &Tensor) -> Result<Option<Tensor>> {
        match self {
            Critic::Head { weight, bias } => Ok(Some(head_values((weight, bias), policy_hidden)?)),
            Critic::Network(_) => Ok(None),
        }
    }

    /// Names and tensors, names apart from any policy's.
    pub fn named(&self) -> Vec<(String, &Tensor)> {
        match self {
            Critic::Head { weight, bias } => {
                vec![("value_head.weight".into(), weight), ("value_head.bias".into(), bias)]
            }
            Critic::Network(model) => {
                model.params().iter().map(|(name, tensor)| (format!("value_model.{name}"), tensor)).collect()
            }
        }
    }

    /// Writes `value_head.safetensors` into `dir`, float32.
    ///
    /// # Errors
    /// [`Error::Io`] where writing fails.
    pub fn save(&self, dir: &Path) -> Result<()> {
        let named = self.named();
        let all = named.iter().map(|(name, tensor)| (name.as_str(), *tensor));
        tensors::write(&dir.join(VALUE_HEAD_FILE), all, Some(Kind::Float), tensors::pt_metadata())
    }

    /// Takes over what [`Critic::save`] wrote into `dir`: every tensor in its shape, and no other.
    ///
    /// # Errors
    /// [`Error::Tensor`] naming one that does not fit.
    pub fn restore(&self, dir: &Path) -> Result<()> {
        let _guard = tch::no_grad_guard();
        let path = dir.join(VALUE_HEAD_FILE);
        let remedy = "the checkpoint has another kind of critic; start a new run";
        let (mut saved, _) = tensors::read(&path, self.device())?;
        for (name, tensor) in self.named() {
            let found = saved.shift_remove(&name).ok_or_else(|| Error::tensor(&path, &name, "is missing", remedy))?;
            if found.size() != tensor.size() {
                let message = format!("has shape {:?}, the critic needs {:?}", found.size(), tensor.size());
                return Err(Error::tensor(&path, &name, message, remedy));
            }
            tensor.detach().f_copy_(&found)?;
        }
        match saved.keys().next() {
            Some(name) => Err(Error::tensor(&path, name, "belongs to no tensor of the critic", remedy)),
            None => Ok(()),
        }
    }

    fn device(&self) -> Device {
        match self {
            Critic::Head { weight, .. } => weight.device(),
            Critic::Network(model) => model.device(),
        }
    }
}

fn head_values((weight, bias): (&Tensor, &Tensor), hidden: &Tensor) -> Result<Tensor> {
    Ok(ScoreHead::new(weight.shallow_clone()).scores(hidden)?.f_add(bias)?)
}

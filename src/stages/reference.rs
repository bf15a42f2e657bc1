//! Reference log-probs of DPO: computed once, stored with a fingerprint of (model, data, encoding), then the reference
//! leaves memory.
use super::{Session, pair_length};
use crate::config::ModelConfig;
use crate::data::{Data, Pair, pair_batch};
use crate::durable::hex;
use crate::error::{Error, Result};
use crate::model::fingerprint::fingerprint;
use crate::model::{CausalLm, LoadOptions};
use crate::rollout::forward::sequence_logprobs;
use crate::tokenizer::Tokenizer;
use crate::train::progress::Progress;
use crate::train::signals;
use crate::{hub, tensors};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use tch::{Device, Tensor};

const FILE: &str = "reference_logprobs.safetensors";

/// Which model the reference is, and the fingerprint of what it is asked.
pub struct Reference {
    name: String,
    dir: PathBuf,
    /// The reference is the policy's own starting weights.
    is_start: bool,
    /// Of the model alone.
    model_fingerprint: String,
    /// Of model, data and encoding.
    fingerprint: String,
    options: LoadOptions,
}

/// Where reference log-probs come from, found before anything is written.
pub enum Prepared {
    /// The run directory holds them.
    Values(Vec<(f64, f64)>),
    /// The policy is the reference as long as it was not trained.
    Policy,
    /// The reference.
    Model(Box<CausalLm>),
}

impl Reference {
    /// The configured reference, else the starting model; `data` goes into the fingerprint.
    pub fn locate(model: &ModelConfig, session: &Session, data: &Data<Pair>) -> Result<Self> {
        let (name, dir) = match &model.reference {
            Some(path) => (path.clone(), hub::resolve_model(path)?),
            None => (model.path.clone(), session.model_dir.clone()),
        };
        let model_fingerprint = fingerprint(&dir)?;
        let mut hash = Sha256::new();
        hash.update(model_fingerprint);
        hash.update(format!("{:?}", session.options.compute));
        hash.update(data.fingerprint()?);
        let options = session.options.frozen();
        let is_start = model.reference.is_none();
        let (model_fingerprint, fingerprint) = (hex(&model_fingerprint), hex(&hash.finalize()));
        Ok(Self { name, dir, is_start, model_fingerprint, fingerprint, options })
    }

    /// What resume must know: the original reference, never the checkpoint.
    pub fn fact(&self) -> serde_json::Value {
        serde_json::json!({ "path": self.name, "fingerprint": self.model_fingerprint })
    }

    /// What the log-probs will come from: values in the run directory whose fingerprint agrees, else the starting policy
    /// (`at_start`: it still has its starting weights), else the reference, opened. Writes nothing.
    ///
    /// # Errors
    /// A reference that cannot be opened, has another vocabulary than the policy, or is too short for the rows.
    pub fn prepare(&self, session: &Session, at_start: bool, data: &Data<Pair>) -> Result<Prepared> {
        if let Some(values) = self.stored(&session.run.path.join(FILE), data.train.len() + data.eval.len())? {
            return Ok(Prepared::Values(values));
        }
        if at_start && self.is_start {
            return Ok(Prepared::Policy);
        }
        let model = CausalLm::from_pretrained(&self.dir, &self.options)?;
        session.tokenizer.check_vocab(model.dims().vocab, &self.dir)?;
        if !self.is_start && !session.tokenizer.same_ids(&Tokenizer::from_dir(&self.dir)?) {
            let remedy = "name a model.reference with the same tokenizer.json as model.path";
            return Err(Error::file(&self.dir, "has another tokenizer than the model that is trained", remedy));
        }
        data.check_lengths(model.most_tokens(), pair_length)?;
        Ok(Prepared::Model(Box::new(model)))
    }

    /// The reference's summed log-probs of every pair's completions, training pairs first; computed ones are stored in
    /// `run`. The reference then leaves memory.
    pub fn values(
        &self,
        prepared: Prepared,
        policy: &CausalLm,
        data: &Data<Pair>,
        run: &Path,
        micro: usize,
    ) -> Result<Vec<(f64, f64)>> {
        let computed = |model: &CausalLm| {
            let values = compute(model, data, micro)?;
            self.store(&run.join(FILE), &values)?;
            Ok(values)
        };
        match prepared {
            Prepared::Values(values) => Ok(values),
            Prepared::Policy => computed(policy),
            Prepared::Model(model) => computed(&model),
        }
    }

    fn stored(&self, path: &Path, count: usize) -> Result<Option<Vec<(f64, f64)>>> {
        if !path.exists() {
            return Ok(None);
        }
        let (mut tensors, metadata) = match tensors::read(path, Device::Cpu) {
            Ok(read) => read,
            Err(error) => {
                tracing::warn!("computing reference log-probs anew: {error}");
                return Ok(None);
            }
        };
        let (Some(chosen), Some(rejected)) = (tensors.shift_remove("chosen"), tensors.shift_remove("rejected")) else {
            return Ok(None);
        };
        if metadata.get("fingerprint") != Some(&self.fingerprint) || chosen.size() != [count as i64] {
            tracing::info!("{} belongs to other data or another model; computing it anew", path.display());
            return Ok(None);
        }
        let (chosen, rejected) = (Vec::<f64>::try_from(chosen)?, Vec::<f64>::try_from(rejected)?);
        Ok(Some(chosen.into_iter().zip(rejected).collect()))
    }

    fn store(&self, path: &Path, values: &[(f64, f64)]) -> Result<()> {
        let chosen = Tensor::from_slice(&values.iter().map(|v| v.0).collect::<Vec<_>>());
        let rejected = Tensor::from_slice(&values.iter().map(|v| v.1).collect::<Vec<_>>());
        let temporary = crate::durable::temporary_name(path);
        let metadata = HashMap::from([("fingerprint".to_owned(), self.fingerprint.clone())]);
        tensors::write(&temporary, [("chosen", &chosen), ("rejected", &rejected)], None, metadata)?;
        std::fs::rename(&temporary, path).map_err(Error::io(path, "rename into place"))
    }
}

/// log ref(chosen | prompt) and log ref(rejected | prompt) of every pair, nats; training pairs first.
pub(crate) fn compute(model: &CausalLm, data: &Data<Pair>, micro: usize) -> Result<Vec<(f64, f64)>> {
    let _guard = tch::no_grad_guard();
    let count = data.train.len() + data.eval.len();
    let mut progress = Progress::new("reference", count as u64, 0);
    let mut values = Vec::with_capacity(count);
    for set in [&data.train, &data.eval] {
        for numbers in (0..set.len()).collect::<Vec<_>>().chunks(micro) {
            signals::check(0)?;
            let _part = part!("reference").entered();
            let pairs = set.take(numbers)?;
            let batch = pair_batch(&pairs.iter().map(AsRef::as_ref).collect::<Vec<_>>());
            let logps = Vec::<f32>::try_from(sequence_logprobs(model, &batch.flat, &batch.targets)?)?;
            let (chosen, rejected) = logps.split_at(pairs.len());
            values.extend(chosen.iter().zip(rejected).map(|(&c, &r)| (f64::from(c), f64::from(r))));
            progress.set(values.len() as u64, "");
        }
    }
    Ok(values)
}

//! AdamW with state in named tensors, and clipping that returns the norm. Imports `ffi` and named tensors.
//!
//! tch's own optimizers cannot save their state and its clipping returns nothing.
use crate::config::OptimConfig;
use crate::error::{Error, Result};
use crate::ffi;
use crate::tensors::TensorMap;
use std::path::Path;
use tch::{Kind, Tensor};

/// One parameter with its moments.
struct Slot {
    name: String,
    parameter: Tensor,
    /// exp_avg and exp_avg_sq; none before the first step, when their memory serves the first backward pass.
    moments: Option<[Tensor; 2]>,
    step: Tensor,
    decays: bool,
}

impl Slot {
    /// Moments before the first step.
    fn zeros(&self) -> Result<[Tensor; 2]> {
        let zeros = || self.parameter.detach().f_zeros_like();
        Ok([zeros()?, zeros()?])
    }
}

/// Decoupled weight decay Adam (Loshchilov and Hutter 2019), fused in libtorch; moments float32.
pub struct AdamW {
    slots: Vec<Slot>,
    config: OptimConfig,
    /// What the next step divides gradients by: [`AdamW::clip`] leaves it.
    divisor: Option<Tensor>,
}

impl AdamW {
    /// An optimizer over `parameters` (float32 masters); weight decay is for tensors of two or more dimensions only,
    /// so norms and biases are exempt.
    pub fn new<'a>(parameters: impl IntoIterator<Item = (&'a str, &'a Tensor)>, config: OptimConfig) -> Result<Self> {
        let mut slots = Vec::new();
        for (name, parameter) in parameters {
            slots.push(Slot {
                name: name.to_owned(),
                moments: None,
                step: Tensor::f_zeros([], (Kind::Float, parameter.device()))?,
                decays: parameter.dim() >= 2,
                parameter: parameter.shallow_clone(),
            });
        }
        Ok(Self { slots, config, divisor: None })
    }

    /// Takes all gradients away. The backward pass then keeps the buffers that it makes instead of adding them to zeros, and
    /// the forward pass has their memory.
    ///
    /// # Errors
    /// [`Error::Shim`] where libtorch refuses.
    pub fn zero_grad(&mut self) -> Result<()> {
        let parameters: Vec<&Tensor> = self.slots.iter().map(|slot| &slot.parameter).collect();
        ffi::drop_grads(&parameters)
    }

    /// The 2-norm over all gradients, as a scalar tensor. Where it is larger than `max_grad_norm`, the next step scales them
    /// down to that, as `torch.nn.utils.clip_grad_norm_` does.
    ///
    /// # Errors
    /// [`Error::Shim`] where there is no gradient at all.
    pub fn clip(&mut self) -> Result<Tensor> {
        let _guard = tch::no_grad_guard();
        let mut grads = Vec::with_capacity(self.slots.len());
        for slot in &self.slots {
            let grad = slot.parameter.f_grad()?;
            if grad.defined() {
                grads.push(grad);
            }
        }
        let norm = ffi::global_norm(&grads.iter().collect::<Vec<_>>())?;
        let excess = norm.f_add_scalar(1e-6)?.f_div_scalar(self.config.max_grad_norm)?;
        self.divisor = Some(excess.f_clamp_min(1.0)?);
        Ok(norm)
    }

    /// Forgets what was learnt of the gradients: as before the first step.
    ///
    /// # Errors
    /// [`Error::Torch`] when memory is short.
    pub fn reset(&mut self) -> Result<()> {
        for slot in &mut self.slots {
            slot.moments = None;
            slot.step = slot.step.f_zeros_like()?;
        }
        Ok(())
    }

    /// Bytes that gradients take; each of the two moments takes as many.
    pub fn gradient_bytes(&self) -> u64 {
        let values: usize = self.slots.iter().map(|slot| slot.parameter.numel()).sum();
        Kind::Float.elt_size_in_bytes() as u64 * values as u64
    }

    /// Makes the moments that are still missing; the first step does so by itself.
    ///
    /// # Errors
    /// [`Error::Torch`] when memory is short.
    pub fn allocate(&mut self) -> Result<()> {
        let _guard = tch::no_grad_guard();
        for slot in &mut self.slots {
            if slot.moments.is_none() {
                slot.moments = Some(slot.zeros()?);
            }
        }
        Ok(())
    }

    /// One update with the gradients as they stand; parameters without a gradient stay, as in PyTorch.
    ///
    /// # Errors
    /// [`Error::Torch`] when memory is short.
    pub fn step(&mut self, learning_rate: f64) -> Result<()> {
        let _guard = tch::no_grad_guard();
        let divisor = self.divisor.take();
        self.allocate()?;
        for decays in [true, false] {
            let mut grads = Vec::new();
            let mut slots = Vec::new();
            for slot in self.slots.iter().filter(|slot| slot.decays == decays) {
                let grad = slot.parameter.f_grad()?;
                if grad.defined() {
                    grads.push(grad);
                    slots.push(slot);
                }
            }
            let numbers = ffi::AdamW {
                lr: learning_rate,
                beta1: self.config.beta1,
                beta2: self.config.beta2,
                weight_decay: if decays { self.config.weight_decay } else { 0.0 },
                eps: self.config.epsilon,
            };
            let grads: Vec<&Tensor> = grads.iter().collect();
            let params: Vec<&Tensor> = slots.iter().map(|slot| &slot.parameter).collect();
            let steps: Vec<&Tensor> = slots.iter().map(|slot| &slot.step).collect();
            let moments = |which: usize| slots.iter().flat_map(move |slot| &slot.moments).map(move |both| &both[which]);
            let (first, second): (Vec<&Tensor>, Vec<&Tensor>) = (moments(0).collect(), moments(1).collect());
            ffi::fused_adamw(&params, &grads, &first, &second, &steps, divisor.as_ref(), numbers)?;
        }
        Ok(())
    }

    /// Moments and step counts by name: `<parameter>.exp_avg`, `.exp_avg_sq`, `.step`.
    ///
    /// # Errors
    /// [`Error::Torch`] when memory is short.
    pub fn state(&self) -> Result<TensorMap> {
        let mut state = TensorMap::new();
        for slot in &self.slots {
            let [first, second] = match &slot.moments {
                Some(moments) => moments.each_ref().map(Tensor::shallow_clone),
                None => slot.zeros()?,
            };
            state.insert(format!("{}.exp_avg", slot.name), first);
            state.insert(format!("{}.exp_avg_sq", slot.name), second);
            state.insert(format!("{}.step", slot.name), slot.step.shallow_clone());
        }
        Ok(state)
    }

    /// Takes moments from `state`, read from `file`: every tensor must be there in its shape, and no other.
    pub fn restore(&mut self, mut state: TensorMap, file: &Path) -> Result<()> {
        let remedy = "the checkpoint belongs to another model; start a new run";
        let _guard = tch::no_grad_guard();
        self.allocate()?;
        for slot in &mut self.slots {
            let [first, second] = slot.moments.as_mut().expect("moments were made");
            for (part, target) in [("exp_avg", first), ("exp_avg_sq", second), ("step", &mut slot.step)] {
                let name = format!("{}.{part}", slot.name);
                let source =
                    state.shift_remove(&name).ok_or_else(|| Error::tensor(file, &name, "is missing", remedy))?;
                if source.size() != target.size() {
                    let message = format!("has shape {:?}, the model needs {:?}", source.size(), target.size());
                    return Err(Error::tensor(file, &name, message, remedy));
                }
                target.f_copy_(&source)?;
            }
        }
        match state.keys().next() {
            Some(name) => Err(Error::tensor(file, name, "belongs to no parameter", remedy)),
            None => Ok(()),
        }
    }
}

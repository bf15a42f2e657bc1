//! Rotary position embedding (Su et al. 2021), in the half-split layout that transformers uses, and the ways to stretch
//! it over longer contexts. Owns its keys in config.json.
use serde_json::{Map, Value};
use tch::{Device, Kind, Tensor};

use super::input::ModelInput;
use super::keys::Keys;
use super::linear::cast;
use crate::error::Result;

/// How positions become angles.
#[derive(Debug, Clone, PartialEq)]
pub struct RopeConfig {
    theta: f64,
    /// Values of a head that turn, from the first; the rest pass. Where odd, one more turns with them.
    dims: i64,
    scaling: Scaling,
}

/// transformers' `rope_type`.
#[derive(Debug, Clone, PartialEq)]
enum Scaling {
    None,
    /// Positions divided by `factor` (Chen et al. 2023).
    Linear {
        factor: f64,
    },
    /// A base that grows with the sequence once it is longer than `context` (NTK-aware, dynamic).
    Dynamic {
        factor: f64,
        context: f64,
    },
    /// Llama 3.1: low frequencies divided by `factor`, high ones kept, a ramp between.
    Llama3 {
        factor: f64,
        low: f64,
        high: f64,
        context: f64,
    },
}

impl RopeConfig {
    /// Reads `rope_parameters`, or of older files `rope_scaling` and `rope_theta`. `share`: the part of a head that
    /// turns where the keys do not say, and the key under which a family may say so at its top level.
    ///
    /// # Errors
    /// A `rope_type` that is not supported, a number that is missing or out of range.
    pub fn read(keys: &Keys, head_dim: i64, context: i64, share: (f64, &str), theta_key: &str) -> Result<Self> {
        let nested = Nested::new(keys)?;
        let theta = nested.number("rope_theta")?.map_or_else(|| keys.number(&[theta_key], 10_000.0), Ok)?;
        if theta <= 0.0 {
            return keys.fail(theta_key, format_args!("{theta} is not a positive number"));
        }
        let (default, share_key) = share;
        let share = nested.number("partial_rotary_factor")?.map_or_else(|| keys.number(&[share_key], default), Ok)?;
        let turning = (head_dim as f64 * share) as i64;
        if !(1..=head_dim).contains(&turning) {
            return keys.fail(share_key, format_args!("{turning} of a head's {head_dim} values cannot turn"));
        }
        if turning == head_dim && head_dim % 2 != 0 {
            return keys.fail("head_dim", format_args!("{head_dim} is odd, rotary embedding needs pairs"));
        }
        let scaling = nested.scaling(context)?;
        if turning <= 2 && matches!(scaling, Scaling::Dynamic { .. }) {
            return keys.fail("head_dim", "dynamic scaling needs more than one turning pair");
        }
        Ok(RopeConfig { theta, dims: turning, scaling })
    }

    /// How many positions a model of that context was made for: dynamic scaling stretches it by its factor.
    pub fn reach(&self, context: i64) -> i64 {
        match self.scaling {
            Scaling::Dynamic { factor, .. } => (context as f64 * factor) as i64,
            _ => context,
        }
    }

    /// Tokens up to which a token's angle does not depend on its sequence's length; none: any number.
    pub fn steady(&self) -> Option<i64> {
        match self.scaling {
            Scaling::Dynamic { context, .. } => Some(context as i64),
            _ => None,
        }
    }

    /// Whether all of a head turns.
    pub fn is_whole(&self, head_dim: i64) -> bool {
        self.dims == head_dim
    }
}

/// The object that holds the parameters, under its new or its old name.
struct Nested<'a> {
    keys: &'a Keys<'a>,
    name: &'static str,
    map: Option<&'a Map<String, Value>>,
}

impl<'a> Nested<'a> {
    fn new(keys: &'a Keys<'a>) -> Result<Self> {
        // transformers lets the old name win where both are there.
        for name in ["rope_scaling", "rope_parameters"] {
            let Some(value) = keys.get(&[name]) else { continue };
            let Some(map) = value.as_object() else {
                return keys.fail(name, format_args!("{value} is not an object"));
            };
            if let Some(key) = ["full_attention", "sliding_attention"].into_iter().find(|key| map.contains_key(*key)) {
                return keys.fail(name, format_args!("parameters of their own for layers of {key} are not supported"));
            }
            if map.is_empty() {
                continue;
            }
            return Ok(Nested { keys, name, map: Some(map) });
        }
        Ok(Nested { keys, name: "rope_parameters", map: None })
    }

    fn number(&self, name: &str) -> Result<Option<f64>> {
        let found = self.map.and_then(|map| map.get(name)).filter(|value| !value.is_null());
        let Some(value) = found else { return Ok(None) };
        match value.as_f64() {
            Some(number) if number.is_finite() && number > 0.0 => Ok(Some(number)),
            _ => self.keys.fail(self.name, format_args!("{name}: {value} is not a positive number")),
        }
    }

    fn needed(&self, name: &str) -> Result<f64> {
        self.number(name)?.map_or_else(|| self.keys.fail(self.name, format_args!("{name} is missing")), Ok)
    }

    fn scaling(&self, context: i64) -> Result<Scaling> {
        let kind = self.map.and_then(|map| map.get("rope_type").or_else(|| map.get("type")));
        Ok(match kind.map_or(Some("default"), Value::as_str) {
            Some("default") => Scaling::None,
            Some("linear") => Scaling::Linear { factor: self.needed("factor")? },
            Some("dynamic") => Scaling::Dynamic { factor: self.needed("factor")?, context: context as f64 },
            Some("llama3") => {
                let original = "original_max_position_embeddings";
                let here = self.number(original)?.unwrap_or(context as f64);
                let (low, high) = (self.needed("low_freq_factor")?, self.needed("high_freq_factor")?);
                if high <= low {
                    return self.keys.fail(self.name, "high_freq_factor must be above low_freq_factor");
                }
                // transformers lets the key at the top level win.
                let context = self.keys.number(&[original], here)?;
                Scaling::Llama3 { factor: self.needed("factor")?, low, high, context }
            }
            _ => {
                let kind = kind.unwrap_or(&Value::Null);
                let message = format_args!("rope_type {kind} is not supported (default, linear, dynamic, llama3 are)");
                return self.keys.fail(self.name, message);
            }
        })
    }
}

/// The inverse frequencies of one configuration, `[d/2]` for d turning values.
#[derive(Debug)]
pub struct Rope {
    config: RopeConfig,
    inverse_frequencies: Tensor,
}

/// Cosines and sines of one forward's positions, `[N, 1, d/2]` each, shared by all layers.
#[derive(Debug)]
pub struct Rotation {
    cos: Tensor,
    sin: Tensor,
    dims: i64,
}

impl Rope {
    /// # Errors
    /// [`crate::Error::Torch`] when memory is short.
    pub fn new(config: RopeConfig, device: Device) -> Result<Self> {
        let plain = inverse_frequencies(config.theta, config.dims)?;
        let inverse_frequencies = match config.scaling {
            Scaling::None | Scaling::Dynamic { .. } => plain,
            Scaling::Linear { factor } => plain.f_div_scalar(factor)?,
            Scaling::Llama3 { factor, low, high, context } => stretched(&plain, factor, (low, high), context)?,
        };
        Ok(Rope { config, inverse_frequencies: inverse_frequencies.f_to_device(device)? })
    }

    /// The angles' cosines and sines at each of the input's positions.
    ///
    /// # Errors
    /// [`crate::Error::Torch`] when memory is short.
    pub fn rotation(&self, input: &ModelInput) -> Result<Rotation> {
        let frequencies = self.frequencies(input)?;
        let angles = input.positions.f_to_kind(Kind::Float)?.f_unsqueeze(-1)?.f_mul(&frequencies)?;
        let angles = angles.f_unsqueeze(1)?;
        let dims = self.config.dims + self.config.dims % 2;
        Ok(Rotation { cos: angles.f_cos()?, sin: angles.f_sin()?, dims })
    }

    /// `[d/2]`, or `[N, d/2]` where they depend on the length of a token's sequence.
    ///
    /// transformers takes the longest sequence of the batch for all of it. Here each sequence has its own length (those
    /// that share a prompt their longest), so that a result does not depend on what else is in the batch.
    fn frequencies(&self, input: &ModelInput) -> Result<Tensor> {
        let plain = self.inverse_frequencies.shallow_clone();
        let Scaling::Dynamic { factor, context } = self.config.scaling else { return Ok(plain) };
        let spans = input.spans();
        let mut lengths = spans.to_vec();
        lengths.sort_unstable();
        lengths.dedup();
        if lengths.last().is_none_or(|&longest| longest as f64 <= context) {
            return Ok(plain);
        }
        let (dims, device) = (self.config.dims, plain.device());
        let of_length = |&length: &i64| -> Result<Tensor> {
            let growth = factor * (length as f64).max(context) / context - (factor - 1.0);
            let exponent = dims as f64 / (dims as f64 - 2.0);
            inverse_frequencies(self.config.theta * growth.powf(exponent), dims)
        };
        let table = Tensor::f_stack(&lengths.iter().map(of_length).collect::<Result<Vec<_>>>()?, 0)?;
        let table = table.f_to_device(device)?;
        let rows: Vec<i64> = spans.iter().map(|span| lengths.partition_point(|length| length < span) as i64).collect();
        Ok(table.f_index_select(0, &Tensor::f_from_slice(&rows)?.f_to_device(device)?)?)
    }
}

/// `theta^(-2i/d)`, in float32 and in transformers' order: at position 8,000 a last-bit difference shows. On the CPU,
/// whatever the model's device: a GPU's powers differ in the last bit.
fn inverse_frequencies(theta: f64, dims: i64) -> Result<Tensor> {
    let exponents = Tensor::f_arange_start_step(0, dims, 2, (Kind::Float, Device::Cpu))?.f_div_scalar(dims)?;
    Ok(Tensor::f_pow_scalar(theta, &exponents)?.f_reciprocal()?)
}

/// Llama 3.1's ramp between wavelengths of `context / high` (kept) and `context / low` (divided by `factor`).
fn stretched(plain: &Tensor, factor: f64, (low, high): (f64, f64), context: f64) -> Result<Tensor> {
    let wavelengths = plain.f_reciprocal()?.f_mul_scalar(std::f64::consts::TAU)?;
    let divided = plain.f_div_scalar(factor)?;
    let share = wavelengths.f_reciprocal()?.f_mul_scalar(context)?.f_sub_scalar(low)?.f_div_scalar(high - low)?;
    let ramp = divided.f_lerp_tensor(plain, &share)?;
    let slow = divided.f_where_self(&wavelengths.f_gt(context / low)?, &ramp)?;
    Ok(plain.f_where_self(&wavelengths.f_lt(context / high)?, &slow)?)
}

impl Rotation {
    /// Rotates `x [N, heads, D]`: of the first d values pairs `(x_i, x_{i+d/2})` turn by the token's angle i. The result
    /// has `x`'s kind.
    ///
    /// # Errors
    /// [`crate::Error::Torch`] when memory is short.
    pub fn apply(&self, x: &Tensor) -> Result<Tensor> {
        let (kind, width) = (x.kind(), x.size()[2]);
        let turning = cast(&x.f_narrow(-1, 0, self.dims)?, Kind::Float)?;
        let halves = turning.f_chunk(2, -1)?;
        let (a, b) = (&halves[0], &halves[1]);
        let first = cast(&a.f_mul(&self.cos)?.f_sub(&b.f_mul(&self.sin)?)?, kind)?;
        let second = cast(&b.f_mul(&self.cos)?.f_add(&a.f_mul(&self.sin)?)?, kind)?;
        if self.dims == width {
            return Ok(Tensor::f_cat(&[first, second], -1)?);
        }
        Ok(Tensor::f_cat(&[first, second, x.f_narrow(-1, self.dims, width - self.dims)?], -1)?)
    }
}

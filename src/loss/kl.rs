//! Kullback-Leibler divergences between next-token distributions. Pure; imports nothing of ours but `error`.
use crate::error::Result;
use tch::{Kind, Tensor};

/// Rows taken at once: bounds the float32 temporaries.
const ROWS: i64 = 128;

/// Full-vocabulary KL(pi || ref) at each position, in nats: `policy`, `reference` logits [M, V] -> [M] float32.
///
/// Summed over a completion's positions and averaged over samples of pi this is an unbiased estimate of the
/// sequence KL with far less variance than sums of log-ratios.
pub fn exact(policy: &Tensor, reference: &Tensor) -> Result<Tensor> {
    let mut parts = Vec::new();
    for (p, q) in policy.f_split(ROWS, 0)?.iter().zip(reference.f_split(ROWS, 0)?) {
        let p = p.f_log_softmax(-1, Kind::Float)?;
        let q = q.f_log_softmax(-1, Kind::Float)?;
        parts.push(p.f_exp()?.f_mul(&p.f_sub(&q)?)?.f_sum_dim_intlist([-1i64].as_slice(), false, Kind::Float)?);
    }
    Ok(Tensor::f_cat(&parts, 0)?)
}

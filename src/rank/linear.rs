//! Dense symmetric positive definite matrices in float64, by libtorch's LAPACK. Owns the passage to tensors and back.
use crate::error::{Error, Result};
use tch::Tensor;

/// The Cholesky factor of a matrix.
pub(super) struct Factor(Tensor);

impl Factor {
    /// Of `matrix [n, n]`, rows one after the other; None where rounding leaves it not positive definite.
    pub(super) fn of(matrix: &[f64], n: usize) -> Result<Option<Self>> {
        let side = i64::try_from(n).expect("a matrix that fits in memory");
        let (factor, info) = Tensor::from_slice(matrix).f_view([side, side])?.f_linalg_cholesky_ex(false, false)?;
        let whole = info.f_int64_value(&[])? == 0;
        Ok(whole.then_some(Self(factor)))
    }

    /// x with `matrix` x = `right [n]`.
    pub(super) fn solve(&self, right: &[f64]) -> Result<Vec<f64>> {
        let solved = Tensor::from_slice(right).f_unsqueeze(1)?.f_cholesky_solve(&self.0, false)?;
        numbers(&solved)
    }

    /// The inverse `[n, n]`, rows one after the other.
    pub(super) fn inverse(&self) -> Result<Vec<f64>> {
        numbers(&self.0.f_cholesky_inverse(false)?)
    }
}

fn numbers(tensor: &Tensor) -> Result<Vec<f64>> {
    Vec::try_from(tensor.f_contiguous()?.f_view([-1])?).map_err(Error::from)
}

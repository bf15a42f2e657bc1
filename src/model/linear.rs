//! One matrix product with an optional bias, in float32 or bfloat16. Owns nothing else; families never mention dtypes.
use std::cell::Cell;
use std::marker::PhantomData;

use tch::{Device, Kind, Tensor};

use super::params::{Builder, Init};
use crate::error::Result;
use crate::ffi;

thread_local! {
    static DECODING: Cell<u32> = const { Cell::new(0) };
}

/// While it lives, this thread's products of few rows take loops made for them: without a copy of the weight, and a row's
/// result is its own whatever the batch. They round unlike the products of all else, where a model with and one without
/// gradient agree to the bit.
// Not Send: it ends on the thread that it began on.
pub struct Decoding(PhantomData<*const ()>);

impl Decoding {
    /// Begins.
    pub fn begin() -> Self {
        DECODING.set(DECODING.get() + 1);
        Decoding(PhantomData)
    }
}

impl Drop for Decoding {
    fn drop(&mut self) {
        DECODING.set(DECODING.get() - 1);
    }
}

/// Whether large products run on the processor's matrix unit for bfloat16 (AMX), each float32 in three pieces.
pub fn on_matrix_unit(device: Device, compute: Kind) -> bool {
    !device.is_cuda() && compute == Kind::Float && ffi::splits()
}

/// How the weight is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// `torch.nn.Linear`: `[out, in]`.
    OutIn,
    /// transformers' `Conv1D` (GPT-2): `[in, out]`.
    InOut,
}

/// `y = x W + b`.
#[derive(Debug)]
pub struct Linear {
    weight: Tensor,
    bias: Option<Tensor>,
    layout: Layout,
    compute: Kind,
}

impl Linear {
    /// `compute` is the kind of the product: float32, or bfloat16 with the operands cast for it.
    pub fn new(weight: Tensor, bias: Option<Tensor>, layout: Layout, compute: Kind) -> Self {
        Linear { weight, bias, layout, compute }
    }

    /// Takes `name.weight` (`[out, in]`, or `[in, out]` for [`Layout::InOut`], as `shape` says) from N(0, std) and, where
    /// `bias`, `name.bias` from zeros.
    ///
    /// # Errors
    /// As [`Builder::take_matrix`].
    pub fn take(
        builder: &mut Builder,
        name: &str,
        layout: Layout,
        shape: [i64; 2],
        bias: bool,
        std: f64,
    ) -> Result<Self> {
        let weight = builder.take_matrix(&format!("{name}.weight"), &shape, Init::Normal { std })?;
        let out = match layout {
            Layout::OutIn => shape[0],
            Layout::InOut => shape[1],
        };
        let bias = match bias {
            true => Some(builder.take_matrix(&format!("{name}.bias"), &[out], Init::Zeros)?),
            false => None,
        };
        Ok(Linear::new(weight, bias, layout, builder.compute()))
    }

    /// Whether products are in float32.
    pub fn is_full_precision(&self) -> bool {
        self.compute == Kind::Float
    }

    /// Whether products of few rows take the loops of decoding now.
    pub fn decodes(&self) -> bool {
        self.is_full_precision() && DECODING.get() > 0
    }

    /// Weight, bias, and whether the weight is `[in, out]`.
    pub fn parts(&self) -> (&Tensor, Option<&Tensor>, bool) {
        (&self.weight, self.bias.as_ref(), self.layout == Layout::InOut)
    }

    /// `x [M, in]` to `[M, out]`, in the compute kind. Gradients reach the float32 masters through the casts.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        if self.decodes() {
            let (weight, bias, in_out) = self.parts();
            if let Some(y) = ffi::small_product(x, weight, bias, in_out)? {
                return Ok(y);
            }
        }
        if self.is_full_precision() && ffi::feeds(x) {
            let (weight, bias, in_out) = self.parts();
            return ffi::linear(x, weight, bias, in_out);
        }
        let x = cast(x, self.compute)?;
        let weight = cast(&self.weight, self.compute)?;
        let bias = self.bias.as_ref().map(|bias| cast(bias, self.compute)).transpose()?;
        Ok(match (self.layout, bias) {
            (Layout::OutIn, bias) => x.f_linear(&weight, bias)?,
            (Layout::InOut, Some(bias)) => bias.f_addmm(&x, &weight)?,
            (Layout::InOut, None) => x.f_matmul(&weight)?,
        })
    }
}

/// The tensor itself where it has the kind already, else a cast of it.
pub fn cast(tensor: &Tensor, kind: Kind) -> Result<Tensor> {
    Ok(if tensor.kind() == kind { tensor.shallow_clone() } else { tensor.f_to_kind(kind)? })
}

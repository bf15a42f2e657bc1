//! Numbers on their way from a device to the host (`readback.cpp`): nobody waits until they are asked for.
use std::ffi::{c_int, c_void};

use tch::Tensor;
use torch_sys::C_tensor;

use super::check;
use crate::error::Result;

unsafe extern "C" {
    fn collimate_readback_begin(numbers: *const C_tensor, out: *mut *mut c_void) -> c_int;
    fn collimate_readback_ready(readback: *mut c_void, out: *mut c_int) -> c_int;
    fn collimate_readback_values(readback: *mut c_void, out: *mut f64, count: usize) -> c_int;
    fn collimate_readback_release(readback: *mut c_void);
}

/// N numbers that are being copied.
#[derive(Debug)]
pub struct Readback<const N: usize>(*mut c_void);

impl<const N: usize> Readback<N> {
    /// Queues the copy of N scalars behind what computes them; of numbers on the CPU there is nothing to wait for.
    ///
    /// # Errors
    /// [`crate::Error::Torch`] or [`crate::Error::Shim`] where libtorch refuses.
    pub fn begin(scalars: [&Tensor; N]) -> Result<Self> {
        let numbers = Tensor::f_stack(&scalars.map(Tensor::detach), 0)?;
        let mut out = std::ptr::null_mut();
        // SAFETY: a valid handle; on success one new readback, which this owns.
        check(unsafe { collimate_readback_begin(numbers.as_ptr(), &mut out) })?;
        Ok(Readback(out))
    }

    /// Whether the numbers are there.
    ///
    /// # Errors
    /// [`crate::Error::Shim`] where the device failed.
    pub fn is_ready(&self) -> Result<bool> {
        let mut ready = 0;
        // SAFETY: made by `begin`, not released yet.
        check(unsafe { collimate_readback_ready(self.0, &mut ready) })?;
        Ok(ready != 0)
    }

    /// The numbers, waiting for them where they are not there yet.
    ///
    /// # Errors
    /// [`crate::Error::Shim`] where the device failed.
    pub fn values(self) -> Result<[f64; N]> {
        let mut values = [0.0; N];
        // SAFETY: made by `begin`, not released yet; room for N numbers.
        check(unsafe { collimate_readback_values(self.0, values.as_mut_ptr(), N) })?;
        Ok(values)
    }
}

impl<const N: usize> Drop for Readback<N> {
    fn drop(&mut self) {
        // SAFETY: made by `begin`, released once.
        unsafe { collimate_readback_release(self.0) }
    }
}

//! Activation checkpointing (`checkpoint.cpp`): a part of a graph that keeps its input alone and is run again for the gradient.
use std::ffi::{c_char, c_int, c_void};

use tch::Tensor;
use torch_sys::C_tensor;

use super::check;
use crate::error::{Result, caught};

type Part = Box<dyn Fn(&Tensor) -> Result<Tensor> + Send>;
type Run = extern "C" fn(*mut c_void, *const C_tensor, *mut *mut C_tensor) -> c_int;

unsafe extern "C" {
    fn collimate_generator_state(x: *const C_tensor, out: *mut *mut C_tensor) -> c_int;
    fn collimate_checkpoint(
        x: *const C_tensor,
        y: *const C_tensor,
        state: *const C_tensor,
        owner: *mut c_void,
        run: Run,
        release: extern "C" fn(*mut c_void),
        out: *mut *mut C_tensor,
    ) -> c_int;
    fn collimate_set_error(text: *const c_char, length: usize);
}

/// `part(x)`, of which the graph keeps `x` alone: the backward pass runs `part` again and adds the gradients inside it to
/// their leaves. The second run must compute what the first did; where `draws`, it draws from the generator of `x`'s device
/// what the first drew, and leaves the generator as it was. Where `x` needs no gradient this is `part(x)` and nothing else.
///
/// # Errors
/// What `part` says. Of the second run the message comes back from the backward pass, as libtorch's.
pub fn checkpoint<F>(x: &Tensor, draws: bool, part: F) -> Result<Tensor>
where
    F: Fn(&Tensor) -> Result<Tensor> + Send + 'static,
{
    if !x.requires_grad() {
        return part(x);
    }
    let state = if draws { Some(generator_state(x)?) } else { None };
    let y = {
        let _guard = tch::no_grad_guard();
        part(x)?
    };
    let part: Part = Box::new(part);
    let owner = Box::into_raw(Box::new(part)).cast();
    let state = state.as_ref().map_or(std::ptr::null(), Tensor::as_ptr);
    let mut out = std::ptr::null_mut();
    // SAFETY: valid handles that outlive the call. `owner` goes over to the shim, which calls `run` with it, from one thread at
    // a time (autograd's, which is another one on CUDA; the part is Send), and `release` once, after the last `run`.
    check(unsafe { collimate_checkpoint(x.as_ptr(), y.as_ptr(), state, owner, run, release, &mut out) })?;
    // SAFETY: one new handle, which the Tensor then owns.
    Ok(unsafe { Tensor::from_ptr(out) })
}

fn generator_state(x: &Tensor) -> Result<Tensor> {
    let mut out = std::ptr::null_mut();
    // SAFETY: a valid handle; on success one new handle, which the Tensor then owns.
    check(unsafe { collimate_generator_state(x.as_ptr(), &mut out) })?;
    Ok(unsafe { Tensor::from_ptr(out) })
}

/// What the backward pass calls. Neither an error nor a panic leaves it but as a message.
extern "C" fn run(owner: *mut c_void, x: *const C_tensor, out: *mut *mut C_tensor) -> c_int {
    // SAFETY: `owner` is the box that `checkpoint` made, alive until `release`.
    let part = unsafe { &*owner.cast::<Part>() };
    let run = || {
        // SAFETY: `x` is valid through the call; this makes a handle of its own.
        part(&unsafe { Tensor::clone_from_ptr(x.cast_mut()) })
    };
    let message = match caught(run) {
        Ok(Ok(mut y)) => {
            // SAFETY: `out` is the shim's; it takes the handle over, so that it is not freed here.
            unsafe { *out = y.as_mut_ptr() };
            std::mem::forget(y);
            return 0;
        }
        Ok(Err(error)) => error.to_string(),
        Err(panic) => panic,
    };
    // SAFETY: the shim copies so many bytes.
    unsafe { collimate_set_error(message.as_ptr().cast(), message.len()) };
    1
}

extern "C" fn release(owner: *mut c_void) {
    // SAFETY: made by `Box::into_raw` in `checkpoint`, released once.
    drop(unsafe { Box::from_raw(owner.cast::<Part>()) });
}

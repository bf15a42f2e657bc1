//! What tch lacks, through a C++ shim (`*.cpp`), and mapped files. Owns all unsafe code; imports nothing of ours but
//! errors.
//!
//! C++ exceptions never cross the boundary: they come back as [`Error::Shim`]. `memory.cpp` holds the CPU's tensors.
mod attention;
mod checkpoint;
mod decode;
mod feed;
mod head;
mod product;
mod readback;

use std::ffi::{CStr, c_char, c_int, c_void};
use std::fs::File;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use memmap2::{Mmap, UncheckedAdvice};
use tch::{Kind, Tensor};
use torch_sys::C_tensor;

pub use attention::{Group, Heads, RowPlan, Segment, attention};
pub use checkpoint::checkpoint;
pub use decode::{attend, decodes, draw, small_product};
pub use feed::{Activation, activated, feed, feeds};
pub use head::{HeadFigures, HeadPass, embedding, head, head_sum};
pub use product::{linear, splits};
pub use readback::Readback;

use crate::error::{Error, Result};

unsafe extern "C" {
    fn collimate_last_error() -> *const c_char;
    fn collimate_torch_version() -> *const c_char;
    fn collimate_full_float32() -> c_int;
    fn collimate_fused_adamw(
        params: *const *const C_tensor,
        grads: *const *const C_tensor,
        exp_avgs: *const *const C_tensor,
        exp_avg_sqs: *const *const C_tensor,
        steps: *const *const C_tensor,
        count: usize,
        divisor: *const C_tensor,
        lr: f64,
        beta1: f64,
        beta2: f64,
        weight_decay: f64,
        eps: f64,
    ) -> c_int;
    fn collimate_global_norm(tensors: *const *const C_tensor, count: usize, out: *mut *mut C_tensor) -> c_int;
    fn collimate_drop_grads(tensors: *const *const C_tensor, count: usize) -> c_int;
    fn collimate_view(
        data: *const c_void,
        sizes: *const i64,
        dims: usize,
        kind: c_int,
        owner: *mut c_void,
        release: extern "C" fn(*mut c_void),
        out: *mut *mut C_tensor,
    ) -> c_int;
    fn collimate_cuda_peak_bytes(device: c_int, reset: c_int, out: *mut i64) -> c_int;
    fn collimate_cuda_free_bytes(device: c_int, out: *mut i64) -> c_int;
    fn collimate_cpu_used_bytes() -> i64;
    fn collimate_cpu_peak_bytes(reset: c_int) -> i64;
    fn collimate_cpu_release();
}

/// The numbers of one AdamW update (Loshchilov and Hutter 2019, algorithm 2, as `torch.optim.AdamW` has it).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamW {
    /// Learning rate of this update.
    pub lr: f64,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Decoupled weight decay: the parameter shrinks by `lr * weight_decay`.
    pub weight_decay: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
}

/// One AdamW update in place, fused over all tensors (`at::_fused_adamw_`), on the CPU or CUDA.
///
/// `steps` holds one float32 number a parameter, the updates done so far (0 before the first); it is incremented here.
/// Parameters, gradients and moments must agree in shape and dtype. Gradients are first divided, in place, by `divisor`, one
/// float32 number on the tensors' device, where one is given.
///
/// # Errors
/// [`Error::Shim`] where a gradient is missing or shapes, dtypes or list lengths differ.
pub fn fused_adamw(
    params: &[&Tensor],
    grads: &[&Tensor],
    exp_avgs: &[&Tensor],
    exp_avg_sqs: &[&Tensor],
    steps: &[&Tensor],
    divisor: Option<&Tensor>,
    numbers: AdamW,
) -> Result<()> {
    let count = params.len();
    if [grads.len(), exp_avgs.len(), exp_avg_sqs.len(), steps.len()].iter().any(|&n| n != count) {
        return Err(Error::Shim("fused_adamw: the lists differ in length".into()));
    }
    if count == 0 {
        return Ok(());
    }
    let lists = [params, grads, exp_avgs, exp_avg_sqs, steps].map(pointers);
    let AdamW { lr, beta1, beta2, weight_decay, eps } = numbers;
    // SAFETY: five arrays of `count` pointers to tensors that outlive the call; the shim copies the handles.
    check(unsafe {
        collimate_fused_adamw(
            lists[0].as_ptr(),
            lists[1].as_ptr(),
            lists[2].as_ptr(),
            lists[3].as_ptr(),
            lists[4].as_ptr(),
            count,
            divisor.map_or(std::ptr::null(), Tensor::as_ptr),
            lr,
            beta1,
            beta2,
            weight_decay,
            eps,
        )
    })
}

/// The Euclidean norm over all elements of all tensors, a number on the tensors' device (nothing is read back).
///
/// # Errors
/// [`Error::Shim`] for an empty list or tensors on several devices.
pub fn global_norm(tensors: &[&Tensor]) -> Result<Tensor> {
    let list = pointers(tensors);
    let mut out = std::ptr::null_mut();
    // SAFETY: `list` holds valid handles; on success the shim hands over one new handle, which the Tensor then owns.
    check(unsafe { collimate_global_norm(list.as_ptr(), list.len(), &mut out) })?;
    Ok(unsafe { Tensor::from_ptr(out) })
}

/// Takes gradients away: their memory is free, and the next backward pass keeps the buffers that it makes.
///
/// # Errors
/// [`Error::Shim`] for a tensor that can have none.
pub fn drop_grads(leaves: &[&Tensor]) -> Result<()> {
    let list = pointers(leaves);
    // SAFETY: valid handles that outlive the call.
    check(unsafe { collimate_drop_grads(list.as_ptr(), list.len()) })
}

/// The most bytes that were allocated at once on CUDA device `device`; `reset` starts a new count.
///
/// # Errors
/// [`Error::Shim`] in a build without CUDA.
pub fn cuda_peak_bytes(device: usize, reset: bool) -> Result<u64> {
    let mut bytes = 0;
    let device = c_int::try_from(device).map_err(|_| Error::Shim(format!("no CUDA device {device}")))?;
    // SAFETY: `bytes` lives through the call.
    check(unsafe { collimate_cuda_peak_bytes(device, reset.into(), &mut bytes) })?;
    Ok(u64::try_from(bytes).unwrap_or(0))
}

/// The bytes that are free on CUDA device `device`, those included that libtorch keeps to give out again.
///
/// # Errors
/// [`Error::Shim`] in a build without CUDA.
pub fn cuda_free_bytes(device: usize) -> Result<u64> {
    let mut bytes = 0;
    let device = c_int::try_from(device).map_err(|_| Error::Shim(format!("no CUDA device {device}")))?;
    // SAFETY: `bytes` lives through the call.
    check(unsafe { collimate_cuda_free_bytes(device, &mut bytes) })?;
    Ok(u64::try_from(bytes).unwrap_or(0))
}

/// Bytes of CPU tensors of 256 KiB and more that exist now.
pub fn cpu_used_bytes() -> u64 {
    // SAFETY: reads a counter behind a lock.
    u64::try_from(unsafe { collimate_cpu_used_bytes() }).unwrap_or(0)
}

/// The most that [`cpu_used_bytes`] has been; `reset` starts a new count.
pub fn cpu_peak_bytes(reset: bool) -> u64 {
    // SAFETY: reads a counter behind a lock.
    u64::try_from(unsafe { collimate_cpu_peak_bytes(reset.into()) }).unwrap_or(0)
}

/// Gives pages of CPU tensors that are gone back to the system; else they are kept for new ones.
pub fn cpu_release() {
    // SAFETY: touches free pages only, behind a lock.
    unsafe { collimate_cpu_release() }
}

/// Keeps float32 matrix products on CUDA at float32's own precision (no TF32), which is libtorch's default but not where
/// the environment sets `TORCH_ALLOW_TF32_CUBLAS_OVERRIDE=1`, as NVIDIA's containers do. For the whole process.
///
/// # Errors
/// [`Error::Shim`] where libtorch refuses.
pub fn full_float32() -> Result<()> {
    // SAFETY: no arguments.
    check(unsafe { collimate_full_float32() })
}

/// The version of the libtorch whose headers this was compiled against.
pub fn torch_version() -> &'static str {
    // SAFETY: the shim returns a string literal.
    unsafe { CStr::from_ptr(collimate_torch_version()) }.to_str().unwrap_or("unknown")
}

/// Maps a file into memory for reading.
///
/// # Errors
/// [`Error::Io`] where it cannot be opened or mapped.
pub fn map_file(path: &Path) -> Result<Mmap> {
    let file = File::open(path).map_err(Error::io(path, "read"))?;
    // SAFETY: the map is only read, as bytes that are checked before use. Someone else truncating the file meanwhile
    // ends the process with SIGBUS; our own writers rename whole files into place and never truncate one.
    unsafe { Mmap::map(&file) }.map_err(Error::io(path, "read"))
}

/// A tensor on the CPU that reads `range` of a mapped file where it lies; the map lives as long as the tensor does. It
/// must not be written to: the map is read-only, and a write ends the process. None where the bytes do not start at a
/// multiple of an element's size, or the kind is none of float32, bfloat16 and float16.
///
/// # Errors
/// [`Error::Shim`] where `shape` does not fill `range`.
pub fn view(map: &Arc<Mmap>, range: Range<usize>, shape: &[i64], kind: Kind) -> Result<Option<Tensor>> {
    let Some(code) = scalar_type(kind) else { return Ok(None) };
    let (bytes, size) = (&map[range], kind.elt_size_in_bytes());
    if bytes.as_ptr().addr() % size != 0 {
        return Ok(None);
    }
    if shape.iter().product::<i64>() as usize * size != bytes.len() {
        return Err(Error::Shim(format!("a view of {} bytes as {shape:?} of {kind:?}", bytes.len())));
    }
    let owner = Arc::into_raw(map.clone()).cast_mut().cast();
    let mut out = std::ptr::null_mut();
    // SAFETY: the bytes lie in the map, which `owner` keeps; libtorch calls `release` once, when the storage goes.
    let code = unsafe {
        collimate_view(bytes.as_ptr().cast(), shape.as_ptr(), shape.len(), code, owner, release_map, &mut out)
    };
    check(code)?;
    // SAFETY: one new handle, which the Tensor then owns.
    Ok(Some(unsafe { Tensor::from_ptr(out) }))
}

extern "C" fn release_map(owner: *mut c_void) {
    // SAFETY: `owner` came from `Arc::into_raw` in `view`, once for each call of this.
    drop(unsafe { Arc::from_raw(owner.cast_const().cast::<Mmap>()) });
}

/// Says that `range` of a map is not needed for now: its pages no longer count as this process's memory.
pub fn release_pages(map: &Mmap, range: Range<usize>) {
    // SAFETY: the map is shared and read-only, so that a page that is read again comes back from the file.
    let advised = unsafe { map.unchecked_advise_range(UncheckedAdvice::DontNeed, range.start, range.len()) };
    if let Err(error) = advised {
        tracing::debug!("madvise: {error}");
    }
}

/// libtorch's ScalarType of the kinds that weights have.
fn scalar_type(kind: Kind) -> Option<c_int> {
    match kind {
        Kind::Half => Some(5),
        Kind::Float => Some(6),
        Kind::BFloat16 => Some(15),
        _ => None,
    }
}

fn pointers(tensors: &[&Tensor]) -> Vec<*const C_tensor> {
    tensors.iter().map(|tensor| tensor.as_ptr()).collect()
}

/// A tensor's handle, or null.
fn pointer(tensor: Option<&Tensor>) -> *const C_tensor {
    tensor.map_or(std::ptr::null(), Tensor::as_ptr)
}

fn check(code: c_int) -> Result<()> {
    if code == 0 {
        return Ok(());
    }
    // SAFETY: the shim returns a string of its own that lives until this thread's next failing call.
    let message = unsafe { CStr::from_ptr(collimate_last_error()) }.to_string_lossy();
    Err(Error::Shim(message.lines().next().unwrap_or_default().to_owned()))
}

//! Causal attention over a flat list of tokens on the CPU (`attention.cpp`). Owns the plan of rows.
use std::ffi::{c_int, c_void};
use std::sync::Arc;

use tch::Tensor;
use torch_sys::C_tensor;

use super::check;
use crate::error::Result;

unsafe extern "C" {
    fn collimate_plan(numbers: *const i64, count: usize, out: *mut *mut c_void) -> c_int;
    fn collimate_plan_free(plan: *mut c_void);
    fn collimate_attention(
        plan: *const c_void,
        first: *const C_tensor,
        k: *const C_tensor,
        v: *const C_tensor,
        heads: i64,
        kv_heads: i64,
        scale: f64,
        window: i64,
        out: *mut *mut C_tensor,
    ) -> c_int;
}

/// Tokens beside each other in the flat list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// Flat index of the first.
    pub start: i64,
    /// How many.
    pub length: i64,
    /// Whether this row is the first in which they stand: their output is taken from it.
    pub owned: bool,
}

/// Rows that are computed together, each a list of segments; none has more tokens than `width`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Tokens of the longest row.
    pub width: i64,
    /// The rows.
    pub rows: Vec<Vec<Segment>>,
}

/// Which tokens of a flat list attend to which, for all layers of a forward pass and its backward pass. Clones are the same
/// plan.
#[derive(Debug, Clone)]
pub struct RowPlan(Arc<Handle>);

#[derive(Debug)]
struct Handle(*mut c_void);

// SAFETY: the shim's plan does not change but for the masks that it keeps, behind a lock of its own.
unsafe impl Send for Handle {}
unsafe impl Sync for Handle {}

impl RowPlan {
    /// A plan of groups, which own every token once.
    ///
    /// # Errors
    /// [`crate::Error::Shim`] where a group has no rows.
    pub fn new(groups: &[Group]) -> Result<Self> {
        let mut numbers = Vec::new();
        for group in groups {
            numbers.extend([group.width, group.rows.len() as i64]);
            for row in &group.rows {
                numbers.push(row.len() as i64);
                numbers.extend(row.iter().flat_map(|s| [s.start, s.length, i64::from(s.owned)]));
            }
        }
        let mut out = std::ptr::null_mut();
        // SAFETY: the shim reads `numbers` and hands over one plan, freed in `drop`.
        check(unsafe { collimate_plan(numbers.as_ptr(), numbers.len(), &mut out) })?;
        Ok(RowPlan(Arc::new(Handle(out))))
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: made by `new`, freed once; graphs that are still to run backward hold the plan by a count of their own.
        unsafe { collimate_plan_free(self.0) }
    }
}

/// What a layer multiplies and sees.
#[derive(Debug, Clone, Copy)]
pub struct Heads {
    /// Query heads, H.
    pub heads: i64,
    /// Key/value heads, K; H is a multiple.
    pub kv_heads: i64,
    /// What scores are multiplied by.
    pub scale: f64,
    /// How many tokens a query sees, itself the last; none: all before it.
    pub window: Option<i64>,
}

/// Softmax attention `[N, H, d]` of `first [N, 3, H, d]` (queries, keys and values), or of queries `first [N, H, d]` and
/// `others`, keys and values `[N, K, d]`; float32 or bfloat16, on the CPU, with a gradient.
///
/// # Errors
/// [`crate::Error::Shim`] where libtorch refuses.
pub fn attention(plan: &RowPlan, first: &Tensor, others: Option<[&Tensor; 2]>, heads: Heads) -> Result<Tensor> {
    let [k, v] = others.map_or([std::ptr::null(); 2], |pair| pair.map(Tensor::as_ptr));
    let window = heads.window.unwrap_or(0);
    let mut out = std::ptr::null_mut();
    // SAFETY: valid handles that outlive the call; on success one new handle, which the Tensor then owns.
    let code = unsafe {
        collimate_attention(plan.0.0, first.as_ptr(), k, v, heads.heads, heads.kv_heads, heads.scale, window, &mut out)
    };
    check(code)?;
    Ok(unsafe { Tensor::from_ptr(out) })
}

//! Causal attention over the rows of a flat batch: on the CPU over the flat list itself; on CUDA, for decoding and with
//! dropout gather into a grid, one fused kernel, scatter back. Owns no weights.
//!
//! Shapes: N flat tokens, R rows, W the longest row, H query heads, K key/value heads (H a multiple of K), d a head's width.
use tch::{Device, Kind, Tensor};

use super::cache::KvCache;
use super::input::{Layout, ModelInput};
use crate::error::Result;
use crate::ffi::{self, Heads, RowPlan};

/// The head geometry of a layer and which keys a query sees.
#[derive(Debug, Clone, Copy)]
pub struct Attention {
    heads: i64,
    kv_heads: i64,
    head_dim: i64,
    /// The layer's number, from 0: its place in the cache.
    layer: usize,
    /// What scores are multiplied by; none: 1/sqrt(d).
    scale: Option<f64>,
    /// How many tokens a query sees, itself the last; none: all before it.
    window: Option<i64>,
}

impl Attention {
    /// `heads` query heads (H), `kv_heads` (K) key/value heads of width `head_dim` (d), in layer `layer` from 0.
    pub fn new(layer: i64, (heads, kv_heads, head_dim): (i64, i64, i64)) -> Self {
        Attention { heads, kv_heads, head_dim, layer: layer as usize, scale: None, window: None }
    }

    /// Scores are multiplied by `scale` instead of 1/sqrt(d).
    pub fn with_scale(self, scale: f64) -> Self {
        Attention { scale: Some(scale), ..self }
    }

    /// A query sees itself and the `window - 1` tokens before it (Beltagy et al. 2020).
    pub fn with_window(self, window: Option<i64>) -> Self {
        Attention { window, ..self }
    }

    /// Queries, keys and values in one tensor `[N, 3 * H * d]` (GPT-2; K = H), gathered at once. Gives `[N, H * d]`.
    pub fn packed(&self, qkv: Tensor, input: &ModelInput, cache: Option<&mut KvCache>) -> Result<Tensor> {
        if let Some(plan) = flat_plan(input, cache.as_deref()) {
            let qkv = qkv.f_view([-1, 3, self.heads, self.head_dim])?;
            return self.joined(&ffi::attention(plan, &qkv, None, self.geometry())?);
        }
        let grid = gather(qkv, input)?;
        let size = grid.size();
        let parts = grid.f_view([size[0], size[1], 3, self.heads, self.head_dim])?.f_unbind(2)?;
        self.attend(&parts[0], &parts[1], &parts[2], input, cache)
    }

    /// Queries `[N, H * d]`, keys and values `[N, K * d]`. Gives `[N, H * d]`.
    pub fn separate(&self, [q, k, v]: [Tensor; 3], input: &ModelInput, cache: Option<&mut KvCache>) -> Result<Tensor> {
        if let Some(plan) = flat_plan(input, cache.as_deref()) {
            let split = |x: &Tensor, heads: i64| x.f_view([-1, heads, self.head_dim]);
            let (q, k, v) = (split(&q, self.heads)?, split(&k, self.kv_heads)?, split(&v, self.kv_heads)?);
            return self.joined(&ffi::attention(plan, &q, Some([&k, &v]), self.geometry())?);
        }
        let split = |x: Tensor, heads: i64| -> Result<Tensor> {
            let grid = gather(x, input)?;
            let size = grid.size();
            Ok(grid.f_view([size[0], size[1], heads, self.head_dim])?)
        };
        let (q, k, v) = (split(q, self.heads)?, split(k, self.kv_heads)?, split(v, self.kv_heads)?);
        self.attend(&q, &k, &v, input, cache)
    }

    fn geometry(&self) -> Heads {
        let scale = self.scale.unwrap_or_else(|| (self.head_dim as f64).sqrt().recip());
        Heads { heads: self.heads, kv_heads: self.kv_heads, scale, window: self.window }
    }

    /// `[N, H, d]` to `[N, H * d]`.
    fn joined(&self, x: &Tensor) -> Result<Tensor> {
        Ok(x.f_view([-1, self.heads * self.head_dim])?)
    }

    /// `q [R, W, H, d]`, `k` and `v [R, W, K, d]`.
    fn attend(
        &self,
        q: &Tensor,
        k: &Tensor,
        v: &Tensor,
        input: &ModelInput,
        cache: Option<&mut KvCache>,
    ) -> Result<Tensor> {
        match (&input.layout, cache) {
            (Layout::Step { slot, at, width, mask, .. }, Some(cache)) => {
                let (k, v) = (k.f_squeeze_dim(1)?, v.f_squeeze_dim(1)?);
                if cache.in_place() {
                    return cache.attend(self.layer, (slot, at), [&q.f_squeeze_dim(1)?, &k, &v], self.geometry());
                }
                let (k, v) = cache.append(self.layer, (slot, at, *width), &k, &v)?;
                let near = self.near_places(at, *width, mask.as_ref())?;
                self.decode(q, &k, &v, near.as_ref().or(mask.as_ref()))
            }
            (_, cache) => {
                if let Some(cache) = cache {
                    cache.fill(self.layer, k, v)?;
                }
                self.causal(q, k, v, input)
            }
        }
    }

    /// `[W, W]`: the places that a query sees, where its window is narrower than the rows.
    fn band(&self, width: i64, device: Device) -> Result<Option<Tensor>> {
        let Some(window) = self.window.filter(|&window| window < width) else { return Ok(None) };
        let all = Tensor::f_ones([width, width], (Kind::Bool, device))?;
        Ok(Some(all.f_tril(0)?.f_triu(1 - window)?))
    }

    /// `[R, 1, 1, W]`: the places of a cache that the query at `at [R]` sees, where its window is narrower.
    fn near_places(&self, at: &Tensor, width: i64, mask: Option<&Tensor>) -> Result<Option<Tensor>> {
        let Some(window) = self.window.filter(|&window| window < width) else { return Ok(None) };
        let places = Tensor::f_arange(width, (Kind::Int64, at.device()))?;
        let near = places.f_gt_tensor(&at.f_sub_scalar(window)?.f_unsqueeze(1)?)?.f_view([-1, 1, 1, width])?;
        Ok(Some(match mask {
            Some(mask) => near.f_logical_and(mask)?,
            None => near,
        }))
    }

    /// Left-aligned rows: causal, without a mask, so that the flash kernel takes it.
    fn causal(&self, q: &Tensor, k: &Tensor, v: &Tensor, input: &ModelInput) -> Result<Tensor> {
        let (q, k, v) =
            (q.f_transpose(1, 2)?, self.repeated(k)?.f_transpose(1, 2)?, self.repeated(v)?.f_transpose(1, 2)?);
        let mask = self.band(q.size()[2], q.device())?;
        let (causal, dropout) = (mask.is_none(), input.dropout);
        let out =
            Tensor::f_scaled_dot_product_attention(&q, &k, &v, mask.as_ref(), dropout, causal, self.scale, false)?;
        scatter(out.f_transpose(1, 2)?, input, self.heads * self.head_dim)
    }

    /// One query a row: the H/K heads of a group become the queries of one key/value head, so nothing is repeated.
    fn decode(&self, q: &Tensor, k: &Tensor, v: &Tensor, mask: Option<&Tensor>) -> Result<Tensor> {
        let rows = q.size()[0];
        let q = q.f_reshape([rows, self.kv_heads, self.heads / self.kv_heads, self.head_dim])?;
        let (k, v) = (k.f_transpose(1, 2)?, v.f_transpose(1, 2)?);
        let out = Tensor::f_scaled_dot_product_attention(&q, &k, &v, mask, 0.0, false, self.scale, false)?;
        Ok(out.f_reshape([rows, self.heads * self.head_dim])?)
    }

    /// Keys or values with each head repeated for its group of query heads.
    fn repeated(&self, x: &Tensor) -> Result<Tensor> {
        let group = self.heads / self.kv_heads;
        if group == 1 {
            return Ok(x.shallow_clone());
        }
        let size = x.size();
        let wide = [size[0], size[1], self.kv_heads, group, self.head_dim];
        Ok(x.f_unsqueeze(3)?.f_expand(wide, false)?.f_reshape([size[0], size[1], self.heads, self.head_dim])?)
    }
}

/// The plan of whole sequences on the CPU; none with a cache, which wants a grid, and with dropout, which the kernel lacks.
fn flat_plan<'a>(input: &'a ModelInput, cache: Option<&KvCache>) -> Option<&'a RowPlan> {
    input.plan.as_ref().filter(|_| cache.is_none() && input.dropout == 0.0)
}

/// `x [N, C]` to `[R, W, C]`. Through `embedding`, whose backward is several times faster than `index_select`'s.
fn gather(x: Tensor, input: &ModelInput) -> Result<Tensor> {
    Ok(match &input.layout {
        Layout::Dense { rows, width } => x.f_view([*rows, *width, -1])?,
        Layout::Grid { rows, width, grid, .. } => {
            Tensor::f_embedding(&x, grid, -1, false, false)?.f_view([*rows, *width, -1])?
        }
        Layout::Step { rows, .. } => x.f_view([*rows, 1, -1])?,
    })
}

/// `x [R, W, H, d]` to `[N, C]`, C = H * d.
fn scatter(x: Tensor, input: &ModelInput, channels: i64) -> Result<Tensor> {
    let flat = x.f_reshape([-1, channels])?;
    Ok(match &input.layout {
        Layout::Grid { inverse, .. } => Tensor::f_embedding(&flat, inverse, -1, false, false)?,
        _ => flat,
    })
}

//! Keys and values of earlier tokens, for decoding. Owns the storage; the caller owns the cache, so a model's forward
//! changes nothing of the model.
use tch::{Device, Kind, Tensor};

use super::backbone::Dims;
use super::input::{Layout, ModelInput};
use crate::error::{Error, Result};

/// For each layer keys and values `[R, capacity, kv_heads, head_dim]`, preallocated; rows have lengths of their own.
#[derive(Debug)]
pub struct KvCache {
    keys: Vec<Tensor>,
    values: Vec<Tensor>,
    lengths: Vec<i64>,
    capacity: i64,
    device: Device,
}

impl KvCache {
    /// Room for `rows` sequences of up to `capacity` tokens; `kind` is the model's compute kind.
    ///
    /// # Errors
    /// [`Error::Torch`] when memory is short.
    pub fn new(dims: Dims, rows: i64, capacity: i64, kind: Kind, device: Device) -> Result<Self> {
        let shape = [rows, capacity, dims.kv_heads, dims.head_dim];
        // Zeros: a masked place still enters a product, and 0 * NaN from fresh memory would be NaN.
        let room = || -> Result<Vec<Tensor>> {
            (0..dims.layers).map(|_| Ok(Tensor::f_zeros(shape, (kind, device))?)).collect()
        };
        Ok(KvCache { keys: room()?, values: room()?, lengths: vec![0; rows as usize], capacity, device })
    }

    /// Tokens stored, a row.
    pub fn lengths(&self) -> &[i64] {
        &self.lengths
    }

    /// Places in a row.
    pub fn capacity(&self) -> i64 {
        self.capacity
    }

    /// Where the cache lives.
    pub fn device(&self) -> Device {
        self.device
    }

    /// Keeps only the rows named, in that order: finished sequences leave.
    ///
    /// # Errors
    /// [`Error::Torch`] for a row that is not there.
    pub fn keep(&mut self, rows: &[usize]) -> Result<()> {
        let index: Vec<i64> = rows.iter().map(|&row| row as i64).collect();
        let index = Tensor::f_from_slice(&index)?.f_to_device(self.device)?;
        for tensor in self.keys.iter_mut().chain(self.values.iter_mut()) {
            *tensor = tensor.f_index_select(0, &index)?;
        }
        self.lengths = rows.iter().map(|&row| self.lengths[row]).collect();
        Ok(())
    }

    /// Whether `input` fits: whole sequences into an empty cache, steps into one with as many rows.
    pub(super) fn check(&self, input: &ModelInput) -> Result<()> {
        let rows_fit = input.lengths.len() == self.lengths.len();
        let width_fits = input.lengths.iter().all(|&length| length <= self.capacity);
        let start_fits = matches!(input.layout, Layout::Step { .. }) || self.lengths.iter().all(|&length| length == 0);
        if rows_fit && width_fits && start_fits {
            return Ok(());
        }
        Err(Error::usage(
            "the key/value cache does not fit the batch",
            "this is a fault of the program; please report it",
        ))
    }

    /// Stores the keys and values `[R, W, kv_heads, head_dim]` of whole sequences.
    pub(super) fn fill(&mut self, layer: usize, keys: &Tensor, values: &Tensor) -> Result<()> {
        let width = keys.size()[1];
        self.keys[layer].f_narrow(1, 0, width)?.f_copy_(keys)?;
        self.values[layer].f_narrow(1, 0, width)?.f_copy_(values)?;
        Ok(())
    }

    /// Stores one more token a row, `[R, kv_heads, head_dim]`, at `at [R]` of `row [R]`; gives back the first `width`
    /// places of all rows.
    pub(super) fn append(
        &mut self,
        layer: usize,
        (row, at, width): (&Tensor, &Tensor, i64),
        keys: &Tensor,
        values: &Tensor,
    ) -> Result<(Tensor, Tensor)> {
        let place = [Some(row), Some(at)];
        let _ = self.keys[layer].f_index_put_(&place, keys, false)?;
        let _ = self.values[layer].f_index_put_(&place, values, false)?;
        Ok((self.keys[layer].f_narrow(1, 0, width)?, self.values[layer].f_narrow(1, 0, width)?))
    }

    /// Counts what a forward has stored.
    pub(super) fn advance(&mut self, input: &ModelInput) {
        self.lengths.clone_from(&input.lengths);
    }
}

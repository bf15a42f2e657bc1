//! Keys and values of earlier tokens, for decoding. Owns the storage; the caller owns the cache, so a model's forward
//! changes nothing of the model.
use tch::{Device, Kind, Tensor};

use super::backbone::Dims;
use super::input::{Layout, ModelInput};
use crate::error::{Error, Result};
use crate::ffi::{self, Heads};

/// For each layer keys and values `[S, capacity, kv_heads, head_dim]`, preallocated: a sequence's tokens lie side by side.
/// Rows have lengths and places of their own.
#[derive(Debug)]
pub struct KvCache {
    keys: Vec<Tensor>,
    values: Vec<Tensor>,
    lengths: Vec<i64>,
    /// Where in the storage a row lies.
    slots: Vec<i64>,
    capacity: i64,
    device: Device,
    /// Whether attention reads rows where they lie; else they lie in order.
    in_place: bool,
}

impl KvCache {
    /// Room for `rows` sequences of up to `capacity` tokens; `kind` is the model's compute kind.
    ///
    /// # Errors
    /// [`Error::Torch`] when memory is short.
    pub fn new(dims: Dims, rows: i64, capacity: i64, kind: Kind, device: Device) -> Result<Self> {
        let shape = [rows, capacity, dims.kv_heads, dims.head_dim];
        let in_place = ffi::decodes(&Tensor::f_empty([0], (kind, device))?);
        // Zeros where places are masked: they still enter a product, and 0 * NaN from fresh memory would be NaN.
        let make =
            || if in_place { Tensor::f_empty(shape, (kind, device)) } else { Tensor::f_zeros(shape, (kind, device)) };
        let room = || -> Result<Vec<Tensor>> { (0..dims.layers).map(|_| Ok(make()?)).collect() };
        let (lengths, slots) = (vec![0; rows as usize], (0..rows).collect());
        Ok(KvCache { keys: room()?, values: room()?, lengths, slots, capacity, device, in_place })
    }

    /// Rows `from..from + count` of a new cache as one of their own in the same storage, to be filled apart from the others;
    /// [`KvCache::take_lengths`] then says that they are.
    ///
    /// # Errors
    /// [`Error::Torch`] for rows that are not there.
    pub fn part(&self, from: usize, count: usize) -> Result<Self> {
        let cut = |all: &[Tensor]| -> Result<Vec<Tensor>> {
            all.iter().map(|tensor| Ok(tensor.f_narrow(0, from as i64, count as i64)?)).collect()
        };
        let (lengths, slots) = (self.lengths[from..from + count].to_vec(), (0..count as i64).collect());
        Ok(KvCache { keys: cut(&self.keys)?, values: cut(&self.values)?, lengths, slots, ..*self })
    }

    /// Takes over the lengths of a [`KvCache::part`] from row `from` on.
    pub fn take_lengths(&mut self, from: usize, part: &KvCache) {
        self.lengths[from..from + part.lengths.len()].copy_from_slice(&part.lengths);
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

    /// Whether attention reads rows where they lie, so that those that leave cost nothing.
    pub fn in_place(&self) -> bool {
        self.in_place
    }

    /// Where in the storage each row lies.
    pub(super) fn slots(&self) -> &[i64] {
        &self.slots
    }

    /// Keeps only the rows named, in that order: finished sequences leave. A row that is named several times is copied.
    ///
    /// # Errors
    /// [`Error::Torch`] for a row that is not there.
    pub fn keep(&mut self, rows: &[usize]) -> Result<()> {
        let slots: Vec<i64> = rows.iter().map(|&row| self.slots[row]).collect();
        self.lengths = rows.iter().map(|&row| self.lengths[row]).collect();
        let mut sorted = slots.clone();
        sorted.sort_unstable();
        if self.in_place && sorted.windows(2).all(|pair| pair[0] != pair[1]) {
            self.slots = slots;
            return Ok(());
        }
        let index = Tensor::f_from_slice(&slots)?.f_to_device(self.device)?;
        for tensor in self.keys.iter_mut().chain(self.values.iter_mut()) {
            *tensor = tensor.f_index_select(0, &index)?;
        }
        self.slots = (0..rows.len() as i64).collect();
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

    /// Stores keys and values `[R, kv_heads, head_dim]` of one more token a row at `at [R]` of `slot [R]`, and attends to
    /// that row with its query `[R, heads, head_dim]`. Gives `[R, heads * head_dim]`. Only where rows are read in place.
    pub(super) fn attend(
        &mut self,
        layer: usize,
        (slot, at): (&Tensor, &Tensor),
        qkv: [&Tensor; 3],
        heads: Heads,
    ) -> Result<Tensor> {
        ffi::attend(qkv, [&self.keys[layer], &self.values[layer]], (slot, at), heads)
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

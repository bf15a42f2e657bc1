//! The input of one forward: flat tokens and the grid that attention needs. Owns index building; knows no weights.
//!
//! Shapes: N flat tokens, R attention rows, W the longest row. Rows are left-aligned, so that causal attention needs no
//! mask: a real query never sees the padding to the right of it, and what padding itself computes is not taken out.
use tch::{Device, Kind, Tensor};

use super::cache::KvCache;
use super::rows::groups;
use crate::error::{Error, Result};
use crate::ffi::RowPlan;

/// Flat tokens with their attention rows. Build it once a batch; a forward only reads it.
#[derive(Debug)]
pub struct ModelInput {
    pub(super) tokens: Tensor,
    pub(super) positions: Tensor,
    pub(super) layout: Layout,
    /// The rows of whole sequences on the CPU, where attention runs over the flat list itself.
    pub(super) plan: Option<RowPlan>,
    /// Length of each row, counted from the sequence's start.
    pub(super) lengths: Vec<i64>,
    /// For each flat token the length of the longest row of those that share their start.
    spans: Vec<i64>,
    pub(super) largest_token: i64,
    pub(super) largest_position: i64,
    /// Flat indices `[M]` of the tokens whose hidden states are wanted; none: all.
    pub(super) reads: Option<Tensor>,
    /// Probability of dropping a value of embeddings, residual branches or attention weights; 0 is off. The caller seeds
    /// libtorch before each forward that uses it.
    pub dropout: f64,
}

/// How flat tokens become rows.
#[derive(Debug)]
pub(super) enum Layout {
    /// N = R * W in order: a view is enough.
    Dense { rows: i64, width: i64 },
    /// `grid [R * W]` holds flat indices, `inverse [N]` the place in the grid where a token's output is taken from.
    Grid { rows: i64, width: i64, grid: Tensor, inverse: Tensor },
    /// One new token a row, written at `at [R]` of row `slot [R]` of a cache. Where it is not read in place, its first
    /// `width` places are read where `mask [R, 1, 1, W]` is true (none: everywhere).
    Step { rows: i64, width: i64, slot: Tensor, at: Tensor, mask: Option<Tensor> },
}

impl ModelInput {
    /// `tokens` and `positions` are flat lists of N; each of `rows` lists flat indices in order. A token may stand in
    /// several rows when the same tokens precede it in all of them (a shared prompt).
    ///
    /// # Errors
    /// [`Error::Usage`] where lists differ in length, a row is empty or out of range, a token is in no row, or a token is
    /// shared by rows in which it does not follow the same tokens.
    pub fn new(tokens: &[i64], positions: &[i64], rows: &[Vec<i64>], device: Device) -> Result<Self> {
        let width = rows.iter().map(Vec::len).max().unwrap_or(0);
        let inverse = first_places(tokens.len(), rows, width)?;
        if positions.len() != tokens.len() {
            return Err(fault("as many positions as tokens are needed"));
        }
        let count = rows.len() as i64;
        let dense =
            rows.iter().all(|row| row.len() == width) && rows.iter().flatten().copied().eq(0..tokens.len() as i64);
        let layout = if dense {
            Layout::Dense { rows: count, width: width as i64 }
        } else {
            let grid: Vec<i64> = rows.iter().flat_map(|row| padded(row, width)).collect();
            Layout::Grid {
                rows: count,
                width: width as i64,
                grid: ids(&grid, device)?,
                inverse: ids(&inverse, device)?,
            }
        };
        let plan = if device.is_cuda() { None } else { Some(RowPlan::new(&groups(tokens.len(), rows))?) };
        Ok(ModelInput {
            tokens: ids(tokens, device)?,
            positions: ids(positions, device)?,
            layout,
            plan,
            lengths: rows.iter().map(|row| row.len() as i64).collect(),
            spans: spans(tokens.len(), rows),
            largest_token: largest(tokens),
            largest_position: largest(positions),
            reads: None,
            dropout: 0.0,
        })
    }

    /// Plain sequences, one row each, from position 0.
    ///
    /// # Errors
    /// As [`ModelInput::new`].
    pub fn from_sequences<S: AsRef<[i64]>>(sequences: &[S], device: Device) -> Result<Self> {
        let tokens: Vec<i64> = sequences.iter().flat_map(|s| s.as_ref().iter().copied()).collect();
        let positions: Vec<i64> = sequences.iter().flat_map(|s| 0..s.as_ref().len() as i64).collect();
        let mut start = 0;
        let row = |s: &S| {
            let end = start + s.as_ref().len() as i64;
            let row: Vec<i64> = (start..end).collect();
            start = end;
            row
        };
        let rows: Vec<Vec<i64>> = sequences.iter().map(row).collect();
        Self::new(&tokens, &positions, &rows, device)
    }

    /// One new token for each row of a filled cache, at that row's next position.
    ///
    /// # Errors
    /// [`Error::Usage`] where the number of tokens is not the cache's number of rows, or a row is full.
    pub fn step(tokens: &[i64], cache: &KvCache) -> Result<Self> {
        let lengths = cache.lengths();
        if tokens.len() != lengths.len() || tokens.is_empty() {
            return Err(fault("one token for each row of the cache is needed"));
        }
        let width = largest(lengths) + 1;
        if width > cache.capacity() {
            return Err(fault("the key/value cache is full"));
        }
        let device = cache.device();
        let (rows, at) = (tokens.len() as i64, ids(lengths, device)?);
        let mask = if cache.in_place() || lengths.iter().all(|&length| length + 1 == width) {
            None
        } else {
            let places = Tensor::f_arange(width, (Kind::Int64, device))?;
            Some(places.f_less_equal_tensor(&at.f_unsqueeze(1)?)?.f_view([rows, 1, 1, width])?)
        };
        let slot = ids(cache.slots(), device)?;
        Ok(ModelInput {
            tokens: ids(tokens, device)?,
            positions: at.shallow_clone(),
            layout: Layout::Step { rows, width, slot, at, mask },
            plan: None,
            lengths: lengths.iter().map(|length| length + 1).collect(),
            spans: lengths.iter().map(|length| length + 1).collect(),
            largest_token: largest(tokens),
            largest_position: width - 1,
            reads: None,
            dropout: 0.0,
        })
    }

    /// The same input with dropout at probability `p`.
    pub fn with_dropout(mut self, p: f64) -> Self {
        self.dropout = p;
        self
    }

    /// The same input, of which only the hidden states at flat indices `rows [M]` are wanted.
    pub(super) fn reading(&self, rows: &Tensor) -> Self {
        ModelInput { reads: Some(rows.shallow_clone()), ..self.share() }
    }

    /// The same input: tensors and plan are shared, not copied.
    pub(super) fn share(&self) -> Self {
        ModelInput {
            tokens: self.tokens.shallow_clone(),
            positions: self.positions.shallow_clone(),
            layout: self.layout.share(),
            plan: self.plan.clone(),
            lengths: self.lengths.clone(),
            spans: self.spans.clone(),
            reads: self.reads.as_ref().map(Tensor::shallow_clone),
            ..*self
        }
    }

    /// For each flat token the length of its sequence: with rows that share tokens, of the longest of them.
    pub(super) fn spans(&self) -> &[i64] {
        &self.spans
    }

    /// Number of flat tokens, N.
    pub fn len(&self) -> usize {
        self.tokens.numel()
    }

    /// Whether there are no tokens; [`ModelInput::new`] refuses that.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Layout {
    fn share(&self) -> Self {
        match self {
            Layout::Dense { rows, width } => Layout::Dense { rows: *rows, width: *width },
            Layout::Grid { rows, width, grid, inverse } => Layout::Grid {
                rows: *rows,
                width: *width,
                grid: grid.shallow_clone(),
                inverse: inverse.shallow_clone(),
            },
            Layout::Step { rows, width, slot, at, mask } => Layout::Step {
                rows: *rows,
                width: *width,
                slot: slot.shallow_clone(),
                at: at.shallow_clone(),
                mask: mask.as_ref().map(Tensor::shallow_clone),
            },
        }
    }
}

/// For each token its first place in the flattened grid; checks what [`ModelInput::new`] promises.
fn first_places(tokens: usize, rows: &[Vec<i64>], width: usize) -> Result<Vec<i64>> {
    const NOWHERE: i64 = -1;
    let mut place = vec![NOWHERE; tokens];
    let mut before = vec![NOWHERE; tokens];
    for (r, row) in rows.iter().enumerate() {
        if row.is_empty() {
            return Err(fault("an attention row is empty"));
        }
        let mut previous = NOWHERE;
        for (t, &index) in row.iter().enumerate() {
            let i = usize::try_from(index).ok().filter(|&i| i < tokens);
            let i = i.ok_or_else(|| fault("an attention row names a token that is not there"))?;
            if place[i] == NOWHERE {
                place[i] = (r * width + t) as i64;
                before[i] = previous;
            } else if before[i] != previous {
                return Err(fault("a token is shared by rows in which it does not follow the same tokens"));
            }
            previous = index;
        }
    }
    if place.is_empty() || place.contains(&NOWHERE) {
        return Err(fault("a token stands in no attention row"));
    }
    Ok(place)
}

/// Rows that share any token share their first one, so that one names the group.
fn spans(tokens: usize, rows: &[Vec<i64>]) -> Vec<i64> {
    let mut longest = vec![0; tokens];
    for row in rows {
        let first = &mut longest[row[0] as usize];
        *first = (*first).max(row.len() as i64);
    }
    let mut spans = vec![0; tokens];
    for row in rows {
        row.iter().for_each(|&token| spans[token as usize] = longest[row[0] as usize]);
    }
    spans
}

/// A row filled up with its own last token: padding's gradients are zero, and no single index collects them all.
fn padded(row: &[i64], width: usize) -> impl Iterator<Item = i64> + '_ {
    let last = row.last().copied().unwrap_or(0);
    row.iter().copied().chain(std::iter::repeat_n(last, width - row.len()))
}

fn largest(values: &[i64]) -> i64 {
    values.iter().copied().max().unwrap_or(0)
}

fn ids(values: &[i64], device: Device) -> Result<Tensor> {
    upload(values, device)
}

/// Numbers as a tensor on `device`; on CUDA from pinned memory, so that nobody waits for what is queued there.
///
/// # Errors
/// [`Error::Torch`] when memory is short.
pub fn upload<T: tch::kind::Element>(values: &[T], device: Device) -> Result<Tensor> {
    let host = Tensor::f_from_slice(values)?;
    if !device.is_cuda() {
        return Ok(host.f_to_device(device)?);
    }
    let kind = host.kind();
    Ok(host.f_pin_memory(device)?.f_to_device_(device, kind, true, false)?)
}

fn fault(message: &str) -> Error {
    Error::usage(format!("malformed batch: {message}"), "this is a fault of the program; please report it")
}

//! Whether losses and gradient norms are finite: their numbers leave the device behind the update that they belong to, and are
//! looked at when they have arrived. On the CPU that is at once, before the weights are touched; on a GPU an update or two
//! later, but always before anything is logged, evaluated or saved.
use crate::error::{Error, Result};
use crate::ffi::Readback;
use std::collections::VecDeque;
use tch::Tensor;

/// Updates that may be on their way when a step ends: the next one is queued while these are computed.
const LAG: usize = 1;

/// Updates that have not been seen to be finite.
#[derive(Debug, Default)]
pub struct Updates {
    underway: VecDeque<Update>,
    /// Losses of those that have, in order.
    finite: Vec<f64>,
}

#[derive(Debug)]
struct Update {
    /// Loss and gradient norm.
    numbers: Readback<2>,
    /// From 1.
    step: u64,
    rows: Vec<String>,
}

impl Updates {
    /// An update's loss and gradient norm, scalars on any device; `rows`: where its batch came from.
    ///
    /// # Errors
    /// Of this update or an earlier one that has arrived: [`Error::NonFinite`].
    pub fn add(&mut self, numbers: [&Tensor; 2], step: u64, rows: impl FnOnce() -> Vec<String>) -> Result<()> {
        self.underway.push_back(Update { numbers: Readback::begin(numbers)?, step, rows: rows() });
        while self.underway.front().map_or(Ok(false), |update| update.numbers.is_ready())? {
            self.look()?;
        }
        Ok(())
    }

    /// Waits until no more than the last update are on their way.
    ///
    /// # Errors
    /// As [`Updates::add`].
    pub fn lag(&mut self) -> Result<()> {
        while self.underway.len() > LAG {
            self.look()?;
        }
        Ok(())
    }

    /// Waits for all.
    ///
    /// # Errors
    /// As [`Updates::add`].
    pub fn settle(&mut self) -> Result<()> {
        while !self.underway.is_empty() {
            self.look()?;
        }
        Ok(())
    }

    /// The losses that have arrived since the last call, in order.
    pub fn arrived(&mut self) -> Vec<f64> {
        std::mem::take(&mut self.finite)
    }

    /// Waits for the oldest.
    fn look(&mut self) -> Result<()> {
        let Some(Update { numbers, step, rows }) = self.underway.pop_front() else { return Ok(()) };
        let [loss, norm] = numbers.values()?;
        for (what, value) in [("loss", loss), ("gradient norm", norm)] {
            if !value.is_finite() {
                return Err(Error::NonFinite { step, what, value, rows: rows.join(", ") });
            }
        }
        self.finite.push(loss);
        Ok(())
    }
}

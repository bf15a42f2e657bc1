//! How fast this machine multiplies matrices of a step's shapes: what the step's own speed is held against. Owns the
//! measurement; its matrices live only as long as that takes.
use super::parts::wait_for;
use crate::error::Result;
use crate::model::Dims;
use crate::train::{Evaluation, Evaluator};
use std::cell::RefCell;
use std::time::{Duration, Instant};
use tch::{Device, Kind, Tensor};

/// A measurement takes so long, and at least [`PASSES`] passes over its matrices.
const LEAST: Duration = Duration::from_millis(250);
const PASSES: usize = 3;

/// Values in the matrices of decoding's measurement: 32 MB in float32, more than caches close to a core hold, since
/// decoding reads all weights for every token.
const DECODING_VALUES: f64 = 8e6;

/// Products to be timed: `rows` of hidden states with each of these matrices `[in, out]`.
#[derive(Debug, Clone)]
pub struct Shapes {
    rows: i64,
    matrices: Vec<(i64, i64)>,
}

impl Shapes {
    /// A forward and backward step's: its tokens with a feed-forward matrix, `[rows, D]` by `[D, 4D]`.
    pub fn step(rows: usize, dims: Dims) -> Self {
        Shapes { rows: rows as i64, matrices: vec![(dims.hidden, 4 * dims.hidden)] }
    }

    /// Decoding's: one token of each row with feed-forward matrices and with a head of `head` values, these in the ratio
    /// that the model's `backbone` values have to them.
    pub fn decoding(rows: usize, dims: Dims, backbone: f64, head: f64) -> Self {
        let (hidden, scale) = (dims.hidden, (DECODING_VALUES / (backbone + head)).min(1.0));
        let matrix = (hidden, 4 * hidden);
        let count = (scale * backbone / (matrix.0 * matrix.1) as f64).round().max(1.0);
        let vocab = (scale * head / hidden as f64).round().max(1.0);
        let mut matrices = vec![matrix; count as usize];
        matrices.push((hidden, vocab as i64));
        Shapes { rows: rows as i64, matrices }
    }

    /// Operations of all products, a multiplication and an addition as two.
    fn operations(&self) -> f64 {
        self.matrices.iter().map(|(width, out)| 2.0 * (self.rows * width * out) as f64).sum()
    }
}

/// Measures, each time it is asked, on the same shapes.
pub struct Rate {
    shapes: Shapes,
    kind: Kind,
    device: Device,
    measured: RefCell<Vec<f64>>,
}

impl Rate {
    /// Products of `kind` on `device`.
    pub fn new(shapes: Shapes, kind: Kind, device: Device) -> Self {
        Rate { shapes, kind, device, measured: RefCell::default() }
    }

    /// Measures once more; operations a second.
    ///
    /// # Errors
    /// Memory is short.
    pub fn measure(&self) -> Result<f64> {
        let _guard = tch::no_grad_guard();
        let options = (self.kind, self.device);
        let rows = self.shapes.rows;
        let factors = self.shapes.matrices.iter().map(|&shape| Factor::new(rows, shape, options));
        let factors = factors.collect::<Result<Vec<_>>>()?;
        let width = self.shapes.matrices[0].0;
        let x = waves(&[rows, width], options)?;
        let pass = || factors.iter().try_for_each(|factor| factor.times(&x));
        pass()?;
        wait_for(self.device);
        let (begun, mut passes) = (Instant::now(), 0);
        while passes < PASSES || begun.elapsed() < LEAST {
            pass()?;
            wait_for(self.device);
            passes += 1;
        }
        let rate = passes as f64 * self.shapes.operations() / begun.elapsed().as_secs_f64();
        self.measured.borrow_mut().push(rate);
        Ok(rate)
    }

    /// All that was measured.
    pub fn measured(&self) -> Vec<f64> {
        self.measured.borrow().clone()
    }
}

/// Between the steps of a training loop an evaluation is asked for: this one measures.
impl Evaluator for Rate {
    fn evaluate(&self, _: u64) -> Result<Evaluation> {
        let figures = vec![("eval_matrix_gflops".to_owned(), self.measure()? / 1e9)];
        Ok(Evaluation { figures, cost: 0.0, samples: Vec::new() })
    }
}

/// The right-hand side of a product, made ready as a model would have it.
struct Factor {
    /// `[out, in]`.
    weight: Tensor,
    /// `[rows, out]`: fresh memory is not the product's doing.
    product: Tensor,
}

impl Factor {
    /// One of shape `[in, out]`, for `rows` rows.
    fn new(rows: i64, (width, out): (i64, i64), options: (Kind, Device)) -> Result<Self> {
        Ok(Factor { weight: waves(&[out, width], options)?, product: Tensor::f_empty([rows, out], options)? })
    }

    /// Multiplies `x [rows, in]`.
    fn times(&self, x: &Tensor) -> Result<()> {
        let _ = x.f_mm_out(&self.product, &self.weight.f_tr()?)?;
        Ok(())
    }
}

/// Values that are neither equal nor random: nothing here draws from libtorch's generator.
fn waves(shape: &[i64], (kind, device): (Kind, Device)) -> Result<Tensor> {
    let values = Tensor::f_arange(shape.iter().product::<i64>(), (Kind::Float, device))?;
    Ok(values.f_sin()?.f_to_kind(kind)?.f_view(shape)?)
}

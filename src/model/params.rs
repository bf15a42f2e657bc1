//! Named tensors in model order, and the builder that hands them out. Owns strictness (nothing missing, misshapen or
//! left over) and initialisation; imports no family.
//!
//! tch's own `VarStore` renames duplicates silently and ignores what a file holds too much; this does neither.
use std::path::{Path, PathBuf};

use indexmap::IndexMap;
use rand::RngExt;
use tch::{Device, Kind, Tensor};

use super::LoadOptions;
use super::weights::Weights;
use crate::error::{Error, Result};
use crate::seed;

/// Named tensors, in the order in which the model takes them, named as transformers names them.
#[derive(Debug, Default)]
pub struct Params {
    tensors: IndexMap<String, Tensor>,
    /// See [`Params::products`].
    products: usize,
}

impl Params {
    /// Names and tensors in model order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.tensors.iter().map(|(name, tensor)| (name.as_str(), tensor))
    }

    /// The tensor of that name.
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        self.tensors.get(name)
    }

    /// Number of tensors.
    pub fn len(&self) -> usize {
        self.tensors.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.tensors.is_empty()
    }

    /// Number of values in all tensors.
    pub fn numel(&self) -> usize {
        self.tensors.values().map(Tensor::numel).sum()
    }

    /// Number of values in the matrices that hidden states are multiplied with, an untied head's included: not embeddings,
    /// which are looked up, norms or biases.
    pub fn products(&self) -> usize {
        self.products
    }

    /// Switches gradients of all tensors on or off.
    pub fn set_requires_grad(&self, on: bool) {
        for tensor in self.tensors.values() {
            let _ = tensor.set_requires_grad(on);
        }
    }

    /// Takes the values of another model's tensors of the same names and shapes.
    ///
    /// # Errors
    /// [`Error::Tensor`] where one is missing or has another shape.
    pub fn assign(&self, other: &Params) -> Result<()> {
        let _guard = tch::no_grad_guard();
        for (name, tensor) in &self.tensors {
            let source = other.get(name).filter(|source| source.size() == tensor.size());
            let mut tensor = tensor.shallow_clone();
            tensor.f_copy_(source.ok_or_else(|| missing(Path::new("model"), name))?)?;
        }
        Ok(())
    }

    /// The same tensors, not copied.
    pub(super) fn shallow_clone(&self) -> Params {
        let tensors = self.tensors.iter().map(|(name, tensor)| (name.clone(), tensor.shallow_clone())).collect();
        Params { tensors, products: self.products }
    }

    /// Adds a tensor; a second one of the same name would be a fault of the family's code.
    fn insert(&mut self, name: &str, tensor: Tensor) {
        let before = self.tensors.insert(name.to_owned(), tensor);
        assert!(before.is_none(), "two parameters named {name}");
    }
}

/// How a tensor starts where no weights are loaded.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Init {
    /// Normal with mean 0.
    Normal {
        /// Standard deviation.
        std: f64,
    },
    /// All 0.
    Zeros,
    /// All 1.
    Ones,
}

/// Where a builder's tensors come from.
pub enum Source {
    /// A model directory.
    Weights(Weights),
    /// Random, from this seed. Each tensor has a seed of its own, so order does not matter.
    Seed(u64),
    /// Copies of another model's tensors.
    Copies(Params),
    /// The headers of a model directory: names, shapes and types are checked, no value is read.
    Headers(Weights),
}

/// Hands out tensors by name and shape, and keeps them.
pub struct Builder {
    source: Source,
    seed: u64,
    params: Params,
    origin: PathBuf,
    device: Device,
    compute: Kind,
    trainable: bool,
    mapped: bool,
    checkpointing: bool,
}

impl Builder {
    /// `seed` serves tensors that [`Builder::fresh`] initialises; `compute` the matrices of a model that is not trained.
    pub fn new(source: Source, seed: u64, device: Device, compute: Kind, trainable: bool) -> Self {
        let origin = match &source {
            Source::Weights(weights) | Source::Headers(weights) => weights.dir().to_path_buf(),
            _ => PathBuf::new(),
        };
        Builder {
            source,
            seed,
            params: Params::default(),
            origin,
            device,
            compute,
            trainable,
            mapped: false,
            checkpointing: false,
        }
    }

    /// One that checks what is taken against the headers of `weights` and hands out zeros that take no memory.
    pub fn of_headers(weights: Weights) -> Self {
        Self::new(Source::Headers(weights), 0, Device::Cpu, Kind::Float, false)
    }

    /// As `options` say; `seed` as in [`Builder::new`].
    pub fn with(source: Source, seed: u64, options: &LoadOptions) -> Self {
        let builder = Self::new(source, seed, options.device, options.compute, options.trainable);
        let (mapped, checkpointing) = (options.mapped && !options.trainable, options.checkpointing);
        Builder { mapped, checkpointing, ..builder }
    }

    /// Where tensors go.
    pub fn device(&self) -> Device {
        self.device
    }

    /// Whether blocks are to keep their input alone.
    pub fn checkpointing(&self) -> bool {
        self.checkpointing
    }

    /// The kind of matrix products.
    pub fn compute(&self) -> Kind {
        self.compute
    }

    /// A float32 tensor on the model's device.
    ///
    /// # Errors
    /// [`Error::Tensor`] where it is missing, misshapen, of a type that is not read, or holds a value that is not finite.
    pub fn take(&mut self, name: &str, shape: &[i64], init: Init) -> Result<Tensor> {
        self.take_as(name, shape, init, Kind::Float)
    }

    /// A weight that serves matrix products only: a frozen model keeps it in the compute kind, a trained one in float32.
    ///
    /// # Errors
    /// As [`Builder::take`].
    pub fn take_matrix(&mut self, name: &str, shape: &[i64], init: Init) -> Result<Tensor> {
        let matrix = self.take_as(name, shape, init, if self.trainable { Kind::Float } else { self.compute })?;
        // Biases are taken like this too.
        self.params.products += if shape.len() == 2 { matrix.numel() } else { 0 };
        Ok(matrix)
    }

    fn take_as(&mut self, name: &str, shape: &[i64], init: Init, kind: Kind) -> Result<Tensor> {
        let tensor = match &mut self.source {
            Source::Seed(seed) => initial(*seed, name, shape, init)?,
            Source::Weights(weights) => weights.take(name, shape, kind, self.mapped)?,
            Source::Headers(weights) => {
                weights.check(name, shape)?;
                Tensor::f_zeros([1], (kind, Device::Cpu))?.f_expand(shape, false)?
            }
            Source::Copies(params) => {
                let tensor = params.get(name).ok_or_else(|| missing(Path::new(""), name))?;
                // A cast is a copy already.
                if tensor.kind() == kind { copy(tensor)? } else { tensor.f_detach()? }
            }
        };
        self.keep(name, tensor, kind)
    }

    /// A tensor that is initialised even where weights are loaded (a new head).
    ///
    /// # Errors
    /// [`Error::Torch`] when memory is short.
    pub fn fresh(&mut self, name: &str, shape: &[i64], init: Init) -> Result<Tensor> {
        let tensor = initial(self.seed, name, shape, init)?;
        self.keep(name, tensor, Kind::Float)
    }

    fn keep(&mut self, name: &str, tensor: Tensor, kind: Kind) -> Result<Tensor> {
        let tensor = tensor.f_to_device(self.device)?.f_to_kind(kind)?;
        let tensor = tensor.set_requires_grad(self.trainable);
        self.params.insert(name, tensor.shallow_clone());
        Ok(tensor)
    }

    /// Checks that `name`, where the weights hold it, says the same as the taken tensor `as_taken` (a tied head that was
    /// saved twice), and counts it as taken.
    ///
    /// # Errors
    /// [`Error::Tensor`] where they differ.
    pub fn take_duplicate(&mut self, name: &str, as_taken: &str) -> Result<()> {
        if let Source::Headers(weights) = &mut self.source {
            let (Some(taken), true) = (self.params.get(as_taken), weights.has(name)) else { return Ok(()) };
            return weights.check(name, &taken.size()).map(|_| ());
        }
        let Source::Weights(weights) = &mut self.source else { return Ok(()) };
        let (Some(taken), true) = (self.params.get(as_taken), weights.has(name)) else { return Ok(()) };
        let again = weights.take(name, &taken.size(), Kind::Float, false)?.f_to_device(self.device)?;
        if again.f_equal(&taken.f_detach()?.f_to_kind(Kind::Float)?)? {
            return Ok(());
        }
        let message = format!("differs from {as_taken}, though config.json ties them");
        Err(Error::tensor(
            weights.dir(),
            name,
            message,
            "set \"tie_word_embeddings\": false in config.json to keep both",
        ))
    }

    /// All tensors that were taken. `skip` names what the weights may hold besides.
    ///
    /// # Errors
    /// [`Error::Tensor`] naming a tensor of the weights that the model does not have.
    pub fn finish(self, skip: impl Fn(&str) -> bool) -> Result<Params> {
        let left = match &self.source {
            Source::Weights(weights) | Source::Headers(weights) => {
                weights.left_over().find(|name| !skip(name)).map(str::to_owned)
            }
            _ => None,
        };
        match left {
            None => Ok(self.params),
            Some(name) => Err(Error::tensor(
                &self.origin,
                &name,
                "the model that config.json describes has no such tensor",
                "check that config.json and the weights belong together",
            )),
        }
    }
}

/// The error for a tensor that weights should hold.
pub(super) fn missing(dir: &Path, name: &str) -> Error {
    let remedy = "check that config.json and the weights belong together";
    Error::tensor(dir, name, "missing from the weights", remedy)
}

/// A tensor of its own with the same values, without history.
pub(super) fn copy(tensor: &Tensor) -> Result<Tensor> {
    let mut out = tensor.f_detach()?.f_empty_like()?;
    out.f_copy_(&tensor.f_detach()?)?;
    Ok(out)
}

/// Drawn on the CPU and moved later, so that every device starts from the same numbers.
fn initial(seed: u64, name: &str, shape: &[i64], init: Init) -> Result<Tensor> {
    let options = (Kind::Float, Device::Cpu);
    Ok(match init {
        Init::Zeros => Tensor::f_zeros(shape, options)?,
        Init::Ones => Tensor::f_ones(shape, options)?,
        Init::Normal { std } => {
            let values = normal(seed, name, shape.iter().product(), std);
            Tensor::f_from_slice(&values)?.f_view(shape)?
        }
    })
}

/// Normal numbers by Box and Muller's transform, not from libtorch's generator, whose state all threads share.
fn normal(seed: u64, name: &str, count: i64, std: f64) -> Vec<f32> {
    let mut rng = seed::rng(seed, &format!("init:{name}"), &[]);
    let mut values = Vec::with_capacity(count as usize + 1);
    while values.len() < count as usize {
        // 1 - u lies in (0, 1], so that the logarithm is finite.
        let radius = std * (-2.0 * (1.0 - rng.random::<f64>()).ln()).sqrt();
        let (sin, cos) = (std::f64::consts::TAU * rng.random::<f64>()).sin_cos();
        values.extend([(radius * cos) as f32, (radius * sin) as f32]);
    }
    values.truncate(count as usize);
    values
}

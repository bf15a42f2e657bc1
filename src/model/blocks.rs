//! The one loop over a backbone's blocks, for all families. With activation checkpointing a block keeps its input alone, and
//! is run again for the gradient. Owns the blocks; knows no family.
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tch::Tensor;

use super::cache::KvCache;
use super::input::ModelInput;
use super::params::Builder;
use crate::error::Result;
use crate::ffi;

/// A block of a family's backbone.
pub trait Block: Send + 'static {
    /// What all blocks of a pass read besides the input: the configuration, angles.
    type Common: Send + 'static;

    /// Hidden states `[N, D]` to `[N, D]`, or to those at flat indices `rows [M]`: what follows attention is computed for
    /// them alone ([`at`]). What is drawn is dropout, where the input asks for it.
    fn forward(
        &self,
        x: &Tensor,
        common: &Self::Common,
        input: &ModelInput,
        cache: Option<&mut KvCache>,
        rows: Option<&Tensor>,
    ) -> Result<Tensor>;
}

/// `x [N, D]`, or its rows at flat indices `[M]`.
///
/// # Errors
/// [`crate::Error::Torch`] when memory is short.
pub fn at(x: &Tensor, rows: Option<&Tensor>) -> Result<Tensor> {
    Ok(match rows {
        // The backward pass of `embedding` is far cheaper than `index_select`'s.
        Some(rows) => Tensor::f_embedding(x, rows, -1, false, false)?,
        None => x.shallow_clone(),
    })
}

/// A backbone's blocks, in order.
///
/// A graph that is to run a block again owns a share of it, and may do so on a thread of libtorch's: hence the locks, which
/// nobody waits for.
pub struct Blocks<B> {
    blocks: Vec<Arc<Mutex<B>>>,
    checkpointing: bool,
}

/// What a graph owns of a pass.
struct Pass<C> {
    common: C,
    input: ModelInput,
}

impl<B: Block> Blocks<B> {
    /// Takes `count` blocks, made by their number from 0.
    ///
    /// # Errors
    /// As `make`.
    pub fn take(builder: &mut Builder, count: i64, make: impl Fn(i64, &mut Builder) -> Result<B>) -> Result<Self> {
        let block = |number| Ok(Arc::new(Mutex::new(make(number, builder)?)));
        let blocks = (0..count).map(block).collect::<Result<_>>()?;
        Ok(Blocks { blocks, checkpointing: builder.checkpointing() })
    }

    /// `x [N, D]` through all blocks; `[M, D]` where the input reads some of its tokens only.
    ///
    /// # Errors
    /// As the blocks'.
    pub fn forward(
        &self,
        x: Tensor,
        common: B::Common,
        input: &ModelInput,
        mut cache: Option<&mut KvCache>,
    ) -> Result<Tensor> {
        // The last block spares itself the tokens that nobody reads, where they are worth the copies.
        let few = |rows: &&Tensor| 4 * rows.numel() <= 3 * input.len() && !self.blocks.is_empty();
        let inside = input.reads.as_ref().filter(few);
        // Without a graph nothing is kept anyway.
        let x = if self.checkpointing && cache.is_none() && x.requires_grad() {
            self.forward_checkpointed(x, common, input, inside)?
        } else {
            let through = |x: Tensor, (number, block): (usize, &Arc<Mutex<B>>)| {
                let rows = inside.filter(|_| number + 1 == self.blocks.len());
                locked(block).forward(&x, &common, input, cache.as_deref_mut(), rows)
            };
            self.blocks.iter().enumerate().try_fold(x, through)?
        };
        if inside.is_some() { Ok(x) } else { at(&x, input.reads.as_ref()) }
    }

    fn forward_checkpointed(
        &self,
        x: Tensor,
        common: B::Common,
        input: &ModelInput,
        inside: Option<&Tensor>,
    ) -> Result<Tensor> {
        let draws = input.dropout > 0.0;
        let pass = Arc::new(Mutex::new(Pass { common, input: input.share() }));
        let through = |x: Tensor, (number, block): (usize, &Arc<Mutex<B>>)| {
            let (block, pass) = (block.clone(), pass.clone());
            let rows = inside.filter(|_| number + 1 == self.blocks.len()).map(Tensor::shallow_clone);
            ffi::checkpoint(&x, draws, move |x| {
                let pass = locked(&pass);
                locked(&block).forward(x, &pass.common, &pass.input, None, rows.as_ref())
            })
        };
        self.blocks.iter().enumerate().try_fold(x, through)
    }
}

/// A block that panicked is as good as before: a forward pass changes nothing.
fn locked<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

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

    /// Hidden states `[N, D]` to `[N, D]`. What is drawn is dropout, where the input asks for it.
    fn forward(
        &self,
        x: &Tensor,
        common: &Self::Common,
        input: &ModelInput,
        cache: Option<&mut KvCache>,
    ) -> Result<Tensor>;
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

    /// `x [N, D]` through all blocks.
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
        // Without a graph nothing is kept anyway.
        if self.checkpointing && cache.is_none() && x.requires_grad() {
            return self.forward_checkpointed(x, common, input);
        }
        let through =
            |x: Tensor, block: &Arc<Mutex<B>>| locked(block).forward(&x, &common, input, cache.as_deref_mut());
        self.blocks.iter().try_fold(x, through)
    }

    fn forward_checkpointed(&self, x: Tensor, common: B::Common, input: &ModelInput) -> Result<Tensor> {
        let draws = input.dropout > 0.0;
        let pass = Arc::new(Mutex::new(Pass { common, input: input.share() }));
        let through = |x: Tensor, block: &Arc<Mutex<B>>| {
            let (block, pass) = (block.clone(), pass.clone());
            ffi::checkpoint(&x, draws, move |x| {
                let pass = locked(&pass);
                locked(&block).forward(x, &pass.common, &pass.input, None)
            })
        };
        self.blocks.iter().try_fold(x, through)
    }
}

/// A block that panicked is as good as before: a forward pass changes nothing.
fn locked<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

//! Seeds without hidden state: every random draw comes from (seed, purpose, indices). Imports nothing of ours.
//!
//! libtorch's generator cannot be saved through tch, so nothing may depend on how often it was used before:
//! a resumed run derives the same seeds as one that was never stopped.
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use sha2::{Digest, Sha256};

/// A seed for one draw: SHA-256 over `seed`, `purpose` and `indices`, first eight bytes.
///
/// `purpose` names what is drawn ("shuffle", "sample", "init", ...), `indices` which one (epoch, step, row, ...).
pub fn derive(seed: u64, purpose: &str, indices: &[u64]) -> u64 {
    let mut hash = Sha256::new();
    hash.update(seed.to_le_bytes());
    hash.update((purpose.len() as u64).to_le_bytes());
    hash.update(purpose.as_bytes());
    for index in indices {
        hash.update(index.to_le_bytes());
    }
    let digest = hash.finalize();
    let mut bytes = [0u8; 8];
    bytes.copy_from_slice(&digest[..8]);
    u64::from_le_bytes(bytes)
}

/// A generator for one draw, see [`derive`].
pub fn rng(seed: u64, purpose: &str, indices: &[u64]) -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(derive(seed, purpose, indices))
}

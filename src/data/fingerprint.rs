//! What tells one set of encoded rows from another: a resumed run goes on with the rows that it began with.
use super::encode::{Pair, Prompt, Sequence};
use sha2::{Digest, Sha256};

/// A row after encoding, as bytes that differ where training would.
pub trait Encoded {
    /// Feeds everything that a stage computes with.
    fn feed(&self, hash: &mut Sha256);
}

impl Encoded for Sequence {
    fn feed(&self, hash: &mut Sha256) {
        feed_ids(&self.tokens, hash);
        hash.update((self.prompt_len as u64).to_le_bytes());
    }
}

impl Encoded for Pair {
    fn feed(&self, hash: &mut Sha256) {
        for ids in [&self.prompt, &self.chosen, &self.rejected] {
            feed_ids(ids, hash);
        }
        for number in [self.preference, self.margin] {
            hash.update(number.to_le_bytes());
        }
    }
}

impl Encoded for Prompt {
    fn feed(&self, hash: &mut Sha256) {
        feed_ids(&self.tokens, hash);
        hash.update((self.text.len() as u64).to_le_bytes());
        hash.update(self.text.as_bytes());
    }
}

/// SHA-256 over sets of rows (training, evaluation), in their order.
pub fn fingerprint<E: Encoded>(sets: &[&[E]]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for rows in sets {
        hash.update((rows.len() as u64).to_le_bytes());
        rows.iter().for_each(|row| row.feed(&mut hash));
    }
    hash.finalize().into()
}

fn feed_ids(ids: &[i64], hash: &mut Sha256) {
    hash.update((ids.len() as u64).to_le_bytes());
    ids.iter().for_each(|id| hash.update(id.to_le_bytes()));
}

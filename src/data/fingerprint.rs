//! Encoded rows as bytes: what tells one set of them from another (a resumed run goes on with the rows that it began
//! with), and what stands for them on disk. Imports `encode`'s types; must not know files.
use super::encode::{Pair, Prompt, Sequence};
use super::rows::RowId;
use super::store::{Bytes, Rows, put_ids, put_number, put_text};
use crate::error::Result;
use sha2::{Digest, Sha256};

/// A row after encoding.
pub trait Encoded: Clone {
    /// Feeds everything that a stage computes with: bytes that differ where training would.
    fn feed(&self, hash: &mut Sha256);
    /// Where the row stands.
    fn id(&self) -> &RowId;
    /// Tokens that a pass computes for it: a pair's prompt once.
    fn tokens(&self) -> usize;
    /// Appends everything but the id.
    fn write(&self, out: &mut Vec<u8>);
    /// What [`Encoded::write`] wrote; none where the bytes are not that.
    fn read(bytes: &mut Bytes<'_>, id: RowId) -> Option<Self>;
}

impl Encoded for Sequence {
    fn feed(&self, hash: &mut Sha256) {
        feed_ids(&self.tokens, hash);
        hash.update((self.targets.len() as u64).to_le_bytes());
        for range in &self.targets {
            hash.update((range.start as u64).to_le_bytes());
            hash.update((range.end as u64).to_le_bytes());
        }
    }

    fn id(&self) -> &RowId {
        &self.id
    }

    fn tokens(&self) -> usize {
        self.tokens.len()
    }

    fn write(&self, out: &mut Vec<u8>) {
        put_ids(out, &self.tokens);
        put_number(out, self.targets.len() as u64);
        for range in &self.targets {
            put_number(out, range.start as u64);
            put_number(out, range.end as u64);
        }
    }

    fn read(bytes: &mut Bytes<'_>, id: RowId) -> Option<Self> {
        let tokens = bytes.ids()?;
        let count = bytes.size()?;
        let targets = (0..count).map(|_| Some(bytes.size()?..bytes.size()?)).collect::<Option<_>>()?;
        Some(Self { tokens, targets, id })
    }
}

impl Encoded for Pair {
    fn feed(&self, hash: &mut Sha256) {
        for ids in [&self.prompt, &self.chosen, &self.rejected] {
            feed_ids(ids, hash);
        }
        for number in [self.preference, self.margin.unwrap_or(0.0)] {
            hash.update(number.to_le_bytes());
        }
    }

    fn id(&self) -> &RowId {
        &self.id
    }

    fn tokens(&self) -> usize {
        self.prompt.len() + self.chosen.len() + self.rejected.len()
    }

    fn write(&self, out: &mut Vec<u8>) {
        for ids in [&self.prompt, &self.chosen, &self.rejected] {
            put_ids(out, ids);
        }
        // No margin is written as NaN, which no row can hold.
        for number in [self.preference, self.margin.unwrap_or(f64::NAN)] {
            out.extend(number.to_le_bytes());
        }
    }

    fn read(bytes: &mut Bytes<'_>, id: RowId) -> Option<Self> {
        let (prompt, chosen, rejected) = (bytes.ids()?, bytes.ids()?, bytes.ids()?);
        let (preference, margin) = (bytes.float()?, bytes.float()?);
        let margin = Some(margin).filter(|margin| !margin.is_nan());
        Some(Self { prompt, chosen, rejected, preference, margin, id })
    }
}

impl Encoded for Prompt {
    fn feed(&self, hash: &mut Sha256) {
        feed_ids(&self.tokens, hash);
        hash.update((self.text.len() as u64).to_le_bytes());
        hash.update(self.text.as_bytes());
        if let Some(messages) = &self.messages {
            hash.update(serde_json::json!(messages).to_string().as_bytes());
        }
    }

    fn id(&self) -> &RowId {
        &self.id
    }

    fn tokens(&self) -> usize {
        self.tokens.len()
    }

    fn write(&self, out: &mut Vec<u8>) {
        put_ids(out, &self.tokens);
        put_text(out, &self.text);
        out.push(u8::from(self.messages.is_some()));
        if let Some(messages) = &self.messages {
            put_text(out, &serde_json::json!(messages).to_string());
        }
    }

    fn read(bytes: &mut Bytes<'_>, id: RowId) -> Option<Self> {
        let (tokens, text) = (bytes.ids()?, bytes.text()?);
        let messages = match bytes.byte()? {
            0 => None,
            _ => Some(serde_json::from_str(&bytes.text()?).ok()?),
        };
        Some(Self { tokens, text, messages, id })
    }
}

/// SHA-256 over sets of rows (training, evaluation), in their order.
///
/// The number of rows of a set goes before its rows, so it cannot be taken before the last one is known; encoded rows
/// that lie on disk are read once more.
///
/// # Errors
/// Rows on disk that cannot be read back.
pub fn fingerprint<E: Encoded>(sets: &[&Rows<E>]) -> Result<[u8; 32]> {
    let mut hash = Sha256::new();
    for rows in sets {
        hash.update((rows.len() as u64).to_le_bytes());
        for row in rows.iter() {
            row?.feed(&mut hash);
        }
    }
    Ok(hash.finalize().into())
}

fn feed_ids(ids: &[i64], hash: &mut Sha256) {
    hash.update((ids.len() as u64).to_le_bytes());
    ids.iter().for_each(|id| hash.update(id.to_le_bytes()));
}

//! Rows of a file -> token sequences -> flat batches, as plain vectors, and the order in which they are taken.
//!
//! ```text
//! jsonl::read_rows -> rows::Located -> encode -> Sequence | Pair | Prompt -> batch -> Flat + Targets
//!                                                     ^ loader: which ones make the next batch
//! ```
//!
//! Imports the tokenizer, seeds and errors; no tensors, no model.
pub mod batch;
pub mod encode;
pub mod jsonl;
pub mod loader;
pub mod rows;

pub use batch::{Actions, Flat, LmBatch, PairBatch, Targets, lm_batch, pair_batch};
pub use encode::{EncodeOptions, Pair, Prompt, Sequence, encode_lm, encode_pairs, encode_prompts};
pub use jsonl::{Wanted, read_rows};
pub use loader::{Loader, LoaderState};
pub use rows::{DataReport, Located, Row, RowId};

use serde::{Deserialize, Serialize};

/// How the boundary between prompt and completion is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Boundary {
    /// Prompt and completion are tokenised together; the boundary is the longest common prefix with the prompt's ids.
    #[default]
    Joint,
    /// The completion is tokenised alone.
    Separate,
}

/// What to do with a row that cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnBadRow {
    /// Stop and name it.
    #[default]
    Error,
    /// Leave it out, count it and report the count.
    Skip,
}

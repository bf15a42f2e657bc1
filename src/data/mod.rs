//! Rows of a file -> token sequences -> flat batches, as plain vectors, and the order in which they are taken.
//!
//! ```text
//! jsonl::read_rows -> rows::Located -> encode -> Sequence | Pair | Prompt -> batch -> Flat + Targets
//!                                                     ^ loader: which ones make the next batch
//! ```
//!
//! Imports `config`, the tokenizer, seeds and errors; no tensors, no model.
pub mod batch;
pub mod encode;
pub mod fingerprint;
pub mod jsonl;
pub mod loader;
pub mod rows;

pub use batch::{Actions, Flat, LmBatch, PairBatch, Targets, lm_batch, pair_batch};
pub use encode::{EncodeOptions, Pair, Prompt, Sequence, encode_lm, encode_pairs, encode_prompts};
pub use fingerprint::fingerprint;
pub use jsonl::{Wanted, columns, read_rows};
pub use loader::{Loader, LoaderState};
pub use rows::{DataReport, Located, Row, RowId};

pub use crate::config::{Boundary, OnBadRow};

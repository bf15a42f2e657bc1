//! Rows of files -> token sequences -> flat batches, as plain vectors, and the order in which they are taken.
//!
//! ```text
//! source -> columns -> rows::Located -> encode -> Sequence | Pair | Prompt -> batch -> Flat + Targets
//!                                                        ^ loader: which ones make the next batch
//! ```
//!
//! Imports `config`, the tokenizer, seeds and errors; no tensors, no model.
pub mod batch;
pub mod columns;
pub mod encode;
pub mod fingerprint;
pub mod loader;
mod messages;
pub mod micro;
pub mod read;
pub mod rows;
pub mod set;
pub mod source;
pub mod store;

pub use batch::{Actions, Flat, LmBatch, PairBatch, Targets, lm_batch, pair_batch};
pub use columns::Wanted;
pub use encode::{
    Encode, EncodeOptions, Encoder, Pair, Prompt, Sequence, encode_files, encode_lm, encode_pairs, encode_prompts,
    encode_rows,
};
pub use fingerprint::fingerprint;
pub use loader::{Loader, LoaderState};
pub use micro::Micro;
pub use read::{for_each_chunk, read_rows};
pub use rows::{Content, DataReport, Located, Message, Row, RowId, Unit};
pub use set::{Data, Set};
pub use source::columns;
pub use store::Rows;

pub use crate::config::{Boundary, OnBadRow};

//! Rows, encoding, batches and the loader, one file each.
mod bad_files;
mod batch;
mod conversations;
mod encode;
mod loader;
mod rows;
mod sources;
mod store;
mod weights;

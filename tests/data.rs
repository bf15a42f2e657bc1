//! Rows, encoding, batches and the loader, one file each.
mod batch;
mod encode;
mod loader;
mod rows;

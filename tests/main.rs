//! x
mod ffi;
mod model;
mod model_files;
mod rollout;
mod tiny;

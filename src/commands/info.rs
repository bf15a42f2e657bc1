//! `collimate info`: versions, devices, threads, and whether the build has CUDA.
use crate::error::Result;
use crate::{ffi, model::device};
use clap::Args;
use serde_json::{Map, Value, json};

/// Versions, devices and threads.
#[derive(Debug, Args)]
pub struct InfoArgs {
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(args: &InfoArgs) -> Result<()> {
    let mut facts: Map<String, Value> = Map::new();
    let mut put = |name: &str, value: Value| facts.insert(name.to_owned(), value);
    put("collimate", json!(env!("CARGO_PKG_VERSION")));
    put("libtorch", json!(ffi::torch_version()));
    put("cuda_build", json!(device::CUDA_BUILD));
    put("cuda_available", json!(tch::Cuda::is_available()));
    put("cuda_devices", json!(tch::Cuda::device_count()));
    put("default_device", json!(format!("{:?}", device::resolve("auto")?)));
    put("matrix_unit", json!(ffi::splits()));
    put("threads", json!(tch::get_num_threads()));
    put("interop_threads", json!(tch::get_num_interop_threads()));
    if args.json {
        println!("{}", serde_json::to_string(&facts).expect("JSON values serialise"));
        return Ok(());
    }
    for (name, value) in &facts {
        println!("{name:<16} {}", value.as_str().map_or_else(|| value.to_string(), str::to_owned));
    }
    if let Some(reason) = device::why_no_cuda() {
        println!("no CUDA: {reason}");
    }
    Ok(())
}

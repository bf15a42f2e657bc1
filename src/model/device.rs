//! `auto`, `cpu`, `cuda`, `cuda:N` -> a device, or the reason why not. Owns that, and precision by name; imports
//! `config`, `error` and `ffi` of ours.
use crate::config::Dtype;
use crate::error::{Error, Result};
use crate::ffi;
use tch::{Cuda, Device, Kind};

/// Whether this binary was linked against libtorch_cuda.
pub const CUDA_BUILD: bool = matches!(env!("COLLIMATE_CUDA_BUILD").as_bytes(), b"yes");

/// The device that `asked` names; `auto` is the first CUDA device where there is one. On CUDA float32 stays float32:
/// products are not rounded to TF32.
///
/// # Errors
/// A name that is no device; CUDA where the build, the driver or the device is missing.
pub fn resolve(asked: &str) -> Result<Device> {
    let fail = |message: String, remedy: &str| Error::Device { asked: asked.into(), message, remedy: remedy.into() };
    let index = match asked {
        "cpu" => return Ok(Device::Cpu),
        "auto" if why_no_cuda().is_some() => return Ok(Device::Cpu),
        "auto" | "cuda" => 0,
        other => match other.strip_prefix("cuda:").and_then(|n| n.parse::<usize>().ok()) {
            Some(index) => index,
            None => return Err(fail("no such device".into(), "use auto, cpu, cuda or cuda:N")),
        },
    };
    if let Some(reason) = why_no_cuda() {
        return Err(fail(reason.into(), "use --device cpu, or put that right"));
    }
    let count = Cuda::device_count();
    if index as i64 >= count {
        return Err(fail(format!("only {count} CUDA devices are visible"), "use a smaller number"));
    }
    ffi::full_float32()?;
    Ok(Device::Cuda(index))
}

/// Why CUDA cannot be used, if it cannot: the build, the driver or the devices.
pub fn why_no_cuda() -> Option<&'static str> {
    if !CUDA_BUILD {
        return Some("this build has no CUDA; run scripts/setup --cuda and build again");
    }
    if Cuda::device_count() > 0 {
        return None;
    }
    if std::path::Path::new("/proc/driver/nvidia/version").exists() {
        Some("the driver is there but no device is visible; look at CUDA_VISIBLE_DEVICES and nvidia-smi")
    } else {
        Some("no NVIDIA driver was found; install it on the host")
    }
}

/// libtorch's kind of a configured precision.
pub fn kind_of(dtype: Dtype) -> Kind {
    match dtype {
        Dtype::Float32 => Kind::Float,
        Dtype::Bfloat16 => Kind::BFloat16,
    }
}

//! Named tensors and their safetensors files. Imports `ffi` (mapped files) only.
//!
//! Never a pickle. Reading checks the header against the file's length before anything is allocated.
use crate::error::{Error, Result};
use indexmap::IndexMap;
use safetensors::tensor::{Dtype, SafeTensorError, SafeTensors, View};
use std::borrow::Cow;
use std::collections::HashMap;
use std::path::Path;
use tch::{Device, Kind, Tensor};

/// Tensors by name, in order.
pub type TensorMap = IndexMap<String, Tensor>;

/// A tensor on its way into a file: copied to the CPU one at a time.
struct Outgoing {
    tensor: Tensor,
    dtype: Dtype,
    shape: Vec<usize>,
}

impl View for Outgoing {
    fn dtype(&self) -> Dtype {
        self.dtype
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        let tensor = self.tensor.detach().to_device(Device::Cpu).contiguous();
        let bytes = tensor.numel() * tensor.kind().elt_size_in_bytes();
        let mut data = vec![0u8; bytes];
        // tch copies elements in the tensor's own kind; the buffer is sized for exactly that.
        tensor.copy_data_u8(&mut data, tensor.numel());
        Cow::Owned(data)
    }

    fn data_len(&self) -> usize {
        self.tensor.numel() * self.tensor.kind().elt_size_in_bytes()
    }
}

/// Writes tensors as safetensors with metadata and fsyncs the file.
///
/// # Errors
/// A kind that the format lacks here, or an input/output error.
pub fn write<'a>(
    path: &Path,
    tensors: impl IntoIterator<Item = (&'a str, &'a Tensor)>,
    metadata: HashMap<String, String>,
) -> Result<()> {
    let mut outgoing = Vec::new();
    for (name, tensor) in tensors {
        let dtype = dtype_of(tensor.kind()).ok_or_else(|| {
            Error::tensor(path, name, format!("has kind {:?}", tensor.kind()), "only float and int64 tensors are saved")
        })?;
        let shape = tensor.size().iter().map(|&n| n as usize).collect();
        outgoing.push((name.to_owned(), Outgoing { tensor: tensor.shallow_clone(), dtype, shape }));
    }
    safetensors::serialize_to_file(outgoing, Some(metadata), path).map_err(|e| write_error(path, e))?;
    let file = std::fs::File::open(path).map_err(Error::io(path, "open"))?;
    file.sync_all().map_err(Error::io(path, "fsync"))
}

/// Reads all tensors of a safetensors file onto `device`, kinds as in the file, with the file's metadata.
///
/// # Errors
/// A file that cannot be read, a header that does not fit the file, a kind that libtorch lacks.
pub fn read(path: &Path, device: Device) -> Result<(TensorMap, HashMap<String, String>)> {
    let bytes = crate::ffi::map_file(path)?;
    let broken = |error: SafeTensorError| {
        Error::file(path, format!("not a whole safetensors file: {error}"), "download or save it again")
    };
    let (_, metadata) = SafeTensors::read_metadata(&bytes).map_err(broken)?;
    let parsed = SafeTensors::deserialize(&bytes).map_err(broken)?;
    let mut names: Vec<String> = parsed.names().into_iter().map(str::to_owned).collect();
    names.sort();
    let mut tensors = TensorMap::new();
    for name in names {
        let view = parsed.tensor(&name).map_err(broken)?;
        let kind = kind_of(view.dtype()).ok_or_else(|| {
            let message = format!("has dtype {:?}", view.dtype());
            Error::tensor(path, &name, message, "save the weights as float32, bfloat16 or float16")
        })?;
        let shape: Vec<i64> = view.shape().iter().map(|&n| n as i64).collect();
        let tensor = Tensor::f_from_data_size(view.data(), &shape, kind)?;
        tensors.insert(name, tensor.f_to_device(device)?);
    }
    Ok((tensors, metadata.metadata().clone().unwrap_or_default()))
}

fn write_error(path: &Path, error: SafeTensorError) -> Error {
    match error {
        SafeTensorError::IoError(source) => Error::Io { path: path.into(), action: "write", source },
        other => Error::file(path, format!("cannot be written: {other}"), "report this"),
    }
}

fn dtype_of(kind: Kind) -> Option<Dtype> {
    Some(match kind {
        Kind::Float => Dtype::F32,
        Kind::BFloat16 => Dtype::BF16,
        Kind::Half => Dtype::F16,
        Kind::Double => Dtype::F64,
        Kind::Int64 => Dtype::I64,
        _ => return None,
    })
}

fn kind_of(dtype: Dtype) -> Option<Kind> {
    Some(match dtype {
        Dtype::F32 => Kind::Float,
        Dtype::BF16 => Kind::BFloat16,
        Dtype::F16 => Kind::Half,
        Dtype::F64 => Kind::Double,
        Dtype::I64 => Kind::Int64,
        Dtype::U8 => Kind::Uint8,
        Dtype::BOOL => Kind::Bool,
        _ => return None,
    })
}

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

/// A tensor on its way into a file: converted when its turn comes, so that one copy at a time is in memory.
struct Outgoing<'a> {
    tensor: &'a Tensor,
    kind: Kind,
    dtype: Dtype,
    shape: Vec<usize>,
}

impl View for Outgoing<'_> {
    fn dtype(&self) -> Dtype {
        self.dtype
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        let _guard = tch::no_grad_guard();
        let tensor = self.tensor.to_kind(self.kind).to_device(Device::Cpu).contiguous();
        let mut bytes = vec![0; self.data_len()];
        tensor.copy_data_u8(&mut bytes, tensor.numel());
        Cow::Owned(bytes)
    }

    fn data_len(&self) -> usize {
        self.tensor.numel() * self.kind.elt_size_in_bytes()
    }
}

/// Writes named tensors as safetensors, in kind `kind` or each in its own, with metadata, and fsyncs the file.
///
/// The caller writes into a temporary directory and renames it: this alone replaces no file safely.
///
/// # Errors
/// A kind that the format lacks here, or an input/output error.
pub fn write<'a>(
    path: &Path,
    tensors: impl IntoIterator<Item = (&'a str, &'a Tensor)>,
    kind: Option<Kind>,
    metadata: HashMap<String, String>,
) -> Result<()> {
    let mut outgoing = Vec::new();
    for (name, tensor) in tensors {
        let kind = kind.unwrap_or(tensor.kind());
        let dtype = dtype_of(kind).ok_or_else(|| {
            let remedy = "save as float32, bfloat16 or float16";
            Error::tensor(path, name, format!("cannot be saved as {kind:?}"), remedy)
        })?;
        let shape = tensor.size().iter().map(|&n| n as usize).collect();
        outgoing.push((name, Outgoing { tensor, kind, dtype, shape }));
    }
    // Someone may read the old file where it is mapped: it is unlinked, never cut short.
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(Error::io(path, "replace")(error)),
        _ => {}
    }
    // The crate makes files that only their owner can read; a model's are to be what the umask says, as its other files.
    let created = std::fs::File::create(path).and_then(|file| file.metadata());
    let permissions = created.map_err(Error::io(path, "create"))?.permissions();
    safetensors::serialize_to_file(outgoing, Some(metadata), path).map_err(|error| match error {
        SafeTensorError::IoError(source) => Error::Io { path: path.into(), action: "write", source },
        other => Error::file(path, format!("cannot be written: {other}"), "please report this"),
    })?;
    let file = std::fs::File::open(path).map_err(Error::io(path, "open"))?;
    file.set_permissions(permissions).map_err(Error::io(path, "set the permissions of"))?;
    file.sync_all().map_err(Error::io(path, "fsync"))
}

/// What safetensors files of PyTorch say of themselves.
pub fn pt_metadata() -> HashMap<String, String> {
    HashMap::from([("format".to_owned(), "pt".to_owned())])
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

/// libtorch's kind of a file's type, where it has one.
pub fn kind_of(dtype: Dtype) -> Option<Kind> {
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

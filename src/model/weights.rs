//! safetensors files of a model directory, read one tensor at a time. Owns shards, headers and what makes a file
//! damaged; knows no family (writing: `tensors`). Pickles are refused, never read.
use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use indexmap::IndexMap;
use memmap2::Mmap;
use safetensors::tensor::{Dtype, Metadata, SafeTensorError, SafeTensors};
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use tch::{Kind, Tensor};

use super::params::{copy, missing};
use crate::error::{Error, Result};
use crate::ffi;
use crate::tensors::kind_of;

/// The one-file name of the weights.
pub const FILE: &str = "model.safetensors";
/// The index of weights in several files.
pub const INDEX: &str = "model.safetensors.index.json";
const DAMAGED: &str = "the file is damaged or incomplete; download or save it again";

/// The weights of a model directory: mapped files, tensors read when taken.
pub struct Weights {
    dir: PathBuf,
    files: Vec<Mapped>,
    entries: IndexMap<String, Entry>,
}

struct Mapped {
    path: PathBuf,
    map: Arc<Mmap>,
}

struct Entry {
    file: usize,
    dtype: Dtype,
    shape: Vec<i64>,
    start: usize,
    end: usize,
    taken: bool,
}

impl Weights {
    /// Opens `dir/model.safetensors` or the shards that `dir/model.safetensors.index.json` names. `rename` brings a
    /// file's tensor names into the form that the model takes.
    ///
    /// # Errors
    /// [`Error::File`] or [`Error::Tensor`] naming the file (and tensor) for missing, pickled or damaged weights.
    pub fn open(dir: &Path, rename: impl Fn(&str) -> String) -> Result<Self> {
        let mut weights = Weights { dir: dir.to_path_buf(), files: Vec::new(), entries: IndexMap::new() };
        let single = dir.join(FILE);
        let index = dir.join(INDEX);
        if single.is_file() {
            weights.add_file(single, &rename, None)?;
        } else if index.is_file() {
            let places = read_index(&index)?;
            for name in &files(dir)? {
                let path = dir.join(name);
                if !path.is_file() {
                    return Err(Error::file(path, format!("missing, but {INDEX} names it"), "download it again"));
                }
                weights.add_file(path, &rename, Some((name, &places)))?;
            }
            let lost = places.keys().find(|name| !weights.entries.contains_key(&rename(name)));
            if let Some(name) = lost {
                return Err(Error::tensor(&index, name, "in no shard, but the index names it", DAMAGED));
            }
        } else {
            return Err(no_weights(dir));
        }
        Ok(weights)
    }

    /// The model directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Whether a tensor of that name is there.
    pub fn has(&self, name: &str) -> bool {
        self.entries.contains_key(name)
    }

    /// Values in all tensors.
    pub fn numel(&self) -> u64 {
        self.entries.values().map(|entry| entry.shape.iter().product::<i64>() as u64).sum()
    }

    /// Names of tensors that were not taken.
    pub fn left_over(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().filter(|(_, entry)| !entry.taken).map(|(name, _)| name.as_str())
    }

    /// The type of a tensor, which counts as taken; its values are not read.
    ///
    /// # Errors
    /// [`Error::Tensor`] where it is missing, has another shape, or is of a type other than float32, bfloat16 or float16.
    pub fn check(&mut self, name: &str, shape: &[i64]) -> Result<Kind> {
        let entry = self.entries.get_mut(name).ok_or_else(|| missing(&self.dir, name))?;
        let file = &self.files[entry.file];
        let fail = |message: String, remedy: &str| Err(Error::tensor(&file.path, name, message, remedy));
        if entry.shape != shape {
            let message = format!("has shape {:?}, the model wants {shape:?}", entry.shape);
            return fail(message, "check that config.json and the weights belong together");
        }
        let float = |kind: &Kind| matches!(kind, Kind::Float | Kind::BFloat16 | Kind::Half);
        let Some(stored) = kind_of(entry.dtype).filter(float) else {
            let message = format!("has type {:?}", entry.dtype);
            return fail(message, "save the model as float32, bfloat16 or float16");
        };
        entry.taken = true;
        Ok(stored)
    }

    /// A tensor as `kind` in main memory. `mapped`: it will not be written to, so that a file that holds it in that kind
    /// is read where it is mapped; otherwise, and for another kind, it is copied, and the file's pages are let go.
    ///
    /// # Errors
    /// [`Error::Tensor`] where it is missing, has another shape, is of a type other than float32, bfloat16 or float16, or
    /// holds a value that is not finite.
    pub fn take(&mut self, name: &str, shape: &[i64], kind: Kind, mapped: bool) -> Result<Tensor> {
        let stored = self.check(name, shape)?;
        let entry = &self.entries[name];
        let file = &self.files[entry.file];
        let range = entry.start..entry.end;
        let (tensor, viewed) = match ffi::view(&file.map, range.clone(), shape, stored)? {
            Some(view) => (view, true),
            // Not through `half::bf16`, which tch takes for float16.
            None => (Tensor::f_from_data_size(&file.map[range.clone()], shape, stored)?, false),
        };
        if !finite(&tensor)? {
            let message = "holds a value that is not finite (NaN or infinity)";
            return Err(Error::tensor(&file.path, name, message, DAMAGED));
        }
        if viewed && mapped && stored == kind {
            return Ok(tensor);
        }
        let copied = if stored == kind && viewed { copy(&tensor)? } else { tensor.f_to_kind(kind)? };
        ffi::release_pages(&file.map, range);
        Ok(copied)
    }

    fn add_file(&mut self, path: PathBuf, rename: impl Fn(&str) -> String, shard: Option<Shard<'_>>) -> Result<()> {
        let map = ffi::map_file(&path)?;
        let (header, metadata) = SafeTensors::read_metadata(&map).map_err(|error| damaged(&path, &map, &error))?;
        refuse_duplicates(&path, &map[8..8 + header])?;
        for name in metadata.offset_keys() {
            if shard.is_some_and(|(file, places)| places.get(&name) != Some(file)) {
                return Err(Error::tensor(&path, &name, format!("{INDEX} does not place it here"), DAMAGED));
            }
            let entry = self.entry(&metadata, &name, 8 + header);
            if let Some(entry) = entry.filter(|_| !self.entries.contains_key(&rename(&name))) {
                self.entries.insert(rename(&name), entry);
            } else {
                return Err(Error::tensor(&path, &name, "stands in the weights twice", DAMAGED));
            }
        }
        self.files.push(Mapped { path, map: Arc::new(map) });
        Ok(())
    }

    fn entry(&self, metadata: &Metadata, name: &str, data: usize) -> Option<Entry> {
        let info = metadata.info(name)?;
        let (start, end) = info.data_offsets;
        let shape = info.shape.iter().map(|&size| size as i64).collect();
        Some(Entry {
            file: self.files.len(),
            dtype: info.dtype,
            shape,
            start: data + start,
            end: data + end,
            taken: false,
        })
    }
}

type Shard<'a> = (&'a String, &'a HashMap<String, String>);

/// Whether all values are finite. A finite sum says so in one pass; else (it may have overflowed) each value is looked at.
fn finite(tensor: &Tensor) -> Result<bool> {
    if tensor.kind() != Kind::Float {
        return Ok(bool::try_from(tensor.f_isfinite()?.f_all()?)?);
    }
    let sum = f64::try_from(tensor.f_sum(Kind::Float)?)?;
    Ok(sum.is_finite() || bool::try_from(tensor.f_isfinite()?.f_all()?)?)
}

/// The names of the files that hold a model directory's weights: one, or the shards that the index names, or none where
/// there is only a tokenizer or a configuration.
///
/// # Errors
/// As [`Weights::open`] for an index.
pub fn files(dir: &Path) -> Result<Vec<String>> {
    if dir.join(FILE).is_file() {
        return Ok(vec![FILE.to_owned()]);
    }
    let index = dir.join(INDEX);
    if !index.is_file() {
        return Ok(Vec::new());
    }
    let mut names: Vec<String> = read_index(&index)?.into_values().collect();
    names.sort();
    names.dedup();
    Ok(names)
}

/// Tensor name to shard file, from the index.
fn read_index(path: &Path) -> Result<HashMap<String, String>> {
    #[derive(serde::Deserialize)]
    struct Index {
        weight_map: HashMap<String, String>,
    }
    let bytes = std::fs::read(path).map_err(Error::io(path, "read"))?;
    let index: Index =
        serde_json::from_slice(&bytes).map_err(|e| Error::file(path, e.to_string(), "download it again"))?;
    for name in index.weight_map.values() {
        let mut parts = Path::new(name).components();
        if !matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None))
            || name.contains('\\')
            || name.contains(char::is_control)
        {
            let message = format!("names the shard {name:?}, which is not a plain file name");
            return Err(Error::file(path, message, "do not use this model"));
        }
    }
    Ok(index.weight_map)
}

/// JSON readers let the last of two equal keys win; here the second one is an error.
fn refuse_duplicates(path: &Path, header: &[u8]) -> Result<()> {
    struct Names;
    impl<'de> Visitor<'de> for Names {
        type Value = Option<String>;
        fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
            f.write_str("a map")
        }
        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Self::Value, A::Error> {
            let mut seen = std::collections::HashSet::new();
            let mut twice = None;
            while let Some((name, _)) = map.next_entry::<String, IgnoredAny>()? {
                if !seen.insert(name.clone()) {
                    twice = Some(name);
                }
            }
            Ok(twice)
        }
    }
    let mut json = serde_json::Deserializer::from_slice(header);
    match json.deserialize_map(Names) {
        Ok(None) => Ok(()),
        Ok(Some(name)) => Err(Error::tensor(path, &name, "stands in the header twice", DAMAGED)),
        Err(error) => Err(Error::file(path, format!("its header is not JSON: {error}"), DAMAGED)),
    }
}

fn damaged(path: &Path, bytes: &[u8], error: &SafeTensorError) -> Error {
    match error {
        SafeTensorError::TensorInvalidInfo => match misfit(bytes) {
            Some(name) => Error::tensor(path, &name, "its shape and type do not fill its place in the file", DAMAGED),
            None => Error::file(path, format!("not a safetensors file: {error}"), DAMAGED),
        },
        SafeTensorError::InvalidOffset(name) => {
            Error::tensor(path, name, "its place overlaps another's, leaves a hole or lies outside the file", DAMAGED)
        }
        SafeTensorError::MetadataIncompleteBuffer => {
            Error::file(path, "its length is not what its header says (cut short?)", DAMAGED)
        }
        other => Error::file(path, format!("not a safetensors file: {other}"), DAMAGED),
    }
}

/// The first tensor whose shape and type ask for another number of bytes than its offsets hold; the crate names none.
fn misfit(bytes: &[u8]) -> Option<String> {
    let length = usize::try_from(u64::from_le_bytes(bytes.get(..8)?.try_into().ok()?)).ok()?;
    let header: serde_json::Map<String, serde_json::Value> =
        serde_json::from_slice(bytes.get(8..8usize.checked_add(length)?)?).ok()?;
    let fits = |info: &serde_json::Value| {
        let info: safetensors::tensor::TensorInfo = serde_json::from_value(info.clone()).ok()?;
        let values = info.shape.iter().try_fold(1usize, |product, &size| product.checked_mul(size))?;
        let wanted = values.checked_mul(info.dtype.bitsize())? / 8;
        (info.data_offsets.1.checked_sub(info.data_offsets.0)? == wanted).then_some(())
    };
    let bad = |(name, info): &(String, serde_json::Value)| name != "__metadata__" && fits(info).is_none();
    header.into_iter().find(bad).map(|(name, _)| name)
}

fn no_weights(dir: &Path) -> Error {
    let pickle = |name: &str| {
        let ends = [".bin", ".pt", ".pth", ".ckpt"].iter().any(|end| name.ends_with(end));
        ends && !name.starts_with("training_args")
    };
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let found = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).find(|name| pickle(name));
    let here = |start: &str| {
        let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).any(|name| name.starts_with(start))
    };
    match found {
        None if here("model-0") => Error::file(dir, format!("shards are here, but no {INDEX}"), "copy it there, too"),
        None if here("adapter_model") => {
            let remedy = "merge it into its model first: peft's merge_and_unload, then save_pretrained";
            Error::file(dir, "an adapter, not a whole model", remedy)
        }
        None => Error::file(dir, format!("no {FILE} here"), "give a directory in Hugging Face layout"),
        Some(name) => {
            let dir_text = dir.display();
            let line = format!(
                "python -c \"from transformers import AutoModelForCausalLM as M; M.from_pretrained('{dir_text}').save_pretrained('{dir_text}-safetensors')\""
            );
            let message = "weights as a pickle are not read, since loading one can run any code";
            Error::file(dir.join(name), message, format!("where you trust it, convert it once: {line}"))
        }
    }
}

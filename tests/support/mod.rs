//! Reads the reference values under tests/golden/ and compares tensors with them. Independent of the crate under test.
#![allow(clippy::unwrap_used)]
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tch::{Kind, Tensor};

/// A file or directory of the reference values.
pub fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

/// A JSON file of the reference values.
pub fn json(name: &str) -> Value {
    let path = golden(name);
    let bytes = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_slice(&bytes).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The elements under `key`.
pub fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().unwrap_or_else(|| panic!("{key} is not a list"))
}

/// The text under `key`.
pub fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_else(|| panic!("{key} is not a text"))
}

/// The number under `key`.
pub fn number(value: &Value, key: &str) -> f64 {
    value[key].as_f64().unwrap_or_else(|| panic!("{key} is not a number"))
}

/// A list of whole numbers.
pub fn ids(value: &Value) -> Vec<i64> {
    value.as_array().unwrap().iter().map(|x| x.as_i64().unwrap()).collect()
}

/// Nested lists of numbers as a float32 tensor; the files hold doubles that equal float32 values.
pub fn tensor(value: &Value) -> Tensor {
    fn gather(value: &Value, depth: usize, shape: &mut Vec<i64>, flat: &mut Vec<f32>) {
        let Some(items) = value.as_array() else { return flat.push(value.as_f64().unwrap() as f32) };
        if shape.len() == depth {
            shape.push(items.len() as i64);
        }
        assert_eq!(shape[depth], items.len() as i64, "ragged list");
        items.iter().for_each(|item| gather(item, depth + 1, shape, flat));
    }
    let (mut shape, mut flat) = (Vec::new(), Vec::new());
    gather(value, 0, &mut shape, &mut flat);
    Tensor::from_slice(&flat).reshape(&shape)
}

/// The tensors of a safetensors file, as float32.
pub fn tensors(path: &Path) -> BTreeMap<String, Tensor> {
    let bytes = std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let mut found = BTreeMap::new();
    for (name, view) in file.tensors() {
        let kind = match view.dtype() {
            safetensors::Dtype::F32 => Kind::Float,
            safetensors::Dtype::BF16 => Kind::BFloat16,
            other => panic!("{name}: {other:?}"),
        };
        let shape: Vec<i64> = view.shape().iter().map(|&n| n as i64).collect();
        found.insert(name, Tensor::from_data_size(view.data(), &shape, kind).to_kind(Kind::Float));
    }
    found
}

/// How far two tensors of one shape are apart.
struct Distance {
    /// Largest |ours - reference|, and where.
    absolute: f64,
    at: i64,
    /// Largest |reference|.
    scale: f64,
}

fn distance(what: &str, ours: &Tensor, reference: &Tensor) -> Distance {
    assert_eq!(ours.size(), reference.size(), "{what}: shape");
    let (ours, reference) = (ours.detach().to_kind(Kind::Double), reference.detach().to_kind(Kind::Double));
    if reference.numel() == 0 {
        return Distance { absolute: 0.0, at: 0, scale: 0.0 };
    }
    let (largest, at) = (&ours - &reference).abs().flatten(0, -1).max_dim(0, false);
    Distance {
        absolute: largest.double_value(&[]),
        at: at.int64_value(&[]),
        scale: reference.abs().max().double_value(&[]),
    }
}

fn judge(what: &str, ours: &Tensor, reference: &Tensor, found: &Distance, allowed: f64) {
    let at = |t: &Tensor| t.detach().flatten(0, -1).double_value(&[found.at]);
    // Not `>`: a NaN must fail.
    if !matches!(found.absolute.partial_cmp(&allowed), Some(std::cmp::Ordering::Less | std::cmp::Ordering::Equal)) {
        panic!(
            "{what} {:?}: |difference| up to {:.3e} where {allowed:.3e} is allowed (values up to {:.3e}); at flat index {} ours is {}, the reference {}",
            reference.size(),
            found.absolute,
            found.scale,
            found.at,
            at(ours),
            at(reference)
        );
    }
}

/// Every element within `tolerance * max(1, largest |reference|)`.
pub fn assert_close(what: &str, ours: &Tensor, reference: &Tensor, tolerance: f64) {
    let found = distance(what, ours, reference);
    judge(what, ours, reference, &found, tolerance * found.scale.max(1.0));
}

/// Every element within `tolerance * largest |reference|`, however small that is: for gradients.
pub fn assert_relative(what: &str, ours: &Tensor, reference: &Tensor, tolerance: f64) {
    let found = distance(what, ours, reference);
    judge(what, ours, reference, &found, tolerance * found.scale);
}

/// One number within `tolerance * max(1, |reference|)`.
pub fn assert_number(what: &str, ours: f64, reference: f64, tolerance: f64) {
    let difference = (ours - reference).abs();
    let allowed = tolerance * reference.abs().max(1.0);
    // Not `>`: a NaN must fail.
    assert!(
        difference <= allowed,
        "{what}: ours is {ours}, the reference {reference}, difference {difference:.3e} > {allowed:.3e}"
    );
}

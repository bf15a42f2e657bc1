//! Reads the reference values under tests/golden/ and compares tensors with them, on the device that the tests run on.
//! Independent of the crate under test but for the device's name.
#![allow(clippy::unwrap_used)]
pub mod sandbox;

use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;
use tch::{Device, Kind, Tensor};

/// Names the device that models, losses, optimizers and whole runs are tested on.
const DEVICE_VARIABLE: &str = "COLLIMATE_TEST_DEVICE";

/// What [`DEVICE_VARIABLE`] says, else `cpu`: a value for `model.device` and `--device`.
pub fn device_name() -> String {
    std::env::var(DEVICE_VARIABLE).unwrap_or_else(|_| "cpu".to_owned())
}

/// The device that the tests run on. The reference values and the tolerances are the same on all.
pub fn device() -> Device {
    static DEVICE: LazyLock<Device> = LazyLock::new(|| {
        let name = device_name();
        collimate::model::device::resolve(&name).unwrap_or_else(|error| panic!("{DEVICE_VARIABLE}={name}: {error}"))
    });
    *DEVICE
}

/// The program under test. Where the tests run on the CPU it sees no GPU: its own default would take one.
pub fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_collimate"));
    if device() == Device::Cpu {
        command.env("CUDA_VISIBLE_DEVICES", "");
    }
    command
}

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

/// Ids or indices as a tensor on the device of the tests.
pub fn index(values: &[i64]) -> Tensor {
    Tensor::from_slice(values).to_device(device())
}

/// Nested lists of numbers as a float32 tensor on the device of the tests; the files hold doubles that equal float32
/// values.
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
    Tensor::from_slice(&flat).reshape(&shape).to_device(device())
}

/// The tensors of a safetensors file, as float32 on the CPU.
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
    let [ours, reference] = [ours, reference].map(|t| t.detach().to_device(Device::Cpu).to_kind(Kind::Double));
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

//! What only a GPU can show: the CPU's numbers to 1e-4, no TF32, bfloat16, counted memory, fused attention. Runs wherever
//! a CUDA device is, whatever device the other tests are on; elsewhere each test says that there was nothing to test.
#![allow(clippy::unwrap_used)]
use crate::support::sandbox::{Sandbox, copy_dir, golden_rows, json_lines};
use crate::support::{assert_close, assert_relative, golden};
use crate::tiny::{config, families, gradients, ids, logits};
use collimate::ffi;
use collimate::model::{CausalLm, HfConfig, LoadOptions, ModelInput, Params, SaveOptions, device};
use collimate::rollout::{GenerateOptions, Sampling, generate};
use serde_json::{Value, json};
use std::io::Write;
use tch::{Device, Kind, Tensor};

const GPU: Device = Device::Cuda(0);
const TOLERANCE: f64 = 1e-4;
const MIB: u64 = 1 << 20;

/// Past the capture of the test runner, which shows nothing of a test that passes.
fn say(text: &str) {
    std::io::stderr().write_all(format!("{text}\n").as_bytes()).unwrap();
}

/// Whether there is a CUDA device; if not, says so.
fn has_gpu(test: &str) -> bool {
    match device::resolve("cuda") {
        Ok(found) => {
            assert_eq!(found, GPU);
            true
        }
        Err(error) => {
            assert!(device::why_no_cuda().is_some(), "{error}");
            say(&format!("cuda::{test}: nothing tested, no CUDA device: {error}"));
            false
        }
    }
}

fn on(device: Device, compute: Kind) -> LoadOptions {
    LoadOptions { device, compute, trainable: true, mapped: false, checkpointing: false }
}

fn load(config: &HfConfig, device: Device, compute: Kind) -> CausalLm {
    CausalLm::from_config(config.clone(), 7, &on(device, compute)).unwrap()
}

/// Wide enough that a product in TF32, whose significands have 10 bits, would miss the tolerance.
fn wide(vocabulary: usize, context: usize) -> HfConfig {
    config(json!({"model_type": "gpt2", "vocab_size": vocabulary, "n_positions": context, "n_embd": 256, "n_layer": 3,
                  "n_head": 8, "initializer_range": 0.1}))
}

fn host(tensor: &Tensor) -> Tensor {
    tensor.detach().to_device(Device::Cpu)
}

/// A loss that weighs every logit differently.
fn weighted(logits: &Tensor) -> Tensor {
    let weights = Tensor::arange(logits.numel() as i64, (Kind::Float, Device::Cpu)).sin().view_as(logits);
    (logits * weights.to_device(logits.device())).sum(Kind::Float)
}

/// Logits and gradients of ragged rows on the CPU and on the GPU.
fn assert_same_numbers(what: &str, config: &HfConfig) {
    let rows = [ids(9, 1), ids(1, 2), ids(40, 3), ids(17, 4)];
    let [cpu, gpu] = [Device::Cpu, GPU].map(|device| {
        let model = load(config, device, Kind::Float);
        let logits = logits(&model, &ModelInput::from_sequences(&rows, device).unwrap());
        let gradients = gradients(&model, &weighted(&logits));
        (host(&logits), gradients)
    });
    assert_close(&format!("{what}: logits"), &gpu.0, &cpu.0, TOLERANCE);
    for ((name, ours), (_, theirs)) in gpu.1.iter().zip(&cpu.1) {
        let what = format!("{what}: d {name}");
        // OPT's keys do not turn: their bias has no gradient but rounding.
        if name.starts_with("model.decoder.") && name.ends_with("k_proj.bias") {
            assert!(f64::try_from(ours.abs().max()).unwrap() < 1e-3, "{what}");
        } else {
            assert_relative(&what, ours, theirs, TOLERANCE);
        }
    }
}

#[test]
fn float32_on_the_gpu_is_float32_on_the_cpu() {
    if !has_gpu("float32_on_the_gpu_is_float32_on_the_cpu") {
        return;
    }
    for model in families() {
        assert_same_numbers(model.config().spec().model_type, model.config());
    }
    assert_same_numbers("wide", &wide(41, 64));
}

#[test]
fn greedy_decoding_gives_the_cpu_s_tokens() {
    if !has_gpu("greedy_decoding_gives_the_cpu_s_tokens") {
        return;
    }
    let options = GenerateOptions {
        max_new_tokens: 20,
        sampling: Sampling { temperature: 1.0, top_k: 0, top_p: 1.0, greedy: true },
        eos: Some(3),
        seed: 0,
        batch_size: 4,
    };
    let prompts: Vec<Vec<i64>> = (1..=9).map(|n| ids(n, n as i64)).collect();
    let decode = |device| {
        let model = load(&wide(41, 64), device, Kind::Float);
        generate(&model, &prompts, &options, |_| Ok(())).unwrap()
    };
    assert_eq!(decode(GPU), decode(Device::Cpu));
}

/// The program's output, with the GPU in sight whatever the other tests run on. NVIDIA's containers set the variable that
/// makes libtorch round products to TF32 unless a program forbids it.
fn run_on_gpu(sandbox: &Sandbox, args: &[&str]) -> String {
    let mut command = sandbox.command(args);
    match std::env::var_os("CUDA_VISIBLE_DEVICES") {
        Some(devices) => command.env("CUDA_VISIBLE_DEVICES", devices),
        None => command.env_remove("CUDA_VISIBLE_DEVICES"),
    };
    let output = command.env("TORCH_ALLOW_TF32_CUBLAS_OVERRIDE", "1").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Saves a wide model with the tiny tokenizer as `wide`.
fn saved_wide(sandbox: &Sandbox) {
    copy_dir(&golden("models/gpt2-tiny"), &sandbox.path("wide"));
    let ids = SaveOptions { bos: Some(0), eos: Some(0), pad: None, max_shard_bytes: u64::MAX };
    load(&wide(400, 128), Device::Cpu, Kind::Float).save_pretrained(&sandbox.path("wide"), Kind::Float, &ids).unwrap();
}

#[test]
fn the_environment_cannot_switch_tf32_on() {
    if !has_gpu("the_environment_cannot_switch_tf32_on") {
        return;
    }
    let sandbox = Sandbox::new();
    saved_wide(&sandbox);
    sandbox.rows("rows.jsonl", &golden_rows("sft.jsonl", 8));
    let score = |device: &str| -> Vec<f64> {
        let args = ["score", "--model", "wide", "--data", "rows.jsonl", "--device", device];
        let lines = run_on_gpu(&sandbox, &args);
        let parse = |line: &str| serde_json::from_str::<Value>(line).unwrap();
        let all = lines.lines().map(parse).flat_map(|row| row["logprobs"].as_array().unwrap().clone());
        all.map(|value| value.as_f64().unwrap()).collect()
    };
    let [cpu, gpu] = ["cpu", "cuda"].map(|device| Tensor::from_slice(&score(device)));
    assert_close("log-probs", &gpu, &cpu, 2e-5);
}

/// A step in bfloat16 beside one in float32, by the program, with what the log says of memory.
#[test]
fn a_run_in_bfloat16_learns_the_same_and_counts_the_gpu_s_memory() {
    if !has_gpu("a_run_in_bfloat16_learns_the_same_and_counts_the_gpu_s_memory") {
        return;
    }
    let sandbox = Sandbox::with_stages();
    saved_wide(&sandbox);
    for stage in ["sft", "dpo"] {
        let [full, half] = ["float32", "bfloat16"].map(|dtype| {
            let output = format!("{stage}-{dtype}");
            let overrides = [
                "model.path=wide".to_owned(),
                format!("model.dtype={dtype}"),
                format!("train.output={output}"),
                "train.steps=4".into(),
                "train.log_every=1".into(),
                "train.learning_rate=1e-4".into(),
                "model.device=cuda".into(),
            ];
            let args = [vec![stage.to_owned(), format!("{stage}.toml")], overrides.to_vec()].concat();
            let args: Vec<&str> = args.iter().map(String::as_str).collect();
            run_on_gpu(&sandbox, &args);
            json_lines(&sandbox.path(&output).join("metrics.jsonl"))
        });
        let losses = |lines: &[serde_json::Map<String, Value>]| -> Vec<f64> {
            lines.iter().take(4).map(|line| line["loss"].as_f64().unwrap()).collect()
        };
        let (a, b) = (losses(&full), losses(&half));
        assert!(a.iter().zip(&b).all(|(a, b)| (a - b).abs() < 0.02 * a), "{stage}: losses {a:?} and {b:?}");
        assert_ne!(a, b, "{stage}: model.dtype does nothing");
        // 2.5 million float32 weights with gradients and two moments are 40 MB; the process itself is ten times that.
        let memory = full[3]["peak_memory_mb"].as_f64().unwrap();
        assert!((35.0..400.0).contains(&memory), "{stage}: {memory} MB of the GPU");
    }
}

/// Peak bytes since a reset; attention over long rows needs no square of their length, as a kernel that is not fused would.
/// One test, because the count is the whole process's.
#[test]
fn memory_is_counted_and_attention_needs_no_square() {
    if !has_gpu("memory_is_counted_and_attention_needs_no_square") {
        return;
    }
    let peak = |reset: bool| ffi::cuda_peak_bytes(0, reset).unwrap();
    let zeros = |mib: u64| Tensor::zeros([(mib * MIB / 4) as i64], (Kind::Float, GPU));
    let _small = zeros(1);
    peak(true);
    let base = peak(false);
    drop(zeros(1024));
    let grown = peak(true) - base;
    // Other tests of this process may hold a little meanwhile.
    assert!((1024 * MIB..1200 * MIB).contains(&grown), "1 GiB counts as {grown} bytes");
    assert!(peak(false) < base + 176 * MIB, "a reset starts anew");

    let (rows, width, heads) = (2, 8192, 8);
    for compute in [Kind::Float, Kind::BFloat16] {
        let model = load(&wide(41, width), GPU, compute);
        // The gathered grid: rows of different lengths.
        let input = ModelInput::from_sequences(&[ids(width, 1), ids(width - 100, 2)], GPU).unwrap();
        peak(true);
        let base = peak(false);
        let hidden = model.hidden_states(&input, None).unwrap();
        let square = (rows * heads * width * width * compute.elt_size_in_bytes()) as u64;
        let forward = peak(false) - base;
        assert!(forward < square, "{compute:?}: forward {forward} bytes, scores alone would be {square}");
        hidden.square().sum(Kind::Float).backward();
        let whole = peak(false) - base;
        assert!(whole < square, "{compute:?}: with backward {whole} bytes, scores alone would be {square}");
        assert_finite(model.params());
    }
}

fn assert_finite(params: &Params) {
    for (name, tensor) in params.iter() {
        assert!(f64::try_from(tensor.grad().abs().sum(Kind::Float)).unwrap().is_finite(), "{name}");
    }
}

/// libtorch's choice for tensors laid out as attention lays them out: a fused kernel, causal without a mask.
#[test]
fn a_fused_attention_kernel_is_chosen() {
    if !has_gpu("a_fused_attention_kernel_is_chosen") {
        return;
    }
    const BACKENDS: [&str; 4] = ["math", "flash", "memory-efficient", "cuDNN"];
    let (rows, width, heads, head_dim) = (4, 200, 12, 64);
    for kind in [Kind::Float, Kind::BFloat16] {
        for trained in [false, true] {
            let grid = Tensor::randn([rows, width, 3 * heads * head_dim], (Kind::Float, GPU)).to_kind(kind);
            let parts = grid.set_requires_grad(trained).view([rows, width, 3, heads, head_dim]).unbind(2);
            let [q, k, v] = [0, 1, 2].map(|part: usize| parts[part].transpose(1, 2));
            let chosen = Tensor::internal_fused_sdp_choice(&q, &k, &v, None::<&Tensor>, 0.0, true, None, false);
            let name = usize::try_from(chosen).ok().and_then(|chosen| BACKENDS.get(chosen)).unwrap_or(&"unknown");
            say(&format!("attention in {kind:?}, trained {trained}: {name}"));
            let fused: &[&str] = if kind == Kind::Float { &["memory-efficient"] } else { &["flash", "cuDNN"] };
            assert!(fused.contains(name), "{kind:?}, trained {trained}: {name}");
        }
    }
}

/// What an update's loss and norm go through: queued behind what computes them, looked at when they have arrived.
#[test]
fn numbers_come_back_without_anybody_waiting() {
    if !has_gpu("numbers_come_back_without_anybody_waiting") {
        return;
    }
    let large = Tensor::ones([4096, 4096], (Kind::Float, GPU));
    let product = large.matmul(&large).matmul(&large);
    let [sum, norm] = [product.max(), product.norm()];
    let back = ffi::Readback::begin([&sum, &norm]).unwrap();
    let [first, _] = back.values().unwrap();
    assert_eq!(first, 4096.0 * 4096.0);
    let ids: Vec<i64> = (0..1000).collect();
    let uploaded = collimate::model::upload(&ids, GPU).unwrap();
    assert_eq!(Vec::<i64>::try_from(host(&uploaded)).unwrap(), ids);
}

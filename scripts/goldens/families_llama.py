"""Llama, Mistral, Qwen2 and Qwen3 models of families.py. Seeds: weights 2x, 3x, 4x, 5x; rows 100 more."""

import math

import torch
from cases import causal_cases, check_options, edit_config, keys, load, one_by_one, randomise, reward_cases, save
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    MistralForSequenceClassification,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen2ForSequenceClassification,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3ForSequenceClassification,
)
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

MADE_BY = "scripts/goldens/families_llama.py"
IDS = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": None}
SMALL = {
    "vocab_size": 64, "hidden_size": 24, "intermediate_size": 28, "num_hidden_layers": 2, "num_attention_heads": 4,
    "max_position_embeddings": 64, "attention_dropout": 0.0, **IDS,
}
PLAIN_ROPE = {"rope_type": "default", "rope_theta": 10000.0}
REWARD = {"num_labels": 1, "pad_token_id": 0, "problem_type": "regression"}


def build(cls, config, name: str, seed: int, dtype: torch.dtype = torch.float32, **options):
    model = cls(config)
    randomise(model, seed)
    return save(model.to(dtype), name, **options)


def older(*without: str, **added):
    """config.json in the keys of transformers 4: no rope_parameters, `torch_dtype` instead of `dtype`."""
    def change(config: dict) -> dict:
        config["torch_dtype"] = config["dtype"]
        gone = {key: ... for key in ("rope_parameters", "dtype", *without)}
        return keys(**gone)(config) | {"transformers_version": "4.40.0"} | added
    return change


def rope_llama3() -> None:
    rope = {
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 0.5, "high_freq_factor": 2.0,
        "original_max_position_embeddings": 16,
    }
    config = LlamaConfig(**SMALL | {"vocab_size": 48}, num_key_value_heads=2, head_dim=12, rope_parameters=rope | {"rope_theta": 500.0})
    wavelengths = 2 * math.pi * torch.tensor(500.0) ** (torch.arange(0, 12, 2) / 12)
    bands = [(wavelengths < 8).sum(), ((wavelengths >= 8) & (wavelengths <= 32)).sum(), (wavelengths > 32).sum()]
    assert all(count > 0 for count in bands), bands
    scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](config)
    assert len({round(r, 3) for r in (2 * math.pi / wavelengths / scaled).tolist()}) >= 3
    path = build(LlamaForCausalLM, config, "llama-rope-llama3", 20)
    edit_config(path, older(rope_scaling=rope, rope_theta=500.0))
    plain = {"rope_scaling": None}
    check_options(
        path, 48, 120, [plain, {"rope_scaling": rope | {"high_freq_factor": 4.0}}, {"rope_theta": ...}],
        [{"rope_scaling": ..., "rope_theta": ..., "rope_parameters": rope | {"rope_theta": 500.0}}],
    )
    causal_cases(path, 48, 120, MADE_BY)


def rope_linear() -> None:
    rope = {"rope_type": "linear", "factor": 4.0, "rope_theta": 200.0}
    config = LlamaConfig(**SMALL | {"vocab_size": 52}, num_key_value_heads=4, tie_word_embeddings=True, rope_parameters=rope)
    path = build(LlamaForCausalLM, config, "llama-rope-linear", 21)
    old = {"rope_parameters": ..., "rope_theta": 200.0, "rope_scaling": {"type": "linear", "factor": 4.0}}
    check_options(path, 52, 121, [{"rope_parameters": rope | {"rope_type": "default"}}, {"rope_parameters": rope | {"factor": 2.0}}], [old])
    causal_cases(path, 52, 121, MADE_BY)


def rope_dynamic() -> None:
    """transformers takes the longest row of a batch for all its rows, and keeps the frequencies of a long one for the
    next call: the reference is each row alone in a model of its own. Rows of at most 12 ids are not scaled."""
    config = LlamaConfig(
        **SMALL | {"max_position_embeddings": 12}, num_key_value_heads=1,
        rope_parameters={"rope_type": "dynamic", "factor": 3.0, "rope_theta": 300.0},
    )
    path = build(LlamaForCausalLM, config, "llama-rope-dynamic", 22)
    edit_config(path, older(rope_scaling={"type": "dynamic", "factor": 3.0}, rope_theta=300.0))
    check_options(path, 64, 122, [{"rope_scaling": None}, {"rope_scaling": {"type": "dynamic", "factor": 2.0}}])
    causal_cases(path, 64, 122, MADE_BY, one_by_one, {"one_row_at_a_time": True})


def llama_biased() -> None:
    config = LlamaConfig(
        **SMALL | {"num_attention_heads": 3, "vocab_size": 60}, num_key_value_heads=1, head_dim=10, attention_bias=True,
        mlp_bias=True, tie_word_embeddings=True, rope_parameters=PLAIN_ROPE, rms_norm_eps=1e-3, hidden_act="gelu_pytorch_tanh",
    )
    path = build(LlamaForCausalLM, config, "llama-biased", 23)
    matter = [{"attention_bias": False}, {"mlp_bias": False}, {"rms_norm_eps": 1e-6}, {"hidden_act": "silu"}]
    check_options(path, 60, 123, matter)
    causal_cases(path, 60, 123, MADE_BY)


def llama_sharded() -> None:
    config = LlamaConfig(**SMALL, num_key_value_heads=2, rope_parameters=PLAIN_ROPE)
    path = build(LlamaForCausalLM, config, "llama-sharded", 24, torch.float16, max_shard_size="9KB")
    shards = sorted(file.name for file in path.glob("*.safetensors"))
    assert len(shards) == 3 and (path / "model.safetensors.index.json").exists(), shards
    causal_cases(path, 64, 124, MADE_BY)


def mistral() -> None:
    config = MistralConfig(
        **SMALL, num_key_value_heads=2, head_dim=8, sliding_window=5, rope_parameters=PLAIN_ROPE | {"rope_theta": 1000.0},
    )
    path = build(MistralForCausalLM, config, "mistral-window", 30)
    matter = [{"sliding_window": width} for width in (None, 4, 6)]
    check_options(path, 64, 130, matter, [{"layer_types": ["sliding_attention"] * 2}])
    causal_cases(path, 64, 130, MADE_BY)

    # With layer_types in a Mistral file transformers' Auto classes take Ministral's code, which follows them.
    config = MistralConfig(
        **SMALL | {"vocab_size": 48}, num_key_value_heads=2, head_dim=8, sliding_window=4, rope_parameters=PLAIN_ROPE,
    )
    path = build(MistralForCausalLM, config, "mistral-layers", 33)
    edit_config(path, keys(layer_types=["full_attention", "sliding_attention"]))
    assert type(load(path)).__name__ == "MinistralForCausalLM"
    matter = [{"layer_types": ...}, {"layer_types": ["full_attention"] * 2}, {"layer_types": ["sliding_attention", "full_attention"]}]
    check_options(path, 48, 133, matter)
    causal_cases(path, 48, 133, MADE_BY)

    config = MistralConfig(
        **SMALL | {"vocab_size": 56}, num_key_value_heads=4, sliding_window=None, rope_parameters=PLAIN_ROPE, rms_norm_eps=1e-5,
    )
    path = build(MistralForCausalLM, config, "mistral-full", 31)
    edit_config(path, older("head_dim", rope_theta=10000.0))
    check_options(path, 56, 131, [{"sliding_window": 5}], [{"sliding_window": ...}])
    causal_cases(path, 56, 131, MADE_BY)

    config = MistralConfig(
        **SMALL | REWARD, num_key_value_heads=2, head_dim=8, sliding_window=5, rope_parameters=PLAIN_ROPE,
    )
    reward_cases(build(MistralForSequenceClassification, config, "mistral-reward", 32), 64, 0, 132, MADE_BY)


def qwen2() -> None:
    three = SMALL | {"num_hidden_layers": 3, "num_attention_heads": 2, "hidden_size": 20, "intermediate_size": 24}
    window = {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1}
    config = Qwen2Config(**three, num_key_value_heads=2, tie_word_embeddings=True, rope_parameters=PLAIN_ROPE, **window)
    assert config.layer_types == ["full_attention", "sliding_attention", "sliding_attention"]
    path = build(Qwen2ForCausalLM, config, "qwen2-tiny", 40)
    matter = [
        {"use_sliding_window": False, "layer_types": ...}, {"sliding_window": 4}, {"layer_types": ["sliding_attention"] * 3},
        {"layer_types": ["full_attention"] * 3},
    ]
    check_options(path, 64, 140, matter, [{"layer_types": ...}, {"max_window_layers": 2}])
    causal_cases(path, 64, 140, MADE_BY)

    config = Qwen2Config(**SMALL, num_key_value_heads=1, rope_parameters=PLAIN_ROPE | {"rope_theta": 1e6})
    path = build(Qwen2ForCausalLM, config, "qwen2-old", 41)
    edit_config(path, older("layer_types", rope_theta=1e6, use_sliding_window=False, sliding_window=5, max_window_layers=1))
    check_options(path, 64, 141, [{"use_sliding_window": True}, {"rope_theta": ...}], [{"sliding_window": ...}])
    causal_cases(path, 64, 141, MADE_BY)

    config = Qwen2Config(**SMALL, num_key_value_heads=2, rope_parameters=PLAIN_ROPE, tie_word_embeddings=True, **window)
    path = build(Qwen2ForCausalLM, config, "qwen2-bf16", 42, torch.bfloat16)
    edit_config(path, keys(layer_types=...))
    check_options(path, 64, 142, [{"max_window_layers": 0}, {"max_window_layers": 2}, {"use_sliding_window": False}])
    causal_cases(path, 64, 142, MADE_BY)

    config = Qwen2Config(**SMALL | REWARD, num_key_value_heads=2, rope_parameters=PLAIN_ROPE)
    reward_cases(build(Qwen2ForSequenceClassification, config, "qwen2-reward", 43), 64, 0, 143, MADE_BY)


def qwen3() -> None:
    config = Qwen3Config(**SMALL, num_key_value_heads=2, head_dim=10, tie_word_embeddings=True, rope_parameters=PLAIN_ROPE)
    path = build(Qwen3ForCausalLM, config, "qwen3-tiny", 50)
    check_options(path, 64, 150, [{"rms_norm_eps": 1e-2}], [{"sliding_window": 5}, {"layer_types": ...}])
    causal_cases(path, 64, 150, MADE_BY)

    # max_window_layers would make none of the layers slide: layer_types decides.
    config = Qwen3Config(
        **SMALL | {"num_hidden_layers": 3, "hidden_size": 20, "vocab_size": 48}, num_key_value_heads=1, head_dim=6,
        attention_bias=True, use_sliding_window=True, sliding_window=4, max_window_layers=3, rope_parameters=PLAIN_ROPE,
        layer_types=["sliding_attention", "full_attention", "sliding_attention"],
    )
    path = build(Qwen3ForCausalLM, config, "qwen3-sliding", 51)
    check_options(path, 48, 151, [{"layer_types": ...}, {"sliding_window": 5}, {"attention_bias": False}], [{"max_window_layers": 0}])
    causal_cases(path, 48, 151, MADE_BY)

    config = Qwen3Config(
        **SMALL | REWARD, num_key_value_heads=2, head_dim=10, tie_word_embeddings=True, rope_parameters=PLAIN_ROPE,
    )
    reward_cases(build(Qwen3ForSequenceClassification, config, "qwen3-reward", 52), 64, 0, 152, MADE_BY)


def make() -> None:
    for part in (rope_llama3, rope_linear, rope_dynamic, llama_biased, llama_sharded, qwen2, qwen3, mistral):
        part()

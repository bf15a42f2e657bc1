"""GPT-2's options, GPT-NeoX and OPT of families.py. Seeds: weights 6x, 7x, 8x; rows 100 more.

OPT: BOS = EOS = 2, pad 1, positions begin at row 2 of their table, and the token embedding has padding_idx 1, which
keeps the input's part of that row's gradient at 0 (a tied head's part remains). No row of ids here contains the pad
id, so the row's gradient is the plain derivative all the same: `check_pad_row` computes it without padding_idx, too,
and `exempt_rows` in cases.json (rows of a gradient that a test has to skip) is empty. A key's bias adds the same to all scores
of a query, so its gradient is 0 but for rounding: `zero_gradients` names these, which no relative bound fits.
"""

import json

import torch
from cases import causal_cases, check_options, edit_config, keys, load, make_rows, randomise, reward_cases, rewrite, save
from safetensors.torch import load_file
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    GPTNeoXForSequenceClassification,
    OPTConfig,
    OPTForCausalLM,
    OPTForSequenceClassification,
)

MADE_BY = "scripts/goldens/families_gpt.py"
GPT2 = {
    "vocab_size": 64, "n_positions": 32, "n_embd": 20, "n_head": 4, "bos_token_id": 63, "eos_token_id": 63,
    "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0,
}
NEOX = {
    "vocab_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": 32, "bos_token_id": 0,
    "eos_token_id": 0,
}
OPT = {
    "vocab_size": 56, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "ffn_dim": 26,
    "max_position_embeddings": 32, "dropout": 0.0,
}
REWARD = {"num_labels": 1, "problem_type": "regression"}


def build(cls, config, name: str, seed: int):
    model = cls(config)
    randomise(model, seed)
    return save(model, name)


def gpt2() -> None:
    config = GPT2Config(**GPT2, n_layer=2, n_inner=33, scale_attn_weights=False, activation_function="relu")
    path = build(GPT2LMHeadModel, config, "gpt2-scaled", 60)
    check_options(path, 64, 160, [{"scale_attn_weights": True}, {"activation_function": "gelu_new"}])
    causal_cases(path, 64, 160, MADE_BY)

    config = GPT2Config(
        **GPT2, n_layer=3, n_inner=27, scale_attn_by_inverse_layer_idx=True, reorder_and_upcast_attn=True,
        activation_function="silu", layer_norm_epsilon=1e-3,
    )
    path = build(GPT2LMHeadModel, config, "gpt2-inverse", 61)
    matter = [
        {"scale_attn_by_inverse_layer_idx": False}, {"scale_attn_weights": False}, {"activation_function": "relu"},
        {"layer_norm_epsilon": 1e-5},
    ]
    check_options(path, 64, 161, matter, [{"reorder_and_upcast_attn": False}, {"activation_function": "swish"}])
    causal_cases(path, 64, 161, MADE_BY)


def file_name(parameter: str) -> str:
    """save_pretrained calls NeoX's head `embed_out`, as every published file does; the module is `lm_head`."""
    return parameter.replace("lm_head.", "embed_out.")


def neox() -> None:
    rope = {"rope_type": "default", "rope_theta": 400.0, "partial_rotary_factor": 0.25}
    config = GPTNeoXConfig(**NEOX, hidden_size=32, intermediate_size=12, use_parallel_residual=True, rope_parameters=rope)
    path = build(GPTNeoXForCausalLM, config, "neox-parallel", 70)
    buffers = {}
    for i in range(2):
        attention = f"gpt_neox.layers.{i}.attention"
        buffers[f"{attention}.bias"] = torch.ones(32, 32, dtype=torch.bool).tril().view(1, 1, 32, 32)
        buffers[f"{attention}.masked_bias"] = torch.tensor(-1e9)
        buffers[f"{attention}.rotary_emb.inv_freq"] = 1.0 / 400.0 ** (torch.arange(0, 4, 2) / 4)
    rewrite(path, extra=buffers)
    assert "embed_out.weight" in load_file(path / "model.safetensors")

    def older(config: dict) -> dict:
        config["torch_dtype"] = config["dtype"]
        new = ("rope_parameters", "dtype", "attention_bias", "attention_dropout", "hidden_dropout", "is_decoder", "pad_token_id")
        config = keys(**{key: ... for key in new})(config)
        return config | {"rotary_pct": 0.25, "rotary_emb_base": 400, "transformers_version": "4.24.0"}

    edit_config(path, older)
    matter = [{"rotary_emb_base": ...}, {"rotary_pct": 0.5}, {"use_parallel_residual": False}, {"hidden_act": "gelu_new"}]
    check_options(path, 48, 170, matter, [{"rotary_pct": ...}, {"rope_theta": 77.0}, {"partial_rotary_factor": 0.5}])
    causal_cases(path, 48, 170, MADE_BY, rename=file_name)

    rope = {"rope_type": "linear", "factor": 2.0, "rope_theta": 600.0, "partial_rotary_factor": 0.5}
    config = GPTNeoXConfig(
        **NEOX, hidden_size=24, intermediate_size=30, use_parallel_residual=False, attention_bias=False, hidden_act="gelu_new",
        tie_word_embeddings=True, rope_parameters=rope, layer_norm_eps=1e-3,
    )
    path = build(GPTNeoXForCausalLM, config, "neox-serial", 71)
    matter = [
        {"rope_parameters": rope | {"factor": 1.0}}, {"rope_parameters": {key: value for key, value in rope.items() if key != "partial_rotary_factor"}},
        {"use_parallel_residual": True}, {"layer_norm_eps": 1e-5},
    ]
    old = {"rope_parameters": ..., "rope_scaling": {"type": "linear", "factor": 2.0}, "rotary_pct": 0.5, "rotary_emb_base": 600}
    check_options(path, 48, 171, matter, [old])
    causal_cases(path, 48, 171, MADE_BY)

    config = GPTNeoXConfig(**NEOX | {"pad_token_id": 1} | REWARD, hidden_size=24, intermediate_size=20)
    reward_cases(build(GPTNeoXForSequenceClassification, config, "neox-reward", 72), 48, 1, 172, MADE_BY)


def check_pad_row(path, seed: int) -> None:
    """The embedding's gradient must be the same with and without padding_idx; otherwise a row would be exempt."""
    gradients = []
    for padding_idx in (1, None):
        model = load(path)
        embedding = model.get_input_embeddings()
        assert embedding.padding_idx == 1
        embedding.padding_idx = padding_idx
        for row in make_rows(OPT["vocab_size"], seed):
            model(input_ids=torch.tensor([row]), use_cache=False).logits.log_softmax(-1)[0, :, row[0]].sum().backward()
        gradients.append(embedding.weight.grad)
    torch.testing.assert_close(*gradients, atol=0.0, rtol=0.0)


def opt_case(path, seed: int, matter: list[dict], same: list[dict]) -> None:
    check_options(path, OPT["vocab_size"], seed, matter, same)
    check_pad_row(path, seed)
    biases = json.loads((path / "config.json").read_text()).get("enable_bias", True)
    zero = [f"model.decoder.layers.{i}.self_attn.k_proj.bias" for i in range(OPT["num_hidden_layers"]) if biases]
    causal_cases(path, OPT["vocab_size"], seed, MADE_BY, notes={"exempt_rows": {}, "zero_gradients": zero})
    gradients = load_file(path / "cases.safetensors")
    assert all(gradients[f"grad.{name}"].abs().max() < 1e-7 for name in zero)


def opt() -> None:
    path = build(OPTForCausalLM, OPTConfig(**OPT), "opt-pre", 84)
    rewrite(path, lambda name: name.removeprefix("model."))
    assert not any("lm_head" in name or name.startswith("model.") for name in load_file(path / "model.safetensors"))

    def hub(config: dict) -> dict:
        config["torch_dtype"] = config["dtype"]
        gone = ("dtype", "enable_bias", "layer_norm_elementwise_affine", "tie_word_embeddings")
        return keys(**{key: ... for key in gone})(config) | {
            "prefix": "</s>", "activation_dropout": 0.0, "dropout": 0.1, "transformers_version": "4.21.0.dev0",
        }

    edit_config(path, hub)
    opt_case(path, 180, [{"activation_function": "gelu"}, {"_remove_final_layer_norm": True}], [{"word_embed_proj_dim": ...}])

    config = OPTConfig(**OPT | {"ffn_dim": 17}, do_layer_norm_before=False, word_embed_proj_dim=10)
    path = build(OPTForCausalLM, config, "opt-post", 89)
    opt_case(path, 181, [{"do_layer_norm_before": True, "_remove_final_layer_norm": True}], [{"_remove_final_layer_norm": True}])

    config = OPTConfig(
        **OPT, enable_bias=False, layer_norm_elementwise_affine=False, _remove_final_layer_norm=True, tie_word_embeddings=False,
        activation_function="gelu",
    )
    path = build(OPTForCausalLM, config, "opt-plain", 82)
    assert "lm_head.weight" in load_file(path / "model.safetensors")
    opt_case(path, 182, [{"_remove_final_layer_norm": False}, {"activation_function": "relu"}], [])

    config = OPTConfig(**OPT | REWARD, word_embed_proj_dim=10)
    reward_cases(build(OPTForSequenceClassification, config, "opt-reward", 83), OPT["vocab_size"], 1, 183, MADE_BY)


def make() -> None:
    gpt2()
    neox()
    opt()

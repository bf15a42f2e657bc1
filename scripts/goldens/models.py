"""tests/golden/models/: tiny random models as transformers saves them, with logits, log-probs and gradients.

  gpt2-tiny         complete directory (tokenizer `plain` included), used by the training curves too
  gpt2-hub-names    as the hub's gpt2 file: no `transformer.` prefix, `h.*.attn.bias` buffers, its config's keys
  gpt2-bf16         stored in bfloat16; the values are those of a float32 computation on the stored weights
  llama-tiny-gqa    untied, 2 key-value heads for 4 heads, head_dim 12 at hidden 32, attention biases, rope_theta 500
  llama-tiny-tied   tied embeddings; config.json in the keys of older files and `rotary_emb.inv_freq` among the tensors
  *-reward          one-label sequence classifiers on the same backbones

The values beside each model: cases.py.
"""

import shutil

import cases
import torch
from cases import edit_config, randomise, rewrite, save
from common import GOLDEN
from transformers import (
    GPT2Config,
    GPT2ForSequenceClassification,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
)

DIRECTORY = cases.DIRECTORY
MADE_BY = "scripts/goldens/models.py"
GPT2 = {"n_positions": 64, "n_embd": 24, "n_layer": 2, "n_head": 3, "vocab_size": 96, "bos_token_id": 95, "eos_token_id": 95}
NO_DROPOUT = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
LLAMA = {
    "vocab_size": 96, "hidden_size": 32, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 4,
    "max_position_embeddings": 64, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": None, "attention_dropout": 0.0,
}


def causal_cases(path, vocabulary: int, seed: int) -> None:
    cases.causal_cases(path, vocabulary, seed, MADE_BY)


def reward_cases(path, vocabulary: int, pad: int, seed: int) -> None:
    cases.reward_cases(path, vocabulary, pad, seed, MADE_BY)


def gpt2_tiny() -> GPT2Config:
    """Vocabulary and special ids of the golden tokenizer `plain`."""
    return GPT2Config(
        vocab_size=400, n_positions=64, n_embd=16, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0,
        pad_token_id=None, **NO_DROPOUT,
    )


def make_gpt2() -> None:
    model = GPT2LMHeadModel(gpt2_tiny())
    randomise(model, 1)
    path = save(model, "gpt2-tiny")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(GOLDEN / "tokenizer" / "plain" / name, path / name)
    causal_cases(path, 400, 101)

    model = GPT2LMHeadModel(GPT2Config(**GPT2))
    randomise(model, 2)
    path = save(model, "gpt2-hub-names")
    buffers = {f"h.{i}.attn.bias": torch.ones(64, 64).tril().view(1, 1, 64, 64) for i in range(2)}
    rewrite(path, lambda name: name.removeprefix("transformer."), buffers)
    hub = {
        "n_ctx": 64, "model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "task_specific_params": {
            "text-generation": {"do_sample": True, "max_length": 50}
        }, "activation_function": "gelu_new", "initializer_range": 0.02, "layer_norm_epsilon": 1e-05, "attn_pdrop": 0.1,
        "embd_pdrop": 0.1, "resid_pdrop": 0.1, "summary_activation": None, "summary_first_dropout": 0.1,
        "summary_proj_to_labels": True, "summary_type": "cls_index", "summary_use_proj": True,
    }
    edit_config(path, lambda _: hub | GPT2)
    causal_cases(path, 96, 102)

    model = GPT2LMHeadModel(GPT2Config(**GPT2, **NO_DROPOUT, n_inner=40))
    randomise(model, 3)
    path = save(model.to(torch.bfloat16), "gpt2-bf16")
    causal_cases(path, 96, 103)

    config = gpt2_tiny()
    config.num_labels, config.pad_token_id, config.problem_type = 1, 1, "regression"
    model = GPT2ForSequenceClassification(config)
    randomise(model, 4)
    reward_cases(save(model, "gpt2-tiny-reward"), 400, 1, 104)


def make_llama() -> None:
    config = LlamaConfig(
        **LLAMA, num_key_value_heads=2, head_dim=12, attention_bias=True, tie_word_embeddings=False,
        rope_parameters={"rope_type": "default", "rope_theta": 500.0}, rms_norm_eps=1e-5,
    )
    model = LlamaForCausalLM(config)
    randomise(model, 5)
    causal_cases(save(model, "llama-tiny-gqa"), 96, 105)

    config.num_labels, config.pad_token_id, config.problem_type = 1, 0, "regression"
    reward = LlamaForSequenceClassification(config)
    randomise(reward, 6)
    reward_cases(save(reward, "llama-tiny-reward"), 96, 0, 106)

    rope = {"rope_type": "default", "rope_theta": 10000.0}
    model = LlamaForCausalLM(LlamaConfig(**LLAMA, num_key_value_heads=4, tie_word_embeddings=True, rope_parameters=rope))
    randomise(model, 7)
    path = save(model, "llama-tiny-tied")
    frequencies = 1.0 / 10000.0 ** (torch.arange(0, 8, 2) / 8)
    rewrite(path, extra={f"model.layers.{i}.self_attn.rotary_emb.inv_freq": frequencies.clone() for i in range(2)})

    def older(config: dict) -> dict:
        config.pop("rope_parameters", None), config.pop("head_dim", None)
        config.pop("dtype", None)
        return config | {"rope_theta": 10000.0, "rope_scaling": None, "torch_dtype": "float32", "pretraining_tp": 1}

    edit_config(path, older)
    causal_cases(path, 96, 107)


def make() -> None:
    make_gpt2()
    make_llama()

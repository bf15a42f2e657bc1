"""tests/golden/models/: tiny random models as transformers saves them, with logits, log-probs and gradients.

  gpt2-tiny         complete directory (tokenizer `plain` included), used by the training curves too
  gpt2-hub-names    as the hub's gpt2 file: no `transformer.` prefix, `h.*.attn.bias` buffers, its config's keys
  gpt2-bf16         stored in bfloat16; the values are those of a float32 computation on the stored weights
  llama-tiny-gqa    untied, 2 key-value heads for 4 heads, head_dim 12 at hidden 32, attention biases, rope_theta 500
  llama-tiny-tied   tied embeddings; config.json in the keys of older files and `rotary_emb.inv_freq` among the tensors
  *-reward          one-label sequence classifiers on the same backbones

cases.json: rows of ids, where the targets begin, the mean loss over all targets, and one log-prob sum a row.
cases.safetensors: logits.<row> [T, V], logprobs.<row> [targets], grad.<parameter> of the mean loss.
Everything comes from transformers' own forward on a right-padded batch with its attention mask, float32, eager
attention; the same rows one by one, without padding, must agree, or nothing is written.
"""

import json
import shutil
from pathlib import Path

import torch
from common import GOLDEN, generator, pad_right, write_json, write_tensors
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPT2ForSequenceClassification,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
)

DIRECTORY = GOLDEN / "models"
GPT2 = {"n_positions": 64, "n_embd": 24, "n_layer": 2, "n_head": 3, "vocab_size": 96, "bos_token_id": 95, "eos_token_id": 95}
NO_DROPOUT = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
LLAMA = {
    "vocab_size": 96, "hidden_size": 32, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 4,
    "max_position_embeddings": 64, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": None, "attention_dropout": 0.0,
}


def randomise(model, seed: int) -> None:
    """Every parameter gets values that matter: biases are not 0 and norm weights are not 1."""
    draw = generator(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=draw)
            if parameter.dim() == 1:
                centre = 1.0 if "norm" in name or name.rsplit(".", 2)[-2].startswith("ln_") and name.endswith("weight") else 0.0
                parameter.copy_(centre + 0.2 * noise)
            else:
                parameter.copy_(0.25 * noise)
    model.eval()


def save(model, name: str) -> Path:
    path = DIRECTORY / name
    shutil.rmtree(path, ignore_errors=True)
    model.config.architectures = [type(model).__name__]
    model.save_pretrained(path)
    return path


def rewrite(path: Path, rename=lambda name: name, extra: dict | None = None) -> None:
    """The same tensors under other names, and some more."""
    tensors = {rename(name): tensor for name, tensor in load_file(path / "model.safetensors").items()}
    save_file(tensors | (extra or {}), path / "model.safetensors", metadata={"format": "pt"})


def edit_config(path: Path, change) -> None:
    config = json.loads((path / "config.json").read_text())
    config = change(config)
    (path / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def make_rows(vocabulary: int, seed: int) -> list[list[int]]:
    """Rows of ids of lengths 2 to 19; `prompt_len` of row i is 1 + i % 3, so some rows have a single target."""
    draw = generator(seed)
    return [torch.randint(3, vocabulary, (length,), generator=draw).tolist() for length in (7, 19, 2, 12, 4)]


def causal_cases(path: Path, vocabulary: int, seed: int) -> None:
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, attn_implementation="eager").eval()
    rows = make_rows(vocabulary, seed)
    starts = [1 + i % 3 if len(row) > 3 else 1 for i, row in enumerate(rows)]
    ids, mask = pad_right(rows, 0)
    logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
    total, count, tensors, sums = 0.0, 0, {}, []
    for i, (row, start) in enumerate(zip(rows, starts)):
        one = model(input_ids=torch.tensor([row]), use_cache=False).logits[0]
        torch.testing.assert_close(logits[i, : len(row)], one, atol=1e-5, rtol=1e-5)
        logprobs = logits[i, start - 1 : len(row) - 1].log_softmax(-1).gather(1, torch.tensor(row[start:])[:, None])[:, 0]
        total, count = total - logprobs.sum(), count + len(row) - start
        tensors[f"logits.{i}"], tensors[f"logprobs.{i}"] = logits[i, : len(row)], logprobs
        sums.append(logprobs.sum().item())
    loss = total / count
    loss.backward()
    for name, parameter in model.named_parameters():
        tensors[f"grad.{name}"] = parameter.grad
    write_tensors(path / "cases.safetensors", tensors)
    write_json(path / "cases.json", {
        "made_by": "transformers 5.23.0, scripts/goldens/models.py",
        "rows": rows, "prompt_len": starts, "targets": count, "loss": loss.item(), "logprob_sums": sums,
    })


def reward_cases(cls, path: Path, vocabulary: int, pad: int, seed: int) -> None:
    """Scores of rows in a right-padded batch: transformers pools at the last token that is not pad."""
    model = cls.from_pretrained(path, dtype=torch.float32, attn_implementation="eager").eval()
    rows = make_rows(vocabulary, seed)
    assert all(pad not in row for row in rows)
    ids, mask = pad_right(rows, pad)
    scores = model(input_ids=ids, attention_mask=mask).logits[:, 0]
    for row, score in zip(rows, scores):
        torch.testing.assert_close(model(input_ids=torch.tensor([row])).logits[0, 0], score, atol=1e-5, rtol=1e-5)
    write_json(path / "cases.json", {
        "made_by": "transformers 5.23.0, scripts/goldens/models.py", "rows": rows, "scores": scores.tolist(),
    })


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
    reward_cases(GPT2ForSequenceClassification, save(model, "gpt2-tiny-reward"), 400, 1, 104)


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
    reward_cases(LlamaForSequenceClassification, save(reward, "llama-tiny-reward"), 96, 0, 106)

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

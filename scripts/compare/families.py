"""Tiny random models of every family, made by transformers, with tokenizers that set BOS or do not. Compares nothing.

The shapes are unusual on purpose: heads that do not divide the width, more rows in the embedding than the tokenizer has
tokens, biases that are not 0 and norms that are not 1, so that a transposed, swapped or forgotten tensor shows.
"""

import copy
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
import transformers
from binary import ROOT, read_rows
from texts import SFT
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedTokenizerFast,
)

CONTEXT = 128
SPARE = 5  # rows of the embedding that no token has


@dataclass(frozen=True)
class Shape:
    """A model to make: `tokenizer` is one of `tokenizers`' names, `config` what the family's configuration is given."""

    name: str
    family: str
    tokenizer: str
    config: dict


def edit_json(path: Path, change: dict) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | change, indent=2) + "\n", encoding="utf-8")


def _rope(kind: str = "default", theta: float = 10000.0, **more) -> dict:
    return {"rope_parameters": {"rope_type": kind, "rope_theta": theta, **more}}


GPT2 = {
    "n_positions": CONTEXT, "n_embd": 48, "n_layer": 2, "n_head": 3, "resid_pdrop": 0.0, "embd_pdrop": 0.0,
    "attn_pdrop": 0.0,
}
NEOX = {
    "max_position_embeddings": CONTEXT, "hidden_size": 48, "intermediate_size": 72, "num_hidden_layers": 2,
    "num_attention_heads": 3, "tie_word_embeddings": False,
}
OPT = {
    "max_position_embeddings": CONTEXT, "hidden_size": 48, "ffn_dim": 72, "num_hidden_layers": 2,
    "num_attention_heads": 3, "word_embed_proj_dim": 48, "dropout": 0.0, "attention_dropout": 0.0, "layerdrop": 0.0,
}
LLAMA = {
    "max_position_embeddings": CONTEXT, "hidden_size": 48, "intermediate_size": 72, "num_hidden_layers": 2,
    "num_attention_heads": 6, "num_key_value_heads": 2, "tie_word_embeddings": False,
}
LLAMA3 = _rope("llama3", 500000.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
               original_max_position_embeddings=32)

SHAPES = [
    Shape("gpt2", "GPT2", "plain", GPT2),
    Shape("gpt2-scaled", "GPT2", "plain", GPT2 | {
        "scale_attn_by_inverse_layer_idx": True, "reorder_and_upcast_attn": False, "n_inner": 80,
        "activation_function": "gelu", "layer_norm_epsilon": 1e-4,
    }),
    Shape("gpt2-unscaled", "GPT2", "opt", GPT2 | {"scale_attn_weights": False, "activation_function": "relu"}),
    Shape("gpt-neox", "GPTNeoX", "plain", NEOX | _rope(partial_rotary_factor=0.25)),
    Shape("gpt-neox-serial", "GPTNeoX", "plain", NEOX | _rope(theta=500.0, partial_rotary_factor=0.5) | {
        "use_parallel_residual": False, "attention_bias": False, "layer_norm_eps": 1e-4,
    }),
    Shape("opt", "OPT", "opt", OPT),
    Shape("opt-gelu", "OPT", "opt", OPT | {"activation_function": "gelu", "enable_bias": False}),
    # As the 350m model: norms after the sums, none at the end, embeddings narrower than the blocks.
    Shape("opt-post-norm", "OPT", "opt", OPT | {"do_layer_norm_before": False, "word_embed_proj_dim": 32}),
    Shape("llama", "Llama", "bos", LLAMA | _rope()),
    Shape("llama-biased", "Llama", "bos", LLAMA | _rope(theta=500.0) | {
        "num_attention_heads": 4, "head_dim": 20, "attention_bias": True, "mlp_bias": True, "rms_norm_eps": 1e-4,
    }),
    Shape("llama-tied", "Llama", "plain", LLAMA | _rope() | {
        "tie_word_embeddings": True, "num_attention_heads": 3, "num_key_value_heads": 3,
    }),
    Shape("llama-rope-llama3", "Llama", "bos", LLAMA | LLAMA3),
    Shape("llama-rope-linear", "Llama", "bos", LLAMA | _rope("linear", factor=2.5)),
    # Rows are longer than the 24 positions that it was trained on, and within 4 times as many; the base grows with the length.
    Shape("llama-rope-dynamic", "Llama", "bos", LLAMA | _rope("dynamic", factor=4.0) | {"max_position_embeddings": 24}),
    Shape("mistral", "Mistral", "bos", LLAMA | _rope() | {"head_dim": 20, "sliding_window": None}),
    Shape("mistral-window", "Mistral", "bos", LLAMA | _rope() | {"head_dim": 8, "sliding_window": 6}),
    Shape("qwen2", "Qwen2", "plain", LLAMA | _rope(theta=1000000.0)),
    Shape("qwen2-tied", "Qwen2", "plain", LLAMA | _rope() | {"tie_word_embeddings": True}),
    Shape("qwen2-window", "Qwen2", "plain", LLAMA | _rope() | {
        "use_sliding_window": True, "sliding_window": 6, "max_window_layers": 1,
    }),
    Shape("qwen3", "Qwen3", "plain", LLAMA | _rope(theta=1000000.0) | {"head_dim": 20}),
    Shape("qwen3-tied", "Qwen3", "plain", LLAMA | _rope() | {
        "head_dim": 12, "tie_word_embeddings": True, "attention_bias": True,
    }),
]
# One of each family, whose curves are compared too; of the first two with every variant of every loss.
CURVES = ["gpt2", "llama", "gpt-neox", "opt", "mistral", "qwen2", "qwen3"]
EVERY_VARIANT = CURVES[:2]


# Says who speaks, ends every turn with EOS and marks what the assistant says, EOS included.
CHAT_TEMPLATE = (
    "{% for message in messages %}{% if message['role'] == 'assistant' %}{{ 'Reviewer: ' }}{% generation %}"
    "{{ message['content'] + eos_token }}{% endgeneration %}{% else %}{{ 'Reader: ' + message['content'] + eos_token }}"
    "{% endif %}{{ '\n' }}{% endfor %}{% if add_generation_prompt %}{{ 'Reviewer: ' }}{% endif %}"
)


def _trained(directory: Path, bos: str, eos: str, pad: str) -> None:
    """A byte-level BPE of data/sft.jsonl that sets BOS before every text."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = list(dict.fromkeys([bos, pad, eos]))
    trainer = trainers.BpeTrainer(
        vocab_size=700, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator((row["text"] for row in read_rows(SFT, 1000)), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", special_tokens=[(bos, tokenizer.token_to_id(bos))]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=bos, eos_token=eos, pad_token=pad, model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
    ).save_pretrained(directory)


def tokenizers(directory: Path) -> dict[str, Path]:
    """`plain`: the repository's own, no BOS; `bos`: as Llama's; `opt`: BOS and EOS are one token, as OPT's are."""
    found = {name: directory / "tokenizers" / name for name in ("plain", "bos", "opt")}
    shutil.copytree(ROOT / "data" / "tokenizer", found["plain"])
    _trained(found["bos"], "<s>", "</s>", "<pad>")
    _trained(found["opt"], "</s>", "</s>", "<pad>")
    for path in found.values():
        edit_json(path / "tokenizer_config.json", {"chat_template": CHAT_TEMPLATE})
        # save_pretrained may have put one beside it.
        (path / "chat_template.jinja").unlink(missing_ok=True)
    return found


def randomise(model, seed: int, scale: float = 0.15) -> None:
    """Every parameter gets values that matter, and such as bfloat16 holds exactly: a bfloat16 computation then starts
    from the same weights."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=draw)
            owner = name.rsplit(".", 2)[-2]
            norm = "norm" in owner or owner.startswith("ln_")
            centre = 1.0 if norm and name.endswith("weight") else 0.0
            parameter.copy_((centre + scale * noise).bfloat16())


def file_name(model, name: str) -> str:
    """A parameter's name in files: transformers 5 calls every head lm_head in memory, and GPT-NeoX's embed_out on disk."""
    return "embed_out.weight" if name == "lm_head.weight" and model.config.model_type == "gpt_neox" else name


def make(shape: Shape, tokenizer_directory: Path, directory: Path, seed: int, reward: bool = False) -> Path:
    """A model directory in Hugging Face layout. `reward`: a sequence classifier with one label."""
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_directory)
    ids = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    assert ids["pad_token_id"] != ids["eos_token_id"]
    config = getattr(transformers, f"{shape.family}Config")(
        vocab_size=len(tokenizer) + SPARE, **ids, **copy.deepcopy(shape.config)
    )
    kind = AutoModelForCausalLM
    if reward:
        config.num_labels, config.problem_type, kind = 1, "regression", AutoModelForSequenceClassification
    model = kind.from_config(config)
    randomise(model, seed)
    model.save_pretrained(directory)
    for file in tokenizer_directory.iterdir():
        shutil.copy(file, directory / file.name)
    return directory


def invisible(names: dict[str, torch.Tensor], config, reward_offset: bool) -> dict[str, torch.Tensor]:
    """Masks (True: compared) of the parameters with directions that the loss does not see, so that rounding alone moves
    them, which Adam scales up to whole steps: a bias that all keys share where no rotation acts on it, since softmax
    takes it away; with `reward_offset` the last norm's bias, which moves all rewards of a pair alike."""
    masks = {}
    for name, tensor in names.items():
        mask = torch.ones_like(tensor, dtype=torch.bool)
        if name.endswith("attn.c_attn.bias"):
            third = len(tensor) // 3
            mask[third : 2 * third] = False
        elif config.model_type == "opt" and name.endswith("k_proj.bias"):
            mask[:] = False
        elif name.endswith("query_key_value.bias"):
            heads = mask.view(config.num_attention_heads, 3, -1)
            heads[:, 1, int(heads.shape[-1] * config.rope_parameters["partial_rotary_factor"]) :] = False
        elif reward_offset and name.endswith(("ln_f.bias", "final_layer_norm.bias")) and "layers." not in name:
            mask[:] = False
        if not mask.all():
            masks[name] = mask
    return masks

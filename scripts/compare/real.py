"""A model that somebody trained, on real text: log-probs, gradients, bfloat16 and the curves of the main losses. The
rows are short and few, so that it ends in minutes on two processor cores."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import curves
import forward
import texts
import torch
from families import edit_json
from table import Row
from transformers import AutoModelForSequenceClassification, AutoTokenizer

BATCH, LEARNING_RATE, WORDS = 4, 1e-5, 18
# Adam's steps are of one size whatever the gradient's; of 10^8 weights some have a gradient that is mostly rounding.
MOVED = 2e-2
DROPOUTS = ["resid_pdrop", "embd_pdrop", "attn_pdrop", "dropout", "attention_dropout", "hidden_dropout", "layerdrop"]


def pad_token(tokenizer, used: set[int]) -> str:
    """A pad token that is not EOS and occurs in no row: with pad = EOS transformers would take a reward before the EOS,
    and TRL leave it out of the loss."""
    eos = tokenizer.eos_token_id
    named = [tokenizer.pad_token_id, *sorted(tokenizer.get_added_vocab().values()), *range(len(tokenizer) - 1, -1, -1)]
    chosen = next(i for i in named if i is not None and i not in {eos, tokenizer.bos_token_id} and i not in used)
    return tokenizer.convert_ids_to_tokens(chosen)


def longest(tokenizer, rows: dict[str, list[dict]]) -> int:
    """Tokens of the longest sequence, EOS included: nothing is cut, since TRL and collimate cut differently."""
    wholes = [row["text"] for row in rows["whole"]]
    wholes += [row["prompt"] + row[key] for row in rows["pairs"] for key in ("chosen", "rejected")]
    return 1 + max(len(tokenizer(text)["input_ids"]) for text in wholes)


def prepare(model: Path, rows: dict[str, list[dict]], scratch: Path) -> dict[str, Path]:
    """The model's directory with another pad token and no dropout, and a classifier made of it: both start here."""
    tokenizer = AutoTokenizer.from_pretrained(model)
    used = {i for row in rows["whole"] for i in tokenizer(row["text"])["input_ids"]}
    used |= {i for row in rows["pairs"] for key in row for i in tokenizer(row[key])["input_ids"]}
    pad = pad_token(tokenizer, used)
    start = {"causal": scratch / "causal", "reward": scratch / "reward"}
    start["causal"].mkdir()
    tokenizer_files = []
    for file in model.iterdir():
        if file.suffix == ".safetensors":
            (start["causal"] / file.name).symlink_to(file.resolve())
        elif file.suffix in {".json", ".txt", ".jinja", ".model"}:
            shutil.copy(file, start["causal"] / file.name)
            if not file.name.startswith(("config", "generation_config", "model.safetensors")):
                tokenizer_files.append(start["causal"] / file.name)
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        if (start["causal"] / name).is_file():
            edit_json(start["causal"] / name, {"pad_token": pad})
    tokenizer = AutoTokenizer.from_pretrained(start["causal"])
    assert tokenizer.pad_token == pad and tokenizer.pad_token_id not in used
    edit_json(start["causal"] / "config.json", {"pad_token_id": tokenizer.pad_token_id})
    known = (start["causal"] / "config.json").read_text()
    edit_json(start["causal"] / "config.json", {key: 0.0 for key in DROPOUTS if f'"{key}"' in known})
    torch.manual_seed(0)
    classifier = AutoModelForSequenceClassification.from_pretrained(
        start["causal"], num_labels=1, dtype=torch.float32, problem_type="regression"
    )
    classifier.save_pretrained(start["reward"])
    for file in tokenizer_files:
        shutil.copy(file, start["reward"] / file.name)
    return start


def compare(model: Path, rows_file: Path | None, pairs_file: Path | None, scratch: Path) -> Iterator[Row]:
    count = curves.STEPS * BATCH
    completions = texts.completions(count, rows_file, WORDS)
    pairs = texts.pairs(count, pairs_file, rows_file, WORDS - WORDS // 3)
    rows = curves.kinds(completions, pairs)
    start, name = prepare(model, rows, scratch), model.name
    some = texts.completions(8, rows_file, 2 * WORDS)
    for number, compared in enumerate((forward.float32, forward.bfloat16)):
        directory = scratch / f"forward-{number}"
        directory.mkdir()
        yield compared(start["causal"], name, some, directory, double=False)
        shutil.rmtree(directory)
    most = longest(AutoTokenizer.from_pretrained(start["causal"]), rows)
    setting = curves.Setting(name, start, rows, BATCH, LEARNING_RATE, most, MOVED)
    for number, case in enumerate(case for case in curves.MAIN if case.rows != "whole"):
        directory = scratch / f"curve-{number}"
        directory.mkdir()
        yield curves.compare(case, setting, directory)
        shutil.rmtree(directory)

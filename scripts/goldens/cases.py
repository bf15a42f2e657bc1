"""What models.py and families.py share: saving a tiny random model, and the values that go with it.

cases.json: rows of ids, where the targets begin, the mean loss over all targets, and one log-prob sum a row; for
classifiers one score a row. cases.safetensors: logits.<row> [T, V], logprobs.<row> [targets], grad.<parameter> of the
mean loss. Everything comes from transformers' own forward on a right-padded batch with its attention mask, float32,
eager attention; the same rows one by one, without padding, must agree, or nothing is written.
"""

import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from common import GOLDEN, generator, pad_right, write_json, write_tensors
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

DIRECTORY = GOLDEN / "models"
TRANSFORMERS = "transformers 5.23.0"


def randomise(model, seed: int) -> None:
    """Every parameter gets values that matter: biases are not 0 and norm weights are not 1."""
    draw = generator(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=draw)
            if parameter.dim() == 1:
                norm = "norm" in name or name.rsplit(".", 2)[-2].startswith("ln_")
                parameter.copy_((1.0 if norm and name.endswith("weight") else 0.0) + 0.2 * noise)
            else:
                parameter.copy_(0.25 * noise)
    model.eval()


def save(model, name: str, **options) -> Path:
    """The model as save_pretrained writes it, in place of what was there."""
    path = DIRECTORY / name
    shutil.rmtree(path, ignore_errors=True)
    model.config.architectures = [type(model).__name__]
    model.save_pretrained(path, **options)
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


def load(path: Path, auto=AutoModelForCausalLM, dtype: torch.dtype = torch.float32):
    """The model with eager attention. A tensor that the files lack would be drawn at random: an error here."""
    model, info = auto.from_pretrained(path, dtype=dtype, attn_implementation="eager", output_loading_info=True)
    assert not info["missing_keys"], (path, info["missing_keys"])
    return model.eval()


def target_logprobs(logits: torch.Tensor, row: list[int], start: int) -> torch.Tensor:
    """[T, V] logits of one row -> the log-probs of row[start:]."""
    logits = logits[start - 1 : len(row) - 1]
    return logits.log_softmax(-1).gather(1, torch.tensor(row[start:])[:, None])[:, 0]


def prompt_lengths(rows: list[list[int]]) -> list[int]:
    return [1 + i % 3 if len(row) > 3 else 1 for i, row in enumerate(rows)]


def one_by_one(path: Path, rows: list[list[int]]) -> tuple[list[torch.Tensor], dict[str, list[torch.nn.Parameter]]]:
    """Each row's logits from a model that has seen nothing else, and the parameters of all these models by name."""
    logits, parameters = [], {}
    for row in rows:
        model = load(path)
        logits.append(model(input_ids=torch.tensor([row]), use_cache=False).logits[0])
        for name, parameter in model.named_parameters():
            parameters.setdefault(name, []).append(parameter)
    return logits, parameters


def as_batch(path: Path, rows: list[list[int]]) -> tuple[list[torch.Tensor], dict[str, list[torch.nn.Parameter]]]:
    """Each row's logits from one right-padded batch; refuses where the row alone gives others."""
    model = load(path)
    pad = model.config.pad_token_id
    assert pad is None or all(pad not in row for row in rows), "padding_idx would show in the gradient"
    ids, mask = pad_right(rows, 0)
    padded = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
    logits = [padded[i, : len(row)] for i, row in enumerate(rows)]
    for row, ours in zip(rows, logits):
        one = model(input_ids=torch.tensor([row]), use_cache=False).logits[0]
        torch.testing.assert_close(ours, one, atol=1e-5, rtol=1e-5)
    return logits, {name: [parameter] for name, parameter in model.named_parameters()}


def causal_cases(
    path: Path, vocabulary: int, seed: int, made_by: str, forward=as_batch, notes: dict | None = None,
    rename: Callable[[str], str] = lambda name: name,
) -> None:
    """Writes the two files beside the model. `rename`: from transformers' parameter names to those in the goldens."""
    rows = make_rows(vocabulary, seed)
    starts = prompt_lengths(rows)
    logits, parameters = forward(path, rows)
    total, count, tensors, sums = 0.0, 0, {}, []
    for i, (row, start) in enumerate(zip(rows, starts)):
        logprobs = target_logprobs(logits[i], row, start)
        total, count = total - logprobs.sum(), count + len(row) - start
        tensors[f"logits.{i}"], tensors[f"logprobs.{i}"] = logits[i], logprobs
        sums.append(logprobs.sum().item())
    loss = total / count
    loss.backward()
    for name, copies in parameters.items():
        tensors[f"grad.{rename(name)}"] = sum(parameter.grad for parameter in copies)
    write_tensors(path / "cases.safetensors", tensors)
    write_json(path / "cases.json", {
        "made_by": f"{TRANSFORMERS}, {made_by}",
        "rows": rows, "prompt_len": starts, "targets": count, "loss": loss.item(), "logprob_sums": sums,
    } | (notes or {}))


def reward_cases(path: Path, vocabulary: int, pad: int, seed: int, made_by: str) -> None:
    """Scores of rows in a right-padded batch: transformers pools at the last token that is not pad."""
    model = load(path, AutoModelForSequenceClassification)
    rows = make_rows(vocabulary, seed)
    assert all(pad not in row for row in rows)
    ids, mask = pad_right(rows, pad)
    scores = model(input_ids=ids, attention_mask=mask).logits[:, 0]
    for row, score in zip(rows, scores):
        torch.testing.assert_close(model(input_ids=torch.tensor([row])).logits[0, 0], score, atol=1e-5, rtol=1e-5)
    write_json(path / "cases.json", {"made_by": f"{TRANSFORMERS}, {made_by}", "rows": rows, "scores": scores.tolist()})


def logits_with(path: Path, change: Callable[[dict], dict], seed: int, vocabulary: int) -> list[torch.Tensor]:
    """The logits of a case's rows, each alone, when config.json says something else."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(shutil.copytree(path, Path(folder) / "model"))
        edit_config(copy, change)
        logits = []
        for row in make_rows(vocabulary, seed):
            model = AutoModelForCausalLM.from_pretrained(copy, dtype=torch.float32, attn_implementation="eager").eval()
            logits.append(model(input_ids=torch.tensor([row]), use_cache=False).logits[0].detach())
        return logits


def keys(**changed) -> Callable[[dict], dict]:
    """A change of config.json: the given keys; `...` takes a key away."""
    def change(config: dict) -> dict:
        merged = config | changed
        return {key: value for key, value in merged.items() if value is not ...}
    return change


def check_options(path: Path, vocabulary: int, seed: int, matter: list[dict], same: list[dict] = ()) -> None:
    """Refuses a case that would not show an option: every change of keys in `matter` must move some logit by 20
    times the tests' 1e-5 (gelu against gelu_new: 9e-4; nearly all others: more than 0.1), and none in `same` (another spelling
    of the same thing, or a key without effect) may move any."""
    given = logits_with(path, keys(), seed, vocabulary)
    for changed in [*matter, *same]:
        other = logits_with(path, keys(**changed), seed, vocabulary)
        moved = max((a - b).abs().max().item() for a, b in zip(given, other))
        assert moved > 2e-4 if changed in matter else moved < 1e-5, (path.name, changed, moved)

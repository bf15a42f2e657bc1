"""Log-probs, rewards and gradients against transformers' own forward and autograd, in float32 and in bfloat16.

The truth is a float64 computation of transformers on the stored weights, a row at a time and so without padding; its
own float32 (or bfloat16) error against it stands beside ours.
"""

import contextlib
from pathlib import Path

import binary
import texts
import torch
from families import file_name
from table import Row
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

LOGPROB, GRADIENT = 1e-4, 1e-3
# A gradient this small beside the whole one is exactly zero but for rounding: float64's own is some 1e-16.
NOTHING = 1e-12
# bfloat16: how much larger than transformers' own error ours may be, over all tokens or parameters together.
NO_WORSE = 1.25


def load(directory: Path, dtype: torch.dtype, reward: bool = False):
    kind = AutoModelForSequenceClassification if reward else AutoModelForCausalLM
    return kind.from_pretrained(directory, dtype=dtype).eval()


def fresh(model) -> None:
    """Dynamic rotary embeddings keep the frequencies of the longest call so far: back to those of the configuration."""
    for module in model.modules():
        if "dynamic" in str(getattr(module, "rope_type", "")):
            module.max_seq_len_cached = module.original_max_seq_len
            module.inv_freq = module.original_inv_freq.clone()


def token_logprobs(model, ids: list[int], start: int) -> torch.Tensor:
    """log p of ids[start:], softmax in float32 at least."""
    fresh(model)
    logits = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, start - 1 : -1]
    logits = logits if logits.dtype == torch.float64 else logits.float()
    return logits.log_softmax(-1).gather(1, torch.tensor(ids[start:])[:, None])[:, 0]


def logprobs(model, rows: list[tuple[list[int], int]]) -> torch.Tensor:
    with torch.no_grad():
        return torch.cat([token_logprobs(model, ids, start) for ids, start in rows]).double()


def gradients(model, rows: list[tuple[list[int], int]]) -> dict[str, torch.Tensor]:
    """Of the mean over all targets. `rows`: ids and the first target."""
    targets = sum(len(ids) - start for ids, start in rows)
    model.zero_grad(set_to_none=True)
    for ids, start in rows:
        (-token_logprobs(model, ids, start).sum() / targets).backward()
    # remove_duplicate: a tied head is one parameter.
    found = {file_name(model, n): p.grad.double() for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad(set_to_none=True)
    return found


def our_logprobs(directory: Path, rows: list[dict], encoded, scratch: Path, dtype: str) -> torch.Tensor:
    """`collimate score`, after a look at its ids."""
    scored = binary.score(directory, rows, scratch, "--eos", "--dtype", dtype)
    for row, (ids, start), known in zip(rows, encoded, scored, strict=True):
        if known["tokens"] != ids[start:]:
            raise binary.Refused(f"ids differ: {row} is {ids[start:]} to transformers, {known['tokens']} to collimate")
    return torch.tensor([value for row in scored for value in row["logprobs"]], dtype=torch.float64)


def our_gradients(directory: Path, rows: list[dict], scratch: Path, dtype: str) -> dict[str, torch.Tensor]:
    data = scratch / "gradient.jsonl"
    binary.write_rows(data, rows)
    # Two steps, so that step 1 leaves a checkpoint whatever the end leaves. Nothing is clipped, beta1 is 0.
    run = binary.stage("sft", scratch, {
        "model": {"path": str(directory), "dtype": dtype},
        "data": {"train": str(data), "max_length": 1024},
        "train": {
            "steps": 2, "batch_size": len(rows), "learning_rate": 1e-6, "max_grad_norm": 1e9, "adam_beta1": 0.0,
            "save_every": 1, "shuffle": False, "log_every": 1,
        },
    })
    return {name: tensor.double() for name, tensor in binary.gradients(run).items()}


def relative(found: dict, truth: dict) -> tuple[float, str, list[str]]:
    """The largest ||found - truth|| / ||truth|| over parameters, whose it is, and the parameters left out because their
    gradient is zero in exact arithmetic."""
    total = torch.stack([tensor.norm() for tensor in truth.values()]).norm()
    worst, where, left_out = 0.0, "", []
    for name, tensor in truth.items():
        if tensor.norm() <= NOTHING * total:
            left_out.append(name)
            continue
        error = ((found[name] - tensor).norm() / tensor.norm()).item()
        if not error <= worst:  # NaN too
            worst, where = error, name
    return worst, where, left_out


def overall(found: dict, truth: dict) -> float:
    """||found - truth|| / ||truth|| of all parameters together."""
    norm = lambda tensors: torch.stack([tensor.norm() for tensor in tensors]).norm()
    return (norm([found[name] - truth[name] for name in truth]) / norm(list(truth.values()))).item()


def same_names(ours: dict, theirs: dict) -> None:
    if ours.keys() != theirs.keys():
        raise binary.Refused(f"parameters differ: {sorted(ours.keys() ^ theirs.keys())}")


def pool(model, ids: list[int]) -> float:
    fresh(model)
    return model(input_ids=torch.tensor([ids])).logits[0, 0].item()


@contextlib.contextmanager
def guarded(row: Row):
    """A comparison that cannot be made is a row that failed; the others go on."""
    try:
        yield
    except (binary.Refused, KeyError, RuntimeError, ValueError, OSError) as error:
        row.failure = f"{type(error).__name__}: {error}".replace("\n", " ")[:400]


def float32(directory: Path, name: str, rows: list[dict], scratch: Path, double: bool = True) -> Row:
    """Log-probs and gradients in float32. `double`: the truth is float64's; else, for large models, transformers'
    float32."""
    row = Row("families", "log-probs and gradients, float32", name)
    with guarded(row):
        tokenizer = AutoTokenizer.from_pretrained(directory)
        encoded = [texts.encode(tokenizer, each) for each in rows]
        starts = [(ids, max(start, 1)) for ids, start in encoded]
        model = load(directory, torch.float32)
        theirs, their_gradients = logprobs(model, starts), gradients(model, starts)
        truth, true_gradients = theirs, their_gradients
        if double:
            model = model.double()
            truth, true_gradients = logprobs(model, starts), gradients(model, starts)
        del model
        ours = our_logprobs(directory, rows, starts, scratch, "float32")
        found = our_gradients(directory, rows, scratch, "float32")
        same_names(found, their_gradients)
        worst, where, left_out = relative(found, true_gradients)
        row.figures = {
            "log-prob": ((ours - theirs).abs().max().item(), LOGPROB),
            "gradient, relative": (worst, GRADIENT),
            "tokens": (float(len(ours)), None),
        }
        row.note = f"largest at {where}" if where else ""
        if double:
            row.figures["transformers' own gradient error"] = (relative(their_gradients, true_gradients)[0], None)
            row.note += f"; zero in exact arithmetic and left out: {', '.join(left_out)}" if left_out else ""
    return row


def rewards(directory: Path, name: str, rows: list[dict], scratch: Path) -> Row:
    """Scores of a one-label classifier at the last token."""
    row = Row("rewards", "rewards, float32", name)
    with guarded(row), torch.no_grad():
        tokenizer = AutoTokenizer.from_pretrained(directory)
        model = load(directory, torch.float32, reward=True)
        theirs = torch.tensor([pool(model, texts.encode(tokenizer, each)[0]) for each in rows])
        ours = torch.tensor([known["reward"] for known in binary.score(directory, rows, scratch)])
        row.figures = {"reward": ((ours - theirs).abs().max().item(), LOGPROB), "rows": (float(len(rows)), None)}
    return row


def bfloat16(directory: Path, name: str, rows: list[dict], scratch: Path, double: bool = True) -> Row:
    """Errors against the float32 truth (float64 for small models), root mean square, ours over transformers' own."""
    row = Row("bfloat16", "log-probs and gradients, bfloat16", name)
    with guarded(row):
        tokenizer = AutoTokenizer.from_pretrained(directory)
        encoded = [(ids, max(start, 1)) for ids, start in (texts.encode(tokenizer, each) for each in rows)]
        model = load(directory, torch.float64 if double else torch.float32)
        truth, true_gradients = logprobs(model, encoded), gradients(model, encoded)
        model = load(directory, torch.bfloat16)
        their_logprobs, their_gradients = logprobs(model, encoded), gradients(model, encoded)
        del model
        our = our_logprobs(directory, rows, encoded, scratch, "bfloat16")
        found = our_gradients(directory, rows, scratch, "bfloat16")
        same_names(found, their_gradients)
        error = lambda values: (values - truth).square().mean().sqrt().item()
        ours, theirs = error(our), error(their_logprobs)
        our_gradient, their_gradient = overall(found, true_gradients), overall(their_gradients, true_gradients)
        row.figures = {
            "log-prob error, RMS": (ours, None), "transformers' own": (theirs, None),
            "log-prob ratio": (ours / theirs, NO_WORSE),
            "gradient error, relative": (our_gradient, None), "transformers' gradient error": (their_gradient, None),
            "gradient ratio": (our_gradient / their_gradient, NO_WORSE),
        }
    return row

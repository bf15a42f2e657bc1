"""Whole runs of TRL 1.16's SFT, reward and DPO trainers and of collimate on the same rows in file order: every step's
loss, gradient norm and metrics, and the weights at the end.

Both start from one model directory and read one file of texts, which each encodes by itself; the ids are compared
first. scripts/goldens/curves.py says what TRL's figures are means of, and where a comparison must mind a trap:
GPT2LMHeadModel's count of labels in whole texts (its rows come encoded, the first label -100), directions that only
rounding moves (families.invisible), and figures of whole rewards where nothing fixes their common offset.
"""

import contextlib
import io
import logging
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import binary
import families
import forward
import texts
import torch
from datasets import Dataset
from table import Row
from transformers import AutoTokenizer
from transformers.trainer_callback import PrinterCallback, ProgressCallback
from trl import DPOConfig, DPOTrainer, RewardConfig, RewardTrainer, SFTConfig, SFTTrainer

STEPS = 20
LOSS, WEIGHT = 2e-3, 1e-3
# Beyond loss and weights: a gradient norm and a metric as a share of their size (1 where smaller).
NORM, METRIC = 2e-3, 2e-3
TRAINERS = {"sft": (SFTTrainer, SFTConfig), "reward": (RewardTrainer, RewardConfig), "dpo": (DPOTrainer, DPOConfig)}
# collimate's names of TRL's settings.
SCHEDULE = {"schedule": "lr_scheduler_type", "warmup_steps": "warmup_steps", "weight_decay": "weight_decay",
            "max_grad_norm": "max_grad_norm", "adam_beta1": "adam_beta1", "adam_beta2": "adam_beta2",
            "adam_epsilon": "adam_epsilon", "learning_rate": "learning_rate"}
DEFAULTS = {
    "lr_scheduler_type": "linear", "warmup_steps": 0, "max_grad_norm": 1.0, "weight_decay": 0.0, "adam_beta1": 0.9,
    "adam_beta2": 0.999, "adam_epsilon": 1e-8,
}
QUIET = {
    "optim": "adamw_torch", "logging_steps": 1, "report_to": "none", "save_strategy": "no", "use_cpu": True,
    "bf16": False, "disable_tqdm": True, "gradient_checkpointing": False, "train_sampling_strategy": "sequential",
    "seed": 0,
}
# TRL has them, collimate has not.
NOT_OURS = {"logits/chosen", "logits/rejected"}
# Shares of tokens or pairs: one that rounding decides changes them by a whole count, so they are shown, not held.
SHARES = {"accuracy", "rewards/accuracies", "mean_token_accuracy"}
TIMINGS = {"train_runtime", "train_samples_per_second", "train_steps_per_second", "total_flos"}


@dataclass(frozen=True)
class Case:
    """`trl`: settings of TRL's configuration; `ours`: sections of ours, where the names or the defaults differ."""

    name: str
    stage: str
    rows: str = "pairs"
    trl: dict = field(default_factory=dict)
    ours: dict = field(default_factory=dict)
    micro: int | None = None
    reference: bool = False


def _dpo(loss: str, **more) -> Case:
    ours = {"loss": loss, "beta": 0.5, **more}
    return Case(f"DPO, {loss}", "dpo", trl={"loss_type": loss, "beta": 0.5, **more}, ours={"dpo": ours})


SIGMOID = _dpo("sigmoid")
MAIN = [
    Case("SFT, completions", "sft", "completions"),
    Case("SFT, whole texts", "sft", "whole"),
    Case("reward", "reward"),
    SIGMOID,
]
MORE = [
    Case("SFT, micro-batches of 2", "sft", "completions", micro=2),
    Case("SFT, warm-up and weight decay", "sft", "completions", {"warmup_steps": 4, "weight_decay": 0.1}),
    Case("reward, centred", "reward", trl={"center_rewards_coefficient": 0.01}, ours={"reward": {"centering": 0.01}}),
    Case("reward, margins of the rows, centred", "reward", "margins", {"center_rewards_coefficient": 0.01},
         {"reward": {"centering": 0.01}}),
    Case("reward, micro-batches of 2", "reward", micro=2),
    _dpo("hinge"),
    _dpo("ipo"),
    _dpo("robust", label_smoothing=0.1),
    Case("DPO, sigmoid, another reference", "dpo", trl=SIGMOID.trl, ours=SIGMOID.ours, reference=True),
    Case("DPO, sigmoid, rows without a prompt", "dpo", "implicit", SIGMOID.trl, SIGMOID.ours),
    Case("DPO, sigmoid, micro-batches of 2", "dpo", trl=SIGMOID.trl, ours=SIGMOID.ours, micro=2),
]

# Conversations, through the chat template. SFT learns what the assistant says.
CHAT = [
    Case("SFT, messages, the assistant's turns", "sft", "messages", {"assistant_only_loss": True},
         {"data": {"assistant_only": True}}),
    Case("reward, messages", "reward", "message pairs"),
    Case("DPO, messages", "dpo", "message pairs", SIGMOID.trl, SIGMOID.ours),
]


@dataclass(frozen=True)
class Setting:
    """What a model's curves share. `start`: directories by kind: causal, reward, reference. `moved`: the tolerance of a
    tensor's difference at the end as a share of how far TRL moved it; at small learning rates WEIGHT says nothing."""

    name: str
    start: dict[str, Path]
    rows: dict[str, list[dict]]
    batch: int
    learning_rate: float
    max_length: int
    moved: float = 1e-2


def kinds(completions: list[dict], pairs: list[dict]) -> dict[str, list[dict]]:
    """The rows of every kind of case."""
    return {
        "completions": completions,
        "whole": [{"text": row["prompt"] + row["completion"]} for row in completions],
        "pairs": pairs,
        "margins": [row | {"margin": (0.0, 0.5, 1.5)[i % 3]} for i, row in enumerate(pairs)],
        "implicit": [{key: row["prompt"] + row[key] for key in ("chosen", "rejected")} for row in pairs],
        # Two turns each, so that more than one of them is learnt.
        "messages": [
            {"messages": [_turn("user", a["prompt"]), _turn("assistant", a["completion"].strip()),
                          _turn("user", b["prompt"]), _turn("assistant", b["completion"].strip())]}
            for a, b in zip(completions, [*completions[1:], completions[0]])
        ],
        "message pairs": [
            {"prompt": [_turn("user", row["prompt"])],
             **{key: [_turn("assistant", row[key].strip())] for key in ("chosen", "rejected")}}
            for row in pairs
        ],
    }


def _turn(role: str, content: str) -> dict:
    return {"role": role, "content": content}


def _for_trl(case: Case, rows: list[dict], tokenizer, model) -> list[dict]:
    """GPT2LMHeadModel's loss counts a label that nothing predicts: the first one is taken away beforehand."""
    if case.rows != "whole" or type(model).__name__.endswith("ForCausalLM"):
        return rows
    encoded = [tokenizer(row["text"] + tokenizer.eos_token)["input_ids"] for row in rows]
    return [{"input_ids": ids, "labels": [-100, *ids[1:]]} for ids in encoded]


def trl_run(case: Case, setting: Setting, rows: list[dict]) -> tuple[list[dict], list[dict], dict, object]:
    """TRL's log, the rows as it encoded them, the final weights, and the model's configuration."""
    trainer_class, config_class = TRAINERS[case.stage]
    model = forward.load(setting.start["reward" if case.stage == "reward" else "causal"], torch.float32,
                         case.stage == "reward")
    tokenizer = AutoTokenizer.from_pretrained(setting.start["causal"])
    more = {}
    if case.stage == "dpo":
        more["ref_model"] = forward.load(setting.start["reference" if case.reference else "causal"], torch.float32)
    micro = case.micro or setting.batch
    with tempfile.TemporaryDirectory() as directory, contextlib.redirect_stdout(io.StringIO()):
        args = config_class(
            output_dir=directory, max_steps=STEPS, per_device_train_batch_size=micro,
            gradient_accumulation_steps=setting.batch // micro, learning_rate=setting.learning_rate,
            max_length=setting.max_length, **DEFAULTS | QUIET | case.trl,
        )
        trainer = trainer_class(
            model=model, args=args, processing_class=tokenizer,
            train_dataset=Dataset.from_list(_for_trl(case, rows, tokenizer, model)), **more,
        )
        for callback in (PrinterCallback, ProgressCallback):
            trainer.remove_callback(callback)
        encoded = [{key: row[key] for key in row if key.endswith("_ids") or key == "labels"}
                   for row in trainer.train_dataset]
        trainer.train()
    history = [{k: v for k, v in entry.items() if k not in TIMINGS} for entry in trainer.state.log_history[:-1]]
    weights = {families.file_name(trainer.model, name): each.detach() for name, each in trainer.model.named_parameters()}
    return history, encoded, weights, trainer.model.config


def our_run(case: Case, setting: Setting, rows: list[dict], scratch: Path) -> Path:
    data = scratch / "rows.jsonl"
    binary.write_rows(data, rows)
    settings = DEFAULTS | {"learning_rate": setting.learning_rate} | case.trl
    train = {ours: settings[theirs] for ours, theirs in SCHEDULE.items()}
    model = {"path": str(setting.start["reward" if case.stage == "reward" else "causal"])}
    if case.reference:
        model["reference"] = str(setting.start["reference"])
    sections = {
        "model": model,
        "data": {"train": str(data), "max_length": setting.max_length} | case.ours.get("data", {}),
        "train": train | {
            "steps": STEPS, "batch_size": setting.batch, "micro_batch_size": case.micro or setting.batch,
            "shuffle": False, "log_every": 1,
        },
    }
    return binary.stage(case.stage, scratch, sections | {k: v for k, v in case.ours.items() if k != "data"})


def _sequences(row: dict, source: dict) -> list[tuple[list[int], int, str, str]]:
    """Ids as TRL has them, how many of them are targets at most, and the prompt and completion that they come from."""
    if "input_ids" in row:
        targets = sum(label != -100 for label in row["labels"][1:])
        return [(row["input_ids"], targets, source.get("prompt", ""), source.get("completion", source.get("text")))]
    prompt = row.get("prompt_ids", [])
    found = []
    for key in ("chosen", "rejected"):
        ids = prompt + row[f"{key}_ids"]
        found.append((ids, len(ids) - len(prompt), source.get("prompt", ""), source[key]))
    return found


def check_ids(case: Case, setting: Setting, encoded: list[dict], rows: list[dict], scratch: Path) -> int:
    """Both must see the same ids: all but the first of every sequence (`score` shows targets), and for SFT the number
    of targets too; where pairs split shows in `logps`. Returns the number of tokens."""
    if len(encoded) != STEPS * setting.batch or len(rows) != len(encoded):
        raise binary.Refused(f"TRL kept {len(encoded)} of {len(rows)} rows; raise max_length or give shorter rows")
    if case in CHAT:  # What they render to is another topic's; their counts of tokens and their losses are compared.
        return sum(len(ids) for row in encoded for key, ids in row.items() if key != "labels")
    sequences = [each for row, source in zip(encoded, rows) for each in _sequences(row, source)]
    whole = binary.score(setting.start["causal"], [{"text": p + c} for _, _, p, c in sequences], scratch, "--eos")
    split = None
    if case.rows == "completions":
        split = binary.score(setting.start["causal"], rows, scratch, "--eos")
    for number, ((ids, targets, _, _), ours) in enumerate(zip(sequences, whole, strict=True)):
        if len(ours["tokens"]) >= setting.max_length:
            raise binary.Refused(f"sequence {number} is longer than {setting.max_length}: both cut, differently")
        if ids[1:] != ours["tokens"]:
            raise binary.Refused(f"ids differ in sequence {number}: {ids[1:]} in TRL, {ours['tokens']} in collimate")
        if split and split[number]["tokens"] != ids[len(ids) - targets :]:
            raise binary.Refused(f"targets differ in sequence {number}: the last {targets} of {ids} in TRL, "
                                 f"{split[number]['tokens']} in collimate")
    return sum(len(ids) for ids, _, _, _ in sequences)


def _skipped(case: Case, step: int, key: str) -> bool:
    """TRL's means over micro-batches of what is no mean of equal parts, and rewards whose common offset only rounding
    fixes."""
    uneven = case.micro is not None and key in {"entropy", "mean_token_accuracy", "min_reward", "max_reward"}
    free = case.stage == "reward" and "centering" not in case.ours.get("reward", {})
    offset = free and step > 0 and key in {"min_reward", "mean_reward", "max_reward"}
    of_dpo = case.stage == "dpo" and key in {"entropy", "mean_token_accuracy"}
    return key in NOT_OURS or uneven or offset or of_dpo


def compare_logs(case: Case, theirs: list[dict], ours: list[dict]) -> tuple[dict[str, tuple[float, float | None]], str]:
    """Largest differences over all steps, and the name of the metric that is furthest off."""
    if [entry["step"] for entry in theirs] != list(range(1, STEPS + 1)) or len(ours) < STEPS:
        raise binary.Refused(f"{len(theirs)} steps in TRL's log, {len(ours)} lines in collimate's")
    worst = {"loss": 0.0, "gradient norm": 0.0, "metrics": 0.0, "accuracies": 0.0}
    where = ""
    for step, (expected, found) in enumerate(zip(theirs, ours)):
        for key, value in expected.items():
            if _skipped(case, step, key):
                continue
            difference = abs(found[key] - value)
            if key == "num_tokens" and difference > 0:
                raise binary.Refused(f"step {step + 1}: {value} tokens in TRL, {found[key]} in collimate")
            share = difference / max(1.0, abs(value))
            if key == "loss":
                worst["loss"] = max(worst["loss"], difference)
            elif key == "grad_norm":
                worst["gradient norm"] = max(worst["gradient norm"], difference / abs(value))
            elif key in SHARES:
                worst["accuracies"] = max(worst["accuracies"], difference)
            elif share > worst["metrics"]:
                worst["metrics"], where = share, f"{key} in step {step + 1}"
    limits = {"loss": LOSS, "gradient norm": NORM, "metrics": METRIC, "accuracies": None}
    return {name: (value, limits[name]) for name, value in worst.items()}, where


def compare_weights(case: Case, setting: Setting, theirs: dict, ours: dict, config) -> tuple[dict, str]:
    """The largest difference of a weight, and of a tensor as a share of how far TRL moved it."""
    forward.same_names(ours, theirs)
    start = binary.weights(setting.start["reward" if case.stage == "reward" else "causal"])
    offset = case.stage == "reward" and "centering" not in case.ours.get("reward", {})
    masks = families.invisible(theirs, config, offset)
    largest, share, where = 0.0, 0.0, ""
    for name, tensor in theirs.items():
        difference, moved = ours[name] - tensor, tensor - start[name]
        if name in masks:
            difference, moved = difference[masks[name]], moved[masks[name]]
        if difference.numel() == 0:
            continue
        largest = max(largest, difference.abs().max().item())
        if moved.norm() == 0:
            if difference.norm() > 0:
                raise binary.Refused(f"{name} moved in collimate and not in TRL")
        elif (part := (difference.norm() / moved.norm()).item()) > share:
            share, where = part, name
    return {"weight": (largest, WEIGHT), "of the way moved": (share, setting.moved)}, where


def compare(case: Case, setting: Setting, scratch: Path) -> Row:
    row = Row("curves", case.name, setting.name)
    rows = setting.rows[case.rows]
    with forward.guarded(row):
        theirs, encoded, final, config = trl_run(case, setting, rows)
        tokens = check_ids(case, setting, encoded, rows, scratch)
        run = our_run(case, setting, rows, scratch)
        ours = binary.metrics(run)
        row.figures, metric = compare_logs(case, theirs, ours)
        figures, tensor = compare_weights(case, setting, final, binary.weights(run), config)
        row.figures |= figures
        losses = [entry["loss"] for entry in theirs]
        # Both must be more than nothing for the comparison to say something of the loss and of clipping.
        limit = (DEFAULTS | case.trl)["max_grad_norm"]
        row.figures["steps clipped"] = (float(sum(entry["grad_norm"] > limit for entry in theirs)), None)
        row.figures["TRL's losses span"] = (max(losses) - min(losses), None)
        row.note = f"{tokens} tokens; metrics: {metric or 'none'}; moved: {tensor}"
    return row

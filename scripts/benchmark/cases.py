"""The cases: what is run on each side, with which settings, and what must agree for the times to be comparable.

A side's answer is a record: `seconds` (the figure that is compared), `peak_mb`, `steps` (seconds of each step, where
there are any), `losses`, `raw` (all the process said). Settings stand once, and both sides take them from here.
"""

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import measure
import ours
from measure import Failed

# The same for both; TRL's name, ours.
SCHEDULE = {
    "learning_rate": ("learning_rate", 1e-5), "lr_scheduler_type": ("schedule", "linear"),
    "warmup_steps": ("warmup_steps", 0), "weight_decay": ("weight_decay", 0.0),
    "max_grad_norm": ("max_grad_norm", 1.0), "adam_beta1": ("adam_beta1", 0.9), "adam_beta2": ("adam_beta2", 0.999),
    "adam_epsilon": ("adam_epsilon", 1e-8), "seed": ("seed", 0),
}
# What costs TRL time or memory and is not training is off; what it does not name is as TRL has it.
QUIET = {
    "logging_steps": 1, "report_to": "none", "save_strategy": "no", "bf16": False, "disable_tqdm": True,
    "gradient_checkpointing": False,
}
PPO = {
    "kl_coef": ("kl_coef", 0.05), "cliprange": ("clip_range", 0.2), "cliprange_value": ("value_clip_range", 0.2),
    "vf_coef": ("vf_coef", 0.1), "gamma": ("gamma", 1.0), "lam": ("gae_lambda", 0.95),
    "temperature": ("temperature", 1.0), "num_ppo_epochs": ("epochs", 4), "num_mini_batches": ("minibatches", 1),
    "response_length": ("max_new_tokens", 48),
}
PPO_SCHEDULE = SCHEDULE | {"learning_rate": ("learning_rate", 1e-6), "adam_epsilon": ("adam_epsilon", 1e-5)}
NEW_TOKENS, PROMPTS = 64, (16, 64)
# What the rows are cut to, in tokens; EOS belongs to SFT's and comes after a completion's.
ROWS = {"sft_tokens": 256, "prompt_tokens": 10, "completion_tokens": (40, 70), "prompts": PROMPTS}
PAIR_LENGTH, PPO_LENGTH = 512, 128
# Losses of the first step, of any later one; log-probs of a completion, relative; sampled tokens there must be of those
# asked for; mean log-probs of different samples, relative.
FIRST, LATER, LOGPROB, ENOUGH, SAMPLED = 1e-3, 1e-2, 1e-4, 0.95, 0.2


@dataclass
class Setting:
    """What all cases share."""

    directory: Path
    steps: int
    batch: int
    threads: int
    device: str

    def file(self, name: str) -> Path:
        return self.directory / name

    def work(self, name: str) -> Path:
        return self.directory / name

    @property
    def env(self) -> dict[str, str]:
        return measure.environment(self.threads)


@dataclass
class Case:
    """`checkpointing`: TRL would recompute activations by default, and is measured with that once, too. `unit`: of
    `seconds`."""

    name: str
    title: str
    against: str
    theirs: Callable
    ours: Callable
    agree: Callable
    unit: str = "s a step"
    checkpointing: bool = False


def names(settings: dict, side: int) -> dict:
    """Settings under TRL's names (0) or ours (1)."""
    return {(theirs, mine)[side]: value for theirs, (mine, value) in settings.items()}


def trained(raw: dict, finished) -> dict:
    """The record of a training run."""
    return {
        "seconds": raw["runtime"] / len(raw["steps"]), "steps": raw["steps"], "raw": raw,
        "losses": [line["loss"] for line in raw["log"] if "loss" in line],
        "peak_mb": raw["device_peak_mb"] or finished.peak_mb, "wall": finished.wall, "processor": finished.processor,
    }


def moment(seconds: float) -> dict:
    return {"seconds": seconds, "peak_mb": None, "losses": [], "steps": [], "raw": {}}


def trl(stage: str, rows: str, watch: bool = False) -> Callable:
    def run(setting: Setting, checkpointing: bool = False) -> dict:
        length = ROWS["sft_tokens"] if stage == "sft" else PAIR_LENGTH
        job = {
            "stage": stage, "model": str(setting.file("reward" if stage == "reward" else "causal")), "watch": watch,
            "tokenizer": str(setting.file("causal")), "rows": str(setting.file(rows)), "steps": setting.steps,
            "batch": setting.batch, "device": setting.device, "directory": str(setting.work("trl-output")),
            "settings": names(SCHEDULE, 0) | QUIET | {
                "max_length": length, "gradient_checkpointing": checkpointing, "train_sampling_strategy": "sequential",
            },
        }
        raw, finished = measure.python("trl_trainers.py", job, setting.work(f"trl-{stage}"), setting.env, watch)
        return moment(finished) if watch else trained(raw, finished)

    return run


def collimate(stage: str, rows: str, watch: bool = False) -> Callable:
    def run(setting: Setting) -> dict:
        length = ROWS["sft_tokens"] if stage == "sft" else PAIR_LENGTH
        model = setting.file("reward" if stage == "reward" else "causal")
        sections = {
            "model": {"path": str(model), "device": setting.device},
            "data": {"train": str(setting.file(rows)), "max_length": length},
            "train": names(SCHEDULE, 1) | {
                "steps": setting.steps, "batch_size": setting.batch, "shuffle": False, "log_every": 1,
            },
        }
        raw, finished = ours.stage(stage, sections, setting.work(f"collimate-{stage}"), setting.env, watch)
        return moment(finished) if watch else trained(raw, finished)

    return run


def trl_ppo(setting: Setting) -> dict:
    if not os.environ.get("TRL_PPO_PYTHONPATH"):
        raise Failed("TRL_PPO_PYTHONPATH is not set; scripts/bench sets it")
    job = {
        "model": str(setting.file("causal")), "reward": str(setting.file("reward")),
        "rows": str(setting.file("prompts.jsonl")), "steps": setting.steps, "batch": setting.batch,
        "device": setting.device, "directory": str(setting.work("trl-output")),
        "ppo_trl": os.environ["TRL_PPO_PYTHONPATH"], "settings": names(PPO_SCHEDULE, 0) | QUIET | names(PPO, 0),
    }
    return trained(*measure.python("trl_ppo.py", job, setting.work("trl-ppo"), setting.env))


def collimate_ppo(setting: Setting) -> dict:
    sections = {
        "model": {"path": str(setting.file("causal")), "device": setting.device},
        "data": {"train": str(setting.file("prompts.jsonl")), "max_length": PPO_LENGTH},
        "train": names(PPO_SCHEDULE, 1) | {
            "steps": setting.steps, "batch_size": setting.batch, "shuffle": False, "log_every": 1,
        },
        "ppo": names(PPO, 1) | {"reward_model": str(setting.file("reward"))},
    }
    return trained(*ours.stage("ppo", sections, setting.work("collimate-ppo"), setting.env))


def sampled(raw: dict, finished) -> dict:
    return {
        "seconds": raw["token_seconds"], "steps": [], "losses": [], "raw": raw,
        "peak_mb": raw.get("device_peak_mb") or finished.peak_mb, "wall": finished.wall,
        "processor": finished.processor,
    }


def transformers_generate(count: int) -> Callable:
    def run(setting: Setting) -> dict:
        job = {
            "model": str(setting.file("causal")), "rows": str(setting.file(f"prompts-{count}.jsonl")),
            "device": setting.device,
        }
        # Like collimate's: the difference of two processes, so that neither side has warmed up.
        work = setting.work("transformers")
        first, _ = measure.python("transformers_generate.py", job | {"tokens": 1}, work, setting.env)
        raw, finished = measure.python("transformers_generate.py", job | {"tokens": NEW_TOKENS}, work, setting.env)
        seconds = (raw["whole"] - first["whole"]) / (NEW_TOKENS - 1)
        return sampled(raw | {"first": first["whole"], "token_seconds": seconds}, finished)

    return run


def collimate_generate(count: int) -> Callable:
    def run(setting: Setting) -> dict:
        prompts, work = setting.file(f"prompts-{count}.jsonl"), setting.work("collimate-generate")
        return sampled(*ours.generate(
            setting.file("causal"), prompts, count, NEW_TOKENS, setting.device, work, setting.env
        ))

    return run


def same_losses(theirs: dict, ours_: dict) -> None:
    """Both computed the same: losses of every step, tokens seen, and for DPO, whose first loss is log 2 whatever the
    model says, the log-probs of the first step."""
    pairs = list(zip(theirs["losses"], ours_["losses"], strict=True))
    for step, (a, b) in enumerate(pairs, 1):
        limit = FIRST if step == 1 else LATER
        if not abs(a - b) <= limit:
            raise Failed(f"losses of step {step} differ by more than {limit}: {a} in TRL, {b} in collimate")
    first, mine = theirs["raw"]["log"][0], ours_["raw"]["log"][0]
    if first["num_tokens"] != mine["num_tokens"]:
        raise Failed(f"{first['num_tokens']} tokens in TRL's first step, {mine['num_tokens']} in collimate's")
    for key in ("logps/chosen", "logps/rejected"):
        if key in first and not abs(first[key] - mine[key]) <= LOGPROB * abs(first[key]):
            raise Failed(f"{key} of the first step: {first[key]} in TRL, {mine[key]} in collimate")


def same_episodes(theirs: dict, ours_: dict) -> None:
    """Samples differ, so their log-probs agree in the mean alone; nearly all of collimate's run to the end."""
    entropy = [_mean(side["raw"]["log"], "objective/entropy") for side in (theirs, ours_)]
    if not math.isclose(*entropy, rel_tol=SAMPLED):
        raise Failed(f"objective/entropy: {entropy[0]:.4g} in TRL, {entropy[1]:.4g} in collimate")
    length, wanted = _mean(ours_["raw"]["log"], "completions/mean_length"), PPO["response_length"][1]
    if length < ENOUGH * wanted:
        raise Failed(f"collimate's episodes end early, with {length:.1f} tokens in the mean; TRL's have all {wanted}")


def _mean(log: list[dict], key: str) -> float:
    values = [line[key] for line in log if key in line]
    return sum(values) / len(values)


def all_tokens(count: int) -> Callable:
    def agree(theirs: dict, ours_: dict) -> None:
        wanted = count * NEW_TOKENS
        for side, record in (("transformers", theirs), ("collimate", ours_)):
            if not ENOUGH * wanted <= record["raw"]["tokens"] <= wanted:
                raise Failed(f"{side} sampled {record['raw']['tokens']} tokens of {wanted}")

    return agree


def nothing(_theirs: dict, _ours: dict) -> None:
    """A start has no result."""


CASES = [
    Case("sft", "SFT", "SFTTrainer", trl("sft", "sft-encoded.jsonl"), collimate("sft", "sft.jsonl"), same_losses,
         checkpointing=True),
    Case("reward", "reward", "RewardTrainer", trl("reward", "pairs.jsonl"), collimate("reward", "pairs.jsonl"),
         same_losses, checkpointing=True),
    Case("dpo", "DPO", "DPOTrainer", trl("dpo", "pairs.jsonl"), collimate("dpo", "pairs.jsonl"), same_losses,
         checkpointing=True),
    Case("ppo", "PPO", "PPOTrainer", trl_ppo, collimate_ppo, same_episodes, unit="s an iteration"),
    *(Case(f"sampling-{count}", f"sampling, {count} prompts", "generate", transformers_generate(count),
           collimate_generate(count), all_tokens(count), unit="s a token step") for count in PROMPTS),
    Case("start", "start to first step of SFT", "SFTTrainer", trl("sft", "sft.jsonl", watch=True),
         collimate("sft", "sft.jsonl", watch=True), nothing, unit="s"),
]

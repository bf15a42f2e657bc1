"""tests/golden/curves/: whole training runs of TRL 1.16 on gpt2-tiny, 8 updates each, rows in file order.

Inputs: sft.jsonl and preferences.jsonl (text columns; the token rows TRL made of them are in each run's file too).
<run>.json: settings, the encoded rows, and one record an update as TRL logs it with logging_steps = 1.
<run>.safetensors: the weights after the last update.

What TRL 1.16 and transformers 5.23 log, as read in their sources:
- `loss`: transformers sums the micro-batch losses of an update and averages over the updates since the last log. SFT's
  is the sum of negative log-probs over the number of label tokens of the whole update (all micro-batches), as ours;
  reward's and DPO's are means over the pairs of a micro-batch, averaged over micro-batches: the same as ours when the
  micro-batches are equally large.
- `grad_norm`: before clipping, of the last update. `learning_rate`: the rate that update used, so the first of a run
  without warm-up is the full one and the last is lr / steps, not 0.
- All other metrics are means over the micro-batches since the last log (each micro-batch weighs the same, however many
  tokens it has): SFT `entropy` and `mean_token_accuracy` over the label tokens of a micro-batch; reward `accuracy`,
  `margin` over pairs, `min_reward`, `mean_reward`, `max_reward` over both responses of every pair; DPO
  `rewards/chosen`, `rewards/rejected`, `rewards/margins`, `rewards/accuracies` (chosen > rejected, strictly),
  `logps/chosen`, `logps/rejected` (sums over a completion's tokens, EOS included) over pairs; DPO's `entropy` over the
  completion tokens of both responses and its `mean_token_accuracy` over the chosen ones only. They are of the weights
  before the update. `logits/chosen` and `logits/rejected` (means over the vocabulary) we do not have.
- `num_tokens`: real tokens seen so far, prompts included; DPO and reward count the prompt of a pair twice.
- `epoch`: updates done / updates an epoch.
- DPO's rewards are beta * (log pi - log ref), also for ipo, whose loss alone is length-normalised.
"""

import copy
import logging
import tempfile

import torch
from common import GOLDEN, write_json, write_jsonl, write_tensors
from datasets import Dataset, disable_progress_bars
from models import DIRECTORY as MODELS
from texts import preference_rows, sft_rows
from transformers import AutoTokenizer, GPT2ForSequenceClassification, GPT2LMHeadModel
from transformers.trainer_callback import PrinterCallback, ProgressCallback
from trl import DPOConfig, DPOTrainer, RewardConfig, RewardTrainer, SFTConfig, SFTTrainer

DIRECTORY = GOLDEN / "curves"
STEPS, BATCH = 8, 4
COMMON = {
    "max_steps": STEPS, "learning_rate": 1e-3, "lr_scheduler_type": "linear", "warmup_steps": 0, "max_grad_norm": 1.0,
    "weight_decay": 0.0, "adam_beta1": 0.9, "adam_beta2": 0.999, "adam_epsilon": 1e-8, "optim": "adamw_torch",
}
QUIET = {
    "logging_steps": 1, "report_to": "none", "save_strategy": "no", "use_cpu": True, "bf16": False, "disable_tqdm": True,
    "gradient_checkpointing": False, "train_sampling_strategy": "sequential", "seed": 0, "max_length": 64,
}
# Timings.
LEFT_OUT = {"train_runtime", "train_samples_per_second", "train_steps_per_second", "total_flos"}


def tokenizer():
    return AutoTokenizer.from_pretrained(MODELS / "gpt2-tiny")


def run(name: str, trainer_class, config_class, model, rows: list[dict], micro: int = BATCH, save=True, **settings) -> None:
    extra = {k: v for k, v in settings.items() if k != "ref_model"}
    with tempfile.TemporaryDirectory() as directory:
        args = config_class(
            output_dir=directory, per_device_train_batch_size=micro, gradient_accumulation_steps=BATCH // micro,
            **COMMON | extra, **QUIET,
        )
        trainer = trainer_class(
            model=model, args=args, train_dataset=Dataset.from_list(rows), processing_class=tokenizer(),
            **({"ref_model": settings["ref_model"]} if "ref_model" in settings else {}),
        )
        for callback in (PrinterCallback, ProgressCallback):
            trainer.remove_callback(callback)
        encoded = [{k: row[k] for k in row if k.endswith("_ids") or k == "labels"} for row in trainer.train_dataset]
        trainer.train()
    history = [{k: v for k, v in entry.items() if k not in LEFT_OUT} for entry in trainer.state.log_history[:-1]]
    assert [entry["step"] for entry in history] == list(range(1, STEPS + 1))
    lengths = [max(len(ids) for ids in row.values()) for row in encoded]
    assert len(encoded) == STEPS * BATCH and max(lengths) <= 64
    write_json(DIRECTORY / f"{name}.json", {
        "made_by": f"TRL 1.16.0's {trainer_class.__name__}, scripts/goldens/curves.py",
        "start": model.name_or_path.rsplit("/", 1)[-1], "batch_size": BATCH, "micro_batch_size": micro,
        "settings": COMMON | extra, "history": history, "rows": encoded,
    })
    if save:
        weights = trainer.model.state_dict()
        weights.pop("lm_head.weight", None)  # tied
        write_tensors(DIRECTORY / f"{name}.safetensors", weights)


def causal() -> GPT2LMHeadModel:
    return GPT2LMHeadModel.from_pretrained(MODELS / "gpt2-tiny")


def make() -> None:
    disable_progress_bars()
    logging.getLogger("trl").setLevel(logging.ERROR)
    preferences, completions = preference_rows(STEPS * BATCH), sft_rows(STEPS * BATCH)
    write_jsonl(DIRECTORY / "preferences.jsonl", preferences)
    write_jsonl(DIRECTORY / "sft.jsonl", completions)

    run("sft", SFTTrainer, SFTConfig, causal(), completions)
    # Accumulating over micro-batches of different token counts gives the same loss and weights.
    run("sft-accumulated", SFTTrainer, SFTConfig, causal(), completions, micro=2, save=False)
    # Everything that the others leave at rest: other schedule, warm-up, decay, and a rate at which accuracy moves.
    run(
        "sft-whole-text", SFTTrainer, SFTConfig, causal(), completions, completion_only_loss=False, learning_rate=2e-2,
        lr_scheduler_type="cosine", warmup_steps=2, weight_decay=0.1,
    )

    def classifier():
        return GPT2ForSequenceClassification.from_pretrained(MODELS / "gpt2-tiny-reward")

    run("reward", RewardTrainer, RewardConfig, classifier(), preferences)
    margins = [row | {"margin": [0.0, 0.5, 1.5][i % 3]} for i, row in enumerate(preferences)]
    write_jsonl(DIRECTORY / "preferences-margin.jsonl", margins)
    run("reward-margin", RewardTrainer, RewardConfig, classifier(), margins, center_rewards_coefficient=0.01)

    for loss, settings in {
        "sigmoid": {}, "hinge": {}, "ipo": {}, "robust": {"label_smoothing": 0.1},
    }.items():
        model = causal()
        run(
            f"dpo-{loss}", DPOTrainer, DPOConfig, model, preferences,
            ref_model=copy.deepcopy(model), loss_type=loss, beta=0.5, **settings,
        )

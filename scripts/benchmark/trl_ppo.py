"""The PPOTrainer of TRL 1.9.2, the last that has one, on a job, in a process of its own: policy, reference, reward
model and a value network apart from the policy, all from the same weights.

It never logs a runtime; the time is that of train(), which samples, scores and updates.
"""

import sys
import time

import child

job = child.job()
sys.path.insert(0, job["ppo_trl"])
import datasets  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402
import trl  # noqa: E402
from trl.experimental.ppo import PPOConfig, PPOTrainer  # noqa: E402


class Clock(transformers.TrainerCallback):
    """Seconds of each iteration, by the clock, and what the trainer logs of it."""

    def __init__(self):
        self.seconds, self.begun, self.log = [], 0.0, []

    def on_train_begin(self, *_args, **_more):
        self.begun = time.perf_counter()

    def on_step_end(self, *_args, **_more):
        now = time.perf_counter()
        self.seconds.append(now - self.begun)
        self.begun = now

    def on_log(self, _args, _state, _control, logs, **_more):
        self.log.append(dict(logs))


def load(kind, path: str):
    model = kind.from_pretrained(path, dtype=torch.float32)
    # No end of sequence: every episode has all its tokens. A classifier does not generate.
    if kind is transformers.AutoModelForCausalLM:
        model.generation_config.eos_token_id = None
    return model


def main() -> None:
    datasets.disable_progress_bars()
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    causal, classifier = transformers.AutoModelForCausalLM, transformers.AutoModelForSequenceClassification
    tokenizer = transformers.AutoTokenizer.from_pretrained(job["model"], padding_side="left")
    # A new token: TRL takes every pad token among the sampled ones for padding.
    tokenizer.add_special_tokens({"pad_token": "<|bench pad|>"})
    prompts = [{"input_ids": tokenizer(row["prompt"])["input_ids"]} for row in child.rows(job["rows"])]
    rows = datasets.Dataset.from_list(prompts[: job["steps"] * job["batch"]])
    clock = Clock()
    args = PPOConfig(
        output_dir=job["directory"], per_device_train_batch_size=job["batch"], gradient_accumulation_steps=1,
        total_episodes=job["steps"] * job["batch"], num_sample_generations=0, use_cpu=job["device"] == "cpu",
        **job["settings"],
    )
    trainer = PPOTrainer(
        args=args, processing_class=tokenizer, model=load(causal, job["model"]), ref_model=load(causal, job["model"]),
        reward_model=load(classifier, job["reward"]), value_model=load(classifier, job["reward"]), train_dataset=rows,
        eval_dataset=rows, callbacks=[clock],
    )
    for callback in (transformers.PrinterCallback, transformers.trainer_callback.ProgressCallback):
        trainer.callback_handler.remove_callback(callback)
    begun = time.perf_counter()
    trainer.train()
    child.answer(job, {
        "runtime": time.perf_counter() - begun, "steps": clock.seconds, "log": clock.log, "version": trl.__version__,
        "device_peak_mb": child.device_peak_mb(job["device"]), "used": {"optim": str(args.optim.value)},
    })


if __name__ == "__main__":
    main()

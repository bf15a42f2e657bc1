"""TRL's SFT, reward or DPO trainer on a job, in a process of its own: as its users run it, quietly.

With job["watch"] it says when it is about to train, and is ended there by the parent.
"""

import time

import child

job = child.job()
# The libraries' imports belong to the time from start to first step.
import datasets  # noqa: E402
import transformers  # noqa: E402
import trl  # noqa: E402

TRAINERS = {
    "sft": (trl.SFTTrainer, trl.SFTConfig),
    "reward": (trl.RewardTrainer, trl.RewardConfig),
    "dpo": (trl.DPOTrainer, trl.DPOConfig),
}


class Clock(transformers.TrainerCallback):
    """Seconds of each step, by the clock."""

    def __init__(self):
        self.seconds, self.begun = [], 0.0

    def on_step_begin(self, *_args, **_more):
        if job["watch"] and not self.seconds:
            child.about_to_train()
        self.begun = time.perf_counter()

    def on_step_end(self, *_args, **_more):
        self.seconds.append(time.perf_counter() - self.begun)


def main() -> None:
    datasets.disable_progress_bars()
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    trainer_class, config_class = TRAINERS[job["stage"]]
    clock = Clock()
    # The model by its path, so that TRL loads it as it prefers; DPO then loads its reference by itself.
    args = config_class(
        output_dir=job["directory"], max_steps=job["steps"], per_device_train_batch_size=job["batch"],
        use_cpu=job["device"] == "cpu", **job["settings"],
    )
    trainer = trainer_class(
        model=job["model"], args=args, train_dataset=datasets.Dataset.from_list(child.rows(job["rows"])),
        processing_class=transformers.AutoTokenizer.from_pretrained(job["tokenizer"]), callbacks=[clock],
    )
    for callback in (transformers.PrinterCallback, transformers.trainer_callback.ProgressCallback):
        trainer.remove_callback(callback)
    trainer.train()
    *log, last = trainer.state.log_history
    child.answer(job, {
        "runtime": last["train_runtime"], "steps": clock.seconds, "log": log, "version": trl.__version__,
        "device_peak_mb": child.device_peak_mb(job["device"]),
        "used": {
            "optim": str(args.optim.value), "attention": trainer.model.config._attn_implementation,
            "dtype": str(next(trainer.model.parameters()).dtype), "gradient_checkpointing": args.gradient_checkpointing,
        },
    })


if __name__ == "__main__":
    main()

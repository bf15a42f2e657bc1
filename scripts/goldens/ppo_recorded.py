"""Two updates of TRL 1.9.2's own PPOTrainer, recorded. Imported by ppo.py where that TRL is on the path."""

import copy
import os
import sys
import tempfile

import torch
from common import GOLDEN, generator, numbers

os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"
from datasets import Dataset  # noqa: E402
from safetensors.torch import load_file  # noqa: E402
from transformers import AutoTokenizer, GPT2ForSequenceClassification, GPT2LMHeadModel, set_seed  # noqa: E402
from transformers.trainer_callback import PrinterCallback, ProgressCallback  # noqa: E402
from trl.experimental.ppo import PPOConfig, PPOTrainer, ppo_trainer  # noqa: E402
from trl.experimental.ppo.ppo_trainer import masked_mean, masked_whiten  # noqa: E402
from trl.trainer.utils import entropy_from_logits  # noqa: E402

SETTINGS = {
    "kl_coef": 0.1, "cliprange": 0.2, "cliprange_value": 0.2, "vf_coef": 0.1, "gamma": 1.0, "lam": 0.95,
    "temperature": 0.7, "num_ppo_epochs": 2, "num_mini_batches": 2, "response_length": 6, "learning_rate": 2e-3,
    "lr_scheduler_type": "linear", "warmup_steps": 0, "weight_decay": 0.0, "adam_beta1": 0.9, "adam_beta2": 0.999,
    "adam_epsilon": 1e-5, "optim": "adamw_torch",
}
UPDATES, BATCH, SEED = 2, 8, 5
MARGIN = 3e-4  # how far from every clip bound the recorded run stays: implementations differ by some 1e-5
PROMPTS = [3, 5, 4, 7, 3, 6, 2, 5]
PAD = 400  # outside the vocabulary: TRL takes every token with this id for padding, so none may be sampled
METRICS = [
    "objective/kl", "objective/entropy", "objective/non_score_reward", "objective/rlhf_reward", "objective/scores",
    "policy/approxkl_avg", "policy/clipfrac_avg", "loss/policy_avg", "loss/value_avg", "val/clipfrac_avg",
    "policy/entropy_avg", "val/ratio", "val/ratio_var", "lr",
]


def parts(trainer) -> dict:
    model = trainer.accelerator.unwrap_model(trainer.model)
    return {"policy": model.policy, "value": model.value_model}


def recorded() -> list[dict]:
    """PPOTrainer.train() itself; its local variables are read where it calls masked_whiten and backward."""
    def classifier():
        return GPT2ForSequenceClassification.from_pretrained(GOLDEN / "models/gpt2-tiny-reward")

    policy = GPT2LMHeadModel.from_pretrained(GOLDEN / "models/gpt2-tiny")
    reference = copy.deepcopy(policy)
    missing, unexpected = reference.load_state_dict(load_file(GOLDEN / "curves/sft.safetensors"), strict=False)
    assert missing == ["lm_head.weight"] and not unexpected  # tied
    tokenizer = AutoTokenizer.from_pretrained(GOLDEN / "models/gpt2-tiny")
    tokenizer.padding_side = "left"
    tokenizer.add_special_tokens({"pad_token": "<pad>"})
    assert tokenizer.pad_token_id == PAD == policy.config.vocab_size
    random = generator(90)
    prompts = [torch.randint(3, PAD, (n,), generator=random).tolist() for n in PROMPTS * UPDATES]

    updates: list[dict] = []

    def whiten_hook(values, mask, shift_mean=True):
        result = masked_whiten(values, mask, shift_mean)
        known = sys._getframe(1).f_locals  # train()'s
        assert mask.all() and not known["padding_mask_p1"].any(), "an episode ended early"
        assert (known["actual_end"] == SETTINGS["response_length"] - 1).all()
        queries, responses = known["queries"].tolist(), known["responses"]
        assert (responses != tokenizer.eos_token_id).all()
        rollout = {name: numbers(known[name]) for name in ("scores", "logprobs", "ref_logprobs", "values", "rewards")}
        updates.append({
            "prompts": [[x for x in query if x != PAD] for query in queries], "responses": responses.tolist(),
            **rollout,
            "advantages": numbers(known["advantages"]), "whitened": numbers(result),
            "returns": numbers(known["returns"]), "minibatches": [],
        })
        return result

    with tempfile.TemporaryDirectory() as directory:
        set_seed(SEED)
        trainer = PPOTrainer(
            args=PPOConfig(
                output_dir=directory, per_device_train_batch_size=BATCH, gradient_accumulation_steps=1,
                total_episodes=UPDATES * BATCH, num_sample_generations=0, logging_steps=1, report_to="none",
                save_strategy="no", use_cpu=True, bf16=False, disable_tqdm=True, gradient_checkpointing=False,
                seed=SEED, **SETTINGS,
            ),
            model=policy, ref_model=reference, reward_model=classifier(), value_model=classifier(),
            train_dataset=(rows := Dataset.from_list([{"input_ids": ids} for ids in prompts])), eval_dataset=rows,
            processing_class=tokenizer,
        )
        for callback in (PrinterCallback, ProgressCallback):
            trainer.callback_handler.remove_callback(callback)
        backward = trainer.accelerator.backward

        def backward_hook(loss, **kwargs):
            backward(loss, **kwargs)
            known = sys._getframe(1).f_locals
            mask = ~known["padding_mask"][known["micro_batch_inds"]]
            logits, ratio = known["logits"].detach(), known["ratio"].detach()
            steps = (known["vpred"] - known["mb_values"]).detach()
            assert ((ratio - 1).abs() - SETTINGS["cliprange"]).abs().min() > MARGIN, "too near the bound"
            assert (steps.abs() - SETTINGS["cliprange_value"]).abs().min() > MARGIN, "too near the bound"
            gap = (known["vf_losses1"] - known["vf_losses2"]).detach().abs()
            assert gap[gap > 0].numel() == 0 or gap[gap > 0].min() > MARGIN, "too near each other"
            updates[-1]["minibatches"].append({
                "episodes": known["micro_batch_inds"].tolist(), "loss": loss.item(),
                "policy_loss": known["pg_loss"].item(), "value_loss": known["vf_loss"].item(),
                "clip_fraction": masked_mean((known["pg_losses2"] > known["pg_losses"]).float(), mask).item(),
                "value_clip_fraction": known["vf_clipfrac"].item(),
                "approx_kl": (0.5 * masked_mean(known["logprobs_diff"].detach() ** 2, mask)).item(),
                "ratio": masked_mean(ratio, mask).item(), "max_ratio_off_1": (ratio - 1).abs().max().item(),
                "entropy": entropy_from_logits(logits).mean().item(),
                "learning_rate": trainer.lr_scheduler.get_last_lr()[0],
                "grad_norm": {
                    part: torch.nn.utils.get_total_norm([p.grad for p in model.parameters()]).item()
                    for part, model in parts(trainer).items()
                },
            })
            if len(updates) == 1 and len(updates[0]["minibatches"]) == 1:
                updates[0]["grad_norms"] = {
                    part: {n: p.grad.norm().item() for n, p in model.named_parameters()}
                    for part, model in parts(trainer).items()
                }

        start = {
            part: {n: p.detach().clone() for n, p in model.named_parameters()} for part, model in parts(trainer).items()
        }
        trainer.accelerator.backward, ppo_trainer.masked_whiten = backward_hook, whiten_hook
        try:
            trainer.train()
        finally:
            ppo_trainer.masked_whiten = masked_whiten

    assert len(updates) == UPDATES and len(trainer.state.log_history) == UPDATES
    for update, logged in zip(updates, trainer.state.log_history):
        update["metrics"] = {name: logged[name] for name in METRICS}
    # Norms and the biases that are added to the hidden state, in full; all others by how far they moved. The key part
    # of c_attn.bias, which softmax does not see, moves by rounding alone and is no reference.
    updates[-1]["final_vectors"] = {
        part: {n: numbers(p) for n, p in model.named_parameters() if p.shape == (policy.config.n_embd,)}
        for part, model in parts(trainer).items()
    }
    updates[-1]["moved"] = {
        part: {
            n: (p - start[part][n]).norm().item() for n, p in model.named_parameters() if not n.endswith("c_attn.bias")
        }
        for part, model in parts(trainer).items()
    }
    return updates

"""tests/golden/losses.json: every loss, for each example, with its gradient.

DPO and Bradley-Terry come from TRL 1.16's own code: DPOTrainer._compute_loss and RewardTrainer.compute_loss run here on
a stand-in for the model that hands over given log-probs and rewards. TRL knows only certain preferences; a preference
mu in [0, 1] follows from it by the rule of our design: with l(z) TRL's loss of the pair and l(-z) that of the same pair
with chosen and rejected exchanged, the loss is mu' l(z) + (1 - mu') l(-z). Label smoothing e makes
mu' = mu (1 - e) + (1 - mu) e; only `robust` has a smoothing of its own, and there mu' = mu.

Known differences from TRL 1.16: its `sigmoid` ignores label_smoothing silently; its `ipo` always divides by the
completion's length (the paper's form, Azar et al. 2023, eq. 17, is had from the same code with lengths of 1); for
Bradley-Terry a margin m with mu < 1 keeps its direction, sigma(-(r_w - r_l - m)), so that the two probabilities add up
to 1.

Cross-entropy comes from torch.nn.functional.cross_entropy, entropies from TRL's entropy_from_logits.
"""

from collections import defaultdict
from types import SimpleNamespace

import torch
from common import GOLDEN, generator, numbers, write_json
from trl.trainer.dpo_trainer import DPOTrainer
from trl.trainer.reward_trainer import RewardTrainer
from trl.trainer.utils import entropy_from_logits, selective_log_softmax

ACCELERATOR = SimpleNamespace(device=torch.device("cpu"), gather=lambda x: x, gather_for_metrics=lambda x: x)
# Policy and reference log-prob sums (chosen, rejected, reference chosen, reference rejected) and completion lengths.
DPO_PAIRS = [
    (-12.0, -14.5, -12.5, -14.0, 5, 6),
    (-40.25, -33.0, -41.0, -30.5, 17, 12),
    (-3.5, -3.5, -3.5, -3.5, 2, 2),
    (-8.125, -90.0, -8.0, -60.0, 3, 31),
    (-55.0, -6.0, -30.0, -7.75, 20, 4),
    (-1.0, -2.0, -3.0, -1.0, 1, 1),
    (-300.0, -1200.0, -700.0, -250.0, 90, 400),
    (-1200.0, -300.0, -250.0, -700.0, 400, 90),
]
MIXTURES = [(1.0, 0.0), (0.5, 0.0), (0.7, 0.0), (0.0, 0.0), (1.0, 0.1), (0.25, 0.2)]  # (mu, label smoothing)


def trl_dpo(loss_type: str, beta: float, smoothing: float, values, lengths) -> torch.Tensor:
    """TRL's loss of one pair; `values` as in DPO_PAIRS, [chosen, rejected] with gradient."""
    chosen, rejected, ref_chosen, ref_rejected = values
    longest = max(lengths)
    mask = torch.tensor([[0] + [1] * n + [0] * (longest - n) for n in lengths])
    log_probs = torch.zeros(2, longest)
    log_probs = torch.cat([torch.stack([chosen, rejected])[:, None], log_probs[:, 1:]], dim=1)
    zeros = torch.zeros(2, longest)
    outputs = SimpleNamespace(log_probs=log_probs, entropy=zeros, mean_logits=zeros, is_top1=zeros.bool())
    trainer = SimpleNamespace(
        model=SimpleNamespace(training=True), accelerator=ACCELERATOR, aux_loss_enabled=False, ld_alpha=None,
        precompute_ref_logps=True, f_divergence_type="reverse_kl", loss_types=[loss_type], loss_weights=[1.0],
        beta=beta, label_smoothing=smoothing, use_weighting=False, _tp_size=1, _total_train_tokens=0,
        _metrics={"train": defaultdict(list)},
    )
    inputs = {
        "input_ids": torch.zeros_like(mask), "attention_mask": mask, "completion_mask": mask,
        "ref_chosen_logps": ref_chosen[None], "ref_rejected_logps": ref_rejected[None],
    }
    return DPOTrainer._compute_loss(trainer, lambda **_: outputs, inputs, False)


def dpo_case(name: str, loss_type: str, beta: float, mu: float, smoothing: float, unit_lengths: bool) -> dict:
    weight = mu if loss_type == "robust" else mu * (1 - smoothing) + (1 - mu) * smoothing
    losses, chosen_grads, rejected_grads = [], [], []
    for *logps, chosen_length, rejected_length in DPO_PAIRS:
        c, r, ref_c, ref_r = (torch.tensor(x, requires_grad=True) for x in logps)
        n_c, n_r = (1, 1) if unit_lengths else (chosen_length, rejected_length)
        loss = weight * trl_dpo(loss_type, beta, smoothing, (c, r, ref_c, ref_r), (n_c, n_r))
        loss = loss + (1 - weight) * trl_dpo(loss_type, beta, smoothing, (r, c, ref_r, ref_c), (n_r, n_c))
        loss.backward()
        losses.append(loss.item())
        chosen_grads.append(c.grad.item())
        rejected_grads.append(r.grad.item())
    return {
        "loss": name, "beta": beta, "mu": mu, "label_smoothing": smoothing, "losses": losses,
        "grad_chosen": chosen_grads, "grad_rejected": rejected_grads,
    }


def dpo_cases() -> list[dict]:
    cases = []
    for beta in (0.1, 0.5):
        for mu, smoothing in MIXTURES:
            for name in ("sigmoid", "hinge", "ipo", "robust"):
                cases.append(dpo_case(name, name, beta, mu, smoothing, False))
            cases.append(dpo_case("ipo_paper", "ipo", beta, mu, smoothing, True))
    return cases


REWARDS = [(1.5, 0.25), (-0.75, 2.0), (0.0, 0.0), (30.0, -40.0), (-60.0, 50.0), (0.125, 0.0625)]
MARGINS = [0.5, 0.0, 1.0, 2.0, 0.25, 3.0]


def trl_reward(chosen, rejected, margin, centering) -> torch.Tensor:
    trainer = SimpleNamespace(
        model=SimpleNamespace(training=True), accelerator=ACCELERATOR, _tp_size=1, _total_train_tokens=0,
        args=SimpleNamespace(center_rewards_coefficient=centering), _metrics={"train": defaultdict(list)},
    )
    inputs = {"attention_mask": torch.ones(2, 1)} | ({} if margin is None else {"margin": torch.tensor([margin])})
    outputs = SimpleNamespace(logits=torch.stack([chosen, rejected])[:, None])
    return RewardTrainer.compute_loss(trainer, lambda **_: outputs, inputs)


def reward_case(mu: float, with_margin: bool, centering: float) -> dict:
    losses, chosen_grads, rejected_grads = [], [], []
    for (chosen, rejected), margin in zip(REWARDS, MARGINS):
        c, r = torch.tensor(chosen, requires_grad=True), torch.tensor(rejected, requires_grad=True)
        margin = margin if with_margin else None
        loss = mu * trl_reward(c, r, margin, None)
        # Exchanged, the margin changes its sign with z = r_w - r_l - m.
        loss = loss + (1 - mu) * trl_reward(r, c, -margin if with_margin else None, None)
        if centering:
            loss = loss + trl_reward(c, r, None, centering) - trl_reward(c, r, None, None)
        loss.backward()
        losses.append(loss.item())
        chosen_grads.append(c.grad.item())
        rejected_grads.append(r.grad.item())
    return {
        "mu": mu, "margin": MARGINS if with_margin else None, "centering": centering, "losses": losses,
        "grad_chosen": chosen_grads, "grad_rejected": rejected_grads,
    }


def cross_entropy() -> dict:
    logits = 3.0 * torch.randn(6, 12, generator=generator(21))
    logits[3] += 1000.0  # log_softmax must not care
    logits[4, 5] = 80.0  # nearly certain
    logits[5] = 0.0  # uniform
    targets = torch.tensor([0, 11, 3, 7, 5, 2])
    sequence = [0, 0, 1, 1, 1, 3]  # sequence 2 has no target
    logits.requires_grad_(True)
    loss = torch.nn.functional.cross_entropy(logits, targets, reduction="sum")
    loss.backward()
    logprobs = selective_log_softmax(logits, targets)
    sums = torch.zeros(4).index_add(0, torch.tensor(sequence), logprobs)
    return {
        "logits": numbers(logits), "targets": targets.tolist(), "sequence": sequence, "sequences": 4,
        "loss_sum": loss.item(), "grad_logits": numbers(logits.grad), "logprobs": numbers(logprobs),
        "logprob_sums": numbers(sums), "entropy": numbers(entropy_from_logits(logits)),
        "correct": (logits.argmax(-1) == targets).tolist(),
    }


def make() -> None:
    write_json(GOLDEN / "losses.json", {
        "made_by": "PyTorch 2.13.0 and TRL 1.16.0, scripts/goldens/losses.py",
        "cross_entropy": cross_entropy(),
        "dpo_pairs": [list(pair) for pair in DPO_PAIRS],
        "dpo": dpo_cases(),
        "reward_pairs": [list(pair) for pair in REWARDS],
        "bradley_terry": [
            reward_case(mu, margin, centering)
            for mu in (1.0, 0.5, 0.8, 0.0) for margin in (False, True) for centering in (0.0, 0.01)
        ],
    })

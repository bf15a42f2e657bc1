"""tests/golden/ppo.json: the arithmetic of PPO with a per-token KL penalty, and updates of TRL's PPOTrainer.

PPO left TRL after 1.9.2, and the other topics need 1.16, so `make` runs this file in a process of its own, where
TRL_PPO_PYTHONPATH (scripts/make-goldens sets it) puts TRL 1.9.2 before the other.

Episodes have different lengths; lists of lists are [episode][token], real tokens only. The computations run on
right-padded float32 tensors with masks, through TRL's masked_mean, masked_whiten, selective_log_softmax and
entropy_from_logits; what TRL has only inside its train() is written out here from the formulas, and `recorded` says
what train() itself made of a batch. Inputs are multiples of 1/64, so sums of them are exact. No case lies so near a
clip bound that rounding could decide it: that is asserted. A float32 is written with the digits that make it unique
among float32s (0.1 for 0.10000000149): read as a float32, or as a double and then rounded, it is exact.

Known differences of TRL 1.9.2's train(), none of which shows in a full-length episode (all in `recorded` are):
- It adds the score one position past the last token where there is one, so on padding (ours: on the last token). That
  position has a value too: it is part of the value loss and of whitened rewards, and GAE reaches the score through it.
- Its means of ratio, entropy and approximate KL count padding; objective/entropy loses 1 for every padded position.
- A micro-batch's losses are means over its own tokens, and micro-batches count the same. Gradients are never clipped.
"""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from common import GOLDEN, generator, numbers, write_json

if __name__ == "__main__":
    os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"
    import trl
    from datasets import disable_progress_bars
    from ppo_recorded import BATCH, SETTINGS, UPDATES, recorded
    from trl.experimental.ppo.ppo_trainer import masked_mean, masked_var, masked_whiten
    from trl.trainer.utils import entropy_from_logits, selective_log_softmax

VERSION = "1.9.2"
GAE = [(1.0, 0.95), (0.99, 0.9), (1.0, 1.0), (0.9, 0.0)]
LENGTHS = [[1, 2, 3, 7, 12], [12, 1, 7], [3], [2, 2, 2, 2], [7, 3, 1, 12, 2, 1]]
TOLERANCE = 1e-5


def draw(lengths: list[int], seed: int, scale: float, shift: float = 0.0) -> list[list[float]]:
    """Normal numbers, rounded to multiples of 1/64."""
    random = generator(seed)
    return [((64 * (shift + scale * torch.randn(n, generator=random))).round() / 64).tolist() for n in lengths]


def draw_logprobs(lengths: list[int], seed: int, near: list[list[float]] | None = None, scale: float = 2.0):
    """Log-probs; with `near`, those of the same tokens under another model."""
    if near is None:
        return [[-abs(x) - 1 / 64 for x in row] for row in draw(lengths, seed, scale, -0.5)]
    steps = draw(lengths, seed, scale)
    return [[min(x + step, -1 / 64) for x, step in zip(*rows)] for rows in zip(near, steps)]


def pad(rows: list[list[float]]) -> torch.Tensor:
    longest = max(map(len, rows))
    return torch.tensor([row + [0.0] * (longest - len(row)) for row in rows])


def mask_of(rows: list[list[float]]) -> torch.Tensor:
    longest = max(map(len, rows))
    return torch.tensor([[True] * len(row) + [False] * (longest - len(row)) for row in rows])


def ragged(padded: torch.Tensor, like: list[list[float]]) -> list[list[float]]:
    return [numbers(row[: len(known)]) for row, known in zip(padded, like)]


def as_float32(rows: list[np.ndarray]) -> list[list[float]]:
    return [row.astype(np.float32).tolist() for row in rows]


def assert_close(rows: list[list[float]], others: list, tolerance: float = TOLERANCE) -> None:
    for row, other in zip(rows, others, strict=True):
        np.testing.assert_allclose(row, other, rtol=tolerance, atol=tolerance)


def shortest(value):
    """Every float32 among the numbers with as few digits as identify it; other doubles as they are."""
    if isinstance(value, dict):
        return {key: shortest(item) for key, item in value.items()}
    if isinstance(value, list):
        return [shortest(item) for item in value]
    if not isinstance(value, float) or float(np.float32(value)) != value:
        return value
    short = float(str(np.float32(value + 0.0)))  # no -0.0
    assert np.float32(short) == value
    return short


def kl_rewards(lengths: list[int], seed: int, coef: float) -> dict:
    logprobs = draw_logprobs(lengths, seed)
    ref_logprobs = draw_logprobs(lengths, seed + 1, near=logprobs, scale=0.5)
    scores = [row[0] for row in draw([1] * len(lengths), seed + 2, 2.0)]
    rewards = -coef * (pad(logprobs) - pad(ref_logprobs))
    rewards[torch.arange(len(lengths)), torch.tensor(lengths) - 1] += torch.tensor(scores)
    return {
        "coef": coef, "logprobs": logprobs, "ref_logprobs": ref_logprobs, "scores": scores,
        "rewards": ragged(rewards, logprobs),
    }


def gae_by_definition(rewards: list[float], values: list[float], gamma: float, lam: float) -> np.ndarray:
    following = [*values[1:], 0.0]
    delta = [r + gamma * after - v for r, v, after in zip(rewards, values, following)]
    return np.array([sum((gamma * lam) ** k * d for k, d in enumerate(delta[t:])) for t in range(len(delta))])


def gae_backwards(rewards: torch.Tensor, values: torch.Tensor, mask: torch.Tensor, gamma: float, lam: float):
    """As in TRL's train(): from the last column to the first, all episodes at once; beyond an episode all is 0."""
    advantages = torch.zeros_like(rewards)
    following, value = torch.zeros(len(rewards)), torch.zeros(len(rewards))
    for t in reversed(range(rewards.shape[1])):
        delta = rewards[:, t] + gamma * value - values[:, t]
        following = (delta + gamma * lam * following) * mask[:, t]
        advantages[:, t], value = following, values[:, t] * mask[:, t]
    return advantages


def gae(rewards: list[list[float]], values: list[list[float]], gamma: float, lam: float) -> dict:
    advantages = [gae_by_definition(r, v, gamma, lam) for r, v in zip(rewards, values)]
    returns = [a + np.array(v) for a, v in zip(advantages, values)]
    padded = gae_backwards(pad(rewards), pad(values), mask_of(rewards), gamma, lam)
    assert_close(ragged(padded, rewards), advantages)
    assert_close(ragged(padded + pad(values), rewards), returns)
    return {
        "gamma": gamma, "lambda": lam, "rewards": rewards, "values": values, "advantages": as_float32(advantages),
        "returns": as_float32(returns),
    }


def gae_cases() -> list[dict]:
    # By hand: deltas 1 + 2 - 4 = -1, 0 + 1 - 2 = -1, 4 - 1 = 3; then 3, -1 + 3/2, -1 + (1/2)/2.
    by_hand = gae([[1.0, 0.0, 4.0]], [[4.0, 2.0, 1.0]], 1.0, 0.5)
    assert by_hand["advantages"] == [[-0.75, 0.5, 3.0]] and by_hand["returns"] == [[3.25, 2.5, 4.0]]
    drawn = [
        gae(draw(lengths, 10 + i, 0.5), draw(lengths, 20 + i, 1.0, 0.5), gamma, lam)
        for i, lengths in enumerate(LENGTHS[:2]) for gamma, lam in GAE[: 4 - 2 * i]
    ]
    return [by_hand, *drawn]


def whiten(values: list[list[float]], shift_mean: bool) -> dict:
    mask = mask_of(values)
    # Junk on padding must not matter.
    result = masked_whiten(torch.where(mask, pad(values), 77.0), mask, shift_mean=shift_mean)
    flat = np.concatenate([np.array(row) for row in values])
    expected = (flat - flat.mean()) / np.sqrt(flat.var(ddof=1) + 1e-8) + (0.0 if shift_mean else flat.mean())
    np.testing.assert_allclose(np.concatenate([np.array(r) for r in ragged(result, values)]), expected, 1e-4, 1e-4)
    return {
        "shift_mean": shift_mean, "values": values, "mean": masked_mean(pad(values), mask).item(),
        "variance": masked_var(pad(values), mask).item(), "whitened": ragged(result, values),
    }


def whiten_cases() -> list[dict]:
    small = [[x / 128 for x in row] for row in draw([3, 1, 2], 33, 1 / 64)]  # a variance of the size of the 1e-8
    drawn = [draw(LENGTHS[0], 30, 1.5, 0.25), draw(LENGTHS[1], 31, 0.5, -6.0)]
    sets = [*drawn, small, [[0.5, 0.5], [0.5]], [[1.0], [2.0]]]
    return [whiten(values, shift_mean) for values in sets for shift_mean in (True, False)]


def policy_loss(new: list, old: list, advantages: list, clip: float) -> tuple[torch.Tensor, torch.Tensor, dict]:
    """The loss, the new log-probs it can be derived by, and what is written."""
    mask, padded = mask_of(new), pad(new).requires_grad_(True)
    log_ratio = (padded - pad(old)) * mask
    ratio, advantage = log_ratio.exp(), pad(advantages)
    assert ((ratio - 1).abs() - clip).abs().min() > 1e-3, "too near the bound"
    free, clipped = -advantage * ratio, -advantage * ratio.clamp(1 - clip, 1 + clip)
    loss = masked_mean(torch.maximum(free, clipped), mask)
    return loss, padded, {
        "clip_range": clip, "new_logprobs": new, "old_logprobs": old, "advantages": advantages, "loss": loss.item(),
        "clip_fraction": masked_mean((clipped > free).float(), mask).item(),
        "approx_kl": (0.5 * masked_mean(log_ratio**2, mask)).item(), "ratio": masked_mean(ratio, mask).item(),
        "grad": ragged(torch.autograd.grad(loss, padded, retain_graph=True)[0], new),
    }


def policy_cases() -> list[dict]:
    cases = []
    for i, lengths in enumerate(LENGTHS[:2]):
        old = draw_logprobs(lengths, 40 + i, scale=3.0)
        new = draw_logprobs(lengths, 50 + i, near=old, scale=0.5)
        advantages = draw(lengths, 60 + i, 1.5, 0.125)
        cases += [policy_loss(new, old, advantages, clip)[2] for clip in (0.2, 0.1)]
        if i == 0:
            ratio, sign = (pad(new) - pad(old)).exp()[mask_of(new)], pad(advantages)[mask_of(new)]
            for side in (ratio > 1.2, ratio < 0.8, (ratio > 0.9) & (ratio < 1.1)):
                assert (side & (sign > 0)).any() and (side & (sign < 0)).any(), "a side of the clip is not there"
            cases.append(policy_loss(old, old, advantages, 0.2)[2])  # the first minibatch: every ratio is 1
    far = [[-30.0, -0.015625], [-0.25, -12.0], [-1.0]]
    cases.append(policy_loss(far, [[-1.0, -10.0], [-8.0, -0.5], [-1.0]], [[1.5, 2.0], [-1.0, -0.5], [0.0]], 0.2)[2])
    return cases


def value_loss(new: list, old: list, returns: list, clip: float) -> tuple[torch.Tensor, torch.Tensor, dict]:
    mask, padded = mask_of(new), pad(new).requires_grad_(True)
    before, target = pad(old), pad(returns)
    clamped = torch.minimum(torch.maximum(padded, before - clip), before + clip)
    free, clipped = (padded - target) ** 2, (clamped - target) ** 2
    assert ((padded - before).abs() - clip)[mask].abs().min() > 1e-3, "too near the bound"
    assert (free - clipped)[mask & (free != clipped)].abs().min() > 1e-3, "too near each other"
    loss = 0.5 * masked_mean(torch.maximum(free, clipped), mask)
    return loss, padded, {
        "value_clip": clip, "new_values": new, "old_values": old, "returns": returns, "loss": loss.item(),
        "clip_fraction": masked_mean((clipped > free).float(), mask).item(),
        "grad": ragged(torch.autograd.grad(loss, padded, retain_graph=True)[0], new),
    }


def value_inputs(lengths: list[int], seed: int) -> tuple[list, list, list]:
    old = draw(lengths, seed, 1.0)
    # 1/128 aside, so that no step is exactly 1/2 and no value exactly as far from its return as the clipped one.
    new = [[x + y + 1 / 128 for x, y in zip(*rows)] for rows in zip(old, draw(lengths, seed + 1, 0.5))]
    returns = [[x + y for x, y in zip(*rows)] for rows in zip(old, draw(lengths, seed + 2, 0.75))]
    return new, old, returns


def value_cases() -> list[dict]:
    return [
        value_loss(*value_inputs(lengths, 70 + 10 * i), clip)[2]
        for i, lengths in enumerate(LENGTHS[:2]) for clip in (0.2, 0.5)
    ]


def total(lengths: list[int], seed: int, coefficient: float) -> dict:
    old = draw_logprobs(lengths, seed)
    policy, logprobs, policy_case = policy_loss(
        draw_logprobs(lengths, seed + 1, near=old, scale=0.5), old, draw(lengths, seed + 2, 1.0), 0.2,
    )
    value, values, value_case = value_loss(*value_inputs(lengths, seed + 3), 0.2)
    loss = policy + coefficient * value
    grads = torch.autograd.grad(loss, [logprobs, values])
    inputs = {k: v for k, v in (policy_case | value_case).items() if k not in ("loss", "clip_fraction", "grad")}
    for metric in ("approx_kl", "ratio"):
        inputs.pop(metric)
    return inputs | {
        "vf_coef": coefficient, "policy_loss": policy.item(), "value_loss": value.item(), "loss": loss.item(),
        "grad_logprobs": ragged(grads[0], old), "grad_values": ragged(grads[1], old),
    }


def entropy(rows: int, vocabulary: int, seed: int) -> dict:
    logits = torch.tensor(draw([vocabulary] * rows, seed, 2.0))
    logits[0] = 0.0  # uniform
    logits[1, 2] = 60.0  # nearly certain
    logits[2] += 500.0
    each = entropy_from_logits(logits)
    return {"logits": numbers(logits), "each": numbers(each), "mean": each.mean().item()}


def adaptive_kl() -> list[dict]:
    """Doubles. The last cases are a run: each starts from the coefficient before it."""
    cases = []

    def add(coef: float, kl: float, target: float, horizon: float, n: int) -> float:
        error = min(max(kl / target - 1.0, -0.2), 0.2)
        new = coef * (1.0 + error * n / horizon)
        cases.append({"coef": coef, "kl": kl, "target": target, "horizon": horizon, "n": n, "new_coef": new})
        return new

    for kl in (6.0, 6.3, 5.4, 7.2, 60.0, 4.8, 0.0, -1.5):
        add(0.2, kl, 6.0, 10000.0, 64)
    add(0.05, 3.3, 3.0, 512.0, 512)
    coef = 0.15
    for kl in (0.5, 2.75, 9.0, 4.25, 3.875, 12.0):
        coef = add(coef, kl, 4.0, 2000.0, 256)
    return cases


def statistics(lengths: list[int], seed: int, coef: float) -> dict:
    case = kl_rewards(lengths, seed, coef)
    logprobs, ref_logprobs = pad(case["logprobs"]), pad(case["ref_logprobs"])
    kl = logprobs - ref_logprobs
    non_score = (-coef * kl).sum(1).mean()
    scores = torch.tensor(case["scores"]).mean()
    return {k: v for k, v in case.items() if k != "rewards"} | {
        "objective/kl": kl.sum(1).mean().item(), "objective/non_score_reward": non_score.item(),
        "objective/scores": scores.item(), "objective/rlhf_reward": (non_score + scores).item(),
        "objective/entropy": (-logprobs).sum(1).mean().item(),
    }


def check_recorded(update: dict) -> None:
    """The formulas above against train()'s own results, and the minibatches against its averages."""
    logged = update["metrics"]
    rewards = -SETTINGS["kl_coef"] * (pad(update["logprobs"]) - pad(update["ref_logprobs"]))
    rewards[:, -1] += torch.tensor(update["scores"])
    assert_close(update["rewards"], numbers(rewards))
    case = gae(update["rewards"], update["values"], SETTINGS["gamma"], SETTINGS["lam"])
    assert_close(update["advantages"], case["advantages"])
    assert_close(update["returns"], case["returns"])
    assert_close(update["whitened"], whiten(update["advantages"], True)["whitened"])
    assert update["minibatches"][0]["max_ratio_off_1"] < 1e-5
    clipped = sum(m["clip_fraction"] for m in update["minibatches"])
    assert clipped > 0 and sum(m["value_clip_fraction"] for m in update["minibatches"]) > 0, "nothing was clipped"
    averages = {
        "policy/approxkl_avg": "approx_kl", "policy/clipfrac_avg": "clip_fraction", "loss/policy_avg": "policy_loss",
        "loss/value_avg": "value_loss", "val/clipfrac_avg": "value_clip_fraction", "policy/entropy_avg": "entropy",
        "val/ratio": "ratio",
    }
    for name, key in averages.items():
        mean = sum(m[key] for m in update["minibatches"]) / len(update["minibatches"])
        assert abs(mean - logged[name]) < TOLERANCE * max(1.0, abs(mean)), (name, mean, logged[name])


def write() -> None:
    assert trl.__version__ == VERSION, f"TRL {VERSION} is needed, this is {trl.__version__}"
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    disable_progress_bars()
    updates = recorded()
    for update in updates:
        check_recorded(update)
    write_json(GOLDEN / "ppo.json", shortest({
        "made_by": f"PyTorch 2.13.0, NumPy and TRL {VERSION}, scripts/goldens/ppo.py",
        "kl_rewards": [kl_rewards(n, 100 + 3 * i, (0.05, 0.2, 1.0, 0.1, 0.0)[i]) for i, n in enumerate(LENGTHS)],
        "gae": gae_cases(),
        "whiten": whiten_cases(),
        "policy_loss": policy_cases(),
        "value_loss": value_cases(),
        "total": [total(n, 120 + 10 * i, 0.1) for i, n in enumerate(LENGTHS[:2])],
        "entropy": [entropy(6, 9, 150), entropy(4, 5, 151)],
        "adaptive_kl": adaptive_kl(),
        "statistics": [statistics(n, 160 + 3 * i, (0.05, 0.2)[i]) for i, n in enumerate(LENGTHS[:2])],
        "recorded_settings": SETTINGS | {
            "policy": "models/gpt2-tiny", "reference": "curves/sft.safetensors", "reward": "models/gpt2-tiny-reward",
            "value": "models/gpt2-tiny-reward", "batch_size": BATCH, "updates": UPDATES,
        },
        "recorded": updates,
    }))


def make() -> None:
    path = os.environ.get("TRL_PPO_PYTHONPATH")
    if not path:
        raise SystemExit(f"make_goldens: ppo needs TRL_PPO_PYTHONPATH, a folder with TRL {VERSION} in it")
    subprocess.run([sys.executable, Path(__file__)], check=True, env=os.environ | {"PYTHONPATH": path})


if __name__ == "__main__":
    write()

"""tests/golden/optimizer.json: AdamW steps with clipping, and learning-rate schedules.

A run feeds recorded gradients to torch.nn.utils.clip_grad_norm_ and torch.optim.AdamW under a schedule of transformers'
get_scheduler, in transformers.Trainer's order: clip, step, then advance the schedule. So the first update uses the
schedule's value at 0, and with warm-up that is a learning rate of 0; Trainer logs the rate the update used.
Decay is on the matrices only. transformers.Trainer instead exempts biases and norms by name and type; for GPT-2 and
Llama without tied exceptions that is the same set, since their only vectors are biases and norms.
"""

import torch
from common import GOLDEN, generator, numbers, write_json
from transformers import get_scheduler

SHAPES = {"embedding.weight": (5, 4), "norm.weight": (4,), "linear.weight": (3, 4), "linear.bias": (3,)}
# transformers' name, ours, warm-up steps, steps
SCHEDULES = [
    ("linear", "linear", 0, 10), ("linear", "linear", 3, 10), ("cosine", "cosine", 0, 10), ("cosine", "cosine", 4, 12),
    ("constant_with_warmup", "constant", 0, 5), ("constant_with_warmup", "constant", 3, 8), ("linear", "linear", 5, 5),
    ("linear", "linear", 0, 1),
]


def rates(name: str, warmup: int, steps: int, lr: float) -> list[float]:
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=lr)
    schedule = get_scheduler(name, optimizer, num_warmup_steps=warmup, num_training_steps=steps)
    found = []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return found


def run(name: str, seed: int, steps: int, schedule: tuple, max_norm: float, **adamw) -> dict:
    draw = generator(seed)
    parameters = {n: torch.nn.Parameter(torch.randn(s, generator=draw)) for n, s in SHAPES.items()}
    start = {n: numbers(p.clone()) for n, p in parameters.items()}
    decay = adamw.pop("weight_decay")
    groups = [
        {"params": [p for p in parameters.values() if p.dim() >= 2], "weight_decay": decay},
        {"params": [p for p in parameters.values() if p.dim() < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, **adamw)
    scheduler = get_scheduler(schedule[0], optimizer, num_warmup_steps=schedule[2], num_training_steps=schedule[3])
    records = []
    for step in range(steps):
        scale = [2.0, 0.05, 0.3, 1e-6, 4.0][step % 5]  # some steps are clipped, some are not
        for parameter in parameters.values():
            parameter.grad = scale * torch.randn(parameter.shape, generator=draw)
        gradients = {n: numbers(p.grad.clone()) for n, p in parameters.items()}
        norm = torch.nn.utils.clip_grad_norm_(parameters.values(), max_norm)
        rate = optimizer.param_groups[0]["lr"]
        optimizer.step()
        scheduler.step()
        records.append({
            "learning_rate": rate, "grad_norm": norm.item(), "gradients": gradients,
            "parameters": {n: numbers(p) for n, p in parameters.items()},
        })
    moments = {
        key: {n: numbers(optimizer.state[p][key]) for n, p in parameters.items()} for key in ("exp_avg", "exp_avg_sq")
    }
    return {
        "name": name, "schedule": schedule[1], "warmup_steps": schedule[2], "schedule_steps": schedule[3],
        "max_grad_norm": max_norm, "weight_decay": decay, **adamw, "start": start, "steps": records, **moments,
    }


def make() -> None:
    write_json(GOLDEN / "optimizer.json", {
        "made_by": "torch.optim.AdamW 2.13.0 and transformers 5.23.0's get_scheduler, scripts/goldens/optimizer.py",
        "schedules": [
            {"schedule": ours, "warmup_steps": warmup, "steps": steps, "lr": 3e-4, "rates": rates(name, warmup, steps, 3e-4)}
            for name, ours, warmup, steps in SCHEDULES
        ],
        "runs": [
            run("decay, warm-up, clipping", 31, 10, SCHEDULES[1], 1.0, lr=1e-2, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.1),
            run("other betas and epsilon", 32, 10, SCHEDULES[2], 0.5, lr=3e-3, betas=(0.8, 0.95), eps=1e-5, weight_decay=0.0),
        ],
    })

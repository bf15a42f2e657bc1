"""tests/golden/sampling.json: the distribution that a token is sampled from.

transformers' own warpers in the order in which generate applies them: temperature, then top-k, then top-p; then softmax.
"""

import torch
from common import GOLDEN, generator, numbers, write_json
from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

SETTINGS = [  # temperature, top_k (0 off), top_p (1 off)
    (1.0, 0, 1.0), (0.7, 0, 1.0), (2.5, 0, 1.0), (1.0, 1, 1.0), (1.0, 5, 1.0), (1.0, 100, 1.0), (1.0, 0, 0.9),
    (1.0, 0, 0.5), (1.0, 0, 0.01), (0.7, 8, 0.8), (1.5, 3, 0.95), (0.1, 0, 0.99),
]


def probabilities(logits: torch.Tensor, temperature: float, top_k: int, top_p: float) -> torch.Tensor:
    scores = logits.clone()
    if temperature != 1.0:
        scores = TemperatureLogitsWarper(temperature)(None, scores)
    if top_k > 0:
        scores = TopKLogitsWarper(top_k)(None, scores)
    if top_p < 1.0:
        scores = TopPLogitsWarper(top_p)(None, scores)
    return scores.softmax(-1)


def make() -> None:
    logits = 2.0 * torch.randn(5, 16, generator=generator(41))
    logits[1] += 500.0
    logits[2] *= 0.05  # nearly uniform
    logits[3, 4] = 30.0  # nearly certain
    write_json(GOLDEN / "sampling.json", {
        "made_by": "transformers 5.23.0, scripts/goldens/sampling.py",
        "logits": numbers(logits),
        "cases": [
            {"temperature": t, "top_k": k, "top_p": p, "probabilities": numbers(probabilities(logits, t, k, p))}
            for t, k, p in SETTINGS
        ],
    })

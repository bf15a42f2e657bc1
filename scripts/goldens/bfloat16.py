"""tests/golden/bf16.json: how far transformers' own bfloat16 is from float32 on the models' cases.

The model with its weights rounded to bfloat16 and everything computed in bfloat16 (eager attention), each row alone; its
logits to float32, and the log-probs of the case's targets from them. Against the log-probs that cases.safetensors
holds (float32, on weights that were not rounded): mean absolute, root mean square and largest difference over all
targets, three significant digits. A CPU with other bfloat16 instructions may sum in another order and change them.
"""

import json

import torch
from cases import DIRECTORY, load, target_logprobs
from common import GOLDEN, write_json
from safetensors.torch import load_file

MODELS = [
    "gpt2-tiny", "gpt2-inverse", "llama-tiny-gqa", "llama-rope-llama3", "neox-parallel", "opt-pre", "opt-post",
    "mistral-window", "qwen2-tiny", "qwen3-tiny",
]


def errors(name: str) -> dict:
    case = json.loads((DIRECTORY / name / "cases.json").read_text())
    truth = load_file(DIRECTORY / name / "cases.safetensors")
    model = load(DIRECTORY / name, dtype=torch.bfloat16)
    assert all(parameter.dtype == torch.bfloat16 for parameter in model.parameters())
    differences = []
    for i, (row, start) in enumerate(zip(case["rows"], case["prompt_len"])):
        logits = model(input_ids=torch.tensor([row]), use_cache=False).logits[0].detach().float()
        differences.append(target_logprobs(logits, row, start) - truth[f"logprobs.{i}"])
    error = torch.cat(differences).double()
    figures = {"mean_abs": error.abs().mean(), "rms": error.pow(2).mean().sqrt(), "max_abs": error.abs().max()}
    return {"model": name} | {key: float(f"{value.item():.3g}") for key, value in figures.items()}


def make() -> None:
    with torch.no_grad():
        models = [errors(name) for name in MODELS]
    write_json(GOLDEN / "bf16.json", {"made_by": "transformers 5.23.0, scripts/goldens/bfloat16.py", "models": models})

"""What the measured Python processes share: their job, their answer, and silence. Imports nothing large."""

import json
import sys
from pathlib import Path

from measure import BEGINS

# Started with -B for the sake of this directory; from here on libraries cache their bytecode as for anyone else.
sys.dont_write_bytecode = False


def job() -> dict:
    return json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))


def answer(to: dict, result: dict) -> None:
    Path(to["result"]).write_text(json.dumps(result), encoding="utf-8")


def rows(file: str) -> list[dict]:
    with open(file, encoding="utf-8") as lines:
        return [json.loads(line) for line in lines if line.strip()]


def about_to_train() -> None:
    """Says so to the parent."""
    print(BEGINS, file=sys.stderr, flush=True)


def device_peak_mb(device: str) -> float | None:
    """On CUDA, what torch had allocated there at most."""
    if device == "cpu":
        return None
    import torch

    return torch.cuda.max_memory_allocated() / 1e6

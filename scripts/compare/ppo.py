"""PPO against TRL 1.9.2, the last that has it. collimate takes no rollout from outside, so this comparison has two
halves: TRL's own PPOTrainer is recorded anew (scripts/goldens/ppo_recorded.py) and must give what is committed under
tests/golden/ppo.json; and the tests that hold collimate's arithmetic against that record are run."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import forward
from binary import ROOT, Refused
from table import Row

# Of a number's size (1 where it is smaller). tests/golden_ppo.rs holds collimate to 2e-5 of the committed record.
RECORDED = 1e-4
LINE = re.compile(r"^test golden_ppo::(\w+) \.\.\. (\w+)", re.MULTILINE)


def largest(a, b, where: str = "") -> tuple[float, str]:
    """The largest difference of two JSON values of one form, and where it is."""
    if isinstance(a, dict) and isinstance(b, dict) and a.keys() == b.keys():
        return max((largest(a[key], b[key], f"{where}.{key}") for key in a), default=(0.0, where))
    if isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        return max((largest(x, y, where) for x, y in zip(a, b)), default=(0.0, where))
    if isinstance(a, (int, float)) and isinstance(b, (int, float)):
        return abs(a - b) / max(1.0, abs(b)), where
    return (0.0, where) if a == b else (float("inf"), where)


def recorded_again(scratch: Path) -> Row:
    """scripts/make-goldens writes into its own tree, so it is given a copy."""
    row = Row("ppo recorded", "TRL's PPOTrainer, recorded again", "gpt2-tiny")
    with forward.guarded(row):
        if not os.environ.get("TRL_PPO_PYTHONPATH"):
            raise Refused("TRL_PPO_PYTHONPATH is not set; scripts/parity sets it")
        golden = scratch / "tests" / "golden"
        shutil.copytree(ROOT / "scripts" / "goldens", scratch / "scripts" / "goldens",
                        ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copytree(ROOT / "tests" / "golden" / "models", golden / "models")
        shutil.copytree(ROOT / "tests" / "golden" / "curves", golden / "curves")
        script = scratch / "scripts" / "goldens" / "make_goldens.py"
        # One thread, as the committed record was made.
        made = subprocess.run([sys.executable, script, "ppo"], capture_output=True, text=True,
                              env=os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"})
        if made.returncode != 0:
            raise Refused(f"make_goldens.py ppo failed: {made.stderr.strip()[-300:]}")
        again, committed = (json.loads((path / "ppo.json").read_text()) for path in (golden, ROOT / "tests" / "golden"))
        value, where = largest(again, committed)
        row.figures = {"difference": (value, RECORDED)}
        row.note = f"largest at {where.strip('.')}" if value else "the same numbers"
    return row


def tests() -> Iterator[Row]:
    """One row a test. COLLIMATE_TESTS=<test binary> runs that one instead of building with cargo."""
    tests_binary = os.environ.get("COLLIMATE_TESTS")
    command = [tests_binary] if tests_binary else ["cargo", "test", "--locked", "--test", "tests", "--"]
    done = subprocess.run([*command, "golden_ppo"], cwd=ROOT, capture_output=True, text=True)
    outcomes = LINE.findall(done.stdout)
    if not outcomes:
        reason = (done.stderr.strip().splitlines() or ["no test has golden_ppo in its name"])[-1]
        yield Row("ppo", "golden_ppo", "", failure=f"{command[0]} ran no test: {reason}")
    for name, outcome in outcomes:
        yield Row("ppo", name.replace("_", " "), "gpt2-tiny" if "two_iterations" in name else "numbers alone",
                  {"failed tests": (float(outcome != "ok"), 0.0)})


def compare(scratch: Path) -> Iterator[Row]:
    yield recorded_again(scratch)
    yield from tests()

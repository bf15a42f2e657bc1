"""collimate's side of every case: its configuration, its process, what it leaves. Standard library alone."""

import json
import shutil
from pathlib import Path

import measure
from measure import Failed


def toml(sections: dict[str, dict]) -> str:
    """JSON's strings, numbers, booleans and flat lists are TOML's too."""
    return "".join(
        f"[{name}]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in keys.items())
        for name, keys in sections.items()
    )


def stage(name: str, sections: dict[str, dict], directory: Path, env: dict, watch: bool = False) -> tuple[dict, object]:
    """Runs a stage: the figures of its metrics and what the process took; with `watch` the seconds until it was about
    to train. The run directory goes."""
    directory.mkdir(parents=True, exist_ok=True)
    run, config = directory / "run", directory / f"{name}.toml"
    shutil.rmtree(run, ignore_errors=True)
    sections = sections | {"train": sections["train"] | {"output": str(run)}}
    config.write_text(toml(sections), encoding="utf-8")
    if watch:
        env = env | {"RUST_LOG": "collimate=debug"}
        return {}, measure.until_training([measure.collimate(), name, config], directory / "stderr.txt", env)
    finished = measure.run([measure.collimate(), name, "--quiet", config], directory / "output.txt", env)
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    shutil.rmtree(run)
    log = [line for line in lines if "step_seconds" in line]
    return {
        "runtime": lines[-1]["train_runtime"], "steps": [line["step_seconds"] for line in log], "log": log,
        "device_peak_mb": log[-1]["peak_memory_mb"] if sections["model"].get("device", "cpu") != "cpu" else None,
    }, finished


def generate(model: Path, prompts: Path, count: int, tokens: int, device: str, directory: Path, env: dict):
    """Samples `tokens` tokens for each of `count` prompts in one batch: seconds a token step, what the process took.

    The command times nothing by itself: the seconds are the difference of two processes', one of which samples one
    token, so that loading and the prompts cancel.
    """
    directory.mkdir(parents=True, exist_ok=True)
    wholes = {}
    for length in (1, tokens):
        output = directory / f"completions-{length}.jsonl"
        output.unlink(missing_ok=True)
        command = [measure.collimate(), "generate", "--quiet", "--model", model, "--prompts", prompts, "--batch-size",
                   count, "--max-new-tokens", length, "--device", device, "--output", output]
        wholes[length] = measure.run(command, directory / "output.txt", env)
    rows = [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
    if len(rows) != count:
        raise Failed(f"collimate generate wrote {len(rows)} completions of {count}")
    return {
        "token_seconds": (wholes[tokens].wall - wholes[1].wall) / (tokens - 1), "whole": wholes[tokens].wall,
        "first": wholes[1].wall, "tokens": sum(length_of(row) for row in rows),
    }, wholes[tokens]


def length_of(row: dict) -> int:
    """Sampled tokens of a completion."""
    return row["tokens"] if isinstance(row["tokens"], int) else len(row["tokens"])

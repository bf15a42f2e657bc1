"""The program under test: where it is, how a stage or a command of it is run, and what it leaves. Compares nothing."""

import json
import os
import subprocess
from pathlib import Path

from safetensors.torch import load_file

ROOT = Path(__file__).resolve().parents[2]


class Refused(Exception):
    """collimate ended with an error; the text is its last line."""


def path() -> Path:
    """COLLIMATE, or what `cargo build --release` leaves."""
    found = Path(os.environ.get("COLLIMATE", ROOT / "target" / "release" / "collimate"))
    if not found.is_file():
        raise SystemExit(f"parity: no binary at {found}; run cargo build --release, or set COLLIMATE=<binary>")
    return found


def version() -> str:
    return subprocess.run([path(), "--version"], check=True, capture_output=True, text=True).stdout.split()[-1]


def run(*arguments: str | Path) -> None:
    done = subprocess.run([path(), *map(str, arguments)], capture_output=True, text=True)
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        raise Refused(f"collimate {arguments[0]} ended with {done.returncode}: {lines[-1] if lines else 'silence'}")


def toml(sections: dict[str, dict]) -> str:
    """JSON's strings, numbers, booleans and flat lists are TOML's too."""
    return "".join(
        f"[{name}]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in keys.items())
        for name, keys in sections.items()
    )


def stage(name: str, directory: Path, sections: dict[str, dict]) -> Path:
    """Runs a stage; the run directory. `sections` are the configuration, train.output left out."""
    output = directory / "run"
    sections = sections | {"train": sections["train"] | {"output": str(output)}}
    config = directory / f"{name}.toml"
    config.write_text(toml(sections), encoding="utf-8")
    run(name, "--quiet", config)
    return output


def metrics(run_directory: Path) -> list[dict]:
    text = (run_directory / "metrics.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def weights(directory: Path) -> dict:
    return load_file(directory / "model.safetensors")


def gradients(run_directory: Path) -> dict:
    """Gradients of a run's first update: with beta1 = 0 AdamW's first moment is the gradient itself."""
    moments = load_file(run_directory / "checkpoint-1" / "optimizer.safetensors")
    suffix = ".exp_avg"
    return {name.removesuffix(suffix): tensor for name, tensor in moments.items() if name.endswith(suffix)}


def score(model: Path, rows: list[dict], directory: Path, *options: str) -> list[dict]:
    data, output = directory / "to-score.jsonl", directory / "scored.jsonl"
    write_rows(data, rows)
    output.unlink(missing_ok=True)
    run("score", "--quiet", "--model", model, "--data", data, "--output", output, *options)
    return read_rows(output)


def read_rows(file: Path, limit: int | None = None) -> list[dict]:
    rows = []
    with open(file, encoding="utf-8") as lines:
        for line in lines:
            if limit is not None and len(rows) == limit:
                break
            if line.strip():
                rows.append(json.loads(line))
    return rows


def write_rows(file: Path, rows: list[dict]) -> None:
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")

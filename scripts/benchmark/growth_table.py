"""The table of `scripts/bench growth`. Measures nothing."""

import os
import shlex
import sys
import time
from pathlib import Path

import measure

HEAD = ["tokens a step", "parameters, M", "s a step", "exponent since the row above", "tokens a second", "peak MB",
        "exponent of memory"]
# What a slope is told for: its name, how much of it, decimals of seconds and of MB.
UNITS = {
    "length": ("64 tokens of length", 64, 4, 1),
    "batch": ("sequence", 1, 4, 1),
    "model": ("million parameters", 1e6, 4, 1),
    "vocabulary": ("thousand tokens of vocabulary", 1000, 4, 2),
}


def row(x: float, point: dict, slopes: tuple[float | None, float | None]) -> str:
    time_slope, memory_slope = ("" if slope is None else f"{slope:.2f}" for slope in slopes)
    cells = [
        f"{x:,.0f}", f"{point['tokens']:,.0f}", f"{point['parameters'] / 1e6:,.1f}", f"{point['seconds']:.3f}",
        time_slope, f"{point['tokens'] / point['seconds']:,.0f}", f"{point['peak_mb']:,.0f}", memory_slope,
    ]
    return "| " + " | ".join(cells) + " |"


def fitted(name: str, unit: str, per: str, scale: float, decimals: int, found: dict) -> str:
    line, power = found["line"], found["power"]
    return (
        f"{name}: {line['start']:,.{decimals}f} {unit} and {line['slope'] * scale:,.{decimals}f} {unit} for each "
        f"{per}, at most {line['off']:.0%} off; with a free exponent {power['exponent']:.2f} beyond a fixed part of "
        f"{power['start']:,.{decimals}f} {unit}, at most {power['off']:.0%} off"
    )


def section(found: dict) -> list[str]:
    panel, first = found["panel"], found["points"][0]
    blocks, width = first["shape"]
    fixed = {
        "length": f"{first['length']} tokens a sequence", "batch": f"{first['batch']} sequences",
        "vocabulary": f"vocabulary {first['vocabulary']:,}", "model": f"{blocks} blocks of width {width}",
    }
    rest = ", ".join(text for name, text in fixed.items() if name != panel)
    lines = [
        f"## {found['what'].capitalize()}", "", f"Fixed: {rest}.", "",
        f"| {found['what']} | " + " | ".join(HEAD) + " |", "|" + "---|" * (1 + len(HEAD)),
    ]
    slopes = zip([None, *found["time"]["local"]], [None, *found["memory"]["local"]], strict=True)
    lines += [row(*each) for each in zip(found["x"], found["points"], slopes, strict=True)]
    per, scale, of_seconds, of_megabytes = UNITS[panel]
    return [
        *lines, "",
        fitted("Time", "s", per, scale, of_seconds, found["time"]) + ". "
        + fitted("Memory", "MB", per, scale, of_megabytes, found["memory"]) + ".", "",
    ]


def about(threads: int, device: str) -> str:
    return (f"{time.strftime('%Y-%m-%d')}, {measure.processor()}, {os.cpu_count()} cores, {threads} threads, {device}; "
            f"collimate {measure.version()}.")


def command() -> str:
    given = f"OMP_NUM_THREADS={os.environ['OMP_NUM_THREADS']} " if os.environ.get("OMP_NUM_THREADS") else ""
    return f"{given}scripts/bench growth {shlex.join(sys.argv[1:])}".rstrip()


def write(path: Path, found: list[dict], said: str, steps: int, seconds: float) -> None:
    lines = [
        "# How a step's time and memory grow", "",
        f"{said} SFT, float32, random weights of GPT-2's shapes, rows of equal length, {steps} steps a point, "
        f"{seconds / 60:.0f} minutes in all.", "", f"    {command()}", "",
        f"![step time and memory]({path.stem}.svg)", "",
    ]
    for each in found:
        lines += section(each)
    path.write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")

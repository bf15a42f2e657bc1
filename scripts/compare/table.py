"""Rows of the table, their tolerances and verdicts, and the Markdown that is made of them.

A figure has a limit or none: one without is shown for the reader and decides nothing. NaN is never within a limit.
"""

import math
import platform
import time
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Row:
    """One comparison; rows of one topic share a table. `figures`: name -> (value, limit or None); `failure`: why there
    are none."""

    topic: str
    what: str
    model: str
    figures: dict[str, tuple[float, float | None]] = field(default_factory=dict)
    note: str = ""
    failure: str = ""

    @property
    def passed(self) -> bool:
        limited = [(value, limit) for value, limit in self.figures.values() if limit is not None]
        # A row that holds nothing to a limit has compared nothing.
        return not self.failure and bool(limited) and all(value <= limit for value, limit in limited)


def number(value: float) -> str:
    if value == 0 or math.isnan(value):
        return "0" if value == 0 else "NaN"
    return f"{value:.1e}" if value < 0.01 or value >= 1e4 else f"{value:.3g}"


def cell(figure: tuple[float, float | None] | None) -> str:
    if figure is None:
        return ""
    value, limit = figure
    mark = "" if limit is None or value <= limit else " **!**"
    return number(value) + mark


def heading(name: str, rows: list[Row]) -> str:
    """The column's name with its limit, where all rows have the same one."""
    limits = {row.figures[name][1] for row in rows if name in row.figures}
    if limits == {None}:
        return name
    return f"{name} (≤ {number(next(iter(limits)))})" if len(limits) == 1 else f"{name} (limits differ)"


def grid(rows: list[Row]) -> list[str]:
    """One Markdown table of rows that have the same figures, those of failed rows aside."""
    columns = list(dict.fromkeys(name for row in rows for name in row.figures))
    head = ["what", "model", *(heading(name, rows) for name in columns), "verdict"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for row in rows:
        cells = [row.what, row.model, *(cell(row.figures.get(name)) for name in columns)]
        cells.append("passed" if row.passed else "**FAILED**")
        lines.append("| " + " | ".join(cells) + " |")
    return [*lines, ""]


def section(title: str, explanation: str, rows: list[Row]) -> list[str]:
    lines = [f"## {title}", "", explanation, ""]
    by_topic = {topic: [row for row in rows if row.topic == topic] for topic in dict.fromkeys(r.topic for r in rows)}
    for some in by_topic.values():
        lines += grid(some)
    remarks = [(row, text) for row in rows for text in (row.failure, row.note) if text]
    return [*lines, *(f"- {row.what}, {row.model}: {text}" for row, text in remarks), ""]


def write(path: Path, parts: list[tuple[str, str, list[Row]]], versions: dict[str, str], seconds: float) -> None:
    """`parts`: (title, explanation, rows) in the order they are to stand in."""
    rows = [row for _, _, rows in parts for row in rows]
    failed = sum(not row.passed for row in rows)
    of = ", ".join(f"{name} {version}" for name, version in versions.items())
    lines = [
        "# collimate against transformers and TRL", "",
        f"Made by `scripts/parity` with {of} on {platform.machine()}, {time.strftime('%Y-%m-%d')}, in {seconds:.0f} s: "
        f"{len(rows)} comparisons, {failed} failed. Figures are the largest differences found; \"!\" marks one beyond "
        "its tolerance, which stands in the column's heading.", "",
    ]
    for title, explanation, part in parts:
        if part:
            lines += section(title, explanation, part)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")

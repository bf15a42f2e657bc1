"""The figure of `scripts/bench growth`: step time above, memory below, one column a panel; PNG and SVG."""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402
from matplotlib.ticker import LogLocator  # noqa: E402

COLOURS = {"measured": "#1f4e79", "fit": "#c0504d"}


def _sampled(x: list[float], count: int = 60) -> list[float]:
    """Points from the first to the last, evenly on a logarithmic axis."""
    return [x[0] * (x[-1] / x[0]) ** (i / (count - 1)) for i in range(count)]


def _panel(axes, found: dict, name: str, key: str, unit: str) -> None:
    x, between = found["x"], _sampled(found["x"])
    axes.loglog(x, [point[key] for point in found["points"]], "o", color=COLOURS["measured"], label="measured")
    line, power = found[name]["line"], found[name]["power"]
    if all(line["start"] + line["slope"] * at > 0 for at in x):
        axes.loglog(between, [line["start"] + line["slope"] * at for at in between], "-", color=COLOURS["fit"],
                    label=f"line, at most {line['off']:.0%} off")
    axes.loglog(between, [power["start"] + power["factor"] * at ** power["exponent"] for at in between], ":",
                color="black", label=f"exponent {power['exponent']:.2f} beyond a fixed part")
    axes.set_xlabel(found["what"])
    axes.set_ylabel(unit)
    axes.set_xticks(x, [_short(at) for at in x], rotation=45)
    axes.minorticks_off()
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:,g}")
    axes.grid(True, alpha=0.3)
    axes.legend(fontsize=8)


def _short(value: float) -> str:
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if value >= 10 * 1e3 and value >= size:
            return f"{value / size:.0f}{letter}"
    return f"{value:.0f}"


def draw(panels: list[dict], path: Path) -> None:
    plt.rcParams["svg.hashsalt"] = "growth"
    drawn, grid = plt.subplots(2, len(panels), figsize=(4.2 * len(panels), 7), squeeze=False, layout="constrained")
    for column, found in enumerate(panels):
        _panel(grid[0][column], found, "time", "seconds", "seconds a step")
        _panel(grid[1][column], found, "memory", "peak_mb", "peak memory, MB")
    drawn.savefig(path.with_suffix(".png"), dpi=120)
    drawn.savefig(path.with_suffix(".svg"), metadata={"Date": None})

"""How collimate's step time and memory grow: SFT steps on synthetic rows and random weights, one thing at a time
(sequence length, batch, model, vocabulary), measured by `collimate bench`, with exponents, a table and a figure.

Panels: length, batch, model, vocabulary. Without a panel: all. `scripts/bench` without growth compares with TRL.
"""

import argparse
import importlib.util
import json
import sys
import tempfile
import time
from pathlib import Path

import fit
import growth_table
import measure
from measure import Failed

# GPT-2 shapes (blocks, width); 64 wide heads. The vocabulary of a shape is that of its panel.
BASE, BASE_VOCABULARY, BASE_LENGTH, BASE_BATCH = (6, 384), 8192, 128, 8
# With the model panel's 2,048 tokens: 1, 4, 12, 30, 86 and 355 million parameters.
SHAPES = [(4, 128), (5, 256), (6, 384), (9, 512), (12, 768), (28, 1024)]
SMALL_VOCABULARY, VOCABULARY_SHAPE = 2048, (4, 256)
LENGTHS, BATCHES = [64, 128, 256, 512, 1024], [1, 2, 4, 8, 16, 32, 64]
VOCABULARIES = [2048, 8192, 32768, 65536, 100352, 151936]
PANELS = {
    "length": "sequence length, tokens",
    "batch": "batch, sequences",
    "model": "model, parameters",
    "vocabulary": "vocabulary, tokens",
}


def config(shape: tuple[int, int], vocabulary: int, length: int) -> dict:
    blocks, width = shape
    return {
        "architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "vocab_size": vocabulary, "n_positions": length,
        "n_embd": width, "n_layer": blocks, "n_head": width // 64, "activation_function": "gelu_new",
        "layer_norm_epsilon": 1e-5, "initializer_range": 0.02, "attn_pdrop": 0.0, "embd_pdrop": 0.0, "resid_pdrop": 0.0,
        "bos_token_id": 0, "eos_token_id": 0,
    }


def parameters(known: dict) -> int:
    """Of a GPT-2 with tied embeddings."""
    width, blocks = known["n_embd"], known["n_layer"]
    return width * (known["vocab_size"] + known["n_positions"]) + blocks * (12 * width**2 + 13 * width) + 2 * width


def points(panel: str, batch: int) -> list[dict]:
    """What is measured: shape, vocabulary, length and batch of each point. Models take half as many sequences, so that
    the largest is done in seconds."""
    base = {"shape": BASE, "vocabulary": BASE_VOCABULARY, "length": BASE_LENGTH, "batch": batch}
    if panel == "length":
        return [base | {"length": length} for length in LENGTHS]
    if panel == "batch":
        return [base | {"batch": each} for each in BATCHES]
    if panel == "model":
        small = base | {"vocabulary": SMALL_VOCABULARY, "batch": max(1, batch // 2)}
        return [small | {"shape": shape} for shape in SHAPES]
    return [base | {"shape": VOCABULARY_SHAPE, "vocabulary": each} for each in VOCABULARIES]


def measured(point: dict, steps: int, setting: argparse.Namespace, directory: Path) -> dict:
    """One process on one point: seconds a step, MB at the peak, tokens a step."""
    model = directory / "model"
    model.mkdir(exist_ok=True)
    known = config(point["shape"], point["vocabulary"], point["length"])
    (model / "config.json").write_text(json.dumps(known), encoding="utf-8")
    log = directory / "output.txt"
    command = [measure.collimate(), "bench", "sft", "--model", model, "--random", "--batch-size", point["batch"],
               "--length", point["length"], "--steps", steps, "--device", setting.device, "--json"]
    answer = directory / "answer.json"
    finished = measure.run(command, log, measure.environment(setting.threads), answer)
    try:
        said = json.loads(answer.read_text(encoding="utf-8"))
        seconds, peak, tokens = said["step_seconds"], said["peak_memory_mb"], said["tokens"]
    except (ValueError, KeyError, TypeError) as error:
        wanted = "one object with step_seconds, peak_memory_mb and tokens"
        raise Failed(f"collimate bench did not answer with {wanted}: {error}", answer) from error
    return point | {
        "parameters": parameters(known), "seconds": seconds, "peak_mb": peak, "tokens": tokens,
        "process_peak_mb": finished.peak_mb, "said": said,
    }


def along(panel: str, point: dict) -> float:
    return point["parameters"] if panel == "model" else point[panel]


def sweep(panel: str, args: argparse.Namespace, directory: Path) -> dict:
    """All points of a panel, smallest first, and the fits."""
    found = []
    for point in points(panel, args.batch):
        found.append(measured(point, args.steps, args, directory))
        print(f"{panel} {along(panel, found[-1]):,.0f}: {found[-1]['seconds']:.3f} s, {found[-1]['peak_mb']:.0f} MB",
              file=sys.stderr, flush=True)
    x = [along(panel, point) for point in found]
    times, memory = [point["seconds"] for point in found], [point["peak_mb"] for point in found]
    return {"panel": panel, "what": PANELS[panel], "x": x, "points": found} | {
        name: {"line": fit.line(x, y), "power": fit.power(x, y), "local": fit.local(x, y)}
        for name, y in (("time", times), ("memory", memory))
    }


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/bench growth", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("panels", nargs="*", metavar="PANEL", help=", ".join(PANELS))
    parser.add_argument("--steps", type=int, default=3, help="steps of a measurement; default: 3")
    parser.add_argument("--batch", type=int, default=BASE_BATCH, help="sequences where batch is fixed; default: 8")
    parser.add_argument("--device", default="cpu", help="cpu or cuda; default: cpu")
    parser.add_argument("--output", type=Path, default=Path("runs/growth.md"),
                        help="the table; the figure stands beside it as .png and .svg; default: runs/growth.md")
    parser.add_argument("--json", type=Path, help="write every figure to this file")
    args = parser.parse_args()
    if unknown := [name for name in args.panels if name not in PANELS]:
        parser.error(f"no panel {unknown[0]!r}; there are {', '.join(PANELS)}")
    if args.steps < 1 or args.batch < 1:
        parser.error("--steps and --batch must be at least 1")
    args.panels = [name for name in PANELS if not args.panels or name in args.panels]
    args.threads = measure.threads()
    return args


def main() -> int:
    args = arguments()
    if importlib.util.find_spec("matplotlib") is None:
        raise SystemExit("bench: no matplotlib in this Python, and the figure needs it; install scripts/goldens/requirements.txt")
    measure.version()
    args.output.parent.mkdir(parents=True, exist_ok=True)
    started, found = time.monotonic(), []
    with tempfile.TemporaryDirectory(prefix="growth-") as directory:
        for panel in args.panels:
            try:
                found.append(sweep(panel, args, Path(directory)))
            except Failed as failure:
                raise SystemExit(f"bench: {panel}: {failure}") from None
    said = growth_table.about(args.threads, args.device)
    growth_table.write(args.output, found, said, args.steps, time.monotonic() - started)
    if args.json is not None:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps({"about": said, "panels": found}, indent=1), encoding="utf-8")
    # Only now: this process is to be small while it starts others.
    import figure

    figure.draw(found, args.output.with_suffix(""))
    print(f"bench: {args.output}, {args.output.with_suffix('.png')}, {args.output.with_suffix('.svg')}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""collimate against transformers and TRL: every comparison drawn anew, in one table.

Topics: families (log-probs, gradients and rewards of tiny random models of every family, float32), bfloat16 (their
errors beside transformers' own), curves (20 steps of TRL's SFT, reward and DPO trainers), chat (the same on
conversations), templates (what chat templates render to), ppo (TRL 1.9.2's PPOTrainer, recorded), model (a model of yours, with --model). Without a topic: all.
"""

import argparse
import logging
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import binary
import table

EXPLANATIONS = {
    "families": (
        "Log-probs, gradients, rewards: float32",
        "Against transformers' forward and autograd in float64, a row at a time: log-probs in nats a token, gradients "
        "of every parameter relative to their norm.",
    ),
    "bfloat16": (
        "bfloat16",
        "Errors against float64 from the same weights. Held is the ratio of our error to that of transformers' own "
        "bfloat16: no worse, but for chance.",
    ),
    "curves": (
        "Curves",
        "20 updates by TRL's trainer and by collimate: same rows in file order, batch, linear schedule, clipping. "
        "Gradient norm: relative. Metrics: of their size, or of 1. Weights: after the last update; and a tensor's "
        "difference relative to how far TRL moved it. Accuracies are shown, not held: rounding may decide one token.",
    ),
    "chat": ("Conversations", "As the curves, through the chat template."),
    "templates": (
        "Chat templates",
        "Each of TRL's templates on the same conversations, as they stand, with a generation prompt and continued, against "
        "transformers' rendering, byte for byte, with the ranges that {% generation %} marks.",
    ),
    "ppo": (
        "PPO",
        "TRL 1.9.2's PPOTrainer recorded again, against the committed record; and the tests that hold collimate's KL "
        "rewards, values, advantages, ratio, clip fractions, losses and gradients to that record within 2e-5.",
    ),
    "model": (
        "A trained model on real text",
        "Log-probs and gradients against transformers in float32; bfloat16 against that; curves as above, at a "
        "learning rate of 1e-5.",
    ),
}


def families(scratch: Path, which: str) -> Iterator[table.Row]:
    import forward
    import texts
    from families import SHAPES, make, tokenizers

    known, rows = tokenizers(scratch), texts.completions(8)
    for seed, shape in enumerate(SHAPES):
        directory, work = scratch / shape.name, scratch / f"{shape.name}-work"
        work.mkdir()
        make(shape, known[shape.tokenizer], directory, seed)
        if which == "bfloat16":
            yield forward.bfloat16(directory, shape.name, rows, work)
            continue
        yield forward.float32(directory, shape.name, rows, work)
        make(shape, known[shape.tokenizer], scratch / f"{shape.name}-reward", 100 + seed, reward=True)
        yield forward.rewards(scratch / f"{shape.name}-reward", shape.name, rows, work)


def curves(scratch: Path, which: str) -> Iterator[table.Row]:
    import texts
    from curves import CHAT, MAIN, MORE, STEPS, Setting, compare, kinds
    from families import CURVES, EVERY_VARIANT, SHAPES, make, tokenizers

    batch = 4
    known = tokenizers(scratch)
    rows = kinds(texts.completions(STEPS * batch), texts.pairs(STEPS * batch))
    shapes = {shape.name: shape for shape in SHAPES}
    for shape in map(shapes.get, CURVES):
        paths = {kind: scratch / f"{shape.name}-{kind}" for kind in ("causal", "reward", "reference")}
        for seed, (kind, path) in enumerate(paths.items()):
            make(shape, known[shape.tokenizer], path, 200 + seed, reward=kind == "reward")
        setting = Setting(shape.name, paths, rows, batch, 1e-3, 128)
        every = shape.name in EVERY_VARIANT
        cases = (CHAT if every else []) if which == "chat" else MAIN + (MORE if every else [])
        for number, case in enumerate(cases):
            work = scratch / f"{shape.name}-{number}"
            work.mkdir()
            yield compare(case, setting, work)


def rows_of(topic: str, args, scratch: Path) -> Iterator[table.Row]:
    if topic in ("families", "bfloat16"):
        yield from families(scratch, topic)
    elif topic == "curves":
        yield from curves(scratch, topic)
    elif topic == "chat":
        yield from curves(scratch, topic)
    elif topic == "templates":
        import templates

        yield from templates.rows(scratch)
    elif topic == "ppo":
        import ppo

        yield from ppo.compare(scratch)
    else:
        import real

        yield from real.compare(args.model, args.rows, args.pairs, scratch)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/parity", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("topics", nargs="*", metavar="TOPIC", help=", ".join(EXPLANATIONS))
    parser.add_argument("--model", type=Path, help="a model directory, for the topic model")
    parser.add_argument("--rows", type=Path, help="JSONL of {text} or {prompt, completion} for it; default: data/")
    parser.add_argument("--pairs", type=Path, help="JSONL of {prompt, chosen, rejected}; default: made of the rows")
    parser.add_argument("--output", type=Path, default=Path("runs/parity.md"), help="default: runs/parity.md")
    args = parser.parse_args()
    if unknown := [topic for topic in args.topics if topic not in EXPLANATIONS]:
        parser.error(f"no topic {unknown[0]!r}; there are {', '.join(EXPLANATIONS)}")
    if "model" in args.topics and args.model is None:
        parser.error("the topic model needs --model DIR")
    if args.model is None and (args.rows or args.pairs):
        parser.error("--rows and --pairs are read with --model alone")
    if args.model is not None and not (args.model / "config.json").is_file():
        parser.error(f"{args.model} has no config.json; give a model directory")
    args.topics = args.topics or [topic for topic in EXPLANATIONS if topic != "model" or args.model]
    if args.model is not None and "model" not in args.topics:
        args.topics.append("model")
    return args


def silence() -> None:
    """TRL and transformers speak on every run; what they say of these models is known and meant."""
    warnings.filterwarnings("ignore")
    import datasets
    import transformers

    datasets.disable_progress_bars()
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    logging.getLogger("trl").setLevel(logging.ERROR)


def main() -> int:
    args = arguments()
    binary.path()
    silence()
    import torch

    # Threads: OMP_NUM_THREADS, which libtorch reads in both.
    torch.use_deterministic_algorithms(True)
    started, parts = time.monotonic(), []
    for topic in [topic for topic in EXPLANATIONS if topic in args.topics]:
        found = []
        with tempfile.TemporaryDirectory(prefix="parity-") as scratch:
            for row in rows_of(topic, args, Path(scratch)):
                found.append(row)
                print(f"{topic}: {row.what}, {row.model}: {'passed' if row.passed else 'FAILED ' + row.failure}",
                      file=sys.stderr, flush=True)
        parts.append((*EXPLANATIONS[topic], found))
    versions = {"collimate": binary.version()} | {name: version(name) for name in ("torch", "transformers", "trl")}
    table.write(args.output, parts, versions, time.monotonic() - started)
    failed = sum(not row.passed for _, _, rows in parts for row in rows)
    print(f"parity: {failed} of {sum(len(rows) for _, _, rows in parts)} comparisons failed; {args.output}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

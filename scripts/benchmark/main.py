"""collimate beside TRL and transformers: time, memory and losses of the same work, measured in turn, in one table.

Cases: sft, reward, dpo, ppo, sampling-16, sampling-64, start. Without a case: all.
`scripts/bench growth` is another program: how step time and memory of collimate alone grow.
"""

import argparse
import json
import os
import shlex
import shutil
import sys
import tempfile
import time
from pathlib import Path

import cases
import measure
import table
from cases import CASES, Case, Setting


def arguments() -> argparse.Namespace:
    known = {case.name: case for case in CASES}
    parser = argparse.ArgumentParser(
        prog="scripts/bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("cases", nargs="*", metavar="CASE", help=", ".join(known))
    parser.add_argument("--model", default="gpt2", help="a model directory or a hub id in the cache; default: gpt2")
    parser.add_argument("--reviews", type=Path, help="JSONL of {text}; default: made of data/sft.jsonl")
    parser.add_argument("--rounds", type=int, default=3, help="times that every case is measured; default: 3")
    parser.add_argument("--steps", type=int, default=8, help="training steps of a measurement; default: 8")
    parser.add_argument("--batch", type=int, default=8, help="rows, pairs or episodes a step; default: 8")
    parser.add_argument("--device", default="cpu", help="cpu or cuda, for both; default: cpu")
    parser.add_argument("--output", type=Path, default=Path("runs/bench.md"), help="default: runs/bench.md")
    parser.add_argument("--json", type=Path, help="write all rounds, with every figure of both, to this file")
    args = parser.parse_args()
    if unknown := [name for name in args.cases if name not in known]:
        parser.error(f"no case {unknown[0]!r}; there are {', '.join(known)}")
    for name in ("rounds", "steps", "batch"):
        if getattr(args, name) < 1:
            parser.error(f"--{name} must be at least 1")
    if args.reviews is not None and not args.reviews.is_file():
        parser.error(f"--reviews {args.reviews} is not a file")
    args.cases = [known[name] for name in known if not args.cases or name in args.cases]
    return args


def prepare(args, setting: Setting) -> dict:
    """The directories and rows that both sides read, made by another process: this one must stay small."""
    job = {
        "model": args.model, "reviews": str(args.reviews.resolve()) if args.reviews else None, "steps": args.steps,
        "batch": args.batch, "directory": str(setting.directory), "settings": cases.ROWS,
    }
    return measure.python("prepare.py", job, setting.work("prepare"), setting.env)[0]


class Measured:
    """All rounds of one case. `default`: TRL as it is by default, with checkpointing, measured once."""

    def __init__(self, case: Case):
        self.case, self.theirs, self.ours, self.default, self.failure = case, [], [], None, ""

    def ratio(self, number: int) -> float:
        return self.theirs[number]["seconds"] / self.ours[number]["seconds"]

    def round(self, number: int, setting: Setting) -> None:
        """Who comes first changes from round to round, so that a machine that slows down favours nobody."""
        case = self.case
        if case.name == "start" and number == 0:  # Files into memory, and Python's bytecode onto the disk.
            case.theirs(setting), case.ours(setting)
        order = [(self.theirs, case.theirs), (self.ours, case.ours)]
        for records, run in order if number % 2 == 0 else order[::-1]:
            records.append(run(setting))
        case.agree(self.theirs[-1], self.ours[-1])
        if case.checkpointing and number == 0:
            self.default = case.theirs(setting, checkpointing=True)

    def figures(self) -> dict:
        return {
            "case": self.case.name, "unit": self.case.unit, "theirs": self.theirs, "collimate": self.ours,
            "theirs_with_checkpointing": self.default, "failure": self.failure,
            "ratios": [self.ratio(number) for number in range(min(len(self.theirs), len(self.ours)))],
        }


def attempt(found: Measured, number: int, setting: Setting, output: Path) -> None:
    """One round; what fails says so, keeps its output beside the table, and is not tried again."""
    try:
        found.round(number, setting)
        ratio = found.ratio(number)
        theirs, ours = (table.seconds(records[-1]["seconds"]) for records in (found.theirs, found.ours))
        said = f"{theirs} and {ours}, {ratio:.2f}x"
    except measure.Failed as failure:
        found.failure = said = str(failure)
        if failure.log is not None:
            kept = output.parent / f"{output.stem}-failed-{found.case.name}.txt"
            shutil.copy(failure.log, kept)
            found.failure = said = f"{said} (all it wrote: {kept})"
        said = "FAILED " + said
    print(f"round {number + 1}, {found.case.title}: {said}", file=sys.stderr, flush=True)


def main() -> int:
    args = arguments()
    version = measure.version()
    args.output.parent.mkdir(parents=True, exist_ok=True)
    started, load = time.monotonic(), os.getloadavg()[0]
    found = [Measured(case) for case in args.cases]
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        setting = Setting(Path(directory), args.steps, args.batch, measure.threads(), args.device)
        try:
            facts = prepare(args, setting)
        except measure.Failed as failure:
            raise SystemExit(f"bench: {failure}") from None
        for number in range(args.rounds):
            for each in found:
                if not each.failure:
                    attempt(each, number, setting, args.output)
    about = {
        "date": time.strftime("%Y-%m-%d"), "processor": measure.processor(), "cores": os.cpu_count(),
        "threads": setting.threads, "device": args.device, "model": args.model, "parameters": facts["parameters"],
        "reviews": args.reviews.name if args.reviews else "data/sft.jsonl", "rounds": args.rounds,
        "steps": args.steps, "batch": args.batch, "command": command(), "seconds": time.monotonic() - started,
        "load": load, "versions": {"collimate": version} | facts["versions"], "rows": facts,
        "own_peak_mb": measure.own_peak_mb(),
    }
    figures = [each.figures() for each in found]
    if args.json is not None:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps({"about": about, "cases": figures}, indent=1), encoding="utf-8")
    text = table.markdown(about, [(each.case, each) for each in found])
    args.output.write_text(text, encoding="utf-8")
    print(text)
    failed = [each.case.name for each in found if each.failure]
    print(f"bench: {args.output}" + (f"; failed: {', '.join(failed)}" if failed else ""), file=sys.stderr)
    return 1 if failed else 0


def command() -> str:
    """What was typed, with the settings that the environment gave."""
    given = [f"{name}={os.environ[name]}" for name in ("OMP_NUM_THREADS",) if os.environ.get(name)]
    return " ".join([*given, "scripts/bench", *map(shlex.quote, sys.argv[1:])])


if __name__ == "__main__":
    sys.exit(main())

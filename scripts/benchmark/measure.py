"""Processes under the clock: wall time, processor time and peak resident memory of one child at a time.

Only the standard library, here and in whatever starts the children: a child's peak begins at the size of the process it
was forked from, so that one must stay small.
"""

import json
import os
import resource
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
# What a process writes to standard error when it is about to take its first training step.
BEGINS = "training begins"


class Failed(Exception):
    """A measured process did not do what it was to do; the text says what. `log`: its output, where it has one."""

    def __init__(self, text: str, log: Path | None = None):
        super().__init__(text)
        self.log = log


@dataclass
class Finished:
    """Seconds of the clock and of the processors, MB (10^6 bytes) at the peak."""

    wall: float
    processor: float
    peak_mb: float


def collimate() -> Path:
    """COLLIMATE, or what `cargo build --release` leaves."""
    found = Path(os.environ.get("COLLIMATE", ROOT / "target" / "release" / "collimate"))
    if not found.is_file():
        raise SystemExit(f"bench: no binary at {found}; run cargo build --release, or set COLLIMATE=<binary>")
    return found.resolve()


def environment(threads: int, **more: str) -> dict[str, str]:
    """The same threads for both; nothing is fetched. Python finds and writes bytecode as it does for its users."""
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONDONTWRITEBYTECODE", "RUST_LOG")}
    return kept | {
        "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1", "TRL_EXPERIMENTAL_SILENCE": "1",
    } | more


def own_peak_mb() -> float:
    """What a child's peak starts from: this process' own size."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def run(command: list, log: Path, env: dict[str, str], answer: Path | None = None) -> Finished:
    """Runs to the end; its output goes to `log`, with `answer` standard output there."""
    with open(log, "wb") as output, open(answer or os.devnull, "wb") as apart:
        begun = time.monotonic()
        said = apart if answer else output
        process = subprocess.Popen([str(part) for part in command], stdout=said, stderr=output, env=env)
        try:
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:
            process.kill()
            process.wait()
            raise
        wall = time.monotonic() - begun
    # Popen is not to wait for it again.
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise Failed(f"{_name(command)} ended with {process.returncode}: {last_line(log)}", log)
    return Finished(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024 / 1e6)


def until_training(command: list, log: Path, env: dict[str, str]) -> float:
    """Seconds from the start of the process until it says that it is about to train; it is ended there."""
    with open(log, "w", encoding="utf-8") as output:
        begun = time.monotonic()
        process = subprocess.Popen(
            [str(part) for part in command], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=env, text=True
        )
        moment = None
        try:
            for line in process.stderr:
                output.write(line)
                if BEGINS in line:
                    moment = time.monotonic() - begun
                    break
        finally:
            process.kill()
            process.wait()
    if moment is None:
        raise Failed(f"{_name(command)} never wrote {BEGINS!r}: {last_line(log)}", log)
    return moment


def python(script: str, job: dict, directory: Path, env: dict[str, str], watch: bool = False) -> tuple[dict, object]:
    """Runs a script of this directory on a job; what it writes to job["result"], and what the process took, or with
    `watch` the seconds until it was about to train."""
    directory.mkdir(parents=True, exist_ok=True)
    result, file = directory / "result.json", directory / "job.json"
    result.unlink(missing_ok=True)
    file.write_text(json.dumps(job | {"result": str(result)}), encoding="utf-8")
    command = [sys.executable, "-B", HERE / script, file]
    if watch:
        return {}, until_training(command, directory / "stderr.txt", env)
    finished = run(command, directory / "output.txt", env)
    return json.loads(result.read_text(encoding="utf-8")), finished


def last_line(log: Path) -> str:
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return lines[-1].strip()[:300] if lines else "silence"


def _name(command: list) -> str:
    return " ".join(Path(part).name if Path(part).is_absolute() else str(part) for part in command[:3])


def threads() -> int:
    """OMP_NUM_THREADS, or the cores that this process may use."""
    return int(os.environ.get("OMP_NUM_THREADS") or len(os.sched_getaffinity(0)))


def version() -> str:
    said = subprocess.run([collimate(), "--version"], check=True, capture_output=True, text=True).stdout
    return said.split()[-1]


def processor() -> str:
    """The processor's name, as the kernel has it."""
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return os.uname().machine

"""Where the time of a Python server goes: stacks sampled by py-spy, summed by function."""

import shutil
import sys
from collections import Counter
from pathlib import Path

from bench.process import BenchError

RATE = 200
"""Samples a second."""
SHOWN = 40


def command(pid: int, output: Path) -> list[str]:
    """The profiler to run beside a load; it writes one line for each different stack.

    Raises:
        BenchError: py-spy is not installed.
    """
    beside = Path(sys.executable).with_name("py-spy")
    tool = str(beside) if beside.exists() else shutil.which("py-spy")
    if tool is None:
        raise BenchError("profiling needs py-spy: .venv/bin/python -m pip install py-spy")
    # Native frames would need the process stopped for each sample, which slows it down fivefold.
    # Only who holds the interpreter is sampled: a thread that waits for the disk costs nothing.
    return [
        *(tool, "record", "--nonblocking", "--gil", "--threads", "--function", "--format", "raw"),
        *("--rate", str(RATE), "--duration", "3600"),
        *("--output", str(output), "--pid", str(pid)),
    ]


def summary(stacks: Path) -> str:
    """The functions in which most samples ended (`self`) and which most of them passed (`total`).

    Raises:
        BenchError: the profiler wrote nothing.
    """
    if not stacks.exists():
        raise BenchError("the profiler wrote nothing; may it trace other processes here?")
    own: Counter[str] = Counter()
    total: Counter[str] = Counter()
    for line in stacks.read_text(errors="replace").splitlines():
        stack, _, count = line.rpartition(" ")
        frames = stack.split(";")
        own[frames[-1]] += int(count)
        for frame in set(frames):
            total[frame] += int(count)
    samples = own.total()
    if not samples:
        raise BenchError("the profiler took no samples")
    lines = [f"{samples} samples, {stacks}"]
    for title, counts in (("self", own), ("total", total)):
        lines.append(f"-- {title}")
        lines += [f"{n / samples:6.1%}  {frame}" for frame, n in counts.most_common(SHOWN)]
    return "\n".join(lines)

"""How commands end on hostile inputs, as the property test draws them.

    python -m benchmarks.hostile --out benchmarks/results/hostile.md

Every input is a command with some malformed arguments and options (`tests.hostile`), and has to
pass the assertions that `tests/test_hostile_commands.py` makes for 500 of them.  Its number
reproduces it.
"""

from __future__ import annotations

import argparse
import multiprocessing
import platform
import tempfile
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import torch
from rich.console import Console

from tests.hostile import SEED, draw, ended, forget, tamed
from tests.hostile_files import make_world
from tests.test_cli import run

CODES = (0, 1, 2)


@dataclass(frozen=True)
class Outcome:
    """How one input ended; `fault` is the assertion that failed, empty if none did."""

    number: int
    command: str
    code: int | None = None
    seconds: float = 0.0
    fault: str = ""


def outcomes(numbers: range) -> list[Outcome]:
    """Outcomes of the inputs with these numbers, run in one folder of files of their own."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        world = make_world(Path(folder) / "world", run)
        scratch = Path(folder) / "scratch"
        scratch.mkdir()
        with tamed(world):
            found: list[Outcome] = []
            for number in numbers:
                drawn = draw(number, world, scratch)
                try:
                    end = ended(drawn, world)
                    found.append(Outcome(number, drawn.command, end.code, end.seconds))
                except BaseException as error:
                    fault = f"{type(error).__name__}: {error} in {drawn.arguments}"
                    found.append(Outcome(number, drawn.command, fault=ascii(fault)[:2000]))
                forget(drawn)
    return found


def table(found: list[Outcome]) -> Iterator[str]:
    """Rows by command: inputs, exit codes, faults, the slowest."""
    yield "| command | inputs | done (0) | a check failed (1) | refused (2) | faults | slowest, s |"
    yield "|---|--:|--:|--:|--:|--:|--:|"
    for command in [*sorted({one.command for one in found}), ""]:
        of = [one for one in found if command in (one.command, "")]
        codes = Counter(one.code for one in of)
        ends = " | ".join(f"{codes[code]:,}" for code in CODES)
        slowest = max(one.seconds for one in of)
        name = f"`{command}`" if command else "all"
        yield f"| {name} | {len(of):,} | {ends} | {codes[None]:,} | {slowest:.1f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    parts = [range(first, given.count, given.workers) for first in range(given.workers)]
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(given.workers, spawn) as pool:
        found = [one for part in pool.map(outcomes, parts) for one in part]
    faults = [f"- {one.number}: {one.fault}" for one in found if one.fault]
    lines = [
        "# Hostile inputs",
        "",
        f"{date.today()} · {given.workers} processes · Python {platform.python_version()}, "
        f"torch {torch.__version__} · seed {SEED}, inputs 0 to {given.count - 1:,}",
        "",
        *table(found),
        *(["", "## Faults", "", *faults] if faults else []),
    ]
    given.out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    Console().print("\n".join(lines), markup=False)
    raise SystemExit(bool(faults))


if __name__ == "__main__":
    main()

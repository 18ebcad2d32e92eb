"""Speed and memory of a trace on Gemma 3 270M, compared with this machine's matrix product.

    python benchmarks/speed.py            all cases, each in its own process
    python benchmarks/speed.py --out benchmarks/results/speed.md

The dictionary is random: 4,096 features per layer, JumpReLU, with one threshold per layer set so
that about 40 features are active per token and layer.  The cost of a row does not depend on
the values.  FLOPs are those that rows need (circuits.attribution.cost), memory is anonymous
memory.  The rate of the matrix product is measured in the same process just before and just
after the trace.  `sweep` includes the thinning of rows, `choose` is best-first selection, which
runs between rounds and is counted separately.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from functools import wraps
from pathlib import Path

import torch
from jaxtyping import Float
from random_dictionary import random_dictionary
from watch import Watch, anonymous

from circuits.attribution.cost import Costs
from circuits.attribution.estimate import Stages
from circuits.attribution.local_replacement import LocalReplacement, local_replacement
from circuits.attribution.rows import SparseRows
from circuits.attribution.trace_settings import Expansion, TargetSettings, TraceSettings
from circuits.model.prompt import Prompt, prompt_from_ids, read_prompt
from circuits.model.prompt_rule import PromptRule
from circuits.model.subject import Subject, read_subject
from circuits.pipe import trace
from graphs import AttributionGraph, Bos, NodeKind

LENGTHS = (6, 32, 128, 512)
D_DICT, ACTIVE = 4096, 40
TEXT = Path(__file__).parents[1] / "LICENSE"  # long, plain English, always present
STAGES = ("record", "features", "sources", "sweep", "choose", "check", "label", "graph")
ATTRIBUTION = ("record", "features", "sources", "sweep", "choose", "graph")
REPEATS = {6: 5, 32: 3, 128: 1, 512: 1}


def prompt_of(length: int, subject: Subject) -> Prompt:
    """The first `length` tokens of a fixed text, BOS included, whatever the tokenizer does."""
    text = TEXT.read_text(encoding="utf-8")
    whole = read_prompt(text, subject.tokenizer, PromptRule(Bos.ALWAYS))
    return prompt_from_ids(list(whole.ids[:length]), subject.tokenizer)


class Clock(Stages):
    """Seconds by stage of a trace, with methods counted as stages of their own."""

    @contextmanager
    def separately(self, stage: str, within: str, owner: type, name: str) -> Iterator[None]:
        """Count the seconds of a method as a stage of their own, not in the one it runs in."""
        method = getattr(owner, name)

        @wraps(method)
        def timed(*args: object) -> object:
            start = time.perf_counter()
            try:
                return method(*args)
            finally:
                spent = time.perf_counter() - start
                if self.stage == within:
                    self.since += spent
                    self.seconds[stage] += spent

        setattr(owner, name, timed)
        try:
            yield
        finally:
            setattr(owner, name, method)


def matrix_product_rate(seconds: float = 0.3) -> float:
    """FLOPs per second of a 2048 × 1024 × 1024 matrix product, the best of several."""
    left, right = torch.randn(2048, 1024), torch.randn(1024, 1024)
    best, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end or best == float("inf"):
        start = time.perf_counter()
        product = left @ right
        best = min(best, time.perf_counter() - start)
        del product
    return 2 * 2048 * 1024 * 1024 / best


def processor() -> str:
    """The name of the processor (Linux)."""
    return next(
        line.split(":")[1].strip()
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        if line.startswith("model name")
    )


def conditions() -> str:
    """Date, machine and versions, for the head of a table."""
    return (
        f"{date.today()} · {processor()}, {os.cpu_count()} cores · Python "
        f"{platform.python_version()}, torch {torch.__version__}"
    )


def rows_of(
    graph: AttributionGraph, local: LocalReplacement, costs: Costs
) -> Float[torch.Tensor, "layer pos"]:
    """Number of rows that a traced graph has, by layer and swept position."""
    places, ends = local.features.on_host, local.targets.covectors
    rows = graph.expanded[graph.nodes.is_kind(NodeKind.FEATURE)]
    return costs.table(places.layer[rows], places.pos[rows]) + costs.table(ends.layer, ends.pos)


def measure(length: int) -> dict[str, float]:
    """One case: the fastest of a few traces, and the largest memory of one."""
    subject = read_subject("gemma-3-270m")
    prompt = prompt_of(length, subject)
    dictionary = random_dictionary(subject, prompt, D_DICT, ACTIVE)
    expansion = Expansion(everything=length == LENGTHS[0])
    settings = TraceSettings(expansion=expansion)
    loaded, runs = anonymous(), []
    with Watch() as watch:
        trace(prompt, subject, dictionary, settings)
    for _ in range(REPEATS[length]):
        rate = matrix_product_rate()
        clock = Clock(torch.device("cpu"))
        with clock.separately("choose", "sweep", SparseRows, "influence"):
            graph = trace(prompt, subject, dictionary, settings, clock)
        clock("end", 0, 1)
        rate = max(rate, matrix_product_rate())
        runs.append((clock.seconds, rate))
    seconds, rate = min(runs, key=lambda run: sum(run[0].values()))
    local = local_replacement(prompt, subject, dictionary, TargetSettings())
    costs = Costs(local)
    table = rows_of(graph, local, costs)
    split = costs.best_split(table)
    flops = costs.of_rows(table, split) + costs.of_forward_prefix(split)
    return {
        "length": length,
        "active": len(local.features),
        "rows": int(table.sum()),
        "resolved": graph.provenance.checks.influence_resolved or 0.0,
        "edges": graph.weights.nnz,
        **{stage: seconds.get(stage, 0.0) for stage in STAGES},
        "split": split,
        "unsplit": costs.of_rows(table) / 1e9,
        "gflop": flops / 1e9,
        "rate": flops / seconds["sweep"] / 1e9,
        "sgemm": rate / 1e9,
        "loaded": loaded / 2**20,
        "peak": watch.peak / 2**20,
    }


def table(cases: list[dict[str, float]]) -> str:
    """The results as Markdown."""
    lines = [
        "# Speed of a trace",
        "",
        f"{conditions()} · Gemma 3 270M, random dictionary of {D_DICT} features per layer, float32",
        "",
        "| tokens | active | rows | resolved | edges | "
        + " | ".join(f"{s} s" for s in STAGES)
        + " | attribution s | all s | unsplit GFLOP | split layer | GFLOP | sweep GFLOP/s "
        "| sgemm GFLOP/s | sweep / sgemm | loaded MiB | peak MiB | bytes above loaded per edge |",
        "|" + "--:|" * (17 + len(STAGES)),
    ]
    for case in cases:
        above = (case["peak"] - case["loaded"]) * 2**20 / case["edges"]
        cells = [
            f"{case['length']:.0f}",
            f"{case['active']:,.0f}",
            f"{case['rows']:,.0f}",
            f"{case['resolved']:.1%}",
            f"{case['edges']:,.0f}",
            *(f"{case[stage]:.2f}" for stage in STAGES),
            f"{sum(case[stage] for stage in ATTRIBUTION):.2f}",
            f"{sum(case[stage] for stage in STAGES):.2f}",
            f"{case['unsplit']:,.0f}",
            f"{case['split']:.0f}",
            f"{case['gflop']:,.0f}",
            f"{case['rate']:.0f}",
            f"{case['sgemm']:.0f}",
            f"{case['rate'] / case['sgemm']:.0%}",
            f"{case['loaded']:,.0f}",
            f"{case['peak']:,.0f}",
            f"{above:.0f}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lengths", type=int, nargs="+", default=LENGTHS)
    parser.add_argument("--case", type=int, help="run one case here and print it as JSON")
    parser.add_argument("--out", type=Path, help="also write the table here")
    arguments = parser.parse_args()
    if arguments.case:
        print(json.dumps(measure(arguments.case)))
        return
    cases = []
    for length in arguments.lengths:
        command = [sys.executable, __file__, "--case", str(length)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        cases.append(json.loads(done.stdout.splitlines()[-1]))
    print(table(cases))
    if arguments.out:
        arguments.out.write_text(table(cases), encoding="utf-8")


if __name__ == "__main__":
    main()

"""The cost of a trace, estimated from its first rows.

A trace is begun: its targets and its first features get rows, of which a graph is built.  Stages
that do not depend on the number of rows take as long in the whole trace, and building the graph
grows with its edges, as does choosing rows.  The first rows say which come later; some of these are
swept to see how long their FLOPs (`circuits.attribution.cost`) take.
`benchmarks/estimates.py` compares estimates with real traces.
"""

from __future__ import annotations

import time
from collections import defaultdict
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch

from circuits.attribution.cost import Plan, free_memory, plan_of
from circuits.attribution.rows import (
    FIRST_ROUND,
    GROWTH,
    CollectedRows,
    Sweeper,
    expand,
    most_rows,
    no_rows,
    upcoming,
)
from circuits.attribution.trace_settings import Expansion
from circuits.features.active import FeatureSource
from circuits.features.hybrid import Filled
from circuits.features.transcoder_set import TranscoderSet
from circuits.machine import held_bytes, is_accelerator, wait_for
from circuits.progress import Progress, ignore_progress

# Positions, over all rows that are timed: enough for several blocks; and rows at least.
SAMPLED_POSITIONS, LEAST_SAMPLED = 8192, 64
MORE_SAMPLED = 1024  # rows on an accelerator


@dataclass(frozen=True)
class Estimate:
    """Cost of one trace."""

    active_features: int
    rows: int
    edges: int  # kept
    flops: float  # of the sweep
    gflops_per_second: float  # of all rows
    seconds: float  # of the whole trace, the model being loaded
    peak_bytes: int  # of this process during the trace, the model included
    free_bytes: int  # what it could hold on this machine now
    device_bytes: int = 0  # on an accelerator, beyond what it holds
    # Of the dictionary on accelerators: all, or what of its encoders streams through at once.
    dictionary_bytes: int = 0
    streamed: bool = False  # whether the dictionary stays in its files


class Stages:
    """Seconds of each stage of a trace, as its progress is reported."""

    def __init__(self, device: torch.device, progress: Progress = ignore_progress) -> None:
        self.device, self.progress = device, progress
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.stage, self.since = "", self.now()

    def now(self) -> float:
        """Seconds on a clock, when the device has done all that it was given."""
        wait_for(self.device)
        return time.perf_counter()

    def __call__(self, stage: str, done: int, total: int) -> None:
        if stage != self.stage:
            now = self.now()
            self.seconds[self.stage] += now - self.since
            self.stage, self.since = stage, now
        self.progress(stage, done, total)


class Begun(NamedTuple):
    """The first rows of a trace, and what they say about all."""

    rows: CollectedRows
    plan: Plan
    sweep_seconds: float  # of all rows, choosing them included


def begin(sweeper: Sweeper, expansion: Expansion, progress: Progress = ignore_progress) -> Begun:
    """Rows of the targets and of the first features, and how fast some of the later ones come."""
    features = sweeper.local.features
    limit = most_rows(expansion, len(features))
    few = replace(expansion, everything=False, max_features=min(FIRST_ROUND, limit))
    progress("sweep", 0, limit)
    rows = expand(sweeper, few, progress)
    expanded = rows.expanded()[sweeper.sources.feature_column]
    stages = Stages(sweeper.local.frozen.device)
    stages("choose", 0, 1)
    later, _ = upcoming(sweeper, rows, expanded, replace(expansion, tolerance=0.0))
    stages("end", 0, 1)
    plan = plan_of(sweeper, rows, np.concatenate([np.flatnonzero(expanded), later]))
    if not limit:
        return Begun(rows, plan, 0.0)
    return Begun(rows, plan, _sweep_seconds(plan, rows, stages.seconds["choose"]))


def _sweep_seconds(plan: Plan, rows: CollectedRows, choose: float) -> float:
    """Seconds of all rows of a plan; `choose`: of choosing those that come after the first."""
    at_once = plan.limit == len(plan.sweeper.local.features)  # nothing is chosen
    if not is_accelerator(plan.device):
        size = int(SAMPLED_POSITIONS * plan.rows.sum() / plan.costs.positions(plan.rows))
        flops, seconds = _swept(plan, rows.kept_share, max(size, LEAST_SAMPLED))
        chosen = 0.0 if at_once else choose * plan.edges / max(1, rows.n_edges)
        return seconds * plan.flops / flops + chosen
    # Launches of a round do not grow with its rows: two samples tell them from products.
    samples = [_swept(plan, rows.kept_share, size) for size in (LEAST_SAMPLED, MORE_SAMPLED)]
    (few, first), (many, second) = samples
    per_flop = max(0.0, second - first) / max(1.0, many - few)
    launches = max(0.0, first - per_flop * few)
    rounds = 2.0
    if not at_once:
        launches += choose
        rounds += np.log(max(1.0, plan.limit / FIRST_ROUND)) / np.log(1 + GROWTH)
    return float(rounds * launches + per_flop * plan.flops)


def _swept(plan: Plan, kept_share: float, size: int) -> tuple[float, float]:
    """FLOPs and seconds of so many rows, evenly among those of a plan."""
    some = plan.order[np.linspace(0, plan.limit - 1, min(size, plan.limit)).astype(int)]
    stages, places = Stages(plan.device), plan.sweeper.local.features.on_host
    stages("sample", 0, 1)
    plan.sweeper.add_features(some, no_rows(plan.sweeper, kept_share), lambda _: None)
    stages("end", 0, 1)
    table = plan.costs.table(places.layer[some], places.pos[some])
    return plan.costs.of_rows(table), stages.seconds["sample"]


def estimate(
    begun: Begun, seconds: dict[str, float], source: FeatureSource, memory: int | None = None
) -> Estimate:
    """The cost of all rows of a plan, from the seconds by stage of a trace that has the first."""
    rows, plan, sweep = begun
    local, need, held = plan.sweeper.local, plan.need(), held_bytes()
    whole = {**seconds, "sweep": sweep}
    kept = source.transcoders if isinstance(source, Filled) else source
    kept = kept if isinstance(kept, TranscoderSet) else None
    whole["graph"] *= plan.edges / max(1, rows.n_edges)
    return Estimate(
        active_features=local.features.found,
        rows=plan.limit + len(local.targets.described),
        edges=int(plan.edges),
        flops=plan.flops,
        gflops_per_second=plan.flops / sweep / 1e9 if sweep else 0.0,
        seconds=sum(whole.values()),
        peak_bytes=int(held + need.host),
        free_bytes=int(held + free_memory(plan.device, memory).host),
        device_bytes=int(need.device),
        dictionary_bytes=0 if kept is None else kept.device_bytes(local.frozen),
        streamed=kept is not None and kept.stream_values(local.frozen) > 0,
    )

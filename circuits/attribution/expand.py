"""Which rows to compute: targets first, then features best-first by partial influence.

The influence that has arrived at a feature without a row is all that the feature can still pass
on, since shares of a row sum to at most 1 and the graph has no cycles.  So the sum over all such
features bounds what is unknown, and expansion stops when it is small enough.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor

from circuits.attribution.forward_prefix import Lower, push_lower
from circuits.attribution.rows import SparseRows, ThinRows, thin
from circuits.attribution.sources import Sources, build_sources
from circuits.attribution.sweep import blocks_of, sweep_block
from circuits.attribution.targets import Targets
from circuits.features.active import ActiveFeatures
from circuits.machine.cores import each_block, workers_for
from circuits.model.covectors import Covectors
from circuits.model.frozen import FrozenModel
from circuits.progress import Progress
from circuits.recording.attention import Attention
from circuits.recording.record import Recording

Report = Callable[[int], None]  # rows swept so far
FIRST_ROUND = 256  # features expanded after the targets; every round doubles what is known


@dataclass(frozen=True)
class Expansion:
    """How far to expand."""

    max_features: int = 4096  # rows of features at most
    tolerance: float = 0.0  # stop when this share of influence or less waits
    kept_share: float = 0.999  # of each row's absolute sum, kept as edges
    everything: bool = False  # every active feature, whatever the limits above

    def limit(self, n_features: int) -> int:
        """How many of so many features get rows at most."""
        return n_features if self.everything else min(self.max_features, n_features)


@dataclass(frozen=True)
class Sweeper:
    """All that is needed to turn targets into rows on one prompt."""

    frozen: FrozenModel
    attention: Attention
    sources: Sources
    lower: Lower
    features: ActiveFeatures

    def add_features(self, chosen: Int[Tensor, " row"], rows: SparseRows, report: Report) -> None:
        """Sweep these active features into `rows`."""
        features = self.features
        covectors = Covectors(
            layer=features.layer[chosen],
            pos=features.pos[chosen],
            covector=features.rows.encoder(chosen),
            weight=torch.zeros(len(chosen), device=chosen.device),
        )
        self.add(
            covectors,
            self.sources.feature_column[chosen],
            features.value[chosen],
            features.constant[chosen],
            rows,
            report,
        )

    def add(
        self,
        covectors: Covectors,
        nodes: Int[Tensor, " row"],
        values: Float[Tensor, " row"],
        constants: Float[Tensor, " row"],
        rows: SparseRows,
        report: Report,
    ) -> None:
        """Sweep covectors into `rows`; constants go to the bias of the layer that they read."""
        sources, device = self.sources, covectors.pos.device
        bias = sources.bias_column + covectors.layer
        blocks = blocks_of(covectors, sources, self.lower.floor, workers_for(device))

        def work(block: Tensor) -> ThinRows:
            targets = covectors.take(block)
            weights = sweep_block(self.frozen, self.attention, sources, self.lower, targets)
            weights[torch.arange(len(block), device=device), bias[block]] += constants[block]
            exact = torch.float64 if weights.dtype == torch.float64 else torch.float32
            return thin(weights.to(exact).cpu().numpy(), rows.kept_share)

        done = 0
        for block, part in zip(blocks, each_block(work, blocks, device), strict=True):
            rows.add(nodes[block].tolist(), part, values[block].double().cpu().numpy())
            done += len(block)
            report(done)


def prepare_sweep(
    frozen: FrozenModel,
    recording: Recording,
    features: ActiveFeatures,
    targets: Targets,
    floor: int = 0,
) -> Sweeper:
    """What is swept on a recorded prompt; sources below `floor` are pushed up to it."""
    context = recording.prompt.context_only
    first = 0 if bool((targets.covectors.pos < context).any()) else context
    sources = build_sources(frozen, recording, features, first)
    attention = Attention(frozen, recording, first)
    return Sweeper(
        frozen, attention, sources, push_lower(frozen, attention, sources, floor), features
    )


def expand(
    sweeper: Sweeper, targets: Targets, settings: Expansion, progress: Progress
) -> SparseRows:
    """Rows of all targets and of the features that matter most to them."""
    features, sources = sweeper.features, sweeper.sources
    n_columns = sources.first_column[-1]
    rows = SparseRows(n_columns + len(targets.described), settings.kept_share)
    target_nodes = torch.arange(n_columns, rows.n_nodes, device=sources.feature_column.device)
    seed = np.zeros(rows.n_nodes)
    seed[n_columns:] = targets.covectors.weight.cpu().numpy()
    sweeper.add(
        targets.covectors, target_nodes, targets.value, targets.constant, rows, lambda _: None
    )
    columns = sources.feature_column.cpu().numpy()
    limit = settings.limit(len(features))
    expanded = np.zeros(len(features), dtype=bool)
    while (done := int(expanded.sum())) < limit:
        chosen = _next_round(rows, seed, columns, expanded, limit - done, settings)
        if len(chosen) == 0:
            break
        expanded[chosen] = True
        sweeper.add_features(
            torch.from_numpy(chosen).to(features.layer.device),
            rows,
            lambda swept, done=done: progress("sweep", done + swept, limit),
        )
    return rows


def _next_round(
    rows: SparseRows,
    seed: Float[ndarray, " node"],
    columns: Int[ndarray, " feat"],
    expanded: ndarray,
    budget: int,
    settings: Expansion,
) -> Int[ndarray, " chosen"]:
    """The features to expand next, empty when too little influence waits."""
    waiting = np.flatnonzero(~expanded)
    unbounded = settings.everything or (settings.tolerance <= 0 and len(waiting) <= budget)
    if unbounded:
        return waiting
    arrived = rows.influence(seed)[columns[waiting]] / seed.sum()
    if arrived.sum() <= settings.tolerance:
        return waiting[:0]
    size = min(budget, max(FIRST_ROUND, len(rows.nodes)))
    best = np.argsort(-arrived, kind="stable")[:size]
    return waiting[best[arrived[best] > 0]]

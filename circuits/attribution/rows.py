"""Rows of a graph: which are computed, and what is kept of each.

Targets come first, then features best-first by partial influence.  A feature without a row can
pass on at most the influence that has arrived at it, since shares of a row sum to at most 1 and the
graph has no cycles.  The sum over all such features, the unresolved influence, bounds what more
rows could change; expansion stops when it is small enough.

Dense blocks from the sweep are thinned one by one, never nodes × nodes.  Of each row the largest
weights are kept until they hold `kept_share` of the row's absolute sum.  Of the rest each row keeps
the signed and the absolute sum, so that conservation can be checked.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from scipy.sparse import csr_array
from torch import Tensor

from circuits.attribution.attention_flows import AttentionFlows
from circuits.attribution.dense_rows import DenseRows
from circuits.attribution.groups import groups_of
from circuits.attribution.local_replacement import LocalReplacement
from circuits.attribution.sources import Sources, build_sources
from circuits.attribution.sweep import ForwardPrefix, blocks_of, build_forward_prefix, sweep_block
from circuits.attribution.targets import ResponsePart, Targets
from circuits.attribution.trace_settings import Expansion
from circuits.machine import (
    WorkingMemory,
    each_block,
    exact,
    float32_products,
    free_device_bytes,
    in_float64,
    is_accelerator,
    on_device,
    workers_for,
)
from circuits.model.frozen import Covectors
from circuits.progress import Progress, ignore_progress
from circuits.recording.attention import Attention
from circuits.recording.precision import Precision
from graphs.core.brief import Brief

RUN = 64  # adjacent entries of a sorted row that are summed together
OnPlanned = Callable[["Sweeper", "CollectedRows", Any], "Sweeper"]
OnSwept = Callable[[int], None]  # number of rows swept so far
SPLIT_PARTS = 9  # as many where products are split, whose factors lie beside their parts
PARTS = 3  # of working memory: rows before they are thinned, a group of targets, thinning
FIRST_ROUND = 256  # features expanded after the targets
GROWTH = 2  # features that a later round adds per row that is there


class ThinRows(NamedTuple):
    """Rows with only their largest weights."""

    counts: Int[ndarray, " row"]  # weights kept
    ends: Int[ndarray, " row"]  # where each row's weights end
    columns: Int[ndarray, " edge"]
    weights: Float[ndarray, " edge"]
    dropped: Float[ndarray, " row"]  # signed sum of what was not kept
    dropped_absolute: Float[ndarray, " row"]
    sums: Float[ndarray, " row"]  # of the whole rows
    totals: Float[ndarray, " row"]  # absolute sums of the whole rows

    def edges(self, row: int) -> slice:
        """The slice of a row's weights."""
        return slice(self.ends[row] - self.counts[row], self.ends[row])

    def shares(self, row: int) -> tuple[Int[ndarray, " kept"], Float[ndarray, " kept"]]:
        """Sources and shares of one row."""
        total = self.totals[row] or 1.0  # a row of zeros has no edges
        return self.columns[self.edges(row)], np.abs(self.weights[self.edges(row)]) / total


@dataclass
class SparseRows:
    """Rows of a graph of `n_nodes` nodes, collected in any order."""

    n_nodes: int
    kept_share: float
    columns: Int[ndarray, " feat"]  # of the features
    nodes: list[int] = field(default_factory=list)  # whose row each is, in order of arrival
    parts: list[ThinRows] = field(default_factory=list)
    residuals: list[float] = field(default_factory=list)  # |sum - value| / absolute sum

    def add(self, nodes: list[int], part: ThinRows, values: Float[ndarray, " row"]) -> None:
        """Add rows; `values` are what each must sum to."""
        self.nodes += nodes
        self.parts.append(part)
        miss = np.abs(part.sums - values)
        self.residuals += np.divide(miss, part.totals, out=miss, where=part.totals > 0).tolist()

    def __len__(self) -> int:
        return len(self.nodes)

    @property
    def n_edges(self) -> int:
        """Number of weights that are kept."""
        return sum(int(part.counts.sum()) for part in self.parts)

    def matrix(self) -> csr_array:
        """weights[target, source]; rows that were not added are empty."""
        rows = self._rows_by_node()
        indptr = np.zeros(self.n_nodes + 1, dtype=np.int64)
        for node, part, row in rows:
            indptr[node + 1] = part.counts[row]
        data = np.concatenate([part.weights[part.edges(row)] for _, part, row in rows])
        indices = np.concatenate([part.columns[part.edges(row)] for _, part, row in rows])
        ends = indptr.cumsum()
        # scipy widens the columns to the type of the ends: 32 bits hold both up to 2³¹ edges.
        ends = ends.astype(np.int32) if ends[-1] < 2**31 else ends
        return csr_array((data, indices, ends), shape=(self.n_nodes, self.n_nodes))

    def influence(self, seed: Float[ndarray, " node"]) -> Float[ndarray, " node"]:
        """Influence over the rows so far (`graphs.influence`), by shares of the whole rows."""
        total = seed.astype(np.float64)
        for node, part, row in reversed(self._rows_by_node()):
            sources, shares = part.shares(row)
            total[sources] += total[node] * shares
        return total - seed

    def leading(
        self, seed: Float[ndarray, " node"], expanded: Bool[ndarray, " feat"], count: int
    ) -> tuple[Int[ndarray, " chosen"], float]:
        """The features without rows at which most influence waits, at most `count`, most first.

        Also returns the share of influence that waits at all of them.
        """
        pending = np.flatnonzero(~expanded)
        arrived = self.influence(seed)[self.columns[pending]] / seed.sum()
        best = np.argsort(-arrived, kind="stable")[:count]
        return pending[best[arrived[best] > 0]], float(arrived.sum())

    def dropped(self) -> Float[ndarray, " node"]:
        """Signed sum of the weights dropped from each row; 0 for nodes without a row."""
        return self._spread([part.dropped for part in self.parts])

    def dropped_absolute(self) -> Float[ndarray, " node"]:
        """Absolute sum of the same weights."""
        return self._spread([part.dropped_absolute for part in self.parts])

    def expanded(self) -> Bool[ndarray, " node"]:
        """Which nodes have a row."""
        mask = np.zeros(self.n_nodes, dtype=bool)
        mask[self.nodes] = True
        return mask

    def _rows_by_node(self) -> list[tuple[int, ThinRows, int]]:
        """Node, part and place of every row, in the order of nodes."""
        places = [(part, row) for part in self.parts for row in range(len(part.counts))]
        pairs = zip(self.nodes, places, strict=True)
        return sorted(((node, *place) for node, place in pairs), key=lambda found: found[0])

    def _spread(self, parts: list[ndarray]) -> Float[ndarray, " node"]:
        column = np.zeros(self.n_nodes)
        column[self.nodes] = np.concatenate(parts)
        return column


CollectedRows = SparseRows | DenseRows


@dataclass(frozen=True, repr=False)
class RowTargets(Brief):
    """What rows are of."""

    covectors: Covectors
    nodes: Int[ndarray, " row"]
    values: Float[Tensor, " row"]  # what each row must sum to
    constants: Float[Tensor, " row"]  # part of it that goes to the bias of the layer that is read

    @staticmethod
    def of(parts: Sequence[Targets | ResponsePart], first: int) -> RowTargets:
        """All of these, whose nodes begin at `first`."""
        values = torch.cat([part.value for part in parts])
        return RowTargets(
            covectors=Covectors.joined([part.covectors for part in parts]),
            nodes=np.arange(first, first + len(values)),
            values=values,
            constants=torch.cat([part.constant for part in parts]),
        )

    def take(self, rows: Int[ndarray, " kept"]) -> RowTargets:
        """Only these, in this order."""
        place = on_device(rows, self.values.device)
        numbers = (column.index_select(0, place) for column in (self.values, self.constants))
        return RowTargets(self.covectors.take(rows), self.nodes[rows], *numbers)


@dataclass(frozen=True)
class Sweeper:
    """All that is needed to compute rows on one prompt."""

    local: LocalReplacement
    attention: Attention
    sources: Sources
    working: WorkingMemory
    forward_prefix: ForwardPrefix = field(default_factory=ForwardPrefix)
    norms: tuple[ResponsePart, ...] = ()  # of the final norm, swept with the targets
    flows: AttentionFlows | None = None  # of the rows, where they are wanted

    def split_at(self, split: int) -> Sweeper:
        """The same with sources below a layer pushed forward to it; 0: none."""
        parts = (self.local.frozen, self.attention, self.sources, split)
        return replace(self, forward_prefix=build_forward_prefix(*parts))

    def add_targets(self, rows: CollectedRows) -> None:
        """Sweep what the graph explains into `rows`, and behind it the rows of the final norm."""
        parts, first = [self.local.targets, *self.norms], self.sources.first_column[-1]
        self.add(RowTargets.of(parts, first), rows, lambda _: None)

    @property
    def n_explained(self) -> int:
        """Number of nodes of the graph: sources, and targets behind them."""
        return self.sources.first_column[-1] + len(self.local.targets.described)

    def add_features(
        self, chosen: Int[ndarray, " row"], rows: CollectedRows, on_swept: OnSwept
    ) -> None:
        """Sweep these active features into `rows`."""
        features, chosen = self.local.features, np.sort(chosen)
        row = on_device(chosen, features.layer.device)
        nodes = self.sources.feature_column[chosen]
        targets = RowTargets(
            features.covectors(chosen), nodes, features.value[row], features.constant[row]
        )
        self.add(targets, rows, on_swept)

    def add(self, targets: RowTargets, rows: CollectedRows, on_swept: OnSwept) -> None:
        """Sweep targets into `rows`."""
        with float32_products(tensor_cores=self.attention.precision == Precision.TF32):
            if isinstance(rows, DenseRows):
                self._add_dense(targets, rows, on_swept)
            else:
                self._add_sparse(targets, rows, on_swept)

    def _add_sparse(self, targets: RowTargets, rows: SparseRows, on_swept: OnSwept) -> None:
        """In many small blocks, as many at once as there are cores."""
        device, covectors = targets.values.device, targets.covectors
        blocks = blocks_of(covectors, self.sources, self.forward_prefix.split, workers_for(device))
        values = in_float64(targets.values).numpy()

        def work(block: ndarray) -> ThinRows:
            some = targets.take(block)
            weights = self._sweep(some)
            self._add_constants(some, weights)
            return thin(exact(weights).cpu().numpy(), rows.kept_share)

        done = 0
        for block, part in zip(blocks, each_block(work, blocks, device), strict=True):
            rows.add(targets.nodes[block].tolist(), part, values[block])
            done += len(block)
            on_swept(done)

    def _add_dense(self, targets: RowTargets, rows: DenseRows, on_swept: OnSwept) -> None:
        """In blocks that an accelerator holds, of few large groups: everything stays there."""
        layers, done = targets.covectors.layer, 0
        order = np.argsort(-targets.covectors.level, kind="stable")
        while done < len(order):
            width = self.sources.columns_below(int(layers[order[done]]))
            number = max(4, targets.values.element_size())  # rows are kept in float32 at least
            some = order[done : done + max(1, self.working.size // (PARTS * width * number))]
            try:
                self._add_block(targets.take(some), rows)
            except torch.OutOfMemoryError:
                if not self.working.halve():
                    raise
            else:
                done += len(some)
                on_swept(done)

    def _add_block(self, targets: RowTargets, rows: DenseRows) -> None:
        """Sweep targets, sorted by level from the top; what is not kept of them is let go."""
        covectors, device = targets.covectors, targets.values.device
        width = self.sources.columns_below(int(covectors.layer[0]))
        block = exact(targets.values).new_zeros(len(covectors.layer), width)
        split = self.attention.precision == Precision.SPLIT
        most = self.working.size // (SPLIT_PARTS if split else PARTS)
        pos = covectors.pos - self.sources.first
        for group in groups_of(covectors.level, pos, self.local.frozen, most):
            weights = self._sweep(targets.take(group))
            place = on_device(group, device)
            block[:, : weights.shape[1]].index_copy_(0, place, exact(weights))
        self._add_constants(targets, block)
        working = self.working.size // PARTS
        rows.add(targets.nodes, covectors.layer, block, exact(targets.values), working)

    def _sweep(self, targets: RowTargets) -> Float[Tensor, "row column"]:
        parts = (self.local.frozen, self.attention, self.sources, self.forward_prefix)
        if self.flows is None:
            return sweep_block(*parts, targets.covectors)
        flows = self.flows.block(len(targets.nodes))
        weights = sweep_block(*parts, targets.covectors, flows)
        self.flows.add(targets.nodes, flows)
        return weights

    def _add_constants(self, targets: RowTargets, weights: Float[Tensor, "row column"]) -> None:
        """Add each target's constant to the bias of the layer that it reads, in place."""
        column = self.sources.bias_column + targets.covectors.layer
        row = torch.arange(len(column), device=weights.device)
        weights[row, on_device(column, weights.device)] += targets.constants.to(weights)


def prepare_sweep(
    local: LocalReplacement,
    split: int = 0,
    precision: Precision = Precision.IEEE,
    memory: int | None = None,
) -> Sweeper:
    """The sweeper of a recorded prompt, with sources below `split` pushed forward to it."""
    sources = build_sources(local)
    attention = Attention(local.frozen, local.recording, sources.first, precision)
    frozen = local.frozen
    free = min(free_device_bytes(device, memory) for device in frozen.devices)
    working = WorkingMemory(frozen.device, free // 4)
    sweeper = Sweeper(local, attention, sources, working)
    return sweeper.split_at(split) if split else sweeper


def expand(
    sweeper: Sweeper,
    settings: Expansion,
    progress: Progress = ignore_progress,
    planned: OnPlanned = lambda sweeper, rows, order: sweeper,
) -> CollectedRows:
    """Rows of all targets and of the features with most influence on them.

    `planned` is called once, when the order in which features will get rows can be foreseen, with
    the rows so far and that order; it returns the sweeper for the rest.
    """
    n_features, rows = len(sweeper.local.features), no_rows(sweeper, settings.kept_share)
    sweeper.add_targets(rows)
    limit = most_rows(settings, n_features)
    expanded, is_planned = np.zeros(n_features, dtype=bool), False
    while (done := int(expanded.sum())) < limit:
        order, size = upcoming(sweeper, rows, expanded, settings)
        if size == 0:
            break
        if not is_planned and (done or size == len(order)):
            sweeper = planned(sweeper, rows, np.concatenate([np.flatnonzero(expanded), order]))
            is_planned = True
        expanded[order[:size]] = True
        sweeper.add_features(
            order[:size],
            rows,
            lambda swept, done=done: progress("sweep", done + swept, limit),
        )
    return rows


def most_rows(settings: Expansion, n_features: int) -> int:
    """The largest number of features to expand, of `n_features`."""
    return n_features if settings.everything else min(settings.max_features, n_features)


def no_rows(sweeper: Sweeper, kept_share: float, behind: int | None = None) -> CollectedRows:
    """Where rows are collected: with the model, on an accelerator.

    `behind`: number of nodes behind the sources, by default targets and rows of the final norm.
    """
    sources, targets = sweeper.sources, sweeper.local.targets
    if behind is None:
        behind = len(targets.described) + sum(map(len, sweeper.norms))
    if is_accelerator(sweeper.local.frozen.device):
        return DenseRows(sources, behind, kept_share, exact(targets.value))
    return SparseRows(sources.first_column[-1] + behind, kept_share, sources.feature_column)


def upcoming(
    sweeper: Sweeper, rows: CollectedRows, expanded: Bool[ndarray, " feat"], settings: Expansion
) -> tuple[Int[ndarray, " upcoming"], int]:
    """Features without rows in the order in which they get some, and how many come next.

    None come next if too little influence is unresolved.
    """
    pending = len(expanded) - int(expanded.sum())
    budget = most_rows(settings, len(expanded)) - int(expanded.sum())
    if settings.everything or (settings.tolerance <= 0 and pending <= budget):
        return np.flatnonzero(~expanded), pending
    seed = np.zeros(rows.n_nodes)
    behind = slice(sweeper.sources.first_column[-1], sweeper.n_explained)
    seed[behind] = sweeper.local.targets.covectors.weight
    order, unresolved = rows.leading(seed, expanded, budget)
    norms = rows.n_nodes - sweeper.n_explained
    size = min(len(order), max(FIRST_ROUND, GROWTH * (len(rows) - norms)))
    return order, size if unresolved > settings.tolerance else 0


def thin(block: Float[ndarray, "row column"], share: float) -> ThinRows:
    """Rows with the fewest weights that hold `share` of each row's absolute sum."""
    sizes = np.abs(block)
    sums, totals = block.sum(1, dtype=np.float64), sizes.sum(1, dtype=np.float64)
    kept = largest(sizes, totals, share)
    counts = np.count_nonzero(kept, axis=1)
    ends = counts.cumsum()
    weights = block[kept]
    columns = np.broadcast_to(np.arange(block.shape[1], dtype=np.int32), block.shape)[kept]
    # reduceat gives an entry for an empty row, whose sum is 0.
    starts, padded = ends - counts, np.append(weights, 0)
    kept_sums = np.add.reduceat(padded, starts, dtype=np.float64) * (counts > 0)
    kept_sizes = np.add.reduceat(np.abs(padded), starts, dtype=np.float64) * (counts > 0)
    return ThinRows(
        counts=counts,
        ends=ends,
        columns=columns,
        weights=weights,
        dropped=sums - kept_sums,
        dropped_absolute=np.maximum(totals - kept_sizes, 0.0),
        sums=sums,
        totals=totals,
    )


def largest(
    sizes: Float[ndarray, "row column"], totals: Float[ndarray, " row"], share: float
) -> Bool[ndarray, "row column"]:
    """The fewest entries per row that hold `share` of its total; ties at the limit are kept.

    >>> largest(np.array([[5.0, 0.0, 1.0, 4.0]]), np.array([10.0]), 0.85)
    array([[ True, False, False,  True]])
    """
    if share >= 1.0:
        return sizes > 0
    n_rows, n_columns = sizes.shape
    ascending = np.zeros((n_rows, n_columns + -n_columns % RUN), dtype=sizes.dtype)
    ascending[:, :n_columns] = sizes
    ascending.sort(axis=1)
    # The first entry that no longer fits under the budget: first its run, then its place there.
    runs = ascending.reshape(n_rows, -1, RUN)
    budget = ((1.0 - share) * totals)[:, None]
    up_to = runs.sum(2, dtype=np.float64).cumsum(1)
    run = np.minimum((up_to <= budget).sum(1), runs.shape[1] - 1)
    row = np.arange(n_rows)
    below = np.where(run > 0, up_to[row, run - 1], 0.0)[:, None]
    within = below + runs[row, run].cumsum(1, dtype=np.float64)
    place = np.minimum((within <= budget).sum(1), RUN - 1)
    tiny = np.finfo(sizes.dtype).smallest_subnormal  # zeros are never kept
    return sizes >= np.maximum(runs[row, run, place], tiny)[:, None]

"""Rows of a graph on an accelerator: dense, by layer, thinned where they are.

A row of layer l sees the columns below it only, so rows of a layer are one matrix of that width:
most of the weights that are kept would take as many bytes as pairs of column and weight, and an
accelerator reads a matrix faster.  A feature feeds later layers only, so influence is one product
per layer, from the top.

The weights to keep are found in the bits of the floats: positive floats are ordered as their bits
are.  Of each row a histogram of the leading bits gives the bin in which the share is reached, one
of the next bits the bin inside it, until all bits of the threshold are known.  Integers are summed,
whose sum does not depend on the order of an accelerator's additions.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from scipy.sparse import csr_array
from torch import Tensor

from circuits.attribution.sources import Sources
from circuits.machine import as_array, host_buffer, on_device, wait_for, widest

ONE = 2.0**52  # of the integers that shares of a row are summed as
# Lowest bit of each histogram, and the integers of a float's size.
BITS = {
    torch.float32: ((20, 10, 0), torch.int32),
    torch.float64: ((52, 42, 32, 22, 11, 0), torch.int64),
}
# Bytes of temporary values per weight: while rows are thinned, carried down, or listed.
THINNING, CARRYING, LISTING = 40, 12, 32
PART_BYTES = 2**30  # of temporary values when all rows are carried down or listed


@dataclass(frozen=True)
class Sums:
    """What is kept and lost of some rows."""

    counts: Int[Tensor, " row"]  # weights kept
    sums: Float[Tensor, " row"]  # of the whole rows
    totals: Float[Tensor, " row"]  # absolute sums of the whole rows
    dropped: Float[Tensor, " row"]  # signed sum of what was not kept
    dropped_absolute: Float[Tensor, " row"]


class DenseRows:
    """Rows of a graph on an accelerator, collected in any order."""

    def __init__(self, sources: Sources, n_targets: int, kept_share: float, like: Tensor) -> None:
        self.sources, self.kept_share = sources, kept_share
        n_columns = sources.first_column[-1]
        self.n_nodes = n_columns + n_targets
        self.columns = on_device(sources.feature_column, like.device)
        # By layer that is read, targets above all: whatever they read, nothing feeds on them.
        widths = [*sources.first_column[:-1], n_columns]
        self.weights = [like.new_empty(0, width) for width in widths]
        self.nodes = [np.empty(0, dtype=np.int64) for _ in widths]
        # Of each node: weights kept, absolute sum, what was dropped of both sums, relative error.
        self.found = like.new_zeros(5, self.n_nodes, dtype=widest(like))

    def __len__(self) -> int:
        return sum(map(len, self.nodes))

    def add(
        self,
        nodes: Int[ndarray, " row"],
        layers: Int[ndarray, " row"],
        block: Float[Tensor, "row column"],
        values: Float[Tensor, " row"],
        working: int,
    ) -> None:
        """Add rows, sorted by layer from the top; `values` are what each must sum to.

        `block` is thinned in place.  `working`: bytes for temporary values.  If memory does not
        hold the rows, none is added.
        """
        place = on_device(nodes, block.device)
        step = max(1, working // (THINNING * block.shape[1]))
        for start in range(0, len(nodes), step):
            end = min(start + step, len(nodes))
            width = self.sources.columns_below(int(layers[start]))
            found = thin_(block[start:end, :width], self.kept_share)
            self._keep(place[start:end], found, values[start:end])
        level = np.where(nodes >= len(self.sources.nodes), len(self.sources.layers), layers)
        before = list(map(len, self.nodes))
        try:
            for number in np.unique(level).tolist():
                rows = np.flatnonzero(level == number)
                some = slice(rows[0], rows[-1] + 1)
                width = self.weights[number].shape[1]
                here = block[some, :width]
                if here.shape[1] < width:  # what is behind all sources may read a lower layer
                    here = torch.nn.functional.pad(here, (0, width - here.shape[1]))
                self.weights[number] = torch.cat([self.weights[number], here])
                self.nodes[number] = np.concatenate([self.nodes[number], nodes[rows]])
        except torch.OutOfMemoryError:
            for number, length in enumerate(before):
                self.weights[number] = self.weights[number][:length]
                self.nodes[number] = self.nodes[number][:length]
            raise

    def _keep(self, place: Tensor, found: Sums, values: Tensor) -> None:
        miss = (found.sums - values).abs()
        relative = torch.where(found.totals > 0, miss / found.totals, miss)
        columns = (found.counts, found.totals, found.dropped, found.dropped_absolute, relative)
        self.found.index_copy_(1, place, torch.stack([one.to(self.found) for one in columns]))

    def carried(self, seed: Float[Tensor, " node"]) -> Float[Tensor, " node"]:
        """Influence over the rows so far (`graphs.influence`), by shares of the whole rows."""
        total, place = seed.clone(), on_device(np.concatenate(self.nodes), seed.device)
        totals = self.found[1].index_select(0, place)
        scale = torch.where(totals > 0, totals, 1).reciprocal_()
        lengths = list(map(len, self.nodes))
        rows = zip(self.weights, place.split(lengths), scale.split(lengths), strict=True)
        for weights, at, scales in reversed(list(rows)):
            if len(at):
                passed = total.index_select(0, at).mul_(scales)
                step = max(1, PART_BYTES // (CARRYING * weights.shape[1]))
                for some, shares in zip(weights.split(step), passed.split(step), strict=True):
                    total[: weights.shape[1]].addmv_(some.abs().to(total).T, shares)
        return total.sub_(seed)

    def influence(self, seed: Float[ndarray, " node"]) -> Float[ndarray, " node"]:
        """The same on the host."""
        placed = on_device(seed, self.found.device, self.found.dtype)
        return as_array(self.carried(placed)).astype(np.float64)

    def leading(
        self, seed: Float[ndarray, " node"], expanded: Bool[ndarray, " feat"], count: int
    ) -> tuple[Int[ndarray, " chosen"], float]:
        """The features without rows at which most influence waits, at most `count`, most first.

        Also returns the share of influence that waits at all of them.
        """
        device, whole = self.found.device, float(seed.sum())
        placed = on_device(seed, device, self.found.dtype)
        arrived = self.carried(placed).index_select(0, self.columns).div_(whole)
        pending = arrived.masked_fill_(on_device(expanded, device), 0.0)
        best = pending.sort(descending=True, stable=True)
        # As integers of the same size, so that one copy brings indices and bits of values.
        integers = BITS[pending.dtype][1]
        values = torch.cat([best.values[:count], pending.sum()[None]]).view(integers)
        answer = torch.cat([best.indices[:count].to(integers), values]).cpu().numpy()
        index, values = answer[: len(answer) // 2], answer[len(answer) // 2 :]
        value = values.view(np.float32 if values.itemsize == 4 else np.float64)
        return index[value[:-1] > 0].astype(np.int64), float(value[-1])

    @property
    def residuals(self) -> Float[ndarray, " row"]:
        """|sum - value| / absolute sum of each row."""
        return self._on_host[4][self.expanded()]

    def dropped(self) -> Float[ndarray, " node"]:
        """Signed sum of the weights dropped from each row; 0 for nodes without a row."""
        return self._on_host[2]

    def dropped_absolute(self) -> Float[ndarray, " node"]:
        """Absolute sum of the same weights."""
        return self._on_host[3]

    @cached_property
    def _on_host(self) -> Float[ndarray, "5 node"]:
        """What is known of each node, once all rows are there."""
        return as_array(self.found).astype(np.float64)

    def expanded(self) -> Bool[ndarray, " node"]:
        """Which nodes have a row."""
        mask = np.zeros(self.n_nodes, dtype=bool)
        mask[np.concatenate(self.nodes)] = True
        return mask

    @property
    def n_edges(self) -> int:
        """Number of weights that are kept."""
        return int(self.found[0].sum())

    def matrix(self) -> csr_array:
        """weights[target, source]; rows that were not added are empty."""
        counts = self._on_host[0].astype(np.int64)
        indptr = np.concatenate([[0], counts.cumsum()])
        device = self.found.device
        data = host_buffer(int(indptr[-1]), self.weights[0].dtype, device)
        columns = host_buffer(int(indptr[-1]), torch.int32, device)
        for weights, nodes in zip(self.weights, self.nodes, strict=True):
            order = np.argsort(nodes)
            step = max(1, PART_BYTES // (LISTING * weights.shape[1]))
            for start in range(0, len(order), step):
                some = order[start : start + step]
                first, end = indptr[nodes[some[0]]], indptr[nodes[some[-1]] + 1]
                # No row of another layer lies between these.
                rows = weights.index_select(0, on_device(some, device))
                row, column = torch.nonzero_static(rows, size=int(end - first)).T
                data[first:end].copy_(rows[row, column], non_blocking=True)
                columns[first:end].copy_(column.to(torch.int32), non_blocking=True)
        wait_for(device)
        ends = indptr.astype(np.int32) if indptr[-1] < 2**31 else indptr
        parts = (data.numpy(), columns.numpy(), ends)
        return csr_array(parts, shape=(self.n_nodes, self.n_nodes))


def thin_(rows: Float[Tensor, "row column"], share: float) -> Sums:
    """Set all but the largest weights to 0, in place, so that `share` of each row's sum is left.

    As in `circuits.attribution.rows.thin` the fewest weights are kept, and ties at the limit.
    """
    sums, sizes, wide = rows.sum(1, dtype=widest(rows)), rows.abs(), widest(rows)
    totals = sizes.sum(1, dtype=wide)
    if share < 1.0:
        rows.masked_fill_(_small(sizes, totals, share), 0)
        sizes = rows.abs()
    return Sums(
        counts=torch.count_nonzero(rows, dim=1),
        sums=sums,
        totals=totals,
        dropped=sums - rows.sum(1, dtype=wide),
        dropped_absolute=(totals - sizes.sum(1, dtype=wide)).clamp_(min=0),
    )


def _small(
    sizes: Float[Tensor, "row column"], totals: Float[Tensor, " row"], share: float
) -> Bool[Tensor, "row column"]:
    """The weights that are not kept."""
    shifts, integers = BITS[sizes.dtype]
    bits = sizes.view(integers)
    scale = ONE / torch.where(totals > 0, totals, 1)[:, None]
    numbers = (sizes * scale).to(torch.int64)
    left = ((1.0 - share) * totals)[:, None].mul_(scale).to(torch.int64)
    found = torch.zeros_like(left).to(integers)  # the threshold's leading bits
    above = torch.iinfo(integers).bits - 1
    for shift in shifts:
        place, n_bins = bits >> shift, 2 ** (above - shift)
        if above < torch.iinfo(integers).bits - 1:
            numbers_here = numbers.where((bits >> above) == found, 0)
            place = place & (n_bins - 1)
        else:
            numbers_here = numbers
        held = numbers.new_zeros(len(bits), n_bins)
        up_to = held.scatter_add_(1, place.to(torch.int64), numbers_here).cumsum_(1)
        cut = (up_to <= left).sum(1, keepdim=True).clamp_(max=n_bins - 1)
        before = torch.nn.functional.pad(up_to, (1, 0)).gather(1, cut)
        left, found, above = left - before, (found << (above - shift)) | cut.to(integers), shift
    return bits < found

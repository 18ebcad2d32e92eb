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
from circuits.machine import as_array, on_device

ONE = 2.0**52  # of the integers that shares of a row are summed as
# Lowest bit of each histogram, and the integers of a float's size.
BITS = {
    torch.float32: ((20, 10, 0), torch.int32),
    torch.float64: ((52, 42, 32, 22, 11, 0), torch.int64),
}
THINNED_BYTES = 2**31  # of temporary values while rows are thinned
THINNING = 40  # bytes per weight meanwhile


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
        self.at = [torch.empty(0, dtype=torch.int64, device=like.device) for _ in widths]
        # Of each node: weights kept, absolute sum, what was dropped of both sums, relative error.
        self.found = like.new_zeros(5, self.n_nodes, dtype=torch.float64)

    def __len__(self) -> int:
        return sum(map(len, self.nodes))

    def add(
        self,
        nodes: Int[ndarray, " row"],
        layers: Int[ndarray, " row"],
        block: Float[Tensor, "row column"],
        values: Float[Tensor, " row"],
    ) -> None:
        """Add rows, sorted by layer from the top; `values` are what each must sum to.

        `block` is thinned in place.
        """
        place = on_device(nodes, block.device)
        step = max(1, THINNED_BYTES // (THINNING * block.shape[1]))
        for start in range(0, len(nodes), step):
            end = min(start + step, len(nodes))
            width = self.sources.columns_below(int(layers[start]))
            found = thin_(block[start:end, :width], self.kept_share)
            self._keep(place[start:end], found, values[start:end])
        level = np.where(nodes >= len(self.sources.nodes), len(self.sources.layers), layers)
        for number in np.unique(level).tolist():
            rows = np.flatnonzero(level == number)
            here = block[rows[0] : rows[-1] + 1, : self.weights[number].shape[1]]
            self.weights[number] = torch.cat([self.weights[number], here])
            self.at[number] = torch.cat([self.at[number], place[rows[0] : rows[-1] + 1]])
            self.nodes[number] = np.concatenate([self.nodes[number], nodes[rows]])

    def _keep(self, place: Tensor, found: Sums, values: Tensor) -> None:
        miss = (found.sums - values).abs()
        relative = torch.where(found.totals > 0, miss / found.totals, miss)
        columns = (found.counts, found.totals, found.dropped, found.dropped_absolute, relative)
        self.found.index_copy_(1, place, torch.stack([one.double() for one in columns]))

    def carried(self, seed: Float[Tensor, " node"]) -> Float[Tensor, " node"]:
        """Influence over the rows so far (`graphs.influence`), by shares of the whole rows."""
        total, totals = seed.clone(), self.found[1]
        scale = torch.where(totals > 0, totals, 1).reciprocal_()
        for weights, at in zip(reversed(self.weights), reversed(self.at), strict=True):
            if len(at):
                passed = total.index_select(0, at).mul_(scale.index_select(0, at))
                total[: weights.shape[1]].addmv_(weights.abs().to(total).T, passed)
        return total.sub_(seed)

    def influence(self, seed: Float[ndarray, " node"]) -> Float[ndarray, " node"]:
        """The same on the host."""
        return as_array(self.carried(on_device(seed, self.found.device)))

    def leading(
        self, seed: Float[ndarray, " node"], expanded: Bool[ndarray, " feat"], count: int
    ) -> tuple[Int[ndarray, " chosen"], float]:
        """The features without rows at which most influence waits, at most `count`, most first.

        Also returns the share of influence that waits at all of them.
        """
        device, whole = self.found.device, float(seed.sum())
        arrived = self.carried(on_device(seed, device)).index_select(0, self.columns).div_(whole)
        pending = arrived.masked_fill_(on_device(expanded, device), 0.0)
        best = pending.sort(descending=True, stable=True)
        some = torch.stack([best.indices[:count].to(pending), best.values[:count]])
        answer = torch.cat([some.flatten(), pending.sum()[None]]).cpu().numpy()
        index, value = answer[:-1].reshape(2, -1)
        return index[value > 0].astype(np.int64), float(answer[-1])

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
        return as_array(self.found)

    def expanded(self) -> Bool[ndarray, " node"]:
        """Which nodes have a row."""
        mask = np.zeros(self.n_nodes, dtype=bool)
        mask[np.concatenate(self.nodes)] = True
        return mask

    def matrix(self) -> csr_array:
        """weights[target, source]; rows that were not added are empty."""
        counts = self._on_host[0].astype(np.int64)
        indptr = np.concatenate([[0], counts.cumsum()])
        data: list[Tensor] = []
        columns: list[Tensor] = []
        for weights, nodes in zip(self.weights, self.nodes, strict=True):
            if len(nodes):
                rows = weights.index_select(0, on_device(np.argsort(nodes), weights.device))
                found = torch.nonzero_static(rows, size=int(counts[nodes].sum()))
                data.append(rows[found[:, 0], found[:, 1]])
                columns.append(found[:, 1].to(torch.int32))
        ends = indptr.astype(np.int32) if indptr[-1] < 2**31 else indptr
        parts = (as_array(torch.cat(part)) for part in (data, columns))
        return csr_array((*parts, ends), shape=(self.n_nodes, self.n_nodes))


def thin_(rows: Float[Tensor, "row column"], share: float) -> Sums:
    """Set all but the largest weights to 0, in place, so that `share` of each row's sum is left.

    As in `circuits.attribution.rows.thin` the fewest weights are kept, and ties at the limit.
    """
    sums, sizes = rows.sum(1, dtype=torch.float64), rows.abs()
    totals = sizes.sum(1, dtype=torch.float64)
    if share < 1.0:
        rows.masked_fill_(_small(sizes, totals, share), 0)
        sizes = rows.abs()
    return Sums(
        counts=torch.count_nonzero(rows, dim=1),
        sums=sums,
        totals=totals,
        dropped=sums - rows.sum(1, dtype=torch.float64),
        dropped_absolute=(totals - sizes.sum(1, dtype=torch.float64)).clamp_(min=0),
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

"""Norm rows of a trace: what the final norm divides by, as rows of the sweep (`graphs.core.responses`).

The covectors of a norm are its residual x, centred as the norm centres it, and orthonormal ones
drawn at random among those orthogonal to x.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from scipy.sparse import csr_array
from torch import Tensor

from circuits.attribution.local_replacement import LocalReplacement
from circuits.attribution.rows import CollectedRows, RowTargets, Sweeper, no_rows
from circuits.machine import in_float64, on_device
from circuits.model.frozen import Covectors
from graphs.core.brief import Brief
from graphs.core.nodes import NodeKind, NodeTable
from graphs.core.provenance import FrozenNorm
from graphs.core.responses import Responses

# Random covectors of a norm: of |δ|², K of them miss √(2 / K), a quarter with 32.  Few in a small
# trace, of whose rows they are to cost a twentieth at most.
MOST_RANDOM, LEAST_RANDOM, SHARE = 32, 4, 0.05
SEED = 0


@dataclass(frozen=True, repr=False)
class Norms(Brief):
    """Norms that are held, and what rows are of to say how they would change."""

    frozen: tuple[FrozenNorm, ...]
    covectors: Covectors
    nodes: NodeTable
    value: Float[Tensor, " row"]  # covector · residual: what a row must sum to

    def __len__(self) -> int:
        return len(self.nodes)


def final_norms(local: LocalReplacement, n_random: int) -> Norms | None:
    """The final norm at every position with a target that reads it, with so many random covectors.

    None if no target reads it.
    """
    frozen, recording = local.frozen, local.recording
    norm, targets = frozen.final_norm, local.targets.covectors
    positions = np.unique(targets.pos[targets.layer == frozen.n_layers]).tolist()
    if norm.eps is None or not positions:
        return None
    residual = recording.final_residual[positions]
    covector = torch.stack([_covectors(norm.centre(x), norm.centred, n_random) for x in residual])
    count = covector.shape[1]
    squares = in_float64(recording.final_denominator[positions]).square()
    value = covector @ residual[:, :, None]
    pos, index = np.repeat(positions, count), np.tile(np.arange(count), len(positions))
    layer = np.full_like(pos, frozen.n_layers)
    return Norms(
        frozen=tuple(
            FrozenNorm(
                layer=frozen.n_layers,
                pos=pos,
                mean_square=square,
                width=frozen.d_model,
                dimensions=frozen.d_model - norm.centred,
            )
            for pos, square in zip(positions, squares.tolist(), strict=True)
        ),
        covectors=Covectors(layer, pos, covector.flatten(0, 1), np.zeros(len(pos))),
        nodes=NodeTable(
            kind=np.full_like(pos, NodeKind.NORM),
            layer=layer,
            pos=pos,
            index=index,
            activation=np.full(len(pos), np.nan),
            value=in_float64(value.flatten()).numpy(),
        ),
        value=value.flatten(),
    )


def _covectors(
    x: Float[Tensor, " d_model"], centred: bool, n_random: int
) -> Float[Tensor, "row d_model"]:
    """x, and orthonormal covectors orthogonal to it, drawn on the host as on every device."""
    width = len(x)
    generator = np.random.default_rng(SEED)
    first = [in_float64(x).numpy(), *([np.ones(width)] if centred else [])]
    count = min(n_random, width - len(first))
    columns = np.stack([*first, *generator.standard_normal((count, width))], axis=1)
    orthonormal = np.linalg.qr(columns).Q.T[len(first) :]
    return torch.cat([x[None], on_device(orthonormal, x.device, x.dtype)])


def n_random(rows: CollectedRows) -> int:
    """How many random covectors a trace with these rows affords for each norm."""
    return min(MOST_RANDOM, max(LEAST_RANDOM, round(SHARE * len(rows)) - 1))


@dataclass(frozen=True, repr=False)
class SweptNorms(Brief):
    """Norms and their rows."""

    frozen: tuple[FrozenNorm, ...]
    rows: Responses
    residuals: Float[ndarray, " row"]  # |sum - value| / absolute sum of each row


def sweep_norms(sweeper: Sweeper, rows: CollectedRows) -> SweptNorms | None:
    """The rows of the final norm, beside the rows of a trace; None if no target reads it."""
    norms = final_norms(sweeper.local, n_random(rows))
    if norms is None:
        return None
    found = no_rows(sweeper, rows.kept_share, norms.value)
    first = found.n_nodes - len(norms)
    nodes, constants = np.arange(first, found.n_nodes), torch.zeros_like(norms.value)
    targets = RowTargets(norms.covectors, nodes, norms.value, constants)
    sweeper.add(targets, found, lambda _: None)
    weights = found.matrix()
    kept = Responses(
        constant=_constants(sweeper, rows.n_nodes),
        nodes=norms.nodes,
        weights=csr_array(
            (weights.data, weights.indices, weights.indptr[first:]),
            shape=(len(norms), rows.n_nodes),
        ),
        dropped=found.dropped()[first:],
        dropped_absolute=found.dropped_absolute()[first:],
    )
    return SweptNorms(norms.frozen, kept, np.array(found.residuals))


def _constants(sweeper: Sweeper, n_nodes: int) -> Float[ndarray, " node"]:
    """Of each target and feature the part of its value that no norm scales."""
    local, found = sweeper.local, np.full(n_nodes, np.nan)
    found[sweeper.sources.feature_column] = in_float64(local.features.constant).numpy()
    reads_norm = local.targets.covectors.layer == local.frozen.n_layers
    of_targets = in_float64(local.targets.constant).numpy()
    found[len(sweeper.sources.nodes) :] = np.where(reads_norm, of_targets, np.nan)
    return found

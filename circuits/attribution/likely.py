"""Estimated influence of features, before any row is computed.

A weight is the product of a covector and the vector that a source writes.  For unrelated directions
its size is proportional to both norms, so shares can be estimated from one number per pair of
positions.  Pulled back through a block, a covector at p has squared norms

    |c[q]|² = |c[p]|² [q = p] + Σ_h (pattern_h[p, q] · gain_h)² · |c[p]|²

where gain_h² is the mean over covectors of the targets and of some features above: a norm's gain
concentrates covectors on few dimensions, so a mean over all directions would be far off.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuits.attribution.local_replacement import LocalReplacement
from circuits.features.active import ActiveFeatures, LinearPath
from circuits.machine import on_device
from circuits.model.frozen import Covectors, FrozenBlock
from circuits.recording.record import BlockRecording, Recording

SAMPLED_FEATURES = 64  # per layer, whose decoder norms represent all
SAMPLED_COVECTORS = 16  # encoder rows per layer
SAMPLED_PROBES = 4  # of these covectors, through linear paths at every position
SAMPLED_POSITIONS = 128  # at which covectors start; others are merged into the next


def likely_influence(local: LocalReplacement) -> Float[Tensor, " feat"]:
    """Estimated influence of each active feature on the targets, up to a factor."""
    return _Norms(local).influence(local.targets.covectors)


class _Norms:
    """Norms of all that is written, and how blocks change a covector's squared norm."""

    def __init__(self, local: LocalReplacement) -> None:
        frozen, recording, features = local.frozen, local.recording, local.features
        self.n_layers, self.parallel = frozen.n_layers, frozen.parallel
        self.layer, self.pos = features.layer, features.pos
        inputs = [vectors.float().norm(dim=1) for vectors in recording.inputs]
        self.inputs: Float[Tensor, " pos"] = torch.stack(inputs).sum(0)
        self.size: Float[Tensor, " feat"] = features.activation.abs().float()  # as written
        self.errors: list[Float[Tensor, " pos"]] = []  # by layer
        self.mixed: list[Float[Tensor, "query key"]] = []  # gains of attention
        self.linear: list[Float[Tensor, " pos"]] = []  # gains of linear paths
        covectors = _units(local.targets.covectors.covector)
        for layer in range(self.n_layers - 1, -1, -1):
            here = features.read_at(layer)
            rows = torch.arange(here.start, here.stop, device=features.layer.device)
            paths = features.rows.linear(layer)  # a path builds its matrix on first use
            self.errors.insert(0, self._write(layer, rows, recording, features, paths))
            own = features.rows.encoder(layer, _spread(rows, SAMPLED_COVECTORS))
            covectors = torch.cat([covectors, _units(own)])
            self.mixed.insert(0, _mixed(frozen.blocks[layer], recording.blocks[layer], covectors))
            self.linear.insert(0, _linear(paths.values(), recording.tokens, covectors))

    def influence(self, targets: Covectors) -> Float[Tensor, " feat"]:
        """Influence of each feature on the targets, over all paths."""
        written = self._cells()
        arrived = torch.zeros_like(written)
        place = tuple(on_device(at, arrived.device) for at in (targets.layer, targets.pos))
        weight = on_device(targets.weight, arrived.device).to(arrived)
        arrived.index_put_(place, weight, accumulate=True)
        reach = torch.zeros_like(written)  # influence per unit of norm
        for layer in range(self.n_layers, 0, -1):
            pos, weight = _starts(arrived[layer])
            norms, at_inputs = self._pulled(layer, pos)
            total = at_inputs @ self.inputs
            for below, norm in enumerate(norms):
                total = total + norm @ (written[below] + self.errors[below])
            for below, norm in enumerate(norms):
                reach[below] += (weight / total) @ norm
            # By now every layer above has contributed to what arrives here.
            arrived[layer - 1] += reach[layer - 1] * written[layer - 1]
        return self.size * reach[self.layer, self.pos]

    def _pulled(
        self, layer: int, pos: Int[Tensor, " start"]
    ) -> tuple[list[Float[Tensor, "start pos"]], Float[Tensor, "start pos"]]:
        """Norms of covectors where each lower layer writes, and at the inputs."""
        squares = self.inputs.new_zeros(len(pos), len(self.inputs))
        squares[torch.arange(len(pos), device=pos.device), pos] = 1.0
        if layer < self.n_layers and not self.parallel:
            squares = squares + squares @ self.mixed[layer]
        norms: list[Tensor] = []
        for below in range(layer - 1, -1, -1):
            norms.append(squares.sqrt())
            through = squares * (1.0 + self.linear[below])
            squares = through + (squares if self.parallel else through) @ self.mixed[below]
        return norms[::-1], squares.sqrt()

    def _cells(self) -> Float[Tensor, "layer pos"]:
        """Norms summed by layer and position; 0 in the last row, the final residual's."""
        cells = self.size.new_zeros((self.n_layers + 1) * len(self.inputs))
        cells.index_add_(0, self.layer * len(self.inputs) + self.pos, self.size)
        return cells.view(self.n_layers + 1, -1)

    def _write(
        self,
        layer: int,
        rows: Int[Tensor, " row"],
        recording: Recording,
        features: ActiveFeatures,
        paths: dict[int, LinearPath],
    ) -> Float[Tensor, " pos"]:
        """Turn a layer's activations into norms of what is written; returns norms of its errors.

        Errors are estimated as if features and skips had random directions.
        """
        some, pos = _spread(rows, SAMPLED_FEATURES), features.pos[rows]
        if len(some):
            written = features.rows.decoder(layer, layer, some).float()
            active = self.size[some].sum()
            least = torch.finfo(active.dtype).tiny
            self.size[rows] *= written.norm(dim=1).sum() / active.clamp(min=least)
        squares = recording.blocks[layer].contribution.float().square().sum(1)
        for read, path in paths.items():
            skipped = path.forward(recording.blocks[read].mlp_residual[None], 0)[0]
            squares += skipped.float().square().sum(1)
        return squares.index_add(0, pos, self.size[rows].square()).sqrt()


def _units(covectors: Float[Tensor, "row d_model"]) -> Float[Tensor, "row d_model"]:
    return torch.nn.functional.normalize(covectors.float(), dim=1)


def _mixed(
    block: FrozenBlock, recorded: BlockRecording, covectors: Float[Tensor, "row d_model"]
) -> Float[Tensor, "query key"]:
    """Σ_h (pattern_h · gain_h)², the norms' denominators included."""
    output = block.output.float().T.unflatten(0, (-1, block.d_head))
    value = block.value.float().unflatten(0, (-1, block.d_head))
    gram = (value @ value.mT).repeat_interleave(len(output) // len(value), 0)
    projected = covectors @ output.mT  # (head, row, d_head)
    gains = ((projected @ gram) * projected).sum(-1).mean(-1)
    squares = torch.einsum("hqk,h->qk", recorded.pattern.float().square(), gains)
    denominators = recorded.post_attention_denominator[:, None] * recorded.attention_denominator
    return squares / denominators.float().square()


def _linear(
    paths: Iterable[LinearPath],
    like: Float[Tensor, "pos d_model"],
    covectors: Float[Tensor, "row d_model"],
) -> Float[Tensor, " pos"]:
    """Squared norms of unit covectors after a layer's linear paths."""
    gains = covectors.new_zeros(len(like))
    every = torch.arange(len(covectors), device=covectors.device)
    probes = covectors[_spread(every, SAMPLED_PROBES)]
    for path in paths:
        everywhere = probes.to(like)[:, None].expand(-1, len(like), -1)
        gains += path.transpose(everywhere, 0).float().square().sum(2).mean(0)
    return gains


def _starts(
    arrived: Float[Tensor, " pos"],
) -> tuple[Int[Tensor, " start"], Float[Tensor, " start"]]:
    """Positions from which covectors start, and the influence merged into each."""
    pos = arrived.nonzero().flatten()
    chosen = _spread(pos, SAMPLED_POSITIONS)
    joins = torch.searchsorted(chosen, pos)
    weight = arrived.new_zeros(len(chosen)).index_add_(0, joins, arrived[pos])
    return chosen, weight


def _spread(items: Int[Tensor, " item"], count: int) -> Int[Tensor, " chosen"]:
    """At most `count` items at even distances, the last included."""
    if len(items) <= count:
        return items
    places = torch.arange(1, count + 1, device=items.device) * len(items) // count - 1
    return items[places]

"""The cost of a trace before its rows are computed: FLOPs, memory, and where to split the sweep.

Padding within blocks is not counted.  With n swept positions up to its own, a target crosses every
attention from its layer down to the block where it stops, the first at its own position only:

    2 · (1 + (crossed - 1) · n) · d_model · heads · d_head     through W_O
    2 · crossed · n · d_model · kv heads · d_head              through W_V
    crossed · n · (n + 1) · heads · d_head                     through the causal pattern
    2 · d_model · (vectors of sources that affect it)          read off
    2 · (layers below, down to that block) · n · d_model²      through affine skips, if any

A source that writes to several layers is read off at each.  Sources below `split` cross the
attentions and skips up to it, at all n positions from their own on, and are read off at each of
them (`circuits.attribution.sweep`).

A trace that will not fit into memory is refused beforehand, with the setting to lower.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor

from circuits.attribution.likely import likely_influence
from circuits.attribution.local_replacement import LocalReplacement
from circuits.attribution.rows import Expansion
from circuits.attribution.sources import slots
from circuits.attribution.sweep import BLOCK_WEIGHTS, block_positions
from circuits.attribution.targets import TargetSettings, read_targets
from circuits.features.active import ActiveFeatures, FeatureSource
from circuits.machine import (
    free_bytes,
    free_device_bytes,
    gigabytes,
    is_accelerator,
    workers_for,
)
from circuits.model.frozen import FrozenModel
from circuits.model.prompt import Prompt
from circuits.recording.record import record
from graphs.errors import HeadwaterError

MOST_FORWARD = 2**26  # values in sources pushed forward: 256 MB in float32
KEPT_OF_VISIBLE = 0.85  # of the sources that can affect a row, at the default share
THINNING = 5  # copies of a block of weights while its largest are selected
PILOT = 256  # first tokens of a long prompt, run to count active features
LONG = 4 * PILOT  # tokens; shorter prompts are recorded quickly


class DoesNotFit(HeadwaterError):
    """A trace needs more memory than is free."""


@dataclass(frozen=True)
class Need:
    """Bytes that a trace will allocate, beyond what the process holds before its first row."""

    host: float
    device: float  # on an accelerator; 0 if the model runs on the CPU


class Costs:
    """FLOPs on one prompt, from the numbers of sources and targets by layer and position."""

    def __init__(self, local: LocalReplacement) -> None:
        frozen, recording, features = local.frozen, local.recording, local.features
        self.parallel, self.n_inputs = frozen.parallel, len(recording.inputs)
        self.n_prefix = recording.prompt.n_prefix
        self.n_layers, self.d_model = frozen.n_layers, frozen.d_model
        self.heads, self.kv_heads = frozen.blocks[0].output.shape[1], len(frozen.blocks[0].value)
        self.n_pos = max(1, len(recording.prompt) - self.n_prefix)
        places = features.on_host
        self.features = self.table(places.layer, places.pos)  # (layer, swept pos)
        self.sources = self.features + 1  # every layer and position also has an error
        self.sources[-1] = 0
        self.vectors = self._vectors(features)
        skips = [features.rows.linear(layer) for layer in range(self.n_layers)]
        self.skips = sum(map(len, skips)) / self.n_layers  # per layer, on average
        self.crossing = any(set(paths) - {layer} for layer, paths in enumerate(skips))

    def table(
        self, layer: Int[ndarray, " row"], pos: Int[ndarray, " row"]
    ) -> Float[Tensor, "layer pos"]:
        """Number of rows by layer (the final residual's last) and swept position."""
        place = layer * self.n_pos + (pos - self.n_prefix).clip(min=0)
        counts = np.bincount(place, minlength=(self.n_layers + 1) * self.n_pos)
        return torch.from_numpy(counts).double().view(-1, self.n_pos)

    def of_rows(self, rows: Float[Tensor, "layer pos"], split: int = 0) -> float:
        """FLOPs of this many rows; targets at or above `split` stop there."""
        layer, n = torch.arange(self.n_layers + 1)[:, None], torch.arange(1, self.n_pos + 1)
        bottom = split * (layer >= split)
        crossed = (layer + (not self.parallel)).clamp(max=self.n_layers) - bottom
        through_output = (crossed.clamp(max=1) + (crossed - 1).clamp(min=0) * n) * self.heads
        through_weights = 2 * self.d_model * (through_output + crossed * n * self.kv_heads)
        through_skip = 2 * self.skips * (layer - bottom) * n * self.d_model**2
        through_pattern = crossed * n * (n + 1) * self.heads
        below, vectors = self._below(self.sources), self._below(self.vectors)
        seen = (vectors - vectors[bottom[:, 0]]).cumsum(1)
        met = torch.where(bottom > 0, (below[split] + self.n_inputs).cumsum(0).cumsum(0), 0)
        read = 2 * self.d_model * (seen + met + torch.where(bottom > 0, 0, n * self.n_inputs))
        return float((rows * (through_weights + through_skip + through_pattern + read)).sum())

    def of_forward_prefix(self, split: int) -> float:
        """FLOPs of pushing all lower sources forward to `split`."""
        n = torch.arange(self.n_pos, 0, -1)
        to_cross = torch.arange(split - 1, -1, -1).double()
        crossings = to_cross @ self.sources[:split] + split * self.n_inputs
        weights = 2 * n * self.d_model * (self.heads + self.kv_heads + self.skips * self.d_model)
        return float((crossings * (weights + n * (n + 1) * self.heads)).sum())

    def best_split(self, rows: Float[Tensor, "layer pos"]) -> int:
        """The split layer with the fewest FLOPs for these rows; 0 for no split.

        Skips to higher layers would bypass the residual stream at the split, so they exclude one.
        """
        if self.crossing:
            return 0
        costs = [
            self.of_rows(rows, split) + self.of_forward_prefix(split)
            for split in range(self.n_layers + 1)
            if self.forward_vectors(split) * self.d_model <= MOST_FORWARD
        ]
        return costs.index(min(costs))

    def forward_vectors(self, split: int) -> float:
        """Number of vectors after pushing all lower sources forward to `split`."""
        return float(self.sources[:split].sum(0) @ torch.arange(self.n_pos, 0, -1).double())

    def visible(self, rows: Float[Tensor, "layer pos"]) -> float:
        """Number of sources in lower layers at no later position, summed over these rows."""
        inputs = torch.arange(1, self.n_pos + 1) * self.n_inputs
        return float((rows * (self._below(self.sources).cumsum(1) + inputs)).sum())

    def positions(self, rows: Float[Tensor, "layer pos"]) -> float:
        """Number of positions up to each row's own, summed over rows."""
        return float((rows * torch.arange(1, self.n_pos + 1)).sum())

    def _vectors(self, features: ActiveFeatures) -> Float[Tensor, "layer pos"]:
        """Number of vectors written by layer and position, errors included."""
        ends = np.array(features.reach)[features.on_host.layer] + 1
        changes = self.features - self.table(ends, features.on_host.pos)
        written = changes.cumsum(0) + 1
        written[-1] = 0
        return written

    def _below(self, table: Float[Tensor, "layer pos"]) -> Float[Tensor, "layer pos"]:
        """Sums over all lower layers, by position."""
        return torch.cat([torch.zeros(1, self.n_pos).double(), table.cumsum(0)[:-1]])


class Plan:
    """Predicted rows, edges and blocks of a trace, from one forward pass."""

    def __init__(
        self, local: LocalReplacement, expansion: Expansion, base: Plan | None = None
    ) -> None:
        self.local, self.expansion = local, expansion
        self.limit = expansion.limit(len(local.features))
        self.costs = base.costs if base else Costs(local)
        self.order = base.order if base else None  # features, in the order of their rows
        self.rows = self._rows()
        self.split = 0 if is_accelerator(local.frozen.device) else self.costs.best_split(self.rows)
        kept = 1.0 if expansion.kept_share >= 1 else KEPT_OF_VISIBLE
        self.edges = self.costs.visible(self.rows) * kept
        positions = self.costs.positions(self.rows)
        workers = workers_for(local.frozen.device)
        self.block_positions = block_positions(int(positions), workers)
        self.blocks = max(positions / self.block_positions, self.costs.n_pos)
        rows = float(self.rows.sum())
        columns = len(local.features) + local.frozen.n_layers * self.costs.n_pos
        self.block_weights = min(BLOCK_WEIGHTS, columns * rows / max(1.0, self.blocks))

    def limited(self, limit: int) -> Plan:
        """The same plan with at most `limit` features expanded."""
        expansion = replace(self.expansion, everything=False, max_features=limit)
        return Plan(self.local, expansion, base=self)

    def _rows(self) -> Float[Tensor, "layer pos"]:
        """Number of rows by layer and swept position."""
        features, targets = self.local.features, self.local.targets.covectors
        rows = self.costs.table(targets.layer, targets.pos)
        if self.limit == len(features):
            return rows + self.costs.features
        if is_accelerator(self.local.frozen.device):  # a guess would take as long as the rows
            return rows + self.costs.features * (self.limit / len(features))
        if self.order is None:
            self.order = np.argsort(-likely_influence(self.local).cpu().numpy(), kind="stable")
        first = self.order[: self.limit]
        return rows + self.costs.table(features.on_host.layer[first], features.on_host.pos[first])

    def need(self) -> Need:
        """Memory that the rest of the trace will allocate."""
        frozen, features, recording = self.local.frozen, self.local.features, self.local.recording
        n = len(recording.prompt)
        vectors = 0
        for layer in range(frozen.n_layers):
            counts = np.ones(n, dtype=np.int64)
            for source in features.writing_to(layer):
                here = features.on_host.pos[features.read_at(source)]
                counts += np.bincount(here, minlength=n)
            vectors += slots(counts)
        constants = 3 * frozen.n_layers * n
        block = frozen.blocks[0]
        matrices = self.costs.skips * frozen.d_model**2  # with norms folded in
        if len(block.value) > block.d_head:  # W_O of several kv heads is laid out by head
            matrices += block.output.numel()
        patterns = sum(block.pattern.numel() for block in recording.blocks)
        in_work = THINNING * self.block_weights + 3 * self.block_positions * frozen.d_model
        numbers = (
            (vectors + constants + self.costs.forward_vectors(self.split)) * frozen.d_model
            + patterns
            + frozen.n_layers * matrices
            + workers_for(frozen.device) * in_work
        )
        swept = frozen.unembedding.element_size() * numbers
        edge = (8 if frozen.dtype == torch.float64 else 4) + 4  # a weight and its column
        edges = 2 * edge * self.edges  # rows, and the matrix built from them
        elsewhere = is_accelerator(frozen.device)
        return Need(host=edges + swept * (not elsewhere), device=swept * elsewhere)


def require_room_to_record(frozen: FrozenModel, source: FeatureSource, n_tokens: int) -> None:
    """Raises DoesNotFit if the forward pass, which keeps all patterns, will not fit."""
    # Patterns of every layer and three temporaries; residuals and MLP inputs of each layer.
    patterns = (frozen.n_layers + 3) * _heads(frozen) * n_tokens**2
    residuals = 5 * frozen.n_layers * n_tokens * frozen.d_model
    numbers = patterns + residuals + source.peak_values(frozen, n_tokens)
    needed, free = numbers * frozen.unembedding.element_size(), free_device_bytes(frozen.device)
    if needed > free:
        raise DoesNotFit(
            f"Recording a prompt of {n_tokens:,} tokens needs about {gigabytes(needed)} more "
            f"memory and {gigabytes(free)} are free: shorten the prompt, or try anyway with "
            "`headwater trace --force`."
        )


def require_room_to_sweep(frozen: FrozenModel, prompt: Prompt) -> None:
    """Raises DoesNotFit, before anything is computed, if even no features would fit.

    Counts what a sweep always holds: patterns as recorded and as laid out for it; of every layer
    three recorded residuals, errors and two kinds of constants.
    """
    length, swept = len(prompt), len(prompt) - prompt.n_prefix
    patterns = _heads(frozen) * length * (length + swept)
    residuals = 3 * frozen.d_model * (length + swept)
    least = frozen.n_layers * (patterns + residuals) * frozen.unembedding.element_size()
    free = free_device_bytes(frozen.device)
    if least > free:
        raise DoesNotFit(
            f"A trace of {length:,} tokens needs at least {gigabytes(least)} more memory, however "
            f"few features are expanded, and {gigabytes(free)} are free: shorten the prompt, or "
            "try anyway with `headwater trace --force`."
        )


def require_room_to_gather(frozen: FrozenModel, prompt: Prompt, source: FeatureSource) -> None:
    """Raises DoesNotFit, before a long prompt is run, if its first tokens show it will not fit.

    A vector is kept of each feature for every layer that it writes to.  Half as many features per
    token as in the first tokens are assumed, as texts differ; `require_room` catches the cases in
    between.  A source that selects among its features, as neurons are selected, has its own bound.
    """
    if len(prompt) < LONG:
        return
    first = replace(prompt, ids=prompt.ids[:PILOT], tokens=prompt.tokens[:PILOT])
    recording = record(frozen, first)
    targets = read_targets(frozen, recording, TargetSettings(), str)
    features = source.activate(frozen, recording, targets.covectors)
    if len(features) < features.found:
        return
    per_token = len(features) / max(1, PILOT - prompt.n_prefix)
    layer = features.on_host.layer
    vectors = int((np.array(features.reach)[layer] - layer + 1).sum()) / max(1, len(features))
    swept = len(prompt) - prompt.n_prefix
    least = swept * per_token / 2 * vectors * frozen.d_model * frozen.unembedding.element_size()
    free = free_device_bytes(frozen.device)
    if least > free:
        raise DoesNotFit(
            f"The first {PILOT} of {len(prompt):,} tokens have {len(features):,} active features; "
            f"half as many per token on the whole prompt need {gigabytes(least)} more memory and "
            f"{gigabytes(free)} are free: shorten the prompt, use a dictionary with fewer active "
            "features, or try anyway with `headwater trace --force`."
        )


def _heads(frozen: FrozenModel) -> int:
    block = frozen.blocks[0]
    return block.output.shape[1] // block.d_head


def require_room(plan: Plan) -> None:
    """Raises DoesNotFit, with the setting to lower, if memory will not hold the rows."""
    host, device = free_bytes(), free_device_bytes(plan.local.frozen.device)

    def fits(need: Need) -> bool:
        return need.host <= host and need.device <= device

    needed, limit = plan.need(), plan.limit
    if fits(needed):
        return
    most, too_many = 0, limit
    while too_many - most > 1:
        half = (most + too_many) // 2
        most, too_many = (half, too_many) if fits(plan.limited(half).need()) else (most, half)
    most = _two_digits(most)
    option = "--all" if plan.expansion.everything else f"--max-features {limit}"
    advice = (
        f"lower {option} to --max-features {most}"
        if most
        else "shorten the prompt or use a dictionary with fewer active features"
    )
    length, active = len(plan.local.recording.prompt), len(plan.local.features)
    short, free = (needed.host, host) if needed.host > host else (needed.device, device)
    raise DoesNotFit(
        f"This trace of {length:,} tokens and {active:,} active features needs "
        f"about {gigabytes(short)} more memory and {gigabytes(free)} are free: "
        f"{advice}, or try anyway with `headwater trace --force`."
    )


def _two_digits(count: int) -> int:
    """Rounded down to two digits, since it is an estimate."""
    unit = 10 ** max(0, len(str(count)) - 2)
    return count // unit * unit

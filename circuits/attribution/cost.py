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

Which rows come, and what is kept of each, is foreseen once the targets and the first features have
rows.  A trace that will not fit into memory is refused then, with the setting to lower, or before
if not even what it starts from will fit.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor

from circuits.attribution.local_replacement import LocalReplacement
from circuits.attribution.rows import CollectedRows, Sweeper
from circuits.attribution.sweep import BLOCK_WEIGHTS, block_positions
from circuits.attribution.targets import read_targets
from circuits.attribution.trace_settings import TargetSettings
from circuits.features.active import ActiveFeatures, FeatureSource
from circuits.features.hook_points import slots
from circuits.machine import (
    LEAST_WORKING,
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
THINNING = 5  # copies of a block of weights while its largest are selected
PILOT = 256  # first tokens of a long prompt, run to count active features
LONG = 4 * PILOT  # tokens; shorter prompts are recorded quickly


class DoesNotFit(HeadwaterError):
    """A trace or an evaluation needs more memory than is free."""


class Bytes(NamedTuple):
    """Memory that is needed, or free."""

    host: float
    device: float  # of an accelerator; of the CPU the host's again, of which nothing is needed


def free_memory(device: torch.device, memory: int | None = None) -> Bytes:
    """What is free; `memory` is the most that this process may hold where the model is."""
    own = None if is_accelerator(device) else memory
    return Bytes(free_bytes(own), free_device_bytes(device, memory))


def free_for_blocks(frozen: FrozenModel, memory: int | None = None) -> int:
    """Bytes that can be allocated in all if each device gets as much of them as of the blocks."""
    counts = Counter(block.device for block in frozen.blocks)
    return min(
        free_device_bytes(device, memory) * frozen.n_layers // count
        for device, count in counts.items()
    )


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


@dataclass(frozen=True)
class Plan:
    """The rows of a trace, foreseen from those that are there."""

    sweeper: Sweeper
    costs: Costs
    order: Int[ndarray, " feat"]  # features in the order of their rows
    kept: float  # share of the sources that can affect a row that it keeps as edges

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.sweeper.local.frozen.device

    @property
    def limit(self) -> int:
        """The number of features that get rows."""
        return len(self.order)

    def limited(self, limit: int) -> Plan:
        """The same plan with the first features only."""
        return replace(self, order=self.order[:limit])

    @cached_property
    def rows(self) -> Float[Tensor, "layer pos"]:
        """Number of rows by layer and swept position."""
        return _rows(self.sweeper, self.costs, self.order)

    @cached_property
    def split(self) -> int:
        """Where the sweep is split; nowhere on an accelerator, which has few large groups."""
        return 0 if is_accelerator(self.device) else self.costs.best_split(self.rows)

    @property
    def flops(self) -> float:
        """Of the sweep."""
        return self.costs.of_rows(self.rows, self.split) + self.costs.of_forward_prefix(self.split)

    @property
    def edges(self) -> float:
        """Weights that are kept."""
        return self.kept * self.costs.visible(self.rows)

    def need(self) -> Bytes:
        """Memory that the rows will allocate."""
        in_float64 = self.sweeper.local.frozen.dtype == torch.float64
        number = 8 if in_float64 else 4  # rows are kept in float32 at least
        edge = number + 4  # a weight and its column
        if is_accelerator(self.device):
            widths = torch.tensor(self.sweeper.sources.first_column[: len(self.rows)]).double()
            weights = float(self.rows.sum(1) @ widths)
            return Bytes(host=edge * self.edges, device=number * weights + LEAST_WORKING)
        workers, costs = workers_for(self.device), self.costs
        positions = costs.positions(self.rows)
        held = block_positions(int(positions), workers)
        blocks = max(positions / held, costs.n_pos)
        rows, columns = float(self.rows.sum()), len(self.sweeper.sources.nodes)
        weights = min(BLOCK_WEIGHTS, columns * rows / max(1.0, blocks))
        in_work = THINNING * weights + 3 * held * costs.d_model
        numbers = costs.forward_vectors(self.split) * costs.d_model + workers * in_work
        # The edges are held in rows, and in the matrix that is built from them.
        return Bytes(host=2 * edge * self.edges + number * numbers, device=0.0)


def plan_of(sweeper: Sweeper, rows: CollectedRows, order: Int[ndarray, " feat"]) -> Plan:
    """The plan of a trace whose features get rows in this order; some rows are there."""
    costs = Costs(sweeper.local)
    have = np.flatnonzero(rows.expanded()[sweeper.sources.feature_column])
    visible = costs.visible(_rows(sweeper, costs, have))
    return Plan(sweeper, costs, order, kept=rows.n_edges / max(1.0, visible))


def _rows(
    sweeper: Sweeper, costs: Costs, features: Int[ndarray, " feat"]
) -> Float[Tensor, "layer pos"]:
    """Number of rows of all targets and of these features, by layer and swept position."""
    targets, places = sweeper.local.targets.covectors, sweeper.local.features.on_host
    rows = costs.table(targets.layer, targets.pos)
    for part in sweeper.norms:
        rows = rows + costs.table(part.covectors.layer, part.covectors.pos)
    return rows + costs.table(places.layer[features], places.pos[features])


def require_room_for_sources(local: LocalReplacement, memory: int | None = None) -> None:
    """Raises DoesNotFit if what the active features write will not fit, or W_O by head."""
    frozen, features, recording = local.frozen, local.features, local.recording
    length = len(recording.prompt)
    vectors = 3 * frozen.n_layers * length  # constants of two kinds, and errors
    for layer in range(frozen.n_layers):
        counts = np.ones(length, dtype=np.int64)
        for source in features.writing_to(layer):
            here = features.on_host.pos[features.read_at(source)]
            counts += np.bincount(here, minlength=length)
        vectors += slots(counts)
    block = frozen.blocks[0]
    skips = sum(len(features.rows.linear(layer)) for layer in range(frozen.n_layers))
    numbers = vectors * frozen.d_model + skips * frozen.d_model**2  # with norms folded in
    if len(block.value) > block.d_head:  # W_O of several kv heads is laid out by head
        numbers += frozen.n_layers * block.output.numel()
    needed = numbers * frozen.unembedding.element_size()
    free = free_for_blocks(frozen, memory)
    if needed > free:
        raise DoesNotFit(
            f"This trace of {length:,} tokens and {len(features):,} active features needs "
            f"about {gigabytes(needed)} more memory for what these write, and {gigabytes(free)} "
            "are free: shorten the prompt or use a dictionary with fewer active features, or try "
            "anyway with `headwater trace --force`."
        )


def require_room_to_record(
    frozen: FrozenModel, source: FeatureSource, n_tokens: int, memory: int | None = None
) -> None:
    """Raises DoesNotFit if the forward pass, which keeps all patterns, will not fit."""
    # Patterns of every layer and three temporaries; residuals and MLP inputs of each layer.
    patterns = (frozen.n_layers + 3) * frozen.blocks[0].n_heads * n_tokens**2
    residuals = 5 * frozen.n_layers * n_tokens * frozen.d_model
    numbers = patterns + residuals + source.peak_values(frozen, n_tokens)
    needed = numbers * frozen.unembedding.element_size()
    free = free_for_blocks(frozen, memory)
    if needed > free:
        raise DoesNotFit(
            f"Recording a prompt of {n_tokens:,} tokens needs about {gigabytes(needed)} more "
            f"memory and {gigabytes(free)} are free: shorten the prompt, or try anyway with "
            "`headwater trace --force`."
        )


def require_room_to_sweep(frozen: FrozenModel, prompt: Prompt, memory: int | None = None) -> None:
    """Raises DoesNotFit, before anything is computed, if even no features would fit.

    Counts what a sweep always holds: of every layer the pattern, three recorded residuals, errors
    and two kinds of constants.
    """
    length, swept = len(prompt), len(prompt) - prompt.n_prefix
    patterns = frozen.blocks[0].n_heads * length**2
    residuals = 3 * frozen.d_model * (length + swept)
    least = frozen.n_layers * (patterns + residuals) * frozen.unembedding.element_size()
    free = free_for_blocks(frozen, memory)
    if least > free:
        raise DoesNotFit(
            f"A trace of {length:,} tokens needs at least {gigabytes(least)} more memory, however "
            f"few features are expanded, and {gigabytes(free)} are free: shorten the prompt, or "
            "try anyway with `headwater trace --force`."
        )


def require_room_to_gather(
    frozen: FrozenModel, prompt: Prompt, source: FeatureSource, memory: int | None = None
) -> None:
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
    free = free_for_blocks(frozen, memory)
    if least > free:
        raise DoesNotFit(
            f"The first {PILOT} of {len(prompt):,} tokens have {len(features):,} active features; "
            f"half as many per token on the whole prompt need {gigabytes(least)} more memory and "
            f"{gigabytes(free)} are free: shorten the prompt, use a dictionary with fewer active "
            "features, or try anyway with `headwater trace --force`."
        )


def require_room(plan: Plan, free: Bytes, *, everything: bool) -> None:
    """Raises DoesNotFit, with the setting to lower, if memory will not hold the rows.

    `everything`: whether all features are to be expanded, which needs no number.
    """

    def fits(need: Bytes) -> bool:
        return need.host <= free.host and need.device <= free.device

    needed, limit = plan.need(), plan.limit
    if fits(needed):
        return
    most, too_many = 0, limit
    while too_many - most > 1:
        half = (most + too_many) // 2
        most, too_many = (half, too_many) if fits(plan.limited(half).need()) else (most, half)
    most = _two_digits(most)
    option = "--all" if everything else f"--max-features {limit}"
    advice = f"lower {option} to --max-features {most}" if most else "shorten the prompt"
    at, local = 0 if needed.host > free.host else 1, plan.sweeper.local
    raise DoesNotFit(
        f"This trace of {len(local.recording.prompt):,} tokens and {len(local.features):,} active "
        f"features needs about {gigabytes(needed[at])} more memory for its rows, and "
        f"{gigabytes(free[at])} are free: {advice}, or try anyway with `headwater trace --force`."
    )


def _two_digits(count: int) -> int:
    """Rounded down to two digits, since it is an estimate."""
    unit = 10 ** max(0, len(str(count)) - 2)
    return count // unit * unit

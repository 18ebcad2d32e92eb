"""What a trace will cost, from one forward pass and before any row is computed.

Seconds are the FLOPs that rows need (`circuits.attribution.flops`) at the rate of this machine's
own matrix product, measured on the spot, and what gathering, labelling and storing take besides.
Memory is counted piece by piece: sources, attention, blocks of rows, edges.  Both are measured
against traces in `benchmarks/estimates.py`.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.attribution.expand import Expansion
from circuits.attribution.flops import Costs
from circuits.attribution.likely import likely_influence
from circuits.attribution.sources import slots
from circuits.attribution.sweep import BLOCK_WEIGHTS, block_positions
from circuits.features.active import ActiveFeatures
from circuits.features.top_tokens import LABELS_PER_LAYER
from circuits.machine.cores import workers_for
from circuits.machine.memory import free_bytes, held_bytes
from circuits.model.covectors import Covectors
from circuits.model.frozen import FrozenModel
from circuits.recording.record import Recording

# Fitted to benchmarks/results/estimates.md; efficiencies are of the matrix product's rate.
SWEEP_EFFICIENCY, LABEL_EFFICIENCY = 0.65, 0.7
SECONDS_PER_EDGE = 4e-8  # choosing rows, checking them and making the matrix
SECONDS_PER_STEP = 5e-4  # of a block through a layer, however small
SECONDS_PER_LAYER = 2.5e-3  # gathering sources
SECONDS_PER_LABEL = 2.5e-4  # spelling
KEPT_OF_VISIBLE = 0.85  # of the sources that a row sees, at the default share
THINNING = 5  # blocks of weights at once while their largest are found


@dataclass(frozen=True)
class Need:
    """Bytes that a trace will add to what the process holds before its first row."""

    host: float
    device: float  # of an accelerator; 0 where the CPU computes


@dataclass(frozen=True)
class Estimate:
    """Cost of one trace."""

    active_features: int
    rows: int
    edges: int  # kept
    flops: float  # of the sweep
    gflops_per_second: float  # of this machine's matrix product
    seconds: float  # of the whole trace, the model being loaded
    peak_bytes: int  # held by this process while it traces, the model included
    free_bytes: int  # what it could hold, on this machine now
    device_bytes: int = 0  # of an accelerator, beyond what the model takes


def estimate(
    frozen: FrozenModel,
    recording: Recording,
    features: ActiveFeatures,
    expansion: Expansion,
    targets: Covectors,
    labels: int = 0,
    before: float = 0.0,
) -> Estimate:
    """Rows, FLOPs, seconds and peak memory of expanding these features for these targets.

    `before` is how many seconds recording and finding the features took.
    """
    plan = Plan(frozen, recording, features, expansion, targets)
    n_layers, costs, floor = frozen.n_layers, plan.costs, plan.floor
    flops = costs.of_rows(plan.rows, floor) + costs.of_pushing(floor)
    rate = matrix_product_rate(frozen.dtype, frozen.device)
    # Some features of every layer are labelled whatever their influence.
    labelled = min(labels + n_layers * LABELS_PER_LAYER / 2, len(features)) if labels else 0
    seconds = (
        1.5 * before  # it is done again, and the checks replay the prompt
        + flops / (SWEEP_EFFICIENCY * rate)
        + plan.blocks * (n_layers - floor) * SECONDS_PER_STEP
        + n_layers * SECONDS_PER_LAYER
        + plan.edges * SECONDS_PER_EDGE
        + labelled * 2 * frozen.unembedding.numel() / (LABEL_EFFICIENCY * rate)
        + labelled * SECONDS_PER_LABEL
    )
    need, held = plan.need(), held_bytes()
    return Estimate(
        active_features=features.found,
        rows=plan.limit + len(targets.pos),
        edges=int(plan.edges),
        flops=flops,
        gflops_per_second=rate / 1e9,
        seconds=seconds,
        peak_bytes=int(held + need.host),
        free_bytes=held + free_bytes(),
        device_bytes=int(need.device),
    )


class Plan:
    """How a trace will go, as far as one forward pass tells."""

    def __init__(
        self,
        frozen: FrozenModel,
        recording: Recording,
        features: ActiveFeatures,
        expansion: Expansion,
        targets: Covectors,
        known: Plan | None = None,
    ) -> None:
        self.frozen, self.recording, self.features = frozen, recording, features
        self.expansion, self.targets = expansion, targets
        self.limit = expansion.limit(len(features))
        self.costs = known.costs if known else Costs(frozen, recording, features)
        self.order = known.order if known else None  # features, those first that get rows first
        self.rows = self._rows()
        self.floor = self.costs.best_floor(self.rows)
        kept = 1.0 if expansion.kept_share >= 1 else KEPT_OF_VISIBLE
        self.edges = self.costs.visible(self.rows) * kept
        positions = self.costs.positions(self.rows)
        workers = workers_for(frozen.device)
        self.block_positions = block_positions(int(positions), workers)
        self.blocks = max(positions / self.block_positions, self.costs.n_pos)
        rows = float(self.rows.sum())
        columns = len(features) + frozen.n_layers * self.costs.n_pos
        self.block_weights = min(BLOCK_WEIGHTS, columns * rows / max(1.0, self.blocks))

    def lowered(self, limit: int) -> Plan:
        """The same with so many features expanded at most."""
        expansion = replace(self.expansion, everything=False, max_features=limit)
        parts = (self.frozen, self.recording, self.features, expansion, self.targets)
        return Plan(*parts, known=self)

    def _rows(self) -> Float[Tensor, "layer pos"]:
        """How many rows there will be by layer and swept position."""
        features, targets = self.features, self.targets
        rows = self.costs.table(targets.layer, targets.pos)
        if self.limit == len(features):
            return rows + self.costs.features
        if self.order is None:
            parts = (self.frozen, self.recording, features, targets)
            self.order = likely_influence(*parts).argsort(descending=True, stable=True)
        first = self.order[: self.limit]
        return rows + self.costs.table(features.layer[first], features.pos[first])

    def need(self) -> Need:
        """Memory of all that is still to be made."""
        frozen, features, n = self.frozen, self.features, len(self.recording.prompt)
        vectors = 0
        for layer in range(frozen.n_layers):
            writing = (features.layer <= layer) & (features.last_written >= layer)
            vectors += slots(torch.bincount(features.pos[writing], minlength=n) + 1)
        constants = 3 * frozen.n_layers * n
        block = frozen.blocks[0]
        matrices = self.costs.skips * frozen.d_model**2  # with norms folded in
        if len(block.value) > block.d_head:  # W_O of several kv heads is laid out by head
            matrices += block.output.numel()
        patterns = sum(block.pattern.numel() for block in self.recording.blocks)
        in_work = THINNING * self.block_weights + 3 * self.block_positions * frozen.d_model
        numbers = (
            (vectors + constants + self.costs.pushed(self.floor)) * frozen.d_model
            + patterns
            + frozen.n_layers * matrices
            + workers_for(frozen.device) * in_work
        )
        swept = frozen.unembedding.element_size() * numbers
        edge = (8 if frozen.dtype == torch.float64 else 4) + 4  # a weight and its column
        edges = 2 * edge * self.edges  # rows, and the matrix that is made of them
        on_cpu = frozen.device.type == "cpu"
        return Need(host=edges + swept * on_cpu, device=swept * (not on_cpu))


def matrix_product_rate(dtype: torch.dtype, device: torch.device, seconds: float = 0.1) -> float:
    """FLOPs per second of a 2048 × 1024 × 1024 matrix product, the best of several."""
    left = torch.randn(2048, 1024, device=device).to(dtype)
    right = torch.randn(1024, 1024, device=device).to(dtype)
    best, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end or best == float("inf"):
        start = time.perf_counter()
        product = left @ right
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - start)
        del product
    return 2 * 2048 * 1024 * 1024 / best

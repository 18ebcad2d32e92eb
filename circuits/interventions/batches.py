"""Which interventions run in one pass: as many copies of the prompt as memory holds.

On the CPU few copies are as fast as many, since a pass of them fills its caches.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from circuits.attribution.cost import free_for_blocks
from circuits.machine import is_accelerator
from circuits.model.frozen import FrozenModel
from graphs.interventions.changes import Intervention

POSITIONS = 4096  # copies × positions of a pass, on the CPU
CHANGES = 2**20  # of all copies
SHARE = 0.25  # of an accelerator's free memory


def most_copies(frozen: FrozenModel, length: int, n_nodes: int) -> int:
    """The largest number of copies of a prompt of this length that run in one pass."""
    if not is_accelerator(frozen.device):
        return max(1, POSITIONS // length)
    block = frozen.blocks[0]
    widest = max(p.numel() for p in block.modules.mlp.parameters()) // frozen.d_model
    # Residuals and what is added to them, the MLP's branches, patterns; logits, and changes.
    at_position = 8 * frozen.d_model + 3 * widest + 3 * block.n_heads * length
    numbers = length * at_position + 2 * len(frozen.unembedding) + 2 * n_nodes
    needed = numbers * frozen.unembedding.element_size()
    return max(1, int(SHARE * free_for_blocks(frozen) / needed))


def batches(interventions: Sequence[Intervention], most: int) -> Iterator[slice]:
    """Rows that run in one pass, at most so many."""
    start, changes = 0, 0
    for row, one in enumerate(interventions):
        changes += len(one.changes)
        if row > start and (row - start == most or changes > CHANGES):
            yield slice(start, row)
            start, changes = row, len(one.changes)
    if interventions:
        yield slice(start, len(interventions))

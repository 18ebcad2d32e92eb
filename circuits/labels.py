"""What a feature says: the tokens whose logits its decoder raises most, by the direct path.

    raised = W_U · gain · (what the feature adds to the residual, over all written layers)

The final norm's denominator scales all logits alike, so it does not change the order; a neuron
with a negative activation writes its decoder backwards, and is labelled by what it then raises.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor, nn

from circuits.features import ActiveFeatures
from circuits.frozen import FrozenModel

ROWS_AT_ONCE = 64  # logits of so many features are held at a time
CHUNK = 512  # vocabulary entries that are looked at together


def output_tokens(
    frozen: FrozenModel,
    features: ActiveFeatures,
    chosen: Int[ndarray, " chosen"],
    spell: Callable[[int], str],
    count: int = 5,
) -> list[tuple[str, ...]]:
    """The `count` tokens that each chosen feature raises most."""
    rows = torch.from_numpy(chosen).to(features.layer.device)
    vectors = _written(frozen, features, rows)
    directions = frozen.final_norm.centre(vectors) * frozen.final_norm.gain
    # One position's label serves the others: only the sign of the activation changes it.
    keys = torch.stack(
        [features.layer[rows], features.index[rows], (features.activation[rows] > 0).long()]
    )
    unique, inverse = keys.unique(dim=1, return_inverse=True)
    order = torch.arange(len(rows), device=rows.device)
    first = torch.full_like(unique[0], len(rows)).scatter_reduce_(0, inverse, order, "amin")
    spelled: list[tuple[str, ...]] = []
    for start in range(0, len(first), ROWS_AT_ONCE):
        raised = directions[first[start : start + ROWS_AT_ONCE]] @ frozen.unembedding.T
        top = _largest(raised, min(count, raised.shape[1]))
        spelled += [tuple(spell(token) for token in row) for row in top.tolist()]
    return [spelled[i] for i in inverse.tolist()]


def _largest(raised: Float[Tensor, "row d_vocab"], count: int) -> Int[Tensor, "row count"]:
    """Indices of the largest entries, largest first.

    The largest lie in the chunks with the largest maxima, so only those are sorted: of 262,144
    logits that is ten times as fast as topk.
    """
    n_rows, size = raised.shape
    padded = nn.functional.pad(raised, (0, -size % CHUNK), value=-torch.inf)
    chunks = padded.view(n_rows, -1, CHUNK)
    best = chunks.amax(2).topk(min(count, chunks.shape[1]), dim=1).indices
    within = chunks.gather(1, best[:, :, None].expand(-1, -1, CHUNK)).flatten(1)
    top = within.topk(count, dim=1).indices
    return best.gather(1, top // CHUNK) * CHUNK + top % CHUNK


def _written(frozen: FrozenModel, features: ActiveFeatures, rows: Int[Tensor, " chosen"]) -> Tensor:
    """Sum over written layers of what each feature adds to the residual."""
    total = frozen.unembedding.new_zeros(len(rows), frozen.d_model)
    first, last = features.layer[rows], features.last_written[rows]
    for layer in range(frozen.n_layers):
        here = ((first <= layer) & (last >= layer)).nonzero()[:, 0]
        if len(here):
            total[here] += features.rows.decoder(layer, rows[here])
    return total

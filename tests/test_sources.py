"""Sources in tiles: read off as they are, and mostly not padding."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from circuits.attribution.sources import MOST_PADDING, pack_tiles, slots
from tests.tolerances import EXACT

SHAPES = {
    "even": [3] * 40,
    "one position with much": [1] * 300 + [200],
    "a long prompt, few features": [1] * 900 + [2, 4, 1, 90, 1],
    "empty positions": [0] * 50 + [1, 0, 7],
    "one source": [1],
}


@pytest.mark.parametrize("name", sorted(SHAPES))
def test_tiles_are_read_as_their_sources_and_have_little_padding(name: str):
    counts = torch.tensor(SHAPES[name])
    generator = torch.Generator().manual_seed(3)
    pos = torch.repeat_interleave(torch.arange(len(counts)), counts)
    shuffled = torch.randperm(len(pos), generator=generator)
    vectors = torch.randn(len(pos), 5, generator=generator, dtype=torch.float64)
    covector = torch.randn(2, len(counts), 5, generator=generator, dtype=torch.float64)
    tiles = pack_tiles(pos[shuffled], vectors, torch.arange(len(pos)))
    rows = torch.zeros(2, len(pos), dtype=torch.float64)
    tiles.read(covector, rows)
    expected = [
        [
            float(covector[row, at] @ vector)
            for at, vector in zip(pos[shuffled], vectors, strict=True)
        ]
        for row in range(2)
    ]
    np.testing.assert_allclose(rows.numpy(), expected, **EXACT)
    held = tiles.vectors.shape[0] * tiles.vectors.shape[1]
    assert held == slots(counts)
    assert len(pos) <= held <= MOST_PADDING * len(pos)

"""Sources in tiles: read off as they are, and mostly not padding."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from circuits.attribution.sources import pack_tiles
from circuits.features.hook_points import MOST_PADDING, slots
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
    counts = np.array(SHAPES[name])
    generator = torch.Generator().manual_seed(3)
    pos = np.repeat(np.arange(len(counts)), counts)
    shuffled = torch.randperm(len(pos), generator=generator).numpy()
    vectors = torch.randn(len(pos), 5, generator=generator, dtype=torch.float64)
    covector = torch.randn(2, len(counts), 5, generator=generator, dtype=torch.float64)
    n_sources, bias = len(pos) - len(pos) // 3, len(pos)  # the last third are constants
    tiles = pack_tiles(pos[shuffled], vectors, np.arange(n_sources), bias, len(counts))
    rows = torch.zeros(2, len(pos) + 1, dtype=torch.float64)
    tiles.read(covector, rows)
    expected = [
        [
            float(covector[row, at] @ vector)
            for at, vector in zip(pos[shuffled], vectors, strict=True)
        ]
        for row in range(2)
    ]
    expected = np.array(expected)
    np.testing.assert_allclose(rows[:, :n_sources].numpy(), expected[:, :n_sources], **EXACT)
    assert not rows[:, n_sources:bias].any()
    of_constants = expected[:, n_sources:].sum(1)
    np.testing.assert_allclose(rows[:, bias].numpy(), of_constants, **EXACT)
    held = tiles.vectors.shape[0] * tiles.vectors.shape[1]
    assert held == slots(counts)
    assert len(pos) <= held <= MOST_PADDING * len(pos)

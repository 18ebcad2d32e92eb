"""The shortest prefix, against sorting everything."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphs.analysis.leading import leading


def plainly(scores: np.ndarray, threshold: float) -> np.ndarray:
    order = np.argsort(-scores, kind="stable")
    kept, reached = np.zeros(len(scores), dtype=bool), 0.0
    for score in order:
        if scores[score] == 0 or (threshold < 1 and reached >= threshold * scores.sum()):
            break
        kept[score] = True
        reached += scores[score]
    return kept


# Whole numbers, of which sums are exact, and many of them equal.
scores = st.lists(st.integers(0, 40) | st.integers(0, 2**40), max_size=60)


@given(scores, st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]), st.integers(0, 60))
def test_it_is_what_sorting_finds(values: list[int], threshold: float, cut: int):
    numbers = np.array(values, dtype=np.float64)
    parts = [part for part in (numbers[:cut], numbers[cut:]) if len(part)]
    found = leading(lambda: parts, threshold)
    assert found.tolist() == plainly(numbers, threshold).tolist()


def test_no_parts_have_no_leaders():
    assert leading(lambda: iter([]), 0.5).tolist() == []


@pytest.mark.parametrize("scale", [1e-300, 1.0, 1e300])
def test_any_size_of_scores(scale: float):
    scores = np.array([3.0, 1.0, 2.0, 4.0]) * scale
    assert leading(lambda: [scores], 0.7).tolist() == [True, False, False, True]
    assert leading(lambda: [scores], 0.71).tolist() == [True, False, True, True]

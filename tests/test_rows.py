from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from circuits.attribution.rows import SparseRows, largest, thin

NO_FEATURES = np.empty(0, dtype=np.int64)
blocks = arrays(np.float64, (3, 17), elements=st.floats(-10, 10, allow_subnormal=False))


@given(block=blocks, share=st.floats(0.0, 1.0), run=st.sampled_from([1, 3, 17, 64]))
def test_the_kept_share_is_reached_with_the_fewest_entries(block, share, run):
    sizes = np.abs(block)
    totals = sizes.sum(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("circuits.attribution.rows.RUN", run)
        kept = largest(sizes, totals, share)
    for row in range(len(block)):
        held = np.sort(sizes[row][kept[row]])
        assert held.sum() >= share * totals[row] * (1 - 1e-12)
        if len(held) and share < 1:
            smallest = held[0]
            without = sizes[row][sizes[row] > smallest].sum()
            assert without <= share * totals[row] * (1 + 1e-12)


@given(block=blocks, share=st.floats(0.0, 1.0))
def test_sums_close_whatever_is_kept(block, share):
    rows = SparseRows(20, share, NO_FEATURES)
    rows.add([17, 18, 19], thin(block, share), block.sum(1))
    kept = rows.matrix().toarray()[17:].sum(1)
    np.testing.assert_allclose(kept + rows.dropped()[17:], block.sum(1), atol=1e-9)
    sizes = np.abs(rows.matrix().toarray()[17:]).sum(1) + rows.dropped_absolute()[17:]
    np.testing.assert_allclose(sizes, np.abs(block).sum(1), atol=1e-9)


def test_residuals_are_relative_to_the_absolute_sum():
    rows = SparseRows(4, 1.0, NO_FEATURES)
    rows.add([2, 3], thin(np.array([[3.0, -1.0], [0.0, 0.0]]), 1.0), np.array([2.0, 0.5]))
    assert rows.residuals == [0.0, 0.5]
    rows.add([1], thin(np.array([[3.0]]), 1.0), np.array([4.5]))
    assert rows.residuals[2] == pytest.approx(0.5)


def test_rows_may_come_in_any_order():
    forward, backward = (SparseRows(4, 1.0, NO_FEATURES) for _ in range(2))
    block = np.array([[1.0, 2.0], [3.0, 4.0]])
    forward.add([2, 3], thin(block, 1.0), block.sum(1))
    backward.add([3, 2], thin(block[::-1], 1.0), block[::-1].sum(1))
    np.testing.assert_array_equal(forward.matrix().toarray(), backward.matrix().toarray())
    np.testing.assert_array_equal(forward.expanded(), [False, False, True, True])


@pytest.mark.parametrize("run", [1, 2, 64])
def test_what_fits_the_budget_exactly_is_dropped(run: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("circuits.attribution.rows.RUN", run)
    kept = largest(np.array([[1.0, 3.0]]), np.array([4.0]), 0.75)
    assert kept.tolist() == [[False, True]]

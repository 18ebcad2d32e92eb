from __future__ import annotations

import pytest
from pydantic import ValidationError

from graphs import Checks, ModelIdentity


def test_a_model_has_no_more_layers_than_can_be_counted():
    assert ModelIdentity(name="m", architecture="a", n_layers=10_000).n_layers == 10_000
    with pytest.raises(ValidationError, match="less than or equal to 10000"):
        ModelIdentity(name="m", architecture="a", n_layers=10**9)


def test_a_row_that_does_not_conserve_is_told_by_how_much():
    checks = Checks(conservation_max=1.0, conservation_limit=0.5)
    assert "1.0e+00 of its absolute sum, the limit is 5e-01" in checks.failures[0]


def test_a_replay_that_differs_is_told_by_how_much():
    checks = Checks(conservation_max=0.1, replay_max_difference=0.9, conservation_limit=0.5)
    assert len(checks.failures) == 1
    assert "own by 9.0e-01 of the largest, the limit is 5e-01" in checks.failures[0]


def test_a_recording_that_differs_is_told_by_how_much_whatever_else_is_known():
    (failure,) = Checks(recording_max_difference=0.9, recording_limit=0.5).failures
    assert "alone by 9.0e-01 of the largest, the limit is 5e-01" in failure


def test_checks_within_the_limit_or_without_one_do_not_fail():
    within = Checks(conservation_max=0.1, replay_max_difference=0.1, conservation_limit=0.5)
    assert within.failures == ()
    assert Checks(conservation_max=9.0, replay_max_difference=9.0).failures == ()
    assert Checks(recording_max_difference=0.1, recording_limit=0.1).failures == ()

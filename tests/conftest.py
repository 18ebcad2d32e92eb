"""Fixtures: a tiny subject per architecture, made once."""

from __future__ import annotations

from functools import cache

import pytest

from circuits.subject import Subject
from tests.tiny import ARCHITECTURES, tiny_subject

cached_subject = cache(tiny_subject)


@pytest.fixture(params=sorted(ARCHITECTURES))
def subject(request: pytest.FixtureRequest) -> Subject:
    """A tiny random float64 model of every supported architecture in turn."""
    return cached_subject(request.param)


@pytest.fixture
def gemma() -> Subject:
    """A tiny Gemma 3, where one architecture is enough."""
    return cached_subject("gemma-3")

"""Every command with values of all kinds ends as it must (`tests.hostile`).

HEADWATER_HOSTILE=10000 runs as many.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hostile import draw, ended, forget, tamed
from tests.hostile_files import World, make_world
from tests.test_cli import run

COUNT = int(os.environ.get("HEADWATER_HOSTILE", "500"))
AT_ONCE = 50


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    made = make_world(tmp_path_factory.mktemp("world"), run)
    with tamed(made):
        yield made


@pytest.mark.parametrize("first", range(0, COUNT, AT_ONCE))
def test_every_command_ends_as_it_must(world: World, tmp_path: Path, first: int):
    for number in range(first, min(first + AT_ONCE, COUNT)):
        drawn = draw(number, world, tmp_path)
        try:
            ended(drawn, world)
        except BaseException as error:
            raise AssertionError(f"{number}: {drawn}") from error
        forget(drawn)

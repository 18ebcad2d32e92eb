"""Everything that is raised on purpose is one kind of error, and a ValueError too."""

from __future__ import annotations

import inspect
import pkgutil
from importlib import import_module

import pytest

import circuits
import graphs
import headwater
import viz

INSIDE = {"Cancelled", "Refused", "Enough"}  # caught inside


def classes() -> list[type[BaseException]]:
    found: dict[str, type[BaseException]] = {}
    for package in (headwater, circuits, graphs, viz):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if module.name.endswith("__main__"):
                continue
            for _, one in inspect.getmembers(import_module(module.name), inspect.isclass):
                if issubclass(one, BaseException) and one.__module__ == module.name:
                    found[one.__qualname__] = one
    return list(found.values())


def test_whatever_is_raised_on_purpose_is_a_headwater_error():
    own = [one for one in classes() if one.__name__ not in INSIDE]
    assert len(own) > 20
    assert [one for one in own if not issubclass(one, graphs.HeadwaterError)] == []
    assert issubclass(graphs.HeadwaterError, ValueError)


@pytest.mark.parametrize("package", [circuits, graphs, headwater])
def test_it_is_exported(package: object):
    assert package.HeadwaterError is graphs.HeadwaterError

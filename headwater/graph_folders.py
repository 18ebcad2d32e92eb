"""Comparing folders of graphs, prompt by prompt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from rich.console import RenderableType

import graphs
import viz
from circuits.graph_files.opened import SUFFIXES
from graphs.comparison.many_prompts import known_mean
from graphs.core.annotations import ANNOTATIONS_SUFFIX
from graphs.core.identity import same_dictionary
from headwater.arguments.usage import UsageError
from headwater.comparing import is_unlike, refuse_profiles
from headwater.opened import open_graph
from headwater.terminal.printing import remark

NAMED = 3  # files that a message names
INDEX = "graph-metadata.json"  # circuit-tracer lists its graphs in it


def compare_folders(
    first: Path,
    second: Path,
    settings: graphs.CorrespondSettings,
    profiles: tuple[graphs.Profile, graphs.Profile] | None,
    shuffles: int,
    html: Path | None,
) -> tuple[dict[str, Any], RenderableType]:
    """Scores over all prompts, as JSON and as a table; the page goes to `html`.

    Raises UsageError for folders without graphs of the same name, or too few to shuffle.
    """
    files = _files(first), _files(second)
    names = sorted(files[0].keys() & files[1].keys())
    if not names:
        raise UsageError(
            f"No graph in {first} has the same name as one in {second}: give the graphs of a "
            "prompt the same name in both folders."
        )
    if shuffles and len(names) < 2:
        raise UsageError("Shuffling prompts needs at least two: give --permutations 0.")
    alone = sorted(files[0].keys() ^ files[1].keys())
    if alone:
        shown = ", ".join(alone[:NAMED]) + (", …" if len(alone) > NAMED else "")
        remark(f"Left out, since only one folder has them: {shown}.")
    one, other = ([open_graph(side[name]).graph for name in names] for side in files)
    for side, folder in ((one, first), (other, second)):
        _refuse_many_dictionaries(side, names, folder)
    if same_dictionary(one[0], other[0]):
        refuse_profiles(profiles)
    unlike = [n for n, *pair in zip(names, one, other, strict=True) if is_unlike(*pair)]
    if unlike:
        remark(
            f"Of {len(unlike)} of {len(names)} pairs, such as {unlike[0]}, one graph is pruned and "
            "the other is not: what was pruned counts as missing, so prune both alike."
        )
    found = graphs.compare_prompt_sets(one, other, settings, profiles, shuffles)
    if html is not None:
        viz.write_prompts(one, other, found, html)
    numbers = {
        "prompts": names,
        "scores": {
            name: score_numbers(score)
            | {"interval": list(map(finite, graphs.interval(found.per_prompt[name])))}
            for name, score in found.scores.items()
        },
        "traits": {
            name: {
                "mean": [finite(known_mean(side)) for side in values.T],
                "difference": list(map(finite, graphs.interval(values[:, 1] - values[:, 0]))),
            }
            for name, values in found.traits.items()
        },
        "each": {
            name: list(map(finite, values.tolist())) for name, values in found.per_prompt.items()
        },
    }
    return numbers, viz.prompts_text(one, other, names, found)


def score_numbers(score: graphs.Score) -> dict[str, Any]:
    """A score as JSON."""
    return {
        "value": finite(score.value),
        "null": list(map(finite, score.known_null)),
        "chance": finite(score.p_value),
    }


def finite(value: Any) -> Any:
    """The value, None for nan, which JSON lacks."""
    return None if isinstance(value, float) and np.isnan(value) else value


def _files(folder: Path) -> dict[str, Path]:
    """Graph files by name.  Raises UsageError if it is not a folder or has none."""
    if not folder.is_dir():
        raise UsageError(f"{folder} is not a folder: compare two graphs or two folders of graphs.")
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        index = path.name == INDEX or path.name.endswith(ANNOTATIONS_SUFFIX)
        suffix = next((suffix for suffix in SUFFIXES if path.name.endswith(suffix)), None)
        if suffix is None or index:
            continue
        name = path.name.removesuffix(suffix)
        if name in found:
            raise UsageError(
                f"{found[name]} and {path} are both graphs of {name}: keep one of them."
            )
        found[name] = path
    if not found:
        raise UsageError(f"{folder} has no graphs: expected {', '.join(SUFFIXES)}.")
    return found


def _refuse_many_dictionaries(
    side: list[graphs.AttributionGraph], names: list[str], folder: Path
) -> None:
    for name, graph in zip(names, side, strict=True):
        if not same_dictionary(side[0], graph):
            raise UsageError(
                f"{folder} has graphs of several models or dictionaries, as {names[0]} and {name}: "
                "give each a folder of its own."
            )

"""Annotations: pins, labels and groups that people add to a graph, in a file beside it.

The annotations of `dallas.safetensors` are in `dallas.annotations.json`:

    {"schema_version": 1,
     "pins": ["feature:3/77@4", …],                          nodes pinned to the user's subgraph
     "labels": {"feature:3/77@4": "Texas", "3/78": "state"},  of a node, or of a feature anywhere
     "groups": [{"name": "Texas", "members": ["feature:3/77@4", …], "automatic": false}, …],
     "places": {"Texas": [310.0, 42.0]},         of groups and nodes in the subgraph, pixels
     "hidden": ["feature:0/5@2", …],                             nodes that the page hides
     "digest": "1f0c27b94d8e6a35"}                        of the graph they were made of

Nodes have their names of `graphs.core.nodes`.  They need not be in the graph, so the same
annotations fit a pruned graph and the full one.  A node is in one group at most.  Graphs of one
model, dictionary and prompt have the same digest; annotations without one may be of any graph.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import numpy as np
from jaxtyping import Int
from numpy import ndarray
from pydantic import Field, ValidationError, model_validator
from pydantic_core import from_json, to_json

from graphs.core.graph import AttributionGraph
from graphs.core.nodes import NodeName
from graphs.core.records import Record
from graphs.disk.files import GraphFileError, atomic_write, first_problem, json_text, refuse_newer

ANNOTATIONS_SUFFIX = ".annotations.json"
SCHEMA = 1


Place = Annotated[float, Field(allow_inf_nan=False)]


class Group(Record):
    """A supernode: nodes that are read as one."""

    name: str = Field(min_length=1)
    members: tuple[NodeName, ...]
    automatic: bool = False  # found by a program; a user's group may take its members


class Annotations(Record):
    """Pins, labels, groups, places and hidden nodes.

    Raises ValidationError for two groups with the same name or a node in common.
    """

    schema_version: Literal[1] = SCHEMA
    pins: tuple[NodeName, ...] = ()
    labels: dict[str, str] = Field(default_factory=dict[str, str])
    groups: tuple[Group, ...] = ()
    places: dict[str, tuple[Place, Place]] = Field(default_factory=dict[str, tuple[Place, Place]])
    hidden: tuple[NodeName, ...] = ()
    digest: str | None = None

    @model_validator(mode="after")
    def _once(self) -> Annotations:
        names = Counter(group.name for group in self.groups)
        members = Counter(member for group in self.groups for member in group.members)
        for what, counts in (
            ("several groups are called", names),
            ("several groups contain", members),
        ):
            twice = [name for name, count in counts.items() if count > 1]
            if twice:
                raise ValueError(f"{what} {twice[0]!r}")
        return self

    def with_automatic(self, groups: tuple[Group, ...]) -> Annotations:
        """A copy with these automatic groups, without members of the user's own groups.

        A group of which one member is left is none, unless it never had more.
        """
        own = tuple(group for group in self.groups if not group.automatic)
        taken = {member for group in own for member in group.members}
        names = FreeNames(group.name for group in own)
        left: list[Group] = []
        for group in groups:
            members = tuple(member for member in group.members if member not in taken)
            if len(members) > 1 or members == group.members:
                name = names.take(group.name)
                left.append(Group(name=name, members=members, automatic=True))
        return self.model_copy(update={"groups": (*own, *left)})

    def made_of(self, graph: AttributionGraph) -> Annotations:
        """A copy with this graph's digest, unless they have one already."""
        return self if self.digest else self.model_copy(update={"digest": graph_digest(graph)})

    def names(self) -> set[str]:
        """Nodes and features, as LAYER/INDEX, that these annotations are about."""
        members = (member for group in self.groups for member in group.members)
        return {*self.pins, *self.labels, *members, *self.hidden}

    def rows(self, graph: AttributionGraph) -> dict[str, Int[ndarray, " _member"]]:
        """Rows of each group's members in a graph; groups without members there are left out."""
        place = {str(node): row for row, node in enumerate(graph.nodes)}
        found = {
            group.name: np.array(
                sorted(place[member] for member in group.members if member in place), dtype=np.int64
            )
            for group in self.groups
        }
        return {name: rows for name, rows in found.items() if len(rows)}

    def group_names(self, graph: AttributionGraph) -> dict[int, str]:
        """Name of the group of each grouped row of a graph."""
        return {row: name for name, rows in self.rows(graph).items() for row in rows.tolist()}

    def label(self, graph: AttributionGraph, row: int) -> str | None:
        """The user's label of a node or its feature, if there is one."""
        node = graph.nodes[row]
        return self.labels.get(str(node), self.labels.get(f"{node.layer}/{node.index}"))


NO_ANNOTATIONS = Annotations()


def same_entries(one: Annotations, other: Annotations) -> bool:
    """Whether two annotations say the same, whatever graphs they were made of."""
    return one.model_copy(update={"digest": other.digest}) == other


def graph_digest(graph: AttributionGraph) -> str:
    """Digest that is equal for graphs whose annotations are interchangeable."""
    header = graph.provenance
    parts = (header.model.name, header.dictionary.name, header.token_ids, header.tokens)
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def of_another_graph(annotations: Annotations, graph: AttributionGraph, file: Path) -> str | None:
    """One sentence about the annotations in a file if they were made of another graph, or None.

    Raises GraphFileError if none of the nodes and features in them is in this graph.
    """
    if annotations.digest in (None, graph_digest(graph)):
        return None
    names = annotations.names()
    known = {str(node) for node in graph.nodes}
    known |= {f"{node.layer}/{node.index}" for node in graph.nodes if node.index is not None}
    missing = len(names - known)
    if names and missing == len(names):
        raise GraphFileError(
            f"{file} was made of another graph, and none of the nodes and features in it "
            f"({missing:,}) is in this one: move it beside its own graph."
        )
    return (
        f"{file.name} was made of another graph; of the {len(names):,} nodes and features in it, "
        f"{missing:,} are not in this one."
    )


def annotations_path(graph: Path | str) -> Path:
    """The path of the annotations of a graph file.

    >>> annotations_path("runs/dallas.safetensors").name
    'dallas.annotations.json'
    >>> annotations_path("runs/dallas.json.gz").name
    'dallas.annotations.json'
    """
    path = Path(str(graph).removesuffix(".gz"))
    # A path without a name has none.
    return path.with_name(path.stem + ANNOTATIONS_SUFFIX) if path.name else path


def read_annotations(path: Path | str) -> Annotations:
    """The annotations in a file.  Raises GraphFileError if it is missing or damaged."""
    text = json_text(path)
    try:
        raw: Any = from_json(text, allow_inf_nan=False)
        if isinstance(raw, dict):
            refuse_newer(path, cast(dict[str, Any], raw).get("schema_version"), SCHEMA)
        return Annotations.model_validate(raw)
    except ValidationError as error:
        raise GraphFileError(
            f"{path} does not hold annotations: {first_problem(error)}."
        ) from error
    except GraphFileError:
        raise
    except ValueError as error:
        raise GraphFileError(f"{path} is not JSON: {error}.") from error


def write_annotations(annotations: Annotations, path: Path | str) -> None:
    """Write annotations atomically.  Raises GraphFileError if that fails."""
    with atomic_write(path) as temporary:
        temporary.write_bytes(to_json(annotations, indent=1) + b"\n")


class FreeNames:
    """Gives out unique names, numbering those that are taken."""

    def __init__(self, taken: Iterable[str] = ()) -> None:
        self._taken = set(taken)
        self._numbers: Counter[str] = Counter()  # last number of each name

    def take(self, name: str) -> str:
        """The name, or the first of `name (2)`, `name (3)`, … that is free."""
        free = name
        while free in self._taken:
            self._numbers[name] = max(self._numbers[name], 1) + 1
            free = f"{name} ({self._numbers[name]})"
        self._taken.add(free)
        return free

"""A graph, with what one does with it."""

from __future__ import annotations

import sys
import tempfile
import warnings
import webbrowser
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

import graphs
import viz
from graphs.analysis.flow import Ends, inputs_to_targets
from graphs.analysis.paths import Paths as FoundPaths
from graphs.core.graph import AttributionGraph
from graphs.core.nodes import TARGET_KINDS
from graphs.formats.neuronpedia.names import own_spelling
from graphs.groups.overview import GROUPS
from graphs.naming.names import Names
from headwater.errors import ArgumentError
from headwater.opened import graph_in
from headwater.outputs.formats import write_as
from headwater.printed import Printed, printed
from viz.text.words import one_line, percent

LISTED = 20  # nodes in a representation


@dataclass(frozen=True)
class Node:
    """One node of a graph."""

    name: str  # as in feature:12/345@7
    label: str  # the user's, or by `graphs.naming`; may be empty
    token: str  # at its position; empty for biases
    activation: float | None  # of features
    value: float | None  # what its incoming weights sum to, where known
    influence: float  # share of the targets' influence that passes through it
    sources: tuple[tuple[str, float], ...]  # its strongest incoming edges: node and weight
    heads: tuple[tuple[int, int, float], ...] = ()  # that write most into it: layer, head and part

    def __repr__(self) -> str:
        lines = [" ".join(filter(None, (self.name, one_line(self.label), self._at())))]
        numbers = [f"influence {percent(self.influence)}"]
        if self.activation is not None:
            numbers.append(f"activation {self.activation:.3g}")
        if self.value is not None:
            numbers.append(f"value {self.value:.3g}")
        lines.append(", ".join(numbers))
        if self.sources:
            lines.append("from " + ", ".join(f"{name} {w:+.3g}" for name, w in self.sources))
        if self.heads:
            named = (f"{layer}.{head} {part:+.3g}" for layer, head, part in self.heads)
            lines.append("heads " + ", ".join(named))
        return "\n  ".join(lines)

    def _at(self) -> str:
        return f"at {_text(self.token)}" if self.token else ""


class Nodes(tuple[Node, ...]):
    """Nodes, shown as a table of the first."""

    __slots__ = ()

    def __repr__(self) -> str:
        rows = [
            (one.name, percent(one.influence), _text(one.token), one_line(one.label))
            for one in self[:LISTED]
        ]
        if not rows:
            return "no nodes"
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            f"{name:<{widths[0]}}  {share:>{widths[1]}}  {token:<{widths[2]}}  {label}".rstrip()
            for name, share, token, label in rows
        ]
        more = len(self) - len(rows)
        return "\n".join([*lines, *([f"and {more:,} more"] if more else [])])


@dataclass(frozen=True, repr=False)
class Paths(Printed, FoundPaths):
    """The strongest paths; `print` shows what `headwater paths` does."""

    graph: Graph

    def __repr__(self) -> str:
        first = viz.describe_path(self.graph, self.listed[0].nodes) if self.listed else "none"
        return (
            f"<{len(self.listed)} paths, {percent(self.flow)} of all influence flows between their "
            f"ends\n  {printed(first)}>"
        )

    def __str__(self) -> str:
        return printed(viz.paths_text(self.graph, self, self.graph.annotations))


@dataclass(frozen=True, repr=False)
class Graph(AttributionGraph):
    """An attribution graph, its annotations, and what one does with both."""

    annotations: graphs.Annotations = graphs.NO_ANNOTATIONS

    @staticmethod
    def of(
        graph: AttributionGraph, annotations: graphs.Annotations = graphs.NO_ANNOTATIONS
    ) -> Graph:
        """The same graph; its parts are consistent already, and are not checked again."""
        made = object.__new__(Graph)
        made.__dict__.update({**graph.__dict__, "annotations": annotations})
        return made

    def __getitem__(self, name: str) -> Node:
        """A node, by its name as in feature:12/345@7, or as in Neuronpedia's 12_345_7.

        Raises SelectionError for a name of no node or of several.
        """
        rows = self.rows(name)
        if len(rows) > 1:
            raise graphs.SelectionError(
                f"{name!r} names {len(rows)} nodes: take one, as in {self.nodes[rows[0]]}, or list "
                "them with nodes_named."
            )
        return self._node(rows[0])

    def nodes_named(self, name: str) -> Nodes:
        """The nodes that a name selects, as in token:Dallas, concept:Texas or layer:12.

        Raises SelectionError if there are none (see `graphs.analysis.select`).
        """
        return Nodes(map(self._node, self.rows(name)))

    def rows(self, name: str) -> list[int]:
        """Rows of the nodes that a name selects, the most influential first."""
        found = np.flatnonzero(self._selected(name))
        return found[np.argsort(-self.influence[found], kind="stable")].tolist()

    def _selected(self, name: str) -> Bool[ndarray, " node"]:
        """The nodes that a name selects, in our spelling or in Neuronpedia's."""
        if not isinstance(name, str):
            raise graphs.SelectionError(
                f"A node is given by its name, as in feature:12/345@7, got {name!r}."
            )
        return graphs.select(self, own_spelling(name, self), self.annotations.rows(self))

    def _any_of(
        self, names: Sequence[str], otherwise: Bool[ndarray, " node"]
    ) -> Bool[ndarray, " node"]:
        return np.logical_or.reduce(list(map(self._selected, names))) if names else otherwise

    def top(self, n: int = 10, kind: str | None = None) -> Nodes:
        """The nodes with most influence, of all kinds but targets or of one, as in "feature"."""
        if isinstance(n, bool) or not isinstance(n, int) or n < 1:
            raise ArgumentError(f"n is a number of nodes, as in top(10, 'feature'), got {n!r}.")
        rows = np.flatnonzero(~self.nodes.is_kind(*TARGET_KINDS))
        if kind is not None:
            rows = np.array(self.rows(kind), dtype=np.int64)
        best = rows[np.argsort(-self.influence[rows], kind="stable")][:n]
        return Nodes(map(self._node, best[self.influence[best] > 0].tolist()))

    @cached_property
    def influence(self) -> Float[ndarray, " node"]:
        """Share of the targets' influence that passes through each node (`graphs.influence`).

        A target has its own share of it.
        """
        return (graphs.influence(self) + self.seed) / (float(self.seed.sum()) or 1.0)

    def paths(
        self,
        start: str | Sequence[str] = (),
        end: str | Sequence[str] = (),
        through: str | Sequence[str] = (),
        k: int = 10,
    ) -> Paths:
        """The k strongest paths between nodes by name, as in token:Dallas and logit:Austin.

        start, end: a name or several; by default all tokens and all targets.
        through: what paths pass through, in the order along the path.

        Raises SelectionError for a name of no node.
        """
        whole = inputs_to_targets(self)
        ends = Ends(
            self._any_of(_names(start), whole.sources),
            self._any_of(_names(end), whole.targets),
            tuple(map(self._selected, _names(through))),
        )
        found = graphs.strongest_paths(self, ends, k)
        return Paths(found.listed, found.flow, self)

    def prune(
        self,
        node_threshold: float = 0.8,
        edge_threshold: float = 0.98,
        keep_errors: bool = False,
        *,
        patterns: bool = False,
    ) -> Graph:
        """The nodes and edges that hold these shares of influence and of edge scores.

        patterns: what makes head nodes look where they look carries influence too.

        Raises ArgumentError for shares that are not from 0 to 1, SelectionError for patterns of a
        graph that was not traced with attention="scores".
        """
        for name, share in (("node", node_threshold), ("edge", edge_threshold)):
            if not isinstance(share, int | float) or not 0 <= share <= 1:
                raise ArgumentError(f"{name}_threshold is a share from 0 to 1, got {share!r}.")
        settings = graphs.PruneSettings(
            node_threshold, edge_threshold, keep_errors, patterns=patterns
        )
        return Graph.of(graphs.prune(self, settings), self.annotations)

    def save(self, path: str | Path) -> Path:
        """Write the graph, in the format of the file's suffix; returns the path.

        .safetensors, with annotations in a file beside it; .html for the page; .json for
        Neuronpedia; .graphml, .gexf, .dot, .parquet.  Raises FormatError for any other suffix, and
        GraphFileError if the file cannot be written.
        """
        path = Path(path)
        write_as(self, path, self.annotations)
        return path

    def show(self, height: int = 760) -> viz.NotebookPage | Path:
        """The page: in a notebook as the cell's value, `height` pixels high; else in a browser.

        Outside a notebook, the path of the page.
        """
        if "ipykernel" in sys.modules:
            return viz.show(self, annotations=self.annotations, height=height)
        with tempfile.NamedTemporaryFile(prefix="headwater-", suffix=".html", delete=False) as file:
            page = Path(file.name)
        webbrowser.open(self.save(page).as_uri())
        return page

    def figure(
        self,
        path: str | Path | None = None,
        width: str = "column",
        at_most: int = GROUPS,
        groups: str | Sequence[str] = (),
    ) -> viz.PaperFigure:
        """A figure for a paper, as `headwater figure` draws it; a notebook shows it.

        path: where it is written, as .svg, .pdf or .png; by default nowhere.
        width: "column" (85 mm) or "page" (174 mm).
        at_most: number of groups, those made by hand included.
        groups: only these, by name.

        Raises FigureError for another suffix or width and for a group that there is not.
        """
        figure = viz.paper_figure(self, self.annotations, width, at_most, _names(groups))
        if path is not None and (remark := figure.write(path)):
            warnings.warn(remark, stacklevel=2)
        return figure

    def nodes_table(self) -> Any:
        """All nodes as a pyarrow table.  Raises GraphFileError if pyarrow is not installed."""
        return graphs.nodes_table(self, self.annotations)

    def edges_table(self) -> Any:
        """All edges as a pyarrow table: source, target, weight.  Raises as `nodes_table`."""
        return graphs.edges_table(self)

    def nodes_frame(self) -> Any:
        """All nodes as a pandas data frame.  Raises GraphFileError if pandas is not installed."""
        return graphs.nodes_frame(self, self.annotations)

    def edges_frame(self) -> Any:
        """All edges as a pandas data frame: source, target, weight.  Raises as `nodes_frame`."""
        return graphs.edges_frame(self)

    def _repr_html_(self) -> str:
        return viz.summary_html(self, self.annotations)

    def _target_text(self, row: int) -> str:
        """What a target is of; empty for other nodes."""
        targets = zip(self.target_rows().tolist(), self.provenance.targets, strict=True)
        return next((f"{target.text!r}" for place, target in targets if place == row), "")

    def _label(self, row: int) -> str:
        if self.nodes.kind[row] == graphs.NodeKind.FEATURE or self.annotations.label(self, row):
            return self._names.label(row)
        return self._target_text(row)

    @cached_property
    def _names(self) -> Names:
        return Names(self, self.annotations)

    def _node(self, row: int, n_sources: int = 3) -> Node:
        pos = int(self.nodes.pos[row])
        start, end = self.weights.indptr[row : row + 2]
        edges = np.argsort(-np.abs(self.weights.data[start:end]), kind="stable")[:n_sources]
        return Node(
            name=str(self.nodes[row]),
            label=self._label(row),
            token=self.token_text(pos) if pos >= 0 else "",
            activation=_known(self.nodes.activation[row]),
            value=_known(self.nodes.value[row]),
            influence=float(self.influence[row]),
            sources=tuple(
                (str(self.nodes[int(source)]), float(weight))
                for source, weight in zip(
                    self.weights.indices[start:end][edges],
                    self.weights.data[start:end][edges],
                    strict=True,
                )
            ),
            heads=() if self.heads is None else tuple(self.heads.strongest(row, n_sources)),
        )


def as_graph(value: object) -> Graph:
    """A graph of the front door, from any graph or the name of its file.

    Raises ArgumentError for anything else, GraphFileError as `read`.
    """
    match value:
        case Graph():
            return value
        case AttributionGraph():
            return Graph.of(value)
        case str() | Path():
            return read(value)
        case _:
            raise ArgumentError(f"Expected a graph or its file, got {type(value).__name__}.")


def _names(given: str | Sequence[str]) -> Sequence[str]:
    return (given,) if isinstance(given, str) else given


def _text(token: str) -> str:
    """A token as Python writes it, which shows spaces and control characters."""
    return repr(token) if token else ""


def _known(number: float) -> float | None:
    return None if np.isnan(number) else float(number)


def read(path: str | Path) -> Graph:
    """A graph from a file of ours, a JSON of another program, or circuit-tracer's .pt.

    Raises GraphFileError for any other file, damaged or missing.
    """
    found = graph_in(Path(path))
    return Graph.of(found.graph, found.annotations)

"""An attribution graph: nodes, sparse direct effects between them, and provenance.

    weights[target, source] = direct effect of source on target, signed, in units of the target

Nodes are in topological order, so weights is strictly lower triangular.  The row of an expanded
node is complete:

    weights[t].sum() + dropped[t] = nodes.value[t]

where `dropped` is the sum of the weights left out to keep the row sparse.  Rows of sources and of
features that were not expanded are empty.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from scipy.sparse import csr_array

from graphs.core.attended import Attended
from graphs.core.brief import brief
from graphs.core.head_totals import HeadTotals
from graphs.core.imported import Imported
from graphs.core.nodes import (
    RESPONSE_KINDS,
    TARGET_KINDS,
    Description,
    NodeId,
    NodeKind,
    NodeTable,
)
from graphs.core.provenance import Measured, Provenance
from graphs.core.report import Report
from graphs.core.responses import Responses
from graphs.core.stability import Stability

EDGES_AT_ONCE = 2**18  # summed at a time: what they need stays in a processor's cache
_FEATURE = re.compile(r"(0|[1-9]\d*)/(0|[1-9]\d*)")


@dataclass(frozen=True, repr=False)
class AttributionGraph:
    """Nodes and direct effects on one prompt.  Raises ValueError if the parts are inconsistent."""

    nodes: NodeTable
    weights: csr_array  # weights[target, source]; columns of a row are sorted and unique
    seed: Float[ndarray, " node"]  # weight of each logit or target node, by default its probability
    dropped: Float[ndarray, " node"]  # signed sum of the weights left out of each row
    dropped_absolute: Float[ndarray, " node"]  # sum of their sizes
    expanded: Bool[ndarray, " node"]  # whether the node's row was computed
    provenance: Provenance
    output_tokens: Mapping[int, tuple[str, ...]] = field(
        default_factory=dict[int, tuple[str, ...]]
    )  # node → tokens that it promotes most
    descriptions: Mapping[str, Description] = field(
        default_factory=dict[str, Description]
    )  # LAYER/INDEX → description of that feature over many prompts
    responses: Responses | None = None  # for predictions of what the graph holds; None: unknown
    heads: HeadTotals | None = None  # what attention heads write into nodes; None: unknown
    attended: Attended | None = None  # heads of edges, and looks; None: not asked for
    # Parts of what makes head nodes look where they look (`circuits.attention.head_nodes`), which
    # are no part of `weights`; None: unknown.
    score_weights: csr_array | None = None
    imported: Imported | None = None  # the JSON that it was read from, while unchanged

    def __post_init__(self) -> None:
        self._check_lengths()
        self._check_nodes()
        if not self.weights.has_canonical_format:
            object.__setattr__(self, "weights", _canonical(self.weights))
        self._check_numbers()
        self._check_scores()
        if self.imported is not None and not self.imported.fits(len(self), self.weights.nnz):
            raise ValueError(
                "The data kept of the imported file does not match the graph's nodes or edges."
            )

    def _check_lengths(self) -> None:
        count = len(self.nodes)
        if self.weights.shape != (count, count):
            raise ValueError(f"weights must be {count} x {count}, got {self.weights.shape}.")
        for name in ("seed", "dropped", "dropped_absolute", "expanded"):
            if len(getattr(self, name)) != count:
                raise ValueError(
                    f"{name} has {len(getattr(self, name))} entries for {count} nodes."
                )
        known = self.responses
        if known is not None and len(known.threshold) != count:
            raise ValueError(f"Responses are of {len(known.threshold)} nodes, of {count}.")
        if any(not 0 <= node < count for node in self.output_tokens):
            raise ValueError(f"output_tokens has a row outside the {count} nodes.")
        wrong = [key for key in self.descriptions if not _FEATURE.fullmatch(key)]
        if wrong:
            raise ValueError(f"Keys of descriptions are LAYER/INDEX, got {wrong[0]!r}.")

    def _check_nodes(self) -> None:
        tokens, ids = len(self.provenance.tokens), len(self.provenance.token_ids)
        if tokens != ids or self.provenance.n_prefix > tokens:
            raise ValueError(
                f"The header has {tokens} tokens, {ids} token ids and "
                f"{self.provenance.n_prefix} prefix positions, which is inconsistent."
            )
        if len(self.provenance.targets) != len(self.target_rows()):
            raise ValueError(
                f"The header names {len(self.provenance.targets)} targets, the nodes have "
                f"{len(self.target_rows())}."
            )
        if any(sink.pos >= tokens for sink in self.provenance.sinks or ()):
            raise ValueError("An attention sink is at a position outside the prompt.")
        for table in (self.nodes, *([] if self.responses is None else [self.responses.nodes])):
            self._check_places(table)
        if self.nodes.has_duplicates():
            raise ValueError("Two nodes have the same id.")
        if np.any(self.nodes.is_kind(*RESPONSE_KINDS)):
            raise ValueError("Norms and gates are no nodes of a graph: they are in its responses.")

    def _check_places(self, table: NodeTable) -> None:
        for name, column, limit in (
            ("position", table.pos, len(self.provenance.tokens)),
            ("layer", table.layer, self.provenance.model.n_layers + 1),
        ):
            if len(column) and column.max() >= limit:
                node = table[int(column.argmax())]
                raise ValueError(f"{node} is out of range: its {name} must be below {limit}.")

    def _check_numbers(self) -> None:
        start = self.weights.indptr
        rows = np.flatnonzero(np.diff(start))
        if np.any(self.weights.indices[start[rows + 1] - 1] >= rows):  # the last is the highest
            raise ValueError("An edge points backwards: nodes must be in topological order.")
        # Sizes of rows are infinite also where finite weights overflow.
        numbers = (self._row_sizes, self.seed, self.dropped, self.dropped_absolute)
        with np.errstate(over="ignore"):
            totals = [float(np.abs(column).sum()) for column in numbers]
        if not np.all(np.isfinite(totals)):
            raise ValueError("A weight is not finite, or a sum of weights overflows.")
        if np.any(np.isinf(self.nodes.activation)) or np.any(np.isinf(self.nodes.value)):
            raise ValueError("An activation or value is infinite.")
        smallest = float(np.min(self.seed, initial=1.0, where=self.seed > 0))
        if smallest < np.finfo(np.float64).tiny:
            raise ValueError(
                f"A seed of {smallest:g} is too small: it is below the normal range of float64."
            )
        if np.any(self.dropped_absolute < 0):
            raise ValueError(
                "dropped_absolute is a sum of absolute weights and cannot be negative."
            )
        wrong = (self.seed < 0) | ((self.seed != 0) & ~self.nodes.is_kind(*TARGET_KINDS))
        if np.any(wrong):
            row = int(np.argmax(wrong))
            raise ValueError(
                "Only logit and target nodes have seed, and none below 0: "
                f"{self.nodes[row]} has {self.seed[row]:g}."
            )

    def _check_scores(self) -> None:
        scores = self.score_weights
        if scores is None:
            return
        if scores.shape != self.weights.shape or not np.all(np.isfinite(scores.data)):
            raise ValueError("Effects through patterns have another shape or are not finite.")
        targets = np.flatnonzero(np.diff(scores.indptr))
        if not np.all(self.nodes.is_kind(NodeKind.HEAD)[targets]):
            raise ValueError("Only head nodes have patterns.")

    def __len__(self) -> int:
        return len(self.nodes)

    def __repr__(self) -> str:
        """Three lines: prompt and strongest target, model and dictionary, sizes."""
        header, targets = self.provenance, self.target_rows()
        answer = ""
        if len(targets):
            first = int(np.argmax(self.seed[targets]))
            target = header.targets[first]
            known = "" if target.probability is None else f" {target.probability:.1%}"
            answer = f" → {brief(target.text)}{known}"
        features = int(self.nodes.is_kind(NodeKind.FEATURE).sum())
        return (
            f"<{type(self).__name__} {brief(header.prompt)}{answer}\n"
            f"  {brief(header.model.name)}, {brief(header.dictionary.name)}, {header.dtype}\n"
            f"  {len(self):,} nodes ({features:,} features), {self.weights.nnz:,} edges>"
        )

    @cached_property
    def _positions(self) -> dict[NodeId, int]:
        return {node: row for row, node in enumerate(self.nodes)}

    def __contains__(self, node: NodeId) -> bool:
        return node in self._positions

    @cached_property
    def _row_sizes(self) -> Float[ndarray, " node"]:
        return row_sizes(self.weights)

    @property
    def is_part(self) -> bool:
        """Whether features that got rows are missing, as in a pruned graph; False if unknown."""
        traced = self.provenance.checks.expanded_features
        return traced is not None and int(self.nodes.is_kind(NodeKind.FEATURE).sum()) < traced

    def find(self, node: NodeId | str) -> int:
        """Row of a node.  Raises KeyError if the graph does not have it."""
        identity = NodeId.parse(node) if isinstance(node, str) else node
        if identity not in self._positions:
            raise KeyError(f"{identity} is not in this graph of {len(self)} nodes.")
        return self._positions[identity]

    def description(self, row: int) -> Description | None:
        """The description of the feature at a row, if there is one."""
        if int(self.nodes.kind[row]) != NodeKind.FEATURE:  # numpy compares with an enum slowly
            return None
        return self.descriptions.get(f"{self.nodes.layer[row]}/{self.nodes.index[row]}")

    def label(self, row: int) -> str:
        """The dictionary's label of a node, or the tokens that it promotes; may be empty."""
        description = self.description(row)
        if description is not None and description.label:
            return description.label
        return ", ".join(self.output_tokens.get(row, ()))

    def token_text(self, pos: int) -> str:
        """The prompt's token at a position."""
        return self.provenance.tokens[pos]

    def row_totals(self) -> Float[ndarray, " node"]:
        """Absolute sum of each row, what was dropped from it included, in float64."""
        return self._row_sizes + self.dropped_absolute

    def target_rows(self) -> Int[ndarray, " target"]:
        """Rows of the logit and target nodes, in the order of `provenance.targets`."""
        return np.flatnonzero(self.nodes.is_kind(*TARGET_KINDS))

    def heaviest_target(self) -> int:
        """Row of the most heavily weighted target, the first of several.  There must be one."""
        rows = self.target_rows()
        return int(rows[np.argmax(self.seed[rows])])

    def with_weights(self, weights: csr_array) -> AttributionGraph:
        """The same nodes with fewer edges; weights that a row loses are added to `dropped`."""
        lost = row_sums(self.weights) - row_sums(weights)
        lost_absolute = self._row_sizes - row_sizes(weights)
        return replace(
            self,
            weights=weights,
            dropped=self.dropped + lost,
            dropped_absolute=np.maximum(self.dropped_absolute + lost_absolute, 0.0),
            attended=None
            if self.attended is None
            else self.attended.among(edge_targets(weights), weights.indices),
            imported=self.imported if weights.nnz == self.weights.nnz else None,
        )

    def with_measured(self, measured: Iterable[Measured]) -> AttributionGraph:
        """A copy with measured effects, which replace those of the same intervention and target."""
        known = {(one.what, one.regime, one.target): one for one in self.provenance.measured}
        known |= {(one.what, one.regime, one.target): one for one in measured}
        update = {"measured": tuple(known.values())}
        return replace(self, provenance=self.provenance.model_copy(update=update))

    def with_report(self, report: Report) -> AttributionGraph:
        """A copy with a report of tests in the model."""
        return replace(self, provenance=self.provenance.model_copy(update={"report": report}))

    def with_checks(self, **measured: float) -> AttributionGraph:
        """A copy with these numerical checks."""
        checks = self.provenance.checks.model_copy(update=measured)
        return replace(self, provenance=self.provenance.model_copy(update={"checks": checks}))

    def with_stability(self, found: Stability) -> AttributionGraph:
        """A copy that knows which of its nodes and edges stay (`graphs.stability`)."""
        return replace(self, provenance=self.provenance.model_copy(update={"stability": found}))

    def take(self, nodes: Int[ndarray, " kept"]) -> AttributionGraph:
        """Only these nodes, in rising order; weights that a row loses are added to `dropped`."""
        if np.any(np.diff(nodes) <= 0):
            raise ValueError("Nodes must be taken in rising order, each once.")
        inside = np.zeros(len(self), dtype=bool)
        inside[nodes] = True
        inner = self.with_weights(select_edges(self.weights, inside[self.weights.indices]))
        new = {int(node): row for row, node in enumerate(nodes)}
        tokens = {new[node]: top for node, top in self.output_tokens.items() if node in new}
        kept = self.nodes.take(nodes)
        kept_features = kept.take(np.flatnonzero(kept.is_kind(NodeKind.FEATURE)))
        keys = {
            f"{layer}/{index}"
            for layer, index in zip(kept_features.layer, kept_features.index, strict=True)
        }
        kept_targets = inside[self.target_rows()]
        targets = tuple(
            t for t, kept in zip(self.provenance.targets, kept_targets, strict=True) if kept
        )
        return replace(
            inner,
            nodes=kept,
            weights=csr_array(inner.weights[nodes][:, nodes]),
            seed=inner.seed[nodes],
            dropped=inner.dropped[nodes],
            dropped_absolute=inner.dropped_absolute[nodes],
            expanded=inner.expanded[nodes],
            responses=None if self.responses is None else self.responses.take(nodes),
            heads=None if self.heads is None else self.heads.take(nodes),
            attended=None if inner.attended is None else inner.attended.take(nodes),
            score_weights=None
            if self.score_weights is None
            else csr_array(self.score_weights[nodes][:, nodes]),
            imported=inner.imported if len(nodes) == len(self) else None,
            provenance=self.provenance.model_copy(update={"targets": targets}),
            output_tokens=tokens,
            descriptions={key: one for key, one in self.descriptions.items() if key in keys},
        )


def row_sums(weights: csr_array) -> Float[ndarray, " node"]:
    """Sum of each row in float64."""
    return _row_sums(weights, np.positive)


def row_sizes(weights: csr_array) -> Float[ndarray, " node"]:
    """Sum of the absolute weights of each row in float64."""
    return _row_sums(weights, np.abs)


def _row_sums(weights: csr_array, of: np.ufunc) -> Float[ndarray, " node"]:
    sums = np.zeros(weights.shape[0])
    for rows, start, end in row_parts(weights):
        numbers = of(weights.data[start:end])
        with np.errstate(over="ignore"):  # callers check for infinite sums
            starts = weights.indptr[rows] - start
            sums[rows] = np.add.reduceat(numbers, starts, dtype=np.float64)
    return sums


def row_parts(weights: csr_array) -> Iterator[tuple[Int[ndarray, " row"], int, int]]:
    """Rows with edges, in batches, with the start and end of each batch's edges.

    A graph of 10⁸ edges leaves no room for a second copy of its weights.
    """
    filled = np.flatnonzero(np.diff(weights.indptr))
    for rows in np.array_split(filled, 1 + weights.nnz // EDGES_AT_ONCE):
        if len(rows):
            yield rows, int(weights.indptr[rows[0]]), int(weights.indptr[rows[-1] + 1])


def edge_targets(weights: csr_array) -> Int[ndarray, " edge"]:
    """Row of each stored weight, as `weights.indices` is its column.

    >>> edge_targets(csr_array([[0.0, 0.0, 0.0], [2.0, 0.0, 0.0], [1.0, -3.0, 0.0]]))
    array([1, 2, 2])
    """
    return np.repeat(np.arange(len(weights.indptr) - 1), np.diff(weights.indptr))


def select_edges(weights: csr_array, kept: Bool[ndarray, " edge"]) -> csr_array:
    """The same matrix with some of its stored weights only, dtype and order unchanged."""
    ends = np.searchsorted(np.flatnonzero(kept), weights.indptr)
    arrays = (weights.data[kept], weights.indices[kept], ends)
    return csr_array(arrays, shape=weights.shape)


def _canonical(weights: csr_array) -> csr_array:
    copy = weights.copy()
    copy.sum_duplicates()
    return copy

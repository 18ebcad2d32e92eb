"""Reading the JSON of circuit-tracer, Neuronpedia, Anthropic, EleutherAI and OpenMOSS.

Files that headwater wrote are restored exactly.  For other files dropped weights are 0, values nan
and fields that the file lacks "unknown"; every feature counts as expanded, since an edge that such
a file leaves out was pruned, not unknown.  The graph keeps a copy of the file, see
`graphs.core.imported`.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from pydantic import ValidationError
from pydantic_core import to_json

from graphs.core.annotations import Annotations
from graphs.core.graph import AttributionGraph
from graphs.core.nodes import TARGET_KINDS, NodeId
from graphs.core.provenance import SCHEMA_VERSION
from graphs.core.soundness import require_sound
from graphs.disk.files import GraphFileError, first_problem, json_text, refuse_newer
from graphs.formats.assembly import Columns, Links, assemble, imported_columns
from graphs.formats.neuronpedia.counting import counting
from graphs.formats.neuronpedia.header import descriptions, provenance
from graphs.formats.neuronpedia.node_identity import identity
from graphs.formats.neuronpedia.notes import notes_of_params
from graphs.formats.neuronpedia.schema import Answer, Extra, GraphFile, member
from graphs.formats.neuronpedia.targets import are_custom, read_targets

_NO_GRAPH = "is not a graph of circuit-tracer or Neuronpedia"


class ReadGraph(NamedTuple):
    """A graph, and the annotations in the same file."""

    graph: AttributionGraph
    annotations: Annotations
    remarks: tuple[str, ...] = ()  # sentences on assumptions made and on what was left out


def read_neuronpedia(path: Path | str) -> ReadGraph:
    """The graph and the annotations in a JSON file of headwater or another program.

    Nodes are in the file's order if that is topological, else sorted by layer.  The text of a
    feature becomes its label.  EleutherAI's files, and older ones, have links whose nodes were
    pruned: a link from such a node counts in `dropped`, a link to one is ignored, and a remark
    states it.  Remarks also state assumptions about the numbering of features and layers and about
    the weights of targets.

    Raises GraphFileError that names the first fault and its place: if the file is missing, damaged
    or too large, if two nodes share an id, if links form a cycle or, in a file of schema_version 1,
    refer to missing nodes, or if it has nodes of an unknown kind (attention features).
    """
    text = json_text(path)
    try:
        file = _parsed(text)
        version = member(file.headwater or {}, "provenance").get("schema_version")
        refuse_newer(path, version, SCHEMA_VERSION)
        return _read(file, _extra(path, file))
    except ValidationError as error:
        raise GraphFileError(f"{path} {_NO_GRAPH}: {first_problem(error)}.") from error
    except GraphFileError:
        raise
    except ValueError as error:
        raise GraphFileError(f"{path} does not contain a valid graph: {error}") from error


def _parsed(text: bytes) -> GraphFile:
    """The file, also if it is inside a response of OpenMOSS' server."""
    try:
        return GraphFile.model_validate_json(text)
    except ValidationError:
        if b'"graph_data"' not in text:
            raise
    return Answer.model_validate_json(text).graph_data


def _extra(path: Path | str, file: GraphFile) -> Extra | None:
    """The contents of the key `headwater`, if the file has it."""
    try:
        return Extra.model_validate(file.headwater) if file.headwater else None
    except ValidationError as error:
        problem = first_problem(error, inside="headwater")
        raise GraphFileError(f"{path} {_NO_GRAPH}: {problem}.") from error


def _read(file: GraphFile, extra: Extra | None) -> ReadGraph:
    """Raises ValueError if nodes, links and extra columns are inconsistent."""
    counted = counting(file)
    logits = [node for node in file.nodes if node.feature_type == "logit"]
    custom = are_custom(logits)
    ids = [identity(node, counted, custom) for node in file.nodes]
    rows = _rows(file)
    dangling = _dangling(file, rows)
    if dangling and file.metadata.schema_version == 1:
        raise ValueError(dangling)
    targets = read_targets(logits, [node for node in ids if node.kind in TARGET_KINDS])
    links = _links(file, rows, extra)
    graph = assemble(
        ids,
        links,
        _columns(file, ids, targets.seeds) if extra is None else _own_columns(file, extra),
        text=_text(file, links),
        provenance=provenance(file, ids, counted, targets.targets)
        if extra is None
        else extra.provenance,
        output_tokens={} if extra is None else extra.output_tokens,
        descriptions=descriptions(file, ids) if extra is None else extra.descriptions,
    )
    if extra is not None:
        require_sound(graph)
    notes = notes_of_params(file, ids, frozenset(() if extra is None else extra.automatic))
    remarks = (*counted.remarks, *targets.remarks) if extra is None else ()
    return ReadGraph(graph, notes, (*remarks, dangling) if dangling else remarks)


def _text(file: GraphFile, links: Links) -> bytes:
    """The file without the key `headwater` and without links that are edges."""
    left_out = np.flatnonzero((links.source < 0) | (links.target < 0))
    kept = {
        "metadata": file.metadata.raw,
        **({} if file.qParams is None else {"qParams": file.qParams.raw}),
        **(file.model_extra or {}),
        "nodes": [node.raw for node in file.nodes],
        "links": [file.links[int(link)] for link in left_out],
    }
    return to_json(kept, inf_nan_mode="null")


def _rows(file: GraphFile) -> dict[str, int]:
    """Row of each node_id.  Raises ValueError if two nodes have the same."""
    rows: dict[str, int] = {}
    for row, node in enumerate(file.nodes):
        if rows.setdefault(node.node_id, row) != row:
            raise ValueError(
                f"Two nodes have the id {node.node_id!r}, so their links are ambiguous (circuit-"
                "tracer gave errors the ids of features until July 2026: export the graph again)."
            )
    return rows


def _dangling(file: GraphFile, rows: dict[str, int]) -> str:
    """A sentence about the first link to or from a missing node; empty if there is none."""
    found = [
        (link, next(end for end in (one.source, one.target) if end not in rows))
        for link, one in enumerate(file.links)
        if one.source not in rows or one.target not in rows
    ]
    if not found:
        return ""
    link, end = found[0]
    return (
        f"Link {link} refers to {end!r}, which is not among the nodes; so do {len(found):,} of "
        f"{len(file.links):,} links."
    )


def _links(file: GraphFile, rows: dict[str, int], extra: Extra | None) -> Links:
    """Links by rows of `nodes`; -1 for a missing node."""
    source = np.array([rows.get(link.source, -1) for link in file.links], dtype=np.int64)
    target = np.array([rows.get(link.target, -1) for link in file.links], dtype=np.int64)
    if extra is not None:  # `dropped` already includes links from missing nodes
        target[source < 0] = -1
    dtype = "float64" if extra is None else extra.weights_dtype
    with np.errstate(over="ignore"):  # the graph refuses infinite weights
        weight = np.array([link.weight for link in file.links], dtype=np.float64).astype(dtype)
    return Links(source, target, weight)


def _columns(file: GraphFile, ids: list[NodeId], seeds: list[float]) -> Columns:
    """Columns of another program's file, with defaults for missing ones."""
    seed = np.array([node.token_prob for node in file.nodes], dtype=np.float64)
    seed[[node.kind in TARGET_KINDS for node in ids]] = seeds
    return imported_columns(
        ids, activation=_floats([node.activation for node in file.nodes]), seed=seed
    )


def _own_columns(file: GraphFile, extra: Extra) -> Columns:
    lists = [extra.value, extra.dropped, extra.dropped_absolute, extra.expanded]
    lists += [extra.seed] if extra.seed is not None else []
    rows = range(len(file.nodes))
    if {len(column) for column in lists} != {len(rows)} or extra.output_tokens.keys() - set(rows):
        raise ValueError("The key headwater does not match the nodes: remove it to read the rest.")
    return Columns(
        activation=_floats([node.activation for node in file.nodes]),
        value=_floats(extra.value),
        seed=np.array(extra.seed or [node.token_prob for node in file.nodes], dtype=np.float64),
        dropped=np.array(extra.dropped, dtype=np.float64),
        dropped_absolute=np.array(extra.dropped_absolute, dtype=np.float64),
        expanded=np.array(extra.expanded, dtype=bool),
    )


def _floats(numbers: list[float | None]) -> Float[ndarray, " node"]:
    return np.array([np.nan if n is None else n for n in numbers], dtype=np.float64)

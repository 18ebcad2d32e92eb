"""Reading the JSON of circuit-tracer, Neuronpedia, Anthropic and EleutherAI's attribute.

Our own files come back as they were.  Anybody else's get 0 for what rows lost, nan for values
and "unknown" for what the file does not say; every feature counts as expanded, since what the
file leaves out of a row was pruned, not unknown.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from pydantic import ValidationError

from graphs.annotations import Annotations
from graphs.assembly import Columns, Links, assemble, columns_of_others
from graphs.descriptions import Description
from graphs.files import GraphFileError, first_problem, json_text, refuse_newer
from graphs.graph import AttributionGraph
from graphs.neuronpedia_names import CIRCUIT_TRACER_KIND, identity, names_entry
from graphs.neuronpedia_notes import notes_of_params
from graphs.neuronpedia_schema import Extra, GraphFile, Metadata, Node
from graphs.nodes import TARGET_KINDS, NodeId, NodeKind
from graphs.provenance import (
    SCHEMA_VERSION,
    UNKNOWN,
    DictionaryIdentity,
    ModelIdentity,
    Provenance,
    Target,
)
from graphs.soundness import require_sound

_NO_GRAPH = "is not a graph of circuit-tracer or Neuronpedia"
_CLERP = re.compile(
    r"""(?:Output|output:) (?P<quote>["'])(?P<text>.*)(?P=quote) \(p=(?P<p>[0-9.]+)\)""", re.DOTALL
)


class ReadGraph(NamedTuple):
    """A graph, and what a person said about it in the same file."""

    graph: AttributionGraph
    annotations: Annotations
    remarks: tuple[str, ...] = ()  # sentences on what the file should not have and was left out


def read_neuronpedia(path: Path | str) -> ReadGraph:
    """The graph and the notes in a JSON of another program or of ours.

    Nodes come in the file's order if that is topological, else by layer.  The text of a feature
    becomes its label.  EleutherAI's files, and older ones, have links whose nodes were pruned: one
    from such a node counts in `dropped`, one to it is ignored, and a remark says so.

    Raises GraphFileError that names the first fault and its place: if the file is missing, damaged
    or too large, if two nodes share an id, if links run in a cycle or, in a file of schema_version
    1, to nowhere, or if it has nodes of a kind that we do not know (attention features).
    """
    text = json_text(path)
    try:
        file = GraphFile.model_validate_json(text)
        version = _member(file.headwater or {}, "provenance").get("schema_version")
        refuse_newer(path, version, SCHEMA_VERSION)
        return _read(file, _extra(path, file))
    except ValidationError as error:
        raise GraphFileError(f"{path} {_NO_GRAPH}: {first_problem(error)}.") from error
    except GraphFileError:
        raise
    except ValueError as error:
        raise GraphFileError(f"{path} does not hold a sound graph: {error}") from error


def _extra(path: Path | str, file: GraphFile) -> Extra | None:
    """What a file of ours says under its own key."""
    try:
        return Extra.model_validate(file.headwater) if file.headwater else None
    except ValidationError as error:
        problem = first_problem(error, inside="headwater")
        raise GraphFileError(f"{path} {_NO_GRAPH}: {problem}.") from error


def _read(file: GraphFile, extra: Extra | None) -> ReadGraph:
    """Raises ValueError if nodes, links and extra columns do not fit together."""
    pairs = file.metadata.schema_version == 1
    ids = [identity(node, pairs) for node in file.nodes]
    rows = _rows(file)
    dangling = _dangling(file, rows)
    if dangling and pairs:
        raise ValueError(dangling)
    graph = assemble(
        ids,
        _links(file, rows, "float64" if extra is None else extra.weights_dtype),
        _columns(file, ids) if extra is None else _own_columns(file, extra),
        provenance=_provenance(file, ids) if extra is None else extra.provenance,
        output_tokens={} if extra is None else extra.output_tokens,
        descriptions=_labelled(file, ids) if extra is None else extra.descriptions,
    )
    if extra is not None:
        require_sound(graph)
    notes = notes_of_params(file, ids, frozenset(() if extra is None else extra.automatic))
    return ReadGraph(graph, notes, (dangling,) if dangling else ())


def _rows(file: GraphFile) -> dict[str, int]:
    """Which of `nodes` has an id.  Raises ValueError if two have the same."""
    rows: dict[str, int] = {}
    for row, node in enumerate(file.nodes):
        if rows.setdefault(node.node_id, row) != row:
            raise ValueError(
                f"Two nodes have the id {node.node_id!r}, so links cannot be told apart (circuit-"
                "tracer gave errors the ids of features until July 2026: export the graph anew)."
            )
    return rows


def _dangling(file: GraphFile, rows: dict[str, int]) -> str:
    """Says which link is the first with an end that is not among the nodes; may be empty."""
    found = [
        (link, next(end for end in (one.source, one.target) if end not in rows))
        for link, one in enumerate(file.links)
        if one.source not in rows or one.target not in rows
    ]
    if not found:
        return ""
    link, end = found[0]
    return (
        f"Link {link} has the end {end!r}, which is not among the nodes; links like this: "
        f"{len(found):,} of {len(file.links):,}."
    )


def _links(file: GraphFile, rows: dict[str, int], dtype: str) -> Links:
    """By rows of `nodes`; links to nodes that are not there are left out."""
    links = [link for link in file.links if link.target in rows]
    with np.errstate(over="ignore"):  # the graph refuses what becomes infinite
        weight = np.array([link.weight for link in links], dtype=np.float64).astype(dtype)
    return Links(
        source=np.array([rows.get(link.source, -1) for link in links], dtype=np.int64),
        target=np.array([rows[link.target] for link in links], dtype=np.int64),
        weight=weight,
    )


def _columns(file: GraphFile, ids: list[NodeId]) -> Columns:
    """What another program's file leaves open is filled in."""
    return columns_of_others(
        ids,
        activation=_floats([node.activation for node in file.nodes]),
        seed=np.array([_probability(node) for node in file.nodes], dtype=np.float64),
    )


def _own_columns(file: GraphFile, extra: Extra) -> Columns:
    lists = (extra.value, extra.dropped, extra.dropped_absolute, extra.expanded)
    rows = range(len(file.nodes))
    if {len(column) for column in lists} != {len(rows)} or extra.output_tokens.keys() - set(rows):
        raise ValueError("The key headwater is about other nodes: remove it to read the rest.")
    return Columns(
        activation=_floats([node.activation for node in file.nodes]),
        value=_floats(extra.value),
        seed=np.array([node.token_prob for node in file.nodes], dtype=np.float64),
        dropped=np.array(extra.dropped, dtype=np.float64),
        dropped_absolute=np.array(extra.dropped_absolute, dtype=np.float64),
        expanded=np.array(extra.expanded, dtype=bool),
    )


def _labelled(file: GraphFile, ids: list[NodeId]) -> dict[str, Description]:
    """The first text of each feature that has one."""
    found: dict[str, Description] = {}
    for node, theirs in zip(ids, file.nodes, strict=True):
        if node.kind == NodeKind.FEATURE and theirs.clerp:
            found.setdefault(f"{node.layer}/{node.index}", Description(label=theirs.clerp))
    return found


def _provenance(file: GraphFile, ids: list[NodeId]) -> Provenance:
    about, nodes = file.metadata, list(zip(ids, file.nodes, strict=True))
    token_ids = {
        node.pos: node.index
        for node, theirs in nodes
        if node.kind == NodeKind.TOKEN and names_entry(theirs)
    }
    known = ("prompt", "prompt_tokens")
    return Provenance(
        generator=_words(_member(about.info, "generator"), "name", "version"),
        model=ModelIdentity(
            name=about.scan or UNKNOWN, architecture=UNKNOWN, n_layers=_depth(about, nodes)
        ),
        dictionary=DictionaryIdentity(
            kind=CIRCUIT_TRACER_KIND,
            name=_dictionary(about),
        ),
        dtype=UNKNOWN,
        prompt="".join(about.prompt_tokens) if about.prompt is None else about.prompt,
        tokens=tuple(about.prompt_tokens),
        token_ids=tuple(
            -1 if index is None else index
            for index in map(token_ids.get, range(len(about.prompt_tokens)))
        ),
        targets=tuple(_target(node, theirs) for node, theirs in nodes if node.kind in TARGET_KINDS),
        settings={"imported": about.model_dump(mode="json", exclude=set(known), exclude_none=True)},
    )


def _depth(about: Metadata, nodes: list[tuple[NodeId, Node]]) -> int:
    """Layers of the model: what is said, else one below the logits, else what nodes need."""
    tops = [str(theirs.layer) for node, theirs in nodes if node.kind in TARGET_KINDS]
    below = [int(top) - 1 for top in tops if re.fullmatch(r"\d{1,6}", top, re.ASCII)]
    layers = [node.layer + 1 for node, _ in nodes if node.layer is not None]
    return max([1, *([about.n_layers] if about.n_layers else below), *layers])


def _target(node: NodeId, theirs: Node) -> Target:
    text = _CLERP.fullmatch(theirs.clerp)
    return Target(
        text=text["text"] if text else theirs.clerp,
        token_id=node.index if node.kind == NodeKind.LOGIT else None,
        probability=_probability(theirs),
    )


def _probability(theirs: Node) -> float:
    """Theirs, else what the text of a logit says, if that is a probability."""
    own, text = min(theirs.token_prob, 1.0), _CLERP.fullmatch(theirs.clerp)
    if theirs.feature_type != "logit" or own or not text:
        return own
    try:
        said = float(text["p"])
    except ValueError:  # as in 1.2.3
        return own
    return said if said <= 1.0 else own


def _dictionary(about: Metadata) -> str:
    """What names it: fields of Neuronpedia, circuit-tracer's list, else its scan."""
    details = _words(about.feature_details, "neuronpedia_source_set", "feature_json_base_url")
    named = _words(about.info, "transcoder_set", "neuronpedia_source_set")
    listed = ", ".join(about.transcoder_list)
    return next((n for n in (named, details) if n != UNKNOWN), listed or about.scan or UNKNOWN)


def _words(values: dict[str, Any], *names: str) -> str:
    texts = [value for name in names if isinstance(value := values.get(name), str) and value]
    return " ".join(texts) or UNKNOWN


def _member(values: dict[str, Any], name: str) -> dict[str, Any]:
    value: Any = values.get(name)
    return cast(dict[str, Any], value) if isinstance(value, dict) else {}


def _floats(numbers: list[float | None]) -> Float[ndarray, " node"]:
    return np.array([np.nan if n is None else n for n in numbers], dtype=np.float64)

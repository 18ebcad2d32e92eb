"""Reading the JSON of circuit-tracer and Neuronpedia.

Our own files come back as they were.  Anybody else's get 0 for what rows lost, nan for values
and "unknown" for what the file does not say; every feature counts as expanded, since what the
file leaves out of a row was pruned, not unknown.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, cast

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray
from pydantic import ValidationError
from scipy.sparse import csr_array

from graphs.files import GraphFileError, file_text, first_problem, refuse_newer
from graphs.graph import AttributionGraph
from graphs.neuronpedia_schema import Extra, GraphFile, Link, Metadata, Node, identity
from graphs.nodes import INPUT_KINDS, TARGET_KINDS, NodeId, NodeKind, NodeTable
from graphs.provenance import DictionaryIdentity, ModelIdentity, Provenance, Target

_UNKNOWN = "unknown"
_CLERP = re.compile(r'Output "(.*)" \(p=[0-9.]+\)', re.DOTALL)


def read_neuronpedia(path: Path | str) -> AttributionGraph:
    """The graph in a JSON of circuit-tracer, of Neuronpedia or of ours.

    Nodes come in the file's order if that is topological, else by layer.  A link from a node
    that is not in the file counts in `dropped`, and a link to one is ignored.

    Raises GraphFileError if the file is missing or damaged, if two nodes share an id, or if it
    has nodes of a kind that we do not know (attention features).
    """
    text = file_text(path)
    try:
        file = GraphFile.model_validate_json(text)
        refuse_newer(path, _member(file.headwater, "provenance").get("schema_version"))
        extra = Extra.model_validate(file.headwater) if file.headwater else None
        return _graph(file, extra)
    except ValidationError as error:
        raise GraphFileError(
            f"{path} is not a graph of circuit-tracer or Neuronpedia: {first_problem(error)}."
        ) from error
    except GraphFileError:
        raise
    except ValueError as error:
        raise GraphFileError(f"{path} does not hold a sound graph: {error}") from error


def _graph(file: GraphFile, extra: Extra | None) -> AttributionGraph:
    """Raises ValueError if nodes, links and extra columns do not fit together."""
    ids = [identity(node) for node in file.nodes]
    extra = _imported(file, ids) if extra is None else extra
    columns = (extra.value, extra.dropped, extra.dropped_absolute, extra.expanded)
    rows = range(len(ids))
    if {len(column) for column in columns} != {len(rows)} or extra.output_tokens.keys() - set(rows):
        raise ValueError("The key headwater is about other nodes: remove it to read the rest.")
    target, source, links = _ends(file)
    order = _order(ids, target, source)
    place = np.argsort(order)
    with np.errstate(over="ignore"):  # the graph refuses what becomes infinite
        weight = np.array([link.weight for link in links]).astype(extra.weights_dtype)
    inside = source >= 0
    ends = (place[target[inside]], place[source[inside]])
    weights = csr_array((weight[inside], ends), shape=(len(ids), len(ids)))
    if weights.nnz != np.count_nonzero(inside):
        raise ValueError("Two links run from one node to the same other node.")
    lost, lost_weight = target[~inside], weight[~inside].astype(np.float64)
    dropped, dropped_absolute = np.array(extra.dropped), np.array(extra.dropped_absolute)
    np.add.at(dropped, lost, lost_weight)
    np.add.at(dropped_absolute, lost, abs(lost_weight))
    return AttributionGraph(
        nodes=_table(ids, file.nodes, extra).take(order),
        weights=weights,
        seed=np.array([node.token_prob for node in file.nodes], dtype=np.float64)[order],
        dropped=dropped[order],
        dropped_absolute=dropped_absolute[order],
        expanded=np.array(extra.expanded, dtype=bool)[order],
        provenance=extra.provenance,
        output_tokens={int(place[row]): top for row, top in extra.output_tokens.items()},
    )


def _ends(
    file: GraphFile,
) -> tuple[Int[ndarray, " edge"], Int[ndarray, " edge"], list[Link]]:
    """Rows of targets and sources of the links to nodes that are there; -1: no such source."""
    rows: dict[str, int] = {}
    for row, node in enumerate(file.nodes):
        if rows.setdefault(node.node_id, row) != row:
            raise ValueError(
                f"Two nodes have the id {node.node_id!r}, so links cannot be told apart (circuit-"
                "tracer gave errors the ids of features until July 2026: export the graph anew)."
            )
    links = [link for link in file.links if link.target in rows]
    target = np.array([rows[link.target] for link in links], dtype=np.int64)
    source = np.array([rows.get(link.source, -1) for link in links], dtype=np.int64)
    return target, source, links


def _order(
    ids: list[NodeId], target: Int[ndarray, " edge"], source: Int[ndarray, " edge"]
) -> Int[ndarray, " node"]:
    """Rows in topological order: the file's if it is one, else inputs, layers, targets."""
    if np.all(source < target):
        return np.arange(len(ids))
    stage = [0 if n.kind in INPUT_KINDS else 2 if n.kind in TARGET_KINDS else 1 for n in ids]
    layer = [-1 if node.layer is None else node.layer for node in ids]
    kind = [0 if node.kind in TARGET_KINDS else int(node.kind) for node in ids]
    return np.lexsort((kind, layer, stage))


def _table(ids: list[NodeId], nodes: list[Node], extra: Extra) -> NodeTable:
    def column(name: str, dtype: type[np.signedinteger]) -> Int[ndarray, " node"]:
        fields = [getattr(node, name) for node in ids]
        return np.array([-1 if field is None else field for field in fields], dtype=dtype)

    return NodeTable(
        kind=column("kind", np.int8),
        layer=column("layer", np.int32),
        pos=column("pos", np.int32),
        index=column("index", np.int64),
        activation=_floats([node.activation for node in nodes]),
        value=_floats(extra.value),
    )


def _imported(file: GraphFile, ids: list[NodeId]) -> Extra:
    """What the file of another program leaves to be filled in."""
    computed = (NodeKind.FEATURE, *TARGET_KINDS)
    return Extra(
        provenance=_provenance(file, ids),
        weights_dtype="float64",
        value=[None] * len(ids),
        dropped=[0.0] * len(ids),
        dropped_absolute=[0.0] * len(ids),
        expanded=[node.kind in computed for node in ids],
        output_tokens={},
    )


def _provenance(file: GraphFile, ids: list[NodeId]) -> Provenance:
    about, nodes = file.metadata, list(zip(ids, file.nodes, strict=True))
    token_ids = {node.pos: node.index for node in ids if node.kind == NodeKind.TOKEN}
    tops = [str(theirs.layer) for node, theirs in nodes if node.kind in TARGET_KINDS]
    known = [int(top) - 1 for top in tops if re.fullmatch(r"\d{1,6}", top, re.ASCII)]
    layers = [node.layer + 1 for node in ids if node.layer is not None]
    return Provenance(
        generator=_words(_member(about.info, "generator"), "name", "version"),
        model=ModelIdentity(
            name=about.scan, architecture=_UNKNOWN, n_layers=max([1, *known, *layers])
        ),
        dictionary=DictionaryIdentity(
            kind="cross layer transcoder",
            name=_dictionary(about),
        ),
        dtype=_UNKNOWN,
        prompt=about.prompt,
        tokens=tuple(about.prompt_tokens),
        token_ids=tuple(
            -1 if index is None else index
            for index in map(token_ids.get, range(len(about.prompt_tokens)))
        ),
        targets=tuple(_target(node, theirs) for node, theirs in nodes if node.kind in TARGET_KINDS),
        settings={"imported": about.model_dump(mode="json", exclude={"prompt", "prompt_tokens"})},
    )


def _target(node: NodeId, theirs: Node) -> Target:
    text = _CLERP.fullmatch(theirs.clerp)
    return Target(
        text=text[1] if text else theirs.clerp,
        token_id=node.index if node.kind == NodeKind.LOGIT else None,
        probability=theirs.token_prob,
    )


def _dictionary(about: Metadata) -> str:
    named = _words(about.info, "transcoder_set", "neuronpedia_source_set")
    return named if named != _UNKNOWN else ", ".join(about.transcoder_list) or _UNKNOWN


def _words(values: dict[str, Any], *names: str) -> str:
    texts = [value for name in names if isinstance(value := values.get(name), str) and value]
    return " ".join(texts) or _UNKNOWN


def _member(values: dict[str, Any], name: str) -> dict[str, Any]:
    value: Any = values.get(name)
    return cast(dict[str, Any], value) if isinstance(value, dict) else {}


def _floats(numbers: list[float | None]) -> Float[ndarray, " node"]:
    return np.array([np.nan if n is None else n for n in numbers], dtype=np.float64)

"""Re-export of an imported graph: an import followed by an export gives the same JSON.

Only a person's annotations, the names for Neuronpedia and the key `headwater` may differ.
"""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from graphs.core.annotations import NO_ANNOTATIONS, Annotations
from graphs.core.graph import AttributionGraph, edge_targets
from graphs.core.imported import Imported
from graphs.core.nodes import TARGET_KINDS
from graphs.disk.files import GraphFileError
from graphs.formats.neuronpedia.contents import Upload, allowed, extra
from graphs.formats.neuronpedia.notes import notes_as_params, notes_of_params
from graphs.formats.neuronpedia.schema import GraphFile, Link, Node


def reexported_file(
    graph: AttributionGraph, imported: Imported, annotations: Annotations, upload: Upload
) -> dict[str, Any]:
    """The file, in its original order.  Raises GraphFileError if the stored copy is damaged."""
    kept = _kept(imported)
    rows: list[int] = imported.rows.tolist()
    ids = [graph.nodes[row] for row in rows]
    automatic = [group.name for group in annotations.groups if group.automatic]
    before = notes_of_params(kept, ids, automatic)
    params = {} if kept.qParams is None else {"qParams": kept.qParams.raw}
    # Without annotations those of the file stay; annotations without pins remove its pins.
    if annotations is not NO_ANNOTATIONS and _notes(annotations) != _notes(before):
        ours = notes_as_params(annotations, ids, kept.nodes).model_dump(mode="json")
        changed = {name: ours[name] for name in ("pinnedIds", "supernodes", "clerps")}
        params = {"qParams": params.get("qParams", ours) | changed}
    return {
        "metadata": kept.metadata.raw | _names(upload),
        **params,
        **(kept.model_extra or {}),
        "nodes": _nodes(graph, rows, kept.nodes, annotations, before),
        "links": _links(graph, imported, kept),
        "headwater": extra(graph, annotations, rows, kept.nodes),
    }


def _kept(imported: Imported) -> GraphFile:
    try:
        kept = GraphFile.model_validate_json(imported.text)
    except ValidationError as error:
        raise GraphFileError(_DAMAGED) from error
    left_out = int((imported.links == -1).sum())
    if len(kept.nodes) != len(imported.rows) or len(kept.links) != left_out:
        raise GraphFileError(_DAMAGED)
    return kept


_DAMAGED = "The graph's copy of the file it was read from is damaged: import that file again."


def _notes(annotations: Annotations) -> tuple[object, ...]:
    """The annotations that the file has fields for."""
    return annotations.pins, annotations.labels, annotations.groups


def _names(upload: Upload) -> dict[str, Any]:
    names = {"slug": upload.slug, "scan": upload.scan}
    result: dict[str, Any] = {key: allowed(name) for key, name in names.items() if name}
    if upload.node_threshold is not None:
        result["node_threshold"] = upload.node_threshold
    return result


def _nodes(
    graph: AttributionGraph,
    rows: list[int],
    nodes: list[Node],
    annotations: Annotations,
    before: Annotations,
) -> list[dict[str, Any]]:
    """The original nodes, with labels that a person has added since."""
    result: list[dict[str, Any]] = []
    for row, theirs in zip(rows, nodes, strict=True):
        label = annotations.label(graph, row)
        is_new = label and label != before.label(graph, row)
        # The viewers parse the text of a prediction.
        may_change = graph.nodes[row].kind not in TARGET_KINDS
        result.append({**theirs.raw, "clerp": label} if is_new and may_change else theirs.raw)
    return result


def _links(graph: AttributionGraph, imported: Imported, kept: GraphFile) -> list[Link]:
    by_row = zip(imported.rows.tolist(), kept.nodes, strict=True)
    names: dict[int, str] = {row: theirs.node_id for row, theirs in by_row}
    targets: list[int] = edge_targets(graph.weights).tolist()
    sources: list[int] = graph.weights.indices.tolist()
    weights: list[float] = graph.weights.data.tolist()
    edges: list[int] = imported.links.tolist()
    left_out = iter(kept.links)
    return [
        next(left_out)
        if edge < 0
        else Link(names[sources[edge]], names[targets[edge]], weights[edge])
        for edge in edges
    ]

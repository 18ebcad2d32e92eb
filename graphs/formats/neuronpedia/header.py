"""Header and descriptions of a graph from the JSON of another program.

`scan` is Neuronpedia's id of the model, but circuit-tracer's name of the dictionary.  It is read as
the model if another field names the dictionary or if it is a known model id of Neuronpedia;
otherwise the model is unknown.
"""

from __future__ import annotations

import re
from typing import Any

from pydantic_core import from_json, to_json

from graphs.core.nodes import TARGET_KINDS, Description, NodeId, NodeKind
from graphs.core.provenance import UNKNOWN, DictionaryIdentity, ModelIdentity, Provenance, Target
from graphs.formats.neuronpedia.counting import Counting
from graphs.formats.neuronpedia.names import CIRCUIT_TRACER_KIND
from graphs.formats.neuronpedia.node_identity import has_vocabulary_id
from graphs.formats.neuronpedia.pages import is_model
from graphs.formats.neuronpedia.schema import GraphFile, Metadata, Node, member


def provenance(
    file: GraphFile, ids: list[NodeId], counting: Counting, targets: tuple[Target, ...]
) -> Provenance:
    """The header of a file whose nodes are `ids`; other metadata goes into the settings."""
    about, nodes = file.metadata, list(zip(ids, file.nodes, strict=True))
    token_ids = {
        node.pos: node.index
        for node, theirs in nodes
        if node.kind == NodeKind.TOKEN and has_vocabulary_id(theirs)
    }
    return Provenance(
        generator=_words(member(about.info, "generator"), "name", "version"),
        model=ModelIdentity(
            name=_model(about), architecture=UNKNOWN, n_layers=_depth(about, nodes, counting)
        ),
        dictionary=DictionaryIdentity(kind=CIRCUIT_TRACER_KIND, name=_dictionary(about)),
        dtype=UNKNOWN,
        prompt="".join(about.prompt_tokens) if about.prompt is None else about.prompt,
        tokens=tuple(about.prompt_tokens),
        token_ids=tuple(
            -1 if index is None else index
            for index in map(token_ids.get, range(len(about.prompt_tokens)))
        ),
        targets=targets,
        settings={"imported": _other_metadata(about)},
    )


def descriptions(file: GraphFile, ids: list[NodeId]) -> dict[str, Description]:
    """Descriptions with the first label of each feature that has one."""
    found: dict[str, Description] = {}
    for node, theirs in zip(ids, file.nodes, strict=True):
        if node.kind == NodeKind.FEATURE and theirs.clerp:
            found.setdefault(f"{node.layer}/{node.index}", Description(label=theirs.clerp))
    return found


def _other_metadata(about: Metadata) -> dict[str, Any]:
    """`metadata` without the prompt."""
    fields = {
        name: value
        for name, value in about.raw.items()
        if name not in ("prompt", "prompt_tokens") and value is not None
    }
    return from_json(to_json(fields, inf_nan_mode="null"))


def _depth(about: Metadata, nodes: list[tuple[NodeId, Node]], counting: Counting) -> int:
    """Number of layers: as stated, else by the layer of logits, but enough for all nodes."""
    tops = [str(theirs.layer) for node, theirs in nodes if node.kind in TARGET_KINDS]
    below = [counting.depth(int(top)) for top in tops if re.fullmatch(r"\d{1,6}", top, re.ASCII)]
    layers = [node.layer + 1 for node, _ in nodes if node.layer is not None]
    return max([1, *([about.n_layers] if about.n_layers else below), *layers])


def _model(about: Metadata) -> str:
    is_named = _set(about) not in (UNKNOWN, about.scan) or is_model(about.scan)
    return about.scan if is_named and about.scan else UNKNOWN


def _dictionary(about: Metadata) -> str:
    """Name of the dictionary: Neuronpedia's fields, circuit-tracer's list, else `scan`."""
    named, listed = _set(about), ", ".join(about.transcoder_list)
    return named if named != UNKNOWN else listed or about.scan or UNKNOWN


def _set(about: Metadata) -> str:
    """Name of the dictionary in Neuronpedia's fields."""
    named = _words(about.info, "transcoder_set", "neuronpedia_source_set")
    if named != UNKNOWN:
        return named
    return _words(about.feature_details, "neuronpedia_source_set", "feature_json_base_url")


def _words(values: dict[str, Any], *names: str) -> str:
    texts = [value for name in names if isinstance(value := values.get(name), str) and value]
    return " ".join(texts) or UNKNOWN

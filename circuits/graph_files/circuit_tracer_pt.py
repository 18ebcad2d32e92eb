"""Read the .pt file of circuit-tracer, a pickle, without executing anything that it contains.

`torch.load(weights_only=True)` loads tensors and plain values and refuses the rest.  Every file
also contains two small classes of circuit-tracer, the model's config and the names of targets: they
are read as the empty classes below, which take their fields and do nothing.

The file, from circuit_tracer/graph.py: `adjacency_matrix[target, source]` over

    selected features | errors, layer by layer | tokens | targets

with `active_features` [n, (layer, pos, index)], `selected_features` (rows of these),
`activation_values`, `input_tokens`, `input_string`, `logit_probabilities`, `logit_targets` (until
2025 `logit_tokens`, a tensor), `cfg` and `scan_name` (until 2026 `scan`), which names the
dictionary.  A target whose number lies beyond the vocabulary is a direction, and its probability a
weight, which may be any number.  The file has no strings of tokens.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast
from zipfile import ZIP_STORED, BadZipFile, ZipFile

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from pydantic import ValidationError
from torch.serialization import safe_globals

from graphs import (
    NO_ANNOTATIONS,
    DictionaryIdentity,
    GraphFileError,
    ModelIdentity,
    NodeId,
    NodeKind,
    Provenance,
    Target,
)
from graphs.core.provenance import UNKNOWN
from graphs.disk.files import first_problem, regular_file
from graphs.formats.assembly import Links, assemble, imported_columns
from graphs.formats.neuronpedia.names import CIRCUIT_TRACER_KIND
from graphs.formats.neuronpedia.reader import ReadGraph
from graphs.formats.target_weights import target_seeds


class _Config:
    """Replaces circuit-tracer's and TransformerLens' configs: fields and nothing else."""


class _LogitTarget(NamedTuple):
    """Replaces circuit-tracer's class."""

    token_str: str
    vocab_idx: int


_REPLACED_CLASSES = [
    (_Config, "circuit_tracer.utils.tl_nnsight_mapping.UnifiedConfig"),
    (_Config, "transformer_lens.HookedTransformerConfig.HookedTransformerConfig"),
    (_LogitTarget, "circuit_tracer.attribution.targets.LogitTarget"),
]


def open_circuit_tracer(path: Path | str, spell: Callable[[int], str] | None = None) -> ReadGraph:
    """The graph in a .pt file, not pruned, and remarks on how it was read.

    spell: the string of a token id; without it tokens are written as #id.

    Raises GraphFileError if the file is damaged or inconsistent, or contains anything other than
    tensors, plain values and the two classes.
    """
    sizes = _stored(regular_file(path))
    if Path(path).suffix == ".safetensors":  # torch decides by the name
        raise GraphFileError(
            f"{path} is a zip archive, as torch writes, but named as safetensors: if it is a graph "
            f"of circuit-tracer, rename it to {Path(path).with_suffix('.pt').name}."
        )
    try:
        with safe_globals(cast(Any, _REPLACED_CLASSES)):
            file: Any = torch.load(path, weights_only=True, map_location="cpu", mmap=True)
    except pickle.UnpicklingError as error:
        raise GraphFileError(
            f"{path} contains more than tensors and plain values, and was not opened, since a "
            "pickle can execute any code: export the graph as JSON with circuit-tracer."
        ) from error
    except (OSError, RuntimeError, ValueError, KeyError, EOFError, TypeError) as error:
        raise GraphFileError(f"{path} is not a complete .pt file of circuit-tracer.") from error
    try:
        return _graph(file, sizes, spell or "#{}".format)
    except KeyError as error:
        raise GraphFileError(
            f"{path} is not a graph of circuit-tracer: it lacks {error}."
        ) from error
    except ValidationError as error:
        problem = first_problem(error)
        raise GraphFileError(f"{path} does not contain a valid graph: {problem}.") from error
    except ValueError as error:
        raise GraphFileError(f"{path} does not contain a valid graph: {error}") from error
    except (ArithmeticError, AttributeError, IndexError, RuntimeError, TypeError) as error:
        raise GraphFileError(
            f"{path} is not a graph of circuit-tracer: its parts have unexpected types."
        ) from error


def _stored(path: Path) -> set[int]:
    """Bytes of the tensors in the file.  Raises GraphFileError for what torch.save does not write.

    torch stores parts uncompressed: a compressed one may have any size when it is unpacked.
    """
    try:
        with ZipFile(path) as archive:
            parts = archive.infolist()
    except (BadZipFile, OSError, ValueError) as error:
        raise GraphFileError(
            f"{path} is not a complete .pt file, which torch has written as a zip since 2020."
        ) from error
    if any(part.compress_type != ZIP_STORED for part in parts):
        raise GraphFileError(f"{path} has compressed parts, which torch does not write.")
    return {part.file_size for part in parts}


def _graph(file: Any, sizes: set[int], spell: Callable[[int], str]) -> ReadGraph:
    """Raises KeyError for what is missing, and other errors for what does not fit."""
    if not isinstance(file, dict):
        raise ValueError(f"expected a dictionary, got {type(file).__name__}.")
    parts = cast(dict[str, Any], file)
    _require_stored(parts, sizes)
    tokens: list[int] = _integers(parts, "input_tokens").flatten().tolist()
    active, activations = _integers(parts, "active_features"), parts["activation_values"]
    selected = parts.get("selected_features", torch.arange(len(active)))
    n_layers = int(parts["cfg"].n_layers)
    targets = _targets(parts)
    features: list[list[int]] = active[selected].tolist()
    count = len(features) + n_layers * len(tokens) + len(tokens) + len(targets)
    adjacency = _square(parts["adjacency_matrix"], count)
    vocabulary = int(parts.get("vocab_size") or parts["cfg"].d_vocab)
    ids = [
        *(NodeId(NodeKind.FEATURE, layer, pos, index) for layer, pos, index in features),
        *(
            NodeId(NodeKind.ERROR, layer, pos)
            for layer in range(n_layers)
            for pos in range(len(tokens))
        ),
        *(NodeId(NodeKind.TOKEN, pos=pos, index=token) for pos, token in enumerate(tokens)),
        *_target_nodes(targets, vocabulary, len(tokens) - 1),
    ]
    activation = np.full(len(ids), np.nan)
    activation[: len(features)] = activations[selected].detach().double().numpy()
    counted = target_seeds(
        parts["logit_probabilities"].detach().double().tolist(),
        [entry >= vocabulary for _, entry in targets],
    )
    seed = np.zeros(len(ids))
    seed[len(ids) - len(targets) :] = counted.seeds
    graph = assemble(
        ids,
        _links(adjacency),
        imported_columns(ids, activation, seed),
        provenance=_provenance(parts, tokens, targets, vocabulary, counted.probabilities, spell),
    )
    return ReadGraph(graph, NO_ANNOTATIONS, counted.remarks)


def _require_stored(parts: dict[str, Any], sizes: set[int]) -> None:
    """Raises ValueError for a tensor that is larger than its data, as expanded ones may be."""
    for name, part in parts.items():
        if isinstance(part, torch.Tensor):
            stored = part.untyped_storage().nbytes()
            if part.nbytes > stored or stored not in sizes:
                raise ValueError(f"{name} is larger than its data in the file.")


def _integers(parts: dict[str, Any], name: str) -> torch.Tensor:
    """A tensor of the file.  Raises ValueError if it has other numbers."""
    if parts[name].is_floating_point():
        raise ValueError(f"{name} must be integers, got {parts[name].dtype}.")
    return parts[name]


def _target_nodes(targets: list[tuple[str, int]], vocabulary: int, pos: int) -> Iterator[NodeId]:
    """Logits, and custom targets, which are numbered from the end of the vocabulary."""
    for _, entry in targets:
        if entry < vocabulary:
            yield NodeId(NodeKind.LOGIT, pos=pos, index=entry)
        else:
            yield NodeId(NodeKind.TARGET, pos=pos, index=entry - vocabulary)


def _provenance(
    parts: dict[str, Any],
    tokens: list[int],
    targets: list[tuple[str, int]],
    vocabulary: int,
    probabilities: Sequence[float | None],
    spell: Callable[[int], str],
) -> Provenance:
    config = parts["cfg"]
    return Provenance(
        generator="circuit-tracer",
        model=ModelIdentity(
            name=str(getattr(config, "model_name", UNKNOWN)),
            architecture=str(getattr(config, "original_architecture", UNKNOWN)),
            n_layers=int(config.n_layers),
        ),
        dictionary=DictionaryIdentity(kind=CIRCUIT_TRACER_KIND, name=_name(parts)),
        dtype=str(parts["adjacency_matrix"].dtype).removeprefix("torch."),
        prompt=str(parts["input_string"]),
        tokens=tuple(map(spell, tokens)),
        token_ids=tuple(tokens),
        targets=tuple(
            Target(
                text=text or spell(entry),
                token_id=entry if entry < vocabulary else None,
                probability=probability,
            )
            for (text, entry), probability in zip(targets, probabilities, strict=True)
        ),
    )


def _targets(parts: dict[str, Any]) -> list[tuple[str, int]]:
    """Text and number of each target; files of 2025 have numbers only."""
    listed = parts["logit_targets"] if "logit_targets" in parts else parts["logit_tokens"]
    if isinstance(listed, torch.Tensor):
        return [("", int(entry)) for entry in listed.flatten().tolist()]
    return [(str(text), int(entry)) for text, entry in listed]


def _square(adjacency: torch.Tensor, count: int) -> torch.Tensor:
    """The matrix, if it has `count` × `count` real numbers.  Raises ValueError if not."""
    shape = tuple(adjacency.shape)
    if shape != (count, count) or not adjacency.is_floating_point():
        raise ValueError(
            f"the adjacency matrix must be {count} x {count} real numbers for its features, "
            f"errors, tokens and targets, got {' x '.join(map(str, shape))} of {adjacency.dtype}."
        )
    return adjacency.detach()


def _links(adjacency: Float[torch.Tensor, "target source"]) -> Links:
    dense: Float[ndarray, "target source"] = adjacency.float().numpy()
    target, source = np.nonzero(dense)
    return Links(source=source, target=target, weight=dense[target, source])


def _name(parts: dict[str, Any]) -> str:
    scan: Any = parts.get("scan_name") or parts.get("scan")
    return ", ".join(map(str, scan)) if isinstance(scan, list) else str(scan or UNKNOWN)

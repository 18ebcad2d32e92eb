"""Labels of features: the tokens that they promote, and what a dictionary's feature files say.

Promoted tokens are those whose logits a feature's decoder rows raise most by the direct path:

    logits = W_U · gain · (what the feature adds to the residual, over all written layers)

The final norm's denominator scales all logits alike, so it does not change the order.  A neuron
with a negative activation writes its decoder row with reversed sign, and is labelled accordingly.

Feature files have circuit-tracer's packed layout and are read one feature at a time.  A folder
`features` contains `index.json.gz` and `layer_{l}.bin`.  The index is

    {"version": "1.0", "format": "variable_chunks", "0": {"filename": "layer_0.bin",
     "offsets": [0, 812, …]}, …}

and feature f of a layer lies at bytes offsets[f] to offsets[f + 1] of its file: four bytes of
length (little-endian), then that many bytes of gzip with a JSON text.  A feature without a record
has an empty one or a null offset.  Besides circuit-tracer's keys our records have `label` and
`own_layer_logits`.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from pydantic import AliasChoices, BaseModel, ConfigDict, Field
from torch import Tensor

from circuits.features.active import ActiveFeatures
from circuits.machine import moved, on_device
from circuits.model.frozen import FrozenModel
from graphs.core.nodes import Description, Example
from graphs.disk.files import (
    atomic_write,
    file_text,
    json_value,
    make_folder,
    regular_file,
    unpacked,
)
from graphs.errors import HeadwaterError

LABELS_PER_LAYER = 8  # features that are labelled regardless of their influence
LEVEL = 6  # of gzip's compression
VOCABULARY_BLOCK = 16384  # logits computed at a time for all features, few enough for the cache


def output_tokens(
    frozen: FrozenModel,
    features: ActiveFeatures,
    chosen: Int[ndarray, " chosen"],
    spell: Callable[[int], str],
    count: int = 5,
) -> list[tuple[str, ...]]:
    """The `count` tokens that each chosen feature promotes most."""
    if len(chosen) == 0:
        return []
    vectors = written(frozen, features, chosen)
    directions = frozen.final_norm.centre(vectors) * frozen.final_norm.gain
    # A feature has one label at all positions, except for the sign of its activation.
    layer, index = features.on_host.layer[chosen], features.on_host.index[chosen]
    keys = np.stack([layer, index, features.numbers[0][chosen] > 0])
    _, first, inverse = np.unique(keys, axis=1, return_index=True, return_inverse=True)
    directions = directions.index_select(0, on_device(first, directions.device))
    directions = moved(directions, frozen.unembedding.device)
    top = _most_promoted(directions, frozen.unembedding, count)
    spelled = [tuple(spell(token) for token in row) for row in top.tolist()]
    return [spelled[i] for i in inverse.tolist()]


def _most_promoted(
    directions: Float[Tensor, "row d_model"],
    unembedding: Float[Tensor, "d_vocab d_model"],
    count: int,
) -> Int[Tensor, "row count"]:
    """Tokens with the largest logits along each direction, largest first."""
    values: list[Tensor] = []
    tokens: list[Tensor] = []
    for start in range(0, len(unembedding), VOCABULARY_BLOCK):
        logits = directions @ unembedding[start : start + VOCABULARY_BLOCK].T
        block = logits.topk(min(count, logits.shape[1]), dim=1).indices
        values.append(logits.gather(1, block))
        tokens.append(block + start)
    best = torch.cat(values, 1).topk(min(count, len(unembedding)), dim=1).indices
    return torch.cat(tokens, 1).gather(1, best)


def written(
    frozen: FrozenModel, features: ActiveFeatures, rows: Int[ndarray, " chosen"]
) -> Float[Tensor, "chosen d_model"]:
    """Sum over written layers of what each feature adds to the residual."""
    total = frozen.unembedding_mean.new_zeros(len(rows), frozen.d_model)
    order = np.argsort(rows, kind="stable")
    ends = np.searchsorted(rows[order], features.first)
    for layer, (start, end) in enumerate(pairwise(ends)):
        if start == end:
            continue
        here = on_device(np.stack([order[start:end], rows[order[start:end]]]), total.device)
        for reached in range(layer, features.reach[layer] + 1):
            added = features.rows.decoder(layer, reached, here[1])
            total.index_add_(0, here[0], moved(added, total.device))
    return total


FOLDER = "features"
INDEX = "index.json.gz"
LARGEST_INDEX = 2**27  # bytes unpacked: offsets of more than ten million features
LARGEST_RECORD = 2**24  # bytes, packed and unpacked


class FeatureFileError(HeadwaterError):
    """Feature files are damaged."""


class _StoredExample(BaseModel):
    tokens: list[str]
    tokens_acts_list: list[float]


class _Quantile(BaseModel):
    examples: list[_StoredExample]


class _Record(BaseModel):
    """The keys of a record that are read; published records have more."""

    model_config = ConfigDict(extra="ignore")

    label: str | None = None
    examples_quantiles: list[_Quantile] = []
    top_logits: list[str] = []
    own_layer_logits: list[str] = []
    bottom_logits: list[str] = []
    act_max: float | None = None
    histogram: list[float] = []
    activation_frequency: float | None = Field(
        default=None, validation_alias=AliasChoices("activation_frequency", "frac_nonzero")
    )  # the second is Neuronpedia's name


@dataclass(frozen=True)
class FeatureFiles:
    """The feature files of one dictionary."""

    folder: Path

    @cached_property
    def _index(self) -> dict[str, Any]:
        path = self.folder / INDEX
        try:
            read = json_value(unpacked(file_text(path), LARGEST_INDEX))
        except ValueError as error:
            raise FeatureFileError(
                f"{path} is damaged ({error}): replace it or remove it."
            ) from error
        if not isinstance(read, dict):
            raise FeatureFileError(f"{path} is not an index of feature files: remove it.")
        return read

    def read(self, layer: int, index: int) -> Description | None:
        """What is stored about a feature, if anything.  Raises FeatureFileError if damaged."""
        try:
            entry = self._index.get(str(layer))
            if entry is None or index + 1 >= len(entry["offsets"]):
                return None
            start, end = entry["offsets"][index : index + 2]
            if start is None or end is None or end <= start:
                return None
            with regular_file(self.folder / Path(entry["filename"]).name).open("rb") as file:
                file.seek(start)
                length = int.from_bytes(file.read(4), "little")
                packed = file.read(min(length, end - start, LARGEST_RECORD))
            return _description(_Record.model_validate_json(unpacked(packed, LARGEST_RECORD)))
        except FeatureFileError:
            raise
        except (OSError, LookupError, OverflowError, TypeError, ValueError) as error:
            raise FeatureFileError(
                f"Feature {index} of layer {layer} in {self.folder} is damaged: replace the "
                "feature files or remove them."
            ) from error


def feature_files(folder: Path) -> FeatureFiles | None:
    """The feature files beside a dictionary's weights, if there are any."""
    found = folder / FOLDER
    return FeatureFiles(found) if (found / INDEX).is_file() else None


def write_feature_files(
    folder: Path, dictionary: str, layers: Iterable[Iterable[Description | None]]
) -> None:
    """Write what is known about every feature of every layer beside a dictionary's weights.

    Raises GraphFileError if a file cannot be written.
    """
    target = folder / FOLDER
    make_folder(target)
    index: dict[str, object] = {"version": "1.0", "format": "variable_chunks"}
    for layer, descriptions in enumerate(layers):
        offsets, chunks = [0], list[bytes]()
        for number, description in enumerate(descriptions):
            chunk = b""
            if description is not None:
                record = _stored(description, dictionary, number)
                text = json.dumps(record, ensure_ascii=False, separators=(",", ":"))
                # Reproducible bytes; of the highest level they are 1 % fewer, in twice the time.
                packed = gzip.compress(text.encode(), LEVEL, mtime=0)
                chunk = len(packed).to_bytes(4, "little") + packed
            chunks.append(chunk)
            offsets.append(offsets[-1] + len(chunk))
        name = f"layer_{layer}.bin"
        index[str(layer)] = {"filename": name, "offsets": offsets}
        with atomic_write(target / name) as temporary:
            temporary.write_bytes(b"".join(chunks))
    with atomic_write(target / INDEX) as temporary:
        temporary.write_bytes(gzip.compress(json.dumps(index).encode(), mtime=0))


def _stored(description: Description, dictionary: str, number: int) -> dict[str, object]:
    examples = [
        {
            "tokens": example.tokens,
            "tokens_acts_list": [
                float(f"{value:.3g}") if value else 0 for value in example.activations
            ],
            "train_token_ind": int(np.argmax(example.activations)) if example.activations else 0,
            "is_repeated_datapoint": False,
        }
        for example in description.examples
    ]
    return {
        "transcoder_id": dictionary,
        "index": number,
        "label": description.label,
        "examples_quantiles": [{"quantile_name": "Top", "examples": examples}],
        "top_logits": description.promoted,
        "own_layer_logits": description.promoted_at_own_layer,
        "bottom_logits": description.suppressed,
        "act_min": 0.0,
        "act_max": description.largest,
        "histogram": description.histogram,
        "activation_frequency": description.frequency,
    }


def _description(record: _Record) -> Description:
    return Description(
        label=record.label or "",
        promoted_at_own_layer=tuple(record.own_layer_logits),
        promoted=tuple(record.top_logits),
        suppressed=tuple(record.bottom_logits),
        frequency=record.activation_frequency,
        histogram=tuple(map(int, record.histogram)),
        largest=record.act_max,
        examples=tuple(
            Example(tokens=tuple(example.tokens), activations=tuple(example.tokens_acts_list))
            for quantile in record.examples_quantiles
            for example in quantile.examples
        ),
    )

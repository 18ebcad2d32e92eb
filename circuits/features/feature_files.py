"""Feature files beside a dictionary: circuit-tracer's packed layout, read one feature at a time.

A folder `features` holds `index.json.gz` and `layer_{l}.bin`.  The index is

    {"version": "1.0", "format": "variable_chunks", "0": {"filename": "layer_0.bin",
     "offsets": [0, 812, …]}, …}

and feature f of a layer lies at bytes offsets[f] to offsets[f + 1] of its file: four bytes of
length (little-endian), then that many bytes of gzip with a JSON text.  A feature without a record
has an empty one or a null offset.

Besides circuit-tracer's keys our records have `label` and `own_layer_logits`.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import AliasChoices, BaseModel, ConfigDict, Field

from graphs.core.descriptions import Description, Example
from graphs.disk.bounded import json_value, unpacked
from graphs.disk.files import atomic_write, file_text, make_folder, regular_file
from graphs.errors import HeadwaterError

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
    """What is read of a record; published ones have more keys."""

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
    )  # the second is Neuronpedia's word


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
                f"{path} is damaged ({error}): get it again, or remove it."
            ) from error
        if not isinstance(read, dict):
            raise FeatureFileError(f"{path} is no index of feature files: remove it.")
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
                f"Feature {index} of layer {layer} in {self.folder} is damaged: get the feature "
                "files again, or remove them."
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
                text = json.dumps(_stored(description, dictionary, number), ensure_ascii=False)
                packed = gzip.compress(text.encode(), mtime=0)  # the same text, the same bytes
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
            "tokens_acts_list": [float(f"{value:.3g}") for value in example.activations],
            "train_token_ind": max(
                range(len(example.tokens)), key=lambda i: example.activations[i], default=0
            ),
            "is_repeated_datapoint": False,
        }
        for example in description.examples
    ]
    return {
        "transcoder_id": dictionary,
        "index": number,
        "label": description.label,
        "examples_quantiles": [{"quantile_name": "Top", "examples": examples}],
        "top_logits": description.raised,
        "own_layer_logits": description.said,
        "bottom_logits": description.lowered,
        "act_min": 0.0,
        "act_max": description.largest,
        "histogram": description.histogram,
        "activation_frequency": description.frequency,
    }


def _description(record: _Record) -> Description:
    return Description(
        label=record.label or "",
        said=tuple(record.own_layer_logits),
        raised=tuple(record.top_logits),
        lowered=tuple(record.bottom_logits),
        frequency=record.activation_frequency,
        histogram=tuple(map(int, record.histogram)),
        largest=record.act_max,
        examples=tuple(
            Example(tokens=tuple(example.tokens), activations=tuple(example.tokens_acts_list))
            for quantile in record.examples_quantiles
            for example in quantile.examples
        ),
    )

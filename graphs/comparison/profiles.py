"""Profiles: activations of features over a set of prompts, to compare features of two models.

A file is safetensors with the key `headwater-profile` in its metadata, a JSON text:

    {"schema_version": 1, "model": …, "dictionary": …,
     "prompts": [{"text": …, "tokens": [TOKEN, …]}, …],
     "raised": [[TOKEN, …], …]}          promoted tokens of each feature, most promoted first

and the arrays, for F features and T tokens of all prompts, one prompt after the other:

    layer index                int [F]     sorted by layer, then index
    activation.indptr          int [F+1]   a sparse matrix [feature, token], as weights in
    activation.indices         int [E]     `graphs.formats.storage`
    activation.data            float [E]
    decoder                    float [F,D] unit vector that each writes to the residual stream,
                               summed over the layers it writes to; 0 for features that were never
                               active; optional
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import from_json, to_json
from safetensors import SafetensorError, safe_open
from safetensors import numpy as safetensors_numpy
from scipy.sparse import csr_array

from graphs.comparison.positions import align_characters
from graphs.core.brief import Brief
from graphs.core.graph import AttributionGraph
from graphs.disk.files import (
    GraphFileError,
    atomic_write,
    first_problem,
    refuse_newer,
    regular_file,
)
from graphs.formats.storage import untyped

SCHEMA = 1
_KEY = "headwater-profile"
_INTEGERS, _FLOATS = ("int32", "int64"), ("float32", "float64")
_ARRAYS = {
    "layer": _INTEGERS,
    "index": _INTEGERS,
    "activation.indptr": _INTEGERS,
    "activation.indices": _INTEGERS,
    "activation.data": _FLOATS,
}
_DECODER = "decoder"


class Profiled(BaseModel):
    """A prompt and its tokens in the model."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    text: str
    tokens: tuple[str, ...]


class _Header(BaseModel):
    model_config = ConfigDict(extra="forbid", validate_by_name=True, validate_by_alias=True)

    schema_version: Literal[1] = SCHEMA
    model: str
    dictionary: str
    prompts: tuple[Profiled, ...]
    promoted: tuple[tuple[str, ...], ...] = Field(
        validation_alias="raised", serialization_alias="raised"
    )


@dataclass(frozen=True, repr=False)
class Profile(Brief):
    """Activations of features over prompts.  Raises ValueError for inconsistent fields."""

    model: str
    dictionary: str
    prompts: tuple[Profiled, ...]
    layer: Int[ndarray, " feat"]
    index: Int[ndarray, " feat"]
    activation: csr_array  # [feature, token of all prompts, one after the other]
    promoted: tuple[tuple[str, ...], ...]  # tokens of each feature, most promoted first
    decoder: Float[ndarray, "_feat d_model"] | None = None  # unit vectors that features write

    def __post_init__(self) -> None:
        tokens = sum(len(prompt.tokens) for prompt in self.prompts)
        if self.activation.shape != (len(self.layer), tokens):
            raise ValueError(
                f"activation must be {len(self.layer)} features × {tokens} tokens, got "
                f"{self.activation.shape}."
            )
        if not len(self.layer) == len(self.index) == len(self.promoted):
            raise ValueError(
                f"layer, index and promoted must have the same length, got {len(self.layer)}, "
                f"{len(self.index)} and {len(self.promoted)}."
            )
        if not np.all(np.isfinite(self.activation.data)):
            raise ValueError("activation must be finite.")
        if self.decoder is None:
            return
        if self.decoder.ndim != 2 or len(self.decoder) != len(self.layer):
            raise ValueError(
                f"decoder must have a row for each of {len(self.layer)} features, got shape "
                f"{self.decoder.shape}."
            )
        if not np.all(np.isfinite(self.decoder)):
            raise ValueError("decoder must be finite.")

    def rows(
        self, layer: Int[ndarray, " wanted"], index: Int[ndarray, " wanted"]
    ) -> Int[ndarray, " wanted"]:
        """Rows of these features in the profile; -1 for features that are not in it."""
        keys = zip(self.layer.tolist(), self.index.tolist(), strict=True)
        place = {key: row for row, key in enumerate(keys)}
        wanted = zip(layer.tolist(), index.tolist(), strict=True)
        return np.array([place.get(key, -1) for key in wanted], dtype=np.int64)


def correlations(
    first: Profile,
    second: Profile,
    rows: Int[ndarray, " one"],
    others: Int[ndarray, " other"],
) -> Float[ndarray, "one other"]:
    """Pearson correlation of features over the prompts that both profiles have.

    Aligned tokens (`graphs.comparison.positions.align_characters`) are one place, at which the
    largest activation of a feature counts.  nan for constant features and if the profiles have no
    prompts in common.
    """
    places = _places(first, second)
    if not np.any(places[0] >= 0):
        return np.full((len(rows), len(others)), np.nan)
    sides = (
        _standard(profile, side, chosen)
        for profile, side, chosen in zip((first, second), places, (rows, others), strict=True)
    )
    one, other = sides
    return one @ other.T


def write_profile(profile: Profile, path: Path | str) -> None:
    """Write a profile atomically.  Raises GraphFileError if the file cannot be written."""
    header = _Header(
        model=profile.model,
        dictionary=profile.dictionary,
        prompts=profile.prompts,
        promoted=profile.promoted,
    )
    matrix = profile.activation
    arrays = (profile.layer, profile.index, matrix.indptr, matrix.indices, matrix.data)
    named = {name: np.ascontiguousarray(array) for name, array in zip(_ARRAYS, arrays, strict=True)}
    if profile.decoder is not None:
        named[_DECODER] = np.ascontiguousarray(profile.decoder)
    with atomic_write(path) as temporary:
        metadata = {_KEY: to_json(header, by_alias=True).decode()}
        try:
            untyped(safetensors_numpy).save_file(named, temporary, metadata)
        except SafetensorError as error:  # raised also for a full disk
            raise GraphFileError(f"Cannot write {path}: {error}.") from error


def read_profile(path: Path | str) -> Profile:
    """The profile in a file.  Raises GraphFileError if it is missing or damaged."""
    file = regular_file(path)
    try:
        with untyped(safe_open)(file, framework="np") as opened:
            metadata: dict[str, str] = opened.metadata() or {}
            if _KEY not in metadata:
                raise GraphFileError(f"{path} is not a profile: create one with headwater profile.")
            raw: Any = from_json(metadata[_KEY], allow_inf_nan=False)
            refuse_newer(path, raw.get("schema_version"), SCHEMA)
            header = _Header.model_validate(raw)
            arrays: list[ndarray] = [
                _of_kind(name, opened.get_tensor(name), kind) for name, kind in _ARRAYS.items()
            ]
            decoder = opened.get_tensor(_DECODER) if _DECODER in opened.keys() else None  # noqa: SIM118
        layer, index, starts, places, numbers = arrays
        tokens = sum(len(prompt.tokens) for prompt in header.prompts)
        matrix: csr_array = csr_array((numbers, places, starts), shape=(len(layer), tokens))
        matrix.check_format(full_check=True)
        return Profile(
            header.model,
            header.dictionary,
            header.prompts,
            layer,
            index,
            matrix,
            header.promoted,
            decoder,
        )
    except GraphFileError:
        raise
    except ValidationError as error:
        raise GraphFileError(f"{path} is not a valid profile: {first_problem(error)}.") from error
    except (SafetensorError, OSError, ValueError, TypeError, AttributeError) as error:
        reason = str(error).rstrip(".")
        raise GraphFileError(f"{path} is not a valid profile: {reason}.") from error


def profile_of(graph: AttributionGraph, path: Path | str) -> Profile:
    """The profile in a file.  Raises GraphFileError if it is of another dictionary."""
    profile, header = read_profile(path), graph.provenance
    if (profile.model, profile.dictionary) != (header.model.name, header.dictionary.name):
        raise GraphFileError(
            f"{path} profiles {profile.dictionary!r} in {profile.model!r}, but the graph has "
            f"features of {header.dictionary.name!r} in {header.model.name!r}: profile that "
            "dictionary."
        )
    return profile


def _of_kind(name: str, array: ndarray, kinds: tuple[str, ...]) -> ndarray:
    """The array.  Raises ValueError if it is not 1D with one of these dtypes."""
    if array.ndim != 1 or str(array.dtype) not in kinds:
        raise ValueError(
            f"{name} must be a 1D array of {' or '.join(kinds)}, got {array.dtype} of shape "
            f"{array.shape}"
        )
    return array


def _places(
    first: Profile, second: Profile
) -> tuple[Int[ndarray, " _token"], Int[ndarray, " _token"]]:
    """Number of the place of each token of both profiles, or -1."""
    starts = [_starts(profile) for profile in (first, second)]
    known = {prompt.text: number for number, prompt in reversed(list(enumerate(second.prompts)))}
    one, other = (np.full(int(begins[-1]), -1) for begins in starts)
    count = 0
    for number, prompt in enumerate(first.prompts):
        there = known.get(prompt.text)
        if there is None:
            continue
        tokens = second.prompts[there].tokens
        mine, theirs = starts[0][number], starts[1][there]
        for pos, partner in enumerate(align_characters(prompt.tokens, tokens).tolist()):
            if partner < 0:
                continue
            if other[theirs + partner] < 0:
                other[theirs + partner] = count
                count += 1
            one[mine + pos] = other[theirs + partner]
    return one, other


def _starts(profile: Profile) -> Int[ndarray, " prompt"]:
    return np.cumsum([0, *(len(prompt.tokens) for prompt in profile.prompts)])


def _standard(
    profile: Profile, places: Int[ndarray, " token"], rows: Int[ndarray, " chosen"]
) -> Float[ndarray, "chosen place"]:
    """Activations at places with mean 0 and length 1; nan where they do not vary."""
    count = int(places.max(initial=-1)) + 1
    dense = profile.activation[rows].toarray().astype(np.float64)
    at_places = np.full((len(rows), count), -np.inf)
    kept = np.flatnonzero(places >= 0)
    np.maximum.at(at_places.T, places[kept], dense[:, kept].T)
    centred = at_places - at_places.mean(axis=1, keepdims=True)
    length = np.sqrt((centred**2).sum(axis=1, keepdims=True))
    return np.divide(
        centred, length, out=np.full_like(centred, np.nan), where=length > 1e-12 * count
    )

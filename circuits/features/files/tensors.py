"""Tensors in files: memory-mapped, and oriented as a transcoder needs them.

A mapped tensor takes memory only where it is accessed, and the system can reclaim that.  So a
format reader may map every matrix of a set that is larger than memory.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from circuits.features.files.locations import Location
from circuits.features.points import ReadPoint, WritePoint
from circuits.features.transcoder import JointTopK, JumpReLU, Nonlinearity, ReLU, Transcoder
from graphs.core.opening import DocumentOpening
from graphs.disk.npy import form_of
from graphs.errors import HeadwaterError

# Compression does not halve weights; it reduces zeros, as a bias may have, a thousandfold.
MAX_RATIO, ALLOWANCE = 100, 2**28  # times the file's own bytes, plus bytes for small files
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)  # dtypes of weights
_VECTORS = ("encoder bias", "decoder bias", "threshold")  # loaded; matrices may stay in their files
# What zipfile raises for a damaged, an encrypted and an unknown member.
_DAMAGED = (zipfile.BadZipFile, zlib.error, RuntimeError, EOFError)
Point = TypeVar("Point", ReadPoint, WritePoint)


class WeightsFormatError(HeadwaterError):
    """A dictionary's files are missing, damaged or not in a known format."""


@dataclass(frozen=True)
class Unknown:
    """A property that files do not specify, and the error unless the caller specifies it."""

    sentence: str


@dataclass(frozen=True)
class StoredSet:
    """What a format reader returns."""

    layers: Mapping[int, Transcoder]
    read: ReadPoint | Unknown
    write: WritePoint | Unknown
    cross_layer: bool
    name: str | None = None  # if the files have one
    joint: JointTopK | None = None
    partial: bool = False  # whether the format may leave layers out
    sources: tuple[Location, ...] = ()  # further locations, from which files were listed
    documents: DocumentOpening | None = None  # how training documents began
    l0: Mapping[int, float] | None = None  # active features per token, as stated, by layer


def mapped(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors or npz file.  Raises WeightsFormatError for anything else."""
    try:
        if path.suffix == ".npz":
            return {name: torch.from_numpy(array) for name, array in _npz(path).items()}
        with safe_open(path, "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # no mapping
    except (SafetensorError, OSError, ValueError, *_DAMAGED) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise WeightsFormatError(
            f"{path} is damaged or incomplete ({first}): download it again."
        ) from error


def _npz(path: Path) -> dict[str, np.ndarray]:
    """Arrays of an npz file, mapped if they are uncompressed, as numpy.savez writes them."""
    arrays: dict[str, np.ndarray] = {}
    with zipfile.ZipFile(path) as archive:
        members = [one for one in archive.infolist() if one.filename.endswith(".npy")]
        _require_plausible_size(members, path.stat().st_size)
        for member in members:
            with archive.open(member) as file:
                form = form_of(file, member.file_size)
                order = "F" if form.by_column else "C"
                if member.compress_type == zipfile.ZIP_STORED:
                    start = _data_offset(path, member) + form.start
                    # Copy on write: torch requires writable arrays.
                    array = np.memmap(path, form.dtype, "c", start, form.shape, order)
                else:
                    numbers = np.frombuffer(bytearray(file.read(form.size)), form.dtype)
                    array = numbers.reshape(form.shape, order=order)
            arrays[member.filename.removesuffix(".npy")] = array
    return arrays


def _require_plausible_size(members: list[zipfile.ZipInfo], size: int) -> None:
    """Raises ValueError if a file of this size would unpack to more than weights can."""
    packed = sum(one.file_size for one in members if one.compress_type != zipfile.ZIP_STORED)
    if packed > ALLOWANCE + MAX_RATIO * size:
        raise ValueError(f"its {size:,} bytes would unpack to {packed:,}")


def _data_offset(path: Path, member: zipfile.ZipInfo) -> int:
    """Where a stored member's bytes start: after its local header (zip format, 4.3.7)."""
    with path.open("rb") as file:
        file.seek(member.header_offset + 26)
        lengths = file.read(4)
    name, extra = (int.from_bytes(lengths[i : i + 2], "little") for i in (0, 2))
    return member.header_offset + 30 + name + extra


def sibling(file: str, name: str) -> str:
    """The name of a file in the same folder of a location.

    >>> sibling("layers.3.mlp/sae.safetensors", "cfg.json"), sibling("params.npz", "config.json")
    ('layers.3.mlp/cfg.json', 'config.json')
    """
    return f"{file.rpartition('/')[0]}/{name}".lstrip("/")


def common_points(
    points: set[tuple[ReadPoint | Unknown, WritePoint | Unknown]], name: str
) -> tuple[ReadPoint | Unknown, WritePoint | Unknown]:
    """The read and write points of all layers; Unknown if they differ or one is unknown."""
    return _agreed({read for read, _ in points}, name), _agreed(
        {write for _, write in points}, name
    )


def _agreed(points: set[Point | Unknown], name: str) -> Point | Unknown:
    unknown = [point for point in points if isinstance(point, Unknown)]
    if unknown:
        return min(unknown, key=lambda point: point.sentence)
    if len(points) == 1:
        return points.pop()
    return Unknown(
        f"The layers of {name} have different read or write points: give one of them, or "
        "--read-at and --write-at."
    )


def unspecified(name: str) -> Unknown:
    """The read or write point of a set whose files do not specify it."""
    return Unknown(
        f"The files of {name} do not specify where they read and write: give --read-at and "
        "--write-at."
    )


def merged(config: dict[str, Any]) -> dict[str, Any]:
    """A config with the keys under its `metadata` merged in."""
    inner = config.get("metadata")
    return {**config, **inner} if isinstance(inner, dict) else config


def require_tensors(tensors: Mapping[str, Tensor], names: tuple[str, ...], path: Path) -> None:
    """Raises WeightsFormatError if tensors of these names are missing."""
    missing = [name for name in names if name not in tensors]
    if missing:
        raise WeightsFormatError(
            f"{path} lacks {', '.join(missing)}; it has {', '.join(sorted(tensors))}."
        )


def by_names(
    path: Path,
    tensors: Mapping[str, Tensor],
    names: tuple[str, str, str, str],
    *,
    by_input: bool = False,
    nonlinearity: Nonlinearity | None = None,
    threshold: Tensor | None = None,
    skip: Tensor | None = None,
) -> Transcoder:
    """A transcoder of one layer, from the tensors of these names: encoder, decoder, their biases.

    Raises as `transcoder`, and WeightsFormatError for missing tensors.
    """
    require_tensors(tensors, names, path)
    encoder, decoder, encoder_bias, decoder_bias = (tensors[name] for name in names)
    return transcoder(
        path,
        encoder=encoder,
        encoder_bias=encoder_bias,
        decoders=(decoder,),
        decoder_bias=decoder_bias,
        by_input=by_input,
        nonlinearity=nonlinearity,
        threshold=threshold,
        skip=skip,
    )


def transcoder(
    path: Path,
    *,
    encoder: Tensor,
    encoder_bias: Tensor,
    decoders: tuple[Tensor, ...],
    decoder_bias: Tensor,
    by_input: bool = False,
    nonlinearity: Nonlinearity | None = None,
    threshold: Tensor | None = None,
    skip: Tensor | None = None,
    higher_skips: tuple[Tensor, ...] = (),
    read_scale: float = 1.0,
    write_scales: tuple[float | Tensor, ...] | None = None,
    added: tuple[Tensor, ...] | None = None,
) -> Transcoder:
    """A transcoder of matrices whose shapes are checked, one decoder per written layer.

    `by_input`: the encoder is stored with a row per input dimension.  Matrices are transposed where
    their shape shows that it is needed, so `by_input` matters for square ones only.  A written
    layer has one write scale, or one per feature.
    Raises WeightsFormatError for matrices that do not fit and for vectors with NaN or infinity.
    """
    stored = {
        "encoder": (encoder,),
        "encoder bias": (encoder_bias,),
        "decoder": decoders,
        "decoder bias": (decoder_bias,),
        "threshold": (threshold,),
        "skip": (skip, *higher_skips),
        "offset": added or (),
    }
    _require_floats(path, stored)
    for name, vector in (("encoder bias", encoder_bias), ("decoder bias", decoder_bias)):
        if vector.ndim != 1:
            raise WeightsFormatError(
                f"The {name} in {path} has shape {tuple(vector.shape)}, expected one number per "
                "feature or dimension."
            )
    d_dict, d_model = len(encoder_bias), len(decoder_bias)
    shape = (d_dict, d_model)
    _require_finite(path, {name: stored[name] for name in _VECTORS})
    if threshold is not None:
        _fits(path, "threshold", tuple(threshold.shape), (d_dict,))
    for vector in added or ():
        _fits(path, "offset", tuple(vector.shape), (d_dict,))
    for matrix in (skip, *higher_skips):
        if matrix is not None:
            _fits(path, "skip", tuple(matrix.shape), (d_model, d_model))
    if nonlinearity is None:
        nonlinearity = ReLU() if threshold is None else JumpReLU(threshold)
    return Transcoder(
        encoder=_oriented(path, "encoder", encoder, shape, by_input),
        encoder_bias=encoder_bias,
        decoders=tuple(_oriented(path, "decoder", rows, shape, False) for rows in decoders),
        decoder_bias=decoder_bias,
        nonlinearity=nonlinearity,
        skip=skip,
        higher_skips=higher_skips,
        read_scale=read_scale,
        write_scales=None if write_scales is None else _per_feature(path, write_scales, d_dict),
        added=added,
    )


def _require_floats(path: Path, stored: Mapping[str, tuple[Tensor | None, ...]]) -> None:
    """Raises WeightsFormatError for tensors in other types than floating-point numbers."""
    for name, tensors in stored.items():
        for tensor in tensors:
            if tensor is not None and tensor.dtype not in FLOATS:
                raise WeightsFormatError(
                    f"The {name} in {path} is stored as {tensor.dtype}, expected one of "
                    f"{', '.join(map(str, FLOATS))}: convert the set to one of these."
                )


def _require_finite(path: Path, stored: Mapping[str, tuple[Tensor | None, ...]]) -> None:
    """Raises WeightsFormatError for NaN and infinite values."""
    for name, tensors in stored.items():
        if not all(bool(torch.isfinite(one).all()) for one in tensors if one is not None):
            raise WeightsFormatError(
                f"The {name} in {path} has NaN or infinite values: the file is damaged, download "
                "it again."
            )


def _per_feature(path: Path, scales: tuple[float | Tensor, ...], d_dict: int) -> tuple[Tensor, ...]:
    """One scale per feature, for every written layer."""
    vectors = [torch.as_tensor(scale, dtype=torch.float64) for scale in scales]
    for vector in vectors:
        if vector.ndim:
            _fits(path, "scale", tuple(vector.shape), (d_dict,))
    return tuple(vector.expand(d_dict) for vector in vectors)


def _oriented(
    path: Path, name: str, matrix: Tensor, shape: tuple[int, int], transposed: bool
) -> Tensor:
    """The matrix with a row per feature."""
    if matrix.ndim == 2:
        turned = matrix.T if transposed else matrix
        for candidate in (turned, turned.T):
            if candidate.shape == shape:
                return candidate
    raise _misfit(path, name, tuple(matrix.shape), shape)


def _fits(path: Path, name: str, got: tuple[int, ...], wanted: tuple[int, ...]) -> None:
    if got != wanted:
        raise _misfit(path, name, got, wanted)


def _misfit(
    path: Path, name: str, got: tuple[int, ...], wanted: tuple[int, ...]
) -> WeightsFormatError:
    return WeightsFormatError(
        f"The {name} in {path} has shape {got}, expected {wanted} from its biases."
    )

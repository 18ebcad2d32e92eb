"""What a trace explains, from names, texts, vectors and their files."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from numpy import ndarray

import circuits
from circuits.attribution.trace_settings import Direction, TargetSettings
from graphs.disk.files import GraphFileError
from graphs.disk.npy import read_vector
from headwater.errors import ArgumentError


class Input(StrEnum):
    """Which input of a layer."""

    ATTENTION = "attention"
    MLP = "mlp"


class Explained(NamedTuple):
    """A prompt, what is explained on it, and remarks on the choice."""

    prompt: circuits.Prompt
    settings: TargetSettings
    remarks: tuple[str, ...]


def explained(
    subject: circuits.Subject,
    prompt: circuits.Prompt,
    settings: TargetSettings,
    targets: Sequence[str] = (),
    against: str | None = None,
    sequence: str | None = None,
) -> Explained:
    """All of these targets.  Raises TargetError for what the model or prompt does not have.

    With a sequence the prompt goes on with it.
    """
    settings, remarks = circuits.named_targets(subject, prompt, targets, against, settings)
    if sequence is not None:
        prompt, settings = circuits.continued(sequence, subject, prompt, settings)
    return Explained(prompt, settings, remarks)


def directions(
    given: Sequence[object], layers: Sequence[object], before: Input = Input.MLP
) -> tuple[Direction, ...]:
    """Vectors, their .npy files or directions; with one layer for all, or one for each.

    Raises ArgumentError for other numbers of layers and other values, and as `vector_in`.
    """
    wrong = [one for one in layers if not isinstance(one, int) or one < 0]
    if wrong:
        raise ArgumentError(f"A layer is a number from 0 on, got {wrong[0]!r}.")
    if layers and not given:
        raise ArgumentError("--layer needs --direction: give the vector to read there.")
    if len(layers) not in (0, 1, len(given)):
        raise ArgumentError(
            f"Give one layer for all directions, or one for each: there are {len(layers)} for "
            f"{len(given)}."
        )
    each = layers if len(layers) == len(given) else [*layers, None][:1] * len(given)
    return tuple(_direction(one, layer, before) for one, layer in zip(given, each, strict=True))


def _direction(given: object, layer: Any, before: Input) -> Direction:
    match given:
        case Direction():
            return given
        case str() | Path():
            text, vector = Path(given).stem, vector_in(Path(given))
        case _:
            text = "direction"
            try:
                vector = np.asarray(given, dtype=np.float64)
            except (TypeError, ValueError):
                raise ArgumentError(
                    f"A direction is a vector or its .npy file, got {type(given).__name__}."
                ) from None
    return Direction(text, vector, layer, before.value)


def vector_in(file: Path) -> Float[ndarray, " d_model"]:
    """The vector in a .npy file.  Raises ArgumentError, or GraphFileError if there is no file."""
    try:
        return read_vector(file)
    except GraphFileError:
        raise
    except (OSError, ValueError) as error:
        raise ArgumentError(
            f"{file} is not a vector saved by numpy ({error}): save one with numpy.save."
        ) from error

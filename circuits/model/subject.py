"""The subject of a trace: a model as linear maps, its tokenizer and its name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from transformers import PreTrainedTokenizerBase

from circuits.machine import WITHOUT_FLOAT64
from circuits.model.fingerprints import fingerprint, model_files
from circuits.model.frozen import FrozenModel
from circuits.model.loading import load_model
from circuits.model.spelling import speller, vocabulary_digest
from graphs.core.provenance import ModelIdentity
from graphs.errors import HeadwaterError

AUTO = "auto"


class DeviceError(HeadwaterError):
    """torch cannot use the device."""


@dataclass(frozen=True)
class Subject:
    """The model that is traced, with its tokenizer and its identity."""

    frozen: FrozenModel
    tokenizer: PreTrainedTokenizerBase
    identity: ModelIdentity
    spell: Callable[[int], str] = field(init=False, repr=False)  # the text of a vocabulary id

    def __post_init__(self) -> None:
        object.__setattr__(self, "spell", speller(self.tokenizer))


def usable_device(name: str) -> torch.device:
    """The CPU or a GPU that torch can compute on; auto: a CUDA GPU if there is one.

    Raises DeviceError for anything else.  Nobody has run mps yet, Apple's GPUs.
    """
    refusal = (
        f"The device {name!r} is not available: choose auto or cpu, or cuda or mps if torch "
        "finds such a GPU."
    )
    if name == AUTO:
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise DeviceError(refusal) from error
    if device.type not in ("cpu", "cuda", "mps"):
        raise DeviceError(refusal)
    return device


def read_subject(
    model: str,
    *,
    revision: str | None = None,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
) -> Subject:
    """Load a model and freeze it.

    Raises ModelNotFound, DeviceError, UnsupportedArchitecture or DamagedWeights.
    """
    place = usable_device(device)
    if dtype == torch.float64 and place.type in WITHOUT_FLOAT64:
        raise DeviceError(f"The device {device!r} has no float64: use --dtype float32.")
    loaded = load_model(model, revision=revision, dtype=dtype, device=place)
    frozen = FrozenModel(loaded.model)
    identity = ModelIdentity(
        name=loaded.name,
        architecture=type(loaded.model).__name__,
        revision=loaded.revision,
        n_layers=frozen.n_layers,
        vocabulary=vocabulary_digest(loaded.tokenizer),
        fingerprint=None if loaded.folder is None else fingerprint(model_files(loaded.folder)),
    )
    return Subject(frozen, loaded.tokenizer, identity)

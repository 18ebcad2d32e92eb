"""The subject of a trace: a model as linear maps, its tokenizer and its name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from circuits.model.data_type import DType
from circuits.model.fingerprints import fingerprint, model_files
from circuits.model.frozen import FrozenModel
from circuits.model.loading import load_model
from circuits.model.placement import AUTO, usable_devices
from circuits.model.spelling import speller, vocabulary_digest
from graphs.core.brief import Brief
from graphs.core.provenance import ModelIdentity
from graphs.errors import HeadwaterError

DTYPES: dict[str, torch.dtype] = {name: getattr(torch, name) for name in DType}


class DataTypeError(HeadwaterError):
    """Numbers of a type that no model can be loaded in."""


@dataclass(frozen=True, repr=False)
class Subject(Brief):
    """The model that is traced, with its tokenizer and its identity."""

    frozen: FrozenModel
    tokenizer: PreTrainedTokenizerBase
    identity: ModelIdentity
    spell: Callable[[int], str] = field(init=False, repr=False)  # the text of a vocabulary id

    def __post_init__(self) -> None:
        object.__setattr__(self, "spell", speller(self.tokenizer))


def data_type(name: str | torch.dtype) -> torch.dtype:
    """A type of numbers by its name, one of `DTYPES`.  Raises DataTypeError for any other."""
    if isinstance(name, torch.dtype):
        return name
    if name not in DTYPES:
        raise DataTypeError(f"The data type {name!r} is not known: choose {', '.join(DTYPES)}.")
    return DTYPES[name]


def read_subject(
    model: str,
    *,
    revision: str | None = None,
    dtype: torch.dtype | str = torch.float32,
    device: str = "cpu",
) -> Subject:
    """Load a model and freeze it; a dtype by name is one of `DTYPES`.

    device: "cpu", "cuda", "cuda:1", several with commas, over which the blocks are divided in
        order, or "auto": as many CUDA GPUs as the model needs, the CPU if there is none.

    Raises ModelNotFound, DeviceError, UnsupportedArchitecture or DamagedWeights.
    """
    dtype = data_type(dtype)
    devices = usable_devices(device, dtype)
    loaded = load_model(
        model, revision=revision, dtype=dtype, device=devices, as_few=device == AUTO
    )
    digest = None if loaded.folder is None else fingerprint(model_files(loaded.folder))
    return _subject(loaded.model, loaded.tokenizer, loaded.name, loaded.revision, digest)


def subject_of(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> Subject:
    """A transformers model that is loaded already, as it is; without gradients from now on.

    Its name is where it came from.  Raises UnsupportedArchitecture or DamagedWeights.
    """
    model.eval().requires_grad_(False)
    model.set_attn_implementation("eager")  # the others do not return their patterns
    name = str(model.config.name_or_path or type(model).__name__)
    return _subject(model, tokenizer, name, getattr(model.config, "_commit_hash", None), None)


def _subject(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    name: str,
    revision: str | None,
    digest: str | None,
) -> Subject:
    frozen = FrozenModel(model)
    identity = ModelIdentity(
        name=name,
        architecture=type(model).__name__,
        revision=revision,
        n_layers=frozen.n_layers,
        vocabulary=vocabulary_digest(tokenizer),
        fingerprint=digest,
    )
    return Subject(frozen, tokenizer, identity)

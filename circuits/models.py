"""A model and its tokenizer by name: shipped with headwater, packaged, from the Hub or a folder."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.utils import (
    are_progress_bars_disabled,
    disable_progress_bars,
    enable_progress_bars,
)
from huggingface_hub.utils import logging as hub_logging
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging

from circuits.atlas.shipped import ATLAS, atlas_model
from circuits.hub import known_reason
from circuits.model_files import require_sound_files
from circuits.packaged import PACKAGED, ModelNotFound, converted_folder, first_sentence


@dataclass(frozen=True)
class LoadedModel:
    """A causal language model ready to be traced, and the tokenizer it was trained with."""

    model: PreTrainedModel  # eval mode, no gradients into the weights, eager attention
    tokenizer: PreTrainedTokenizerBase
    name: str  # as given to load_model
    revision: str | None  # commit on the Hub, or version of the package; None for a folder


def load_model(
    name: str,
    *,
    revision: str | None = None,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
) -> LoadedModel:
    """The model called `name`: an atlas or packaged name, a name on the Hugging Face Hub, a folder.

    Atlas names are those in ATLAS, packaged names those in PACKAGED.  Code inside a repository is
    never run.
    Raises ModelNotFound, with one sentence that says what is missing and what to do.

        loaded = load_model("gemma-3-270m")
        loaded.tokenizer("2+2=").input_ids   # <bos> in front, as the model expects
    """
    source, wanted, version = _source(name, revision)
    with _quiet():
        model = _model(source, wanted, dtype)
        if dtype == torch.float64:
            model.set_experts_implementation("eager")  # the others know no float64
        commit = getattr(model.config, "_commit_hash", None)
        tokenizer = _tokenizer(source, commit or wanted)
    model.to(torch.device(device))  # pyright: ignore[reportArgumentType]  # lost in a decorator
    return LoadedModel(model.eval().requires_grad_(False), tokenizer, name, version or commit)


def load_tokenizer(name: str) -> PreTrainedTokenizerBase:
    """The tokenizer of a model, without its weights.  Raises ModelNotFound."""
    source, wanted, _ = _source(name, None)
    with _quiet():
        return _tokenizer(source, wanted)


def _source(name: str, revision: str | None) -> tuple[str, str | None, str | None]:
    """Folder or name on the Hub, the revision to ask for there, and a package's version."""
    if name in ATLAS or name in PACKAGED:
        folder, version = atlas_model(name) if name in ATLAS else converted_folder(name)
        _refuse_revision(name, revision, version)
        return str(folder), None, version
    with suppress(OSError):  # a name may be too long for a path
        if Path(name).is_dir():
            _refuse_revision(name, revision, None)
            require_sound_files(Path(name))
    return name, revision, None


def _model(source: str, revision: str | None, dtype: torch.dtype) -> PreTrainedModel:
    with _explained(source, "model"):
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            source,
            revision=revision or "main",
            dtype=dtype,
            attn_implementation="eager",
            trust_remote_code=False,
            output_loading_info=True,
            # transformers would name the tensors only in a log; the check below names them.
            ignore_mismatched_sizes=True,
        )
    model, report = loaded
    # transformers fills what the files lack with random numbers and goes on.
    unfit = sorted(report["missing_keys"]) + sorted(key for key, *_ in report["mismatched_keys"])
    if unfit:
        raise ModelNotFound(
            f"The weights of {source!r} do not fit its config.json, tensors missing or of another "
            f"shape: {len(unfit)}, the first is {unfit[0]!r}; {_ADVICE}."
        )
    return model


def _tokenizer(source: str, revision: str | None) -> PreTrainedTokenizerBase:
    with _explained(source, "tokenizer"):
        return AutoTokenizer.from_pretrained(
            source, revision=revision or "main", trust_remote_code=False
        )


def _refuse_revision(name: str, revision: str | None, version: str | None) -> None:
    if revision not in (None, version):
        only = "a folder has no revisions" if version is None else f"its only one is {version!r}"
        raise ModelNotFound(
            f"Expected no revision for {name!r}, got {revision!r}, but {only}; leave it out."
        )


_ADVICE = (
    "give a name on the Hugging Face Hub, a folder written by save_pretrained, "
    f"or one of {', '.join((*ATLAS, *PACKAGED))}"
)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep back the bars and log lines of loading; a download, which may be long, has its bar."""
    loggers = (logging, hub_logging)
    levels = [logger.get_verbosity() for logger in loggers]
    bars = logging.is_progress_bar_enabled()
    hub_bars = enable_progress_bars if not are_progress_bars_disabled() else disable_progress_bars
    for logger in loggers:
        logger.set_verbosity_error()
    if bars:
        _set_bars(logging.disable_progress_bar, hub_bars)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.set_verbosity(level)
        if bars:
            _set_bars(logging.enable_progress_bar, hub_bars)


def _set_bars(*settings: Callable[[], object]) -> None:
    with warnings.catch_warnings(action="ignore"):  # where an environment variable has decided
        for setting in settings:
            setting()


@contextmanager
def _explained(source: str, part: str) -> Iterator[None]:
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:  # transformers and what it calls raise nearly every class
        raise ModelNotFound(
            f"The {part} {source!r} cannot be loaded: {_reason(source, part, error)}; {_ADVICE}."
        ) from error


def _reason(source: str, part: str, error: BaseException) -> str:
    folder = Path(source)
    if folder.is_dir() and not (folder / "config.json").is_file():
        return "the folder has no config.json"
    if folder.is_dir() and part == "tokenizer" and not any(folder.glob("*token*")):
        return "the folder has no tokenizer files"
    return known_reason(error) or first_sentence(error)

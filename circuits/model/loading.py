"""A model and its tokenizer by name: shipped with headwater, packaged, from the Hub or a folder."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple

import torch
from huggingface_hub import try_to_load_from_cache
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
from transformers.utils.peft_utils import find_adapter_config_file

from circuits.atlas.shipped import ATLAS, atlas_model
from circuits.model.hub import NO_SUCH_FILE, is_unreachable, known_reason
from circuits.model.model_files import require_sound_files
from circuits.model.packaged import PACKAGED, ModelNotFound, converted_folder, first_sentence
from circuits.model.placement import place


@dataclass(frozen=True)
class LoadedModel:
    """A causal language model ready to be traced, and the tokenizer it was trained with."""

    model: PreTrainedModel  # eval mode, no gradients into the weights, eager attention
    tokenizer: PreTrainedTokenizerBase
    name: str  # as given to load_model
    revision: str | None  # commit on the Hub, or version of the package; None for a folder
    folder: Path | None = None  # of its files, where they are in one folder


def load_model(
    name: str,
    *,
    revision: str | None = None,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device | Sequence[torch.device] = "cpu",
    as_few: bool = False,
) -> LoadedModel:
    """The model called `name`: an atlas or packaged name, a name on the Hugging Face Hub, a folder.

    Atlas names are those in ATLAS, packaged names those in PACKAGED.  Code inside a repository is
    never run.  Over several devices its blocks are divided in order, `as_few`: over no more than
    the model needs (`circuits.model.placement`).
    Raises ModelNotFound, whose sentence names what is missing and what to do.

        loaded = load_model("gemma-3-270m")
        loaded.tokenizer("2+2=").input_ids   # <bos> in front, as the model expects
    """
    source = _source(name, revision)
    with _quiet():
        model = _model(source, dtype)
        if dtype == torch.float64:
            model.set_experts_implementation("eager")  # the others do not support float64
        commit = getattr(model.config, "_commit_hash", None)
        source = source._replace(revision=commit or source.revision)
        tokenizer = _tokenizer(source)
    devices = [torch.device(device)] if isinstance(device, str | torch.device) else device
    place(model, devices, as_few=as_few)
    return LoadedModel(
        model.eval().requires_grad_(False),
        tokenizer,
        name,
        source.version or commit,
        _folder(source),
    )


def load_tokenizer(name: str) -> PreTrainedTokenizerBase:
    """The tokenizer of a model, without its weights.  Raises ModelNotFound."""
    with _quiet():
        return _tokenizer(_source(name, None))


class _Source(NamedTuple):
    """Where a model's files are."""

    name: str  # a folder, or a name on the Hub
    revision: str | None  # to request from the Hub
    version: str | None = None  # of the package that the folder comes from
    cached: bool = False  # the Hub does not answer: its local cache is all there is


def _source(name: str, revision: str | None) -> _Source:
    """Where the model of this name is.  Raises ModelNotFound for a name that is mistyped."""
    if name in ATLAS or name in PACKAGED:
        folder, version = atlas_model(name) if name in ATLAS else converted_folder(name)
        _refuse_revision(name, revision, version)
        return _Source(str(folder), None, version)
    with suppress(OSError):  # a name may be too long for a path
        if Path(name).is_dir():
            _refuse_revision(name, revision, None)
            require_sound_files(Path(name))
            return _Source(name, revision)
    _refuse_mistyped(name)
    return _Source(name, revision, cached=is_unreachable(name, revision))


def _refuse_mistyped(name: str) -> None:
    """Raises ModelNotFound for nearly one of our names, before the Hub is asked."""
    like = get_close_matches(name, (*ATLAS, *PACKAGED), n=1, cutoff=LEAST_SIMILARITY)
    if like:
        raise ModelNotFound(f"There is no model {name!r}: did you mean {like[0]!r}?")


def _model(source: _Source, dtype: torch.dtype) -> PreTrainedModel:
    with _loading_errors(source.name, source.revision, "model"):
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            source.name,
            revision=source.revision or "main",
            local_files_only=source.cached,
            dtype=dtype,
            attn_implementation="eager",
            trust_remote_code=False,
            return_dict=True,  # a config may request tuples
            output_loading_info=True,
            # transformers would name the tensors only in a log; the check below names them.
            ignore_mismatched_sizes=True,
        )
        model, report = loaded
        if getattr(model, "_hf_peft_config_loaded", False):  # where peft is installed
            raise ValueError("it has an adapter in addition to its own weights")
    # transformers fills missing tensors with random numbers and continues.
    unfit = sorted(report["missing_keys"]) + sorted(key for key, *_ in report["mismatched_keys"])
    if unfit:
        raise ModelNotFound(
            f"The weights of {source.name!r} do not match its config.json (tensors that are "
            f"missing or have another shape: {len(unfit)}, the first is {unfit[0]!r}); {_ADVICE}."
        )
    return model


def _tokenizer(source: _Source) -> PreTrainedTokenizerBase:
    with _loading_errors(source.name, source.revision, "tokenizer"):
        return AutoTokenizer.from_pretrained(
            source.name,
            revision=source.revision or "main",
            local_files_only=source.cached,
            trust_remote_code=False,
        )


def _folder(source: _Source) -> Path | None:
    """Where the files of a loaded model are."""
    if Path(source.name).is_dir():
        return Path(source.name)
    config = try_to_load_from_cache(source.name, "config.json", revision=source.revision)
    return Path(config).parent if isinstance(config, str) else None


def _refuse_revision(name: str, revision: str | None, version: str | None) -> None:
    if revision not in (None, version):
        only = "a folder has no revisions" if version is None else f"its only one is {version!r}"
        raise ModelNotFound(
            f"Expected no revision for {name!r}, got {revision!r}: {only}; leave it out."
        )


LEAST_SIMILARITY = 0.8  # of a name to one of ours that is taken as mistyped
_ADVICE = (
    "give a name on the Hugging Face Hub, a folder written by save_pretrained, "
    f"or one of {', '.join((*ATLAS, *PACKAGED))}"
)


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide progress bars and log lines of loading; downloads keep their progress bars."""
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
    with warnings.catch_warnings(action="ignore"):  # an environment variable may override it
        for setting in settings:
            setting()


@contextmanager
def _loading_errors(source: str, revision: str | None, part: str) -> Iterator[None]:
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:  # transformers and its dependencies raise nearly every class
        why = _reason(source, revision, part, error)
        raise ModelNotFound(f"The {part} {source!r} cannot be loaded: {why}; {_ADVICE}.") from error


def _reason(source: str, revision: str | None, part: str, error: BaseException) -> str:
    known = known_reason(error)
    with suppress(OSError):  # a name may be too long for a path
        path = Path(source)
        # Query the Hub again only if it answered without a model's config.
        maybe = known is None and (path.exists() or isinstance(error, ValueError))
        found = _adapter(path, revision) if maybe or known == NO_SUCH_FILE else None
        found = found or _missing(path, part)
        if found is not None:
            return found
    return known or first_sentence(error)


def _missing(path: Path, part: str) -> str | None:
    """Why a local path is not a model folder, None if it looks like one."""
    if path.is_file():
        return "it is a file, expected a folder"
    if path.is_dir() and not (path / "config.json").is_file():
        return "the folder has no config.json"
    if path.is_dir() and part == "tokenizer" and not any(path.glob("*token*")):
        return "the folder has no tokenizer files"
    return None


def _adapter(path: Path, revision: str | None) -> str | None:
    """What to do with an adapter, such as a LoRA; None if the path has none."""
    if path.name.startswith("adapter_") and path.is_file():
        path = path.parent
    try:
        file = find_adapter_config_file(str(path), revision=revision or "main")
        config = json.loads(Path(file).read_text(encoding="utf-8")) if file else None
    except (OSError, ValueError):
        return None
    if not isinstance(config, dict):
        return None
    base, kind = (config.get(key) for key in ("base_model_name_or_path", "peft_type"))
    model = repr(base) if isinstance(base, str) and base else "an unnamed model"
    method = kind if isinstance(kind, str) and kind.isalnum() else "PEFT"
    return (
        f"it is an adapter ({method}) of {model}, merge it into that "
        "first (peft: merge_and_unload, save_pretrained)"
    )

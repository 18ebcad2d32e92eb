"""A model and its tokenizer by name: shipped with headwater, packaged, from the Hub or a folder."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
from circuits.model.hub import NO_SUCH_FILE, known_reason
from circuits.model.model_files import require_sound_files
from circuits.model.packaged import PACKAGED, ModelNotFound, converted_folder, first_sentence


@dataclass(frozen=True)
class LoadedModel:
    """A causal language model ready to be traced, and the tokenizer it was trained with."""

    model: PreTrainedModel  # eval mode, no gradients into the weights, eager attention
    tokenizer: PreTrainedTokenizerBase
    name: str  # as given to load_model
    revision: str | None  # commit on the Hub, or version of the package; None for a folder
    folder: Path | None = None  # where its files are, if they are files of one folder


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
    return LoadedModel(
        model.eval().requires_grad_(False),
        tokenizer,
        name,
        version or commit,
        _folder(source, commit or wanted),
    )


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
    with _explained(source, revision, "model"):
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            source,
            revision=revision or "main",
            dtype=dtype,
            attn_implementation="eager",
            trust_remote_code=False,
            return_dict=True,  # a config may ask for tuples
            output_loading_info=True,
            # transformers would name the tensors only in a log; the check below names them.
            ignore_mismatched_sizes=True,
        )
        model, report = loaded
        if getattr(model, "_hf_peft_config_loaded", False):  # where peft is installed
            raise ValueError("it has an adapter beside its own weights")
    # transformers fills what the files lack with random numbers and goes on.
    unfit = sorted(report["missing_keys"]) + sorted(key for key, *_ in report["mismatched_keys"])
    if unfit:
        raise ModelNotFound(
            f"The weights of {source!r} do not fit its config.json, tensors missing or of another "
            f"shape: {len(unfit)}, the first is {unfit[0]!r}; {_ADVICE}."
        )
    return model


def _tokenizer(source: str, revision: str | None) -> PreTrainedTokenizerBase:
    with _explained(source, revision, "tokenizer"):
        return AutoTokenizer.from_pretrained(
            source, revision=revision or "main", trust_remote_code=False
        )


def _folder(source: str, revision: str | None) -> Path | None:
    """Where the files of a loaded model are."""
    if Path(source).is_dir():
        return Path(source)
    config = try_to_load_from_cache(source, "config.json", revision=revision)
    return Path(config).parent if isinstance(config, str) else None


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
def _explained(source: str, revision: str | None, part: str) -> Iterator[None]:
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:  # transformers and what it calls raise nearly every class
        why = _reason(source, revision, part, error)
        raise ModelNotFound(f"The {part} {source!r} cannot be loaded: {why}; {_ADVICE}.") from error


def _reason(source: str, revision: str | None, part: str, error: BaseException) -> str:
    known = known_reason(error)
    with suppress(OSError):  # a name may be too long for a path
        path = Path(source)
        # The Hub is asked again only where it has answered, with no model's config.
        maybe = known is None and (path.exists() or isinstance(error, ValueError))
        found = _adapter(path, revision) if maybe or known == NO_SUCH_FILE else None
        found = found or _missing(path, part)
        if found is not None:
            return found
    return known or first_sentence(error)


def _missing(path: Path, part: str) -> str | None:
    """What a path here is not or lacks, if it is that."""
    if path.is_file():
        return "it is a file, and a model is a folder of them"
    if path.is_dir() and not (path / "config.json").is_file():
        return "the folder has no config.json"
    if path.is_dir() and part == "tokenizer" and not any(path.glob("*token*")):
        return "the folder has no tokenizer files"
    return None


def _adapter(path: Path, revision: str | None) -> str | None:
    """What to do with weights that are added to a model's, as LoRA's are, if these are such."""
    if path.name.startswith("adapter_") and path.is_file():
        path = path.parent
    try:
        config = find_adapter_config_file(str(path), revision=revision or "main")
        told = json.loads(Path(config).read_text(encoding="utf-8")) if config else None
    except (OSError, ValueError):
        return None
    if not isinstance(told, dict):
        return None
    base, kind = (told.get(key) for key in ("base_model_name_or_path", "peft_type"))
    named = repr(base) if isinstance(base, str) and base else "a model that it does not name"
    called = kind if isinstance(kind, str) and kind.isalnum() else "PEFT"
    return (
        f"it is an adapter ({called}) of {named}, to be merged into that "
        "first (peft: merge_and_unload, save_pretrained)"
    )

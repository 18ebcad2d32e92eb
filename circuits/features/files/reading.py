"""A dictionary's reference to transcoders: find its files, choose a format, read it.

Which format it is follows from file names, tensors and config files, never from the name of a
repository.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from circuits.features.autoencoders import AutoencoderSet, Site
from circuits.features.feature_files import FeatureFiles, feature_files
from circuits.features.files import circuit_tracer, gemma_scope, openmoss, saelens, sparsify
from circuits.features.files import cross_layer as sweep
from circuits.features.files.autoencoder_files import holds_autoencoders, read_autoencoders
from circuits.features.files.hook_names import layer_of
from circuits.features.files.locations import (
    CONFIGS,
    Folder,
    HubFolder,
    Place,
    PlaceError,
    find_place,
)
from circuits.features.files.tensors import StoredSet, Unknown, WeightsFormatError, unsaid
from circuits.features.hook_points import ReadPoint, WritePoint
from circuits.features.transcoder import nothing
from circuits.features.transcoder_set import TranscoderSet
from circuits.model.fingerprints import fingerprint
from circuits.model.hub import HubError
from graphs.core.provenance import DictionaryIdentity

# In this order: config.yaml is circuit-tracer's alone, the others differ in their files.
FORMATS = (circuit_tracer, gemma_scope, saelens, sparsify, openmoss, sweep)
# Weights, and the files of which one must lie beside them to say what they are.
TOLD_BY = {
    saelens.WEIGHTS: (saelens.CONFIG, openmoss.CONFIG),
    sparsify.WEIGHTS: (sparsify.CONFIG,),
    openmoss.OLD_WEIGHTS: (openmoss.OLD_CONFIG,),
}
Result = TypeVar("Result")
BARE = "layer_0.safetensors"  # a per-layer set without its config.yaml


@dataclass(frozen=True)
class Watched:
    """A place that remembers which of its files were asked for."""

    place: Place
    asked: dict[str, Path] = field(default_factory=dict[str, Path])

    @property
    def name(self) -> str:
        return self.place.name

    @property
    def revision(self) -> str | None:
        return self.place.revision

    @property
    def listed(self) -> bool:
        return self.place.listed

    @property
    def files(self) -> tuple[str, ...]:
        return self.place.files

    def path(self, file: str) -> Path:
        return self.asked.setdefault(file, self.place.path(file))

    def contents(self, listed: tuple[Place, ...] = ()) -> str | None:
        """Names what was read here, with files that were listed; on the Hub commits do."""
        if any(place.revision is not None for place in (self, *listed)):
            return None
        files = {
            f"{place.name}/{name}": place.path(name) for place in listed for name in place.files
        }
        return fingerprint(self.asked | files)


def read_transcoders(
    reference: str | Path,
    *,
    revision: str | None = None,
    read: ReadPoint | None = None,
    write: WritePoint | None = None,
) -> TranscoderSet:
    """The transcoders of a folder here or on the Hub; matrices stay in their files.

    `read` and `write` override what the files say about where the set reads and writes.
    Raises PlaceError, HubError or WeightsFormatError.
    """
    return _transcoders(find_place(reference, revision), read, write)


def _transcoders(place: Place, read: ReadPoint | None, write: WritePoint | None) -> TranscoderSet:
    watched = Watched(place)
    stored = _sound(watched, _read)
    points = read or stored.read, write or stored.write
    for point in points:
        if isinstance(point, Unknown):
            raise WeightsFormatError(point.sentence)
    last = max(stored.layers)
    d_model = stored.layers[last].encoder.shape[1]
    revision = place.revision or _first_bytes(place)
    sources = sorted(set(map(_source, stored.sources)))
    return TranscoderSet(
        layers=tuple(stored.layers.get(i) or nothing(d_model) for i in range(last + 1)),
        read=ReadPoint(points[0]),
        write=WritePoint(points[1]),
        identity=DictionaryIdentity(
            kind="cross-layer transcoder" if stored.cross_layer else "transcoder",
            name=place.name if place.revision else stored.name or place.name,
            revision=", ".join((revision, *sources)),
            fingerprint=watched.contents(stored.sources),
            documents=stored.documents,
        ),
        features=_features(place),
        joint=stored.joint,
        partial=stored.partial,
        unlisted=not place.listed and layer_of(place.name) is None,
    )


def read_dictionary(
    reference: str | Path, *, revision: str | None = None, site: Site | None = None
) -> TranscoderSet | AutoencoderSet:
    """Transcoders, or the autoencoders of a place that holds some.

    `site` is what autoencoders rebuild where their files do not say.  Raises as
    `read_transcoders`.
    """
    place = find_place(reference, revision)
    if site == Site.TRANSCODER or (site is None and not _sound(place, holds_autoencoders)):
        return _transcoders(place, None, None)
    watched = Watched(place)
    return AutoencoderSet(
        autoencoders=_sound(watched, lambda place: read_autoencoders(place, site)),
        identity=DictionaryIdentity(
            kind="autoencoder",
            name=place.name,
            revision=place.revision or _first_bytes(place),
            fingerprint=watched.contents(),
        ),
    )


def _sound(place: Place, read: Callable[[Place], Result]) -> Result:
    """What a reader makes of files; whatever stands in them, it fails with one sentence."""
    try:
        _require_configs(place)
        return read(place)
    except (HubError, PlaceError, WeightsFormatError):
        raise
    except Exception as error:  # whatever a value of the wrong type or shape leads to
        said = f"{type(error).__name__}: {error}".splitlines()[0]
        raise WeightsFormatError(
            f"The files of {place.name} hold something unexpected ({said}): get them again, or "
            "compare them with the layout that they should have."
        ) from error


def _read(place: Place) -> StoredSet:
    for known in FORMATS:
        if known.recognised(place):
            return known.read(place)
    if BARE in place.files:
        layers = circuit_tracer.per_layer(place)
        point = unsaid(place.name)
        return StoredSet(dict(enumerate(layers)), point, point, cross_layer=False)
    some = ", ".join(place.files[:5]) or "no files"
    raise WeightsFormatError(
        f"{place.name} is no dictionary in a known format (it has {some}): expected config.yaml, "
        "params.safetensors, sae_weights.safetensors or sae.safetensors and their like."
    )


def _require_configs(place: Place) -> None:
    """Raises WeightsFormatError for weights without what says how they are used."""
    for weights, configs in TOLD_BY.items():
        for file in place.files:
            folder = file.removesuffix(weights)
            if folder == file or not (folder == "" or folder.endswith("/")):
                continue
            wanted = [f"{folder}{config}" for config in configs]
            if not set(wanted) & set(place.files):
                raise WeightsFormatError(
                    f"{place.name} lacks {' or '.join(wanted)}, which says what {file} is: get it "
                    "from where the weights are from."
                )


def _features(place: Place) -> FeatureFiles | None:
    """The feature files beside the weights of a folder here."""
    if not isinstance(place, Folder) or not place.files:
        return None
    first = max(place.files)  # inside it: what lies above sorts first
    folder = place.path(first)
    for _ in range(first.count("/") + 1):
        folder = folder.parent
    return feature_files(folder)


def _source(place: Place) -> str:
    """Names what files were listed from: a repository at its commit, or the files' own content."""
    if isinstance(place, HubFolder):
        return f"{place.repository.name}@{place.revision}"
    return _first_bytes(place)


def _first_bytes(place: Place) -> str:
    """What schema 1 has for a folder: a hash of name, size and first megabyte of what is read."""
    digest = hashlib.sha256()
    for name in place.files:
        path = place.path(name)
        if path.suffix in (".safetensors", ".npz", ".yaml", ".yml") or path.name in CONFIGS:
            with path.open("rb") as file:
                digest.update(f"{name} {path.stat().st_size} ".encode() + file.read(2**20))
    return f"sha256:{digest.hexdigest()[:16]}"

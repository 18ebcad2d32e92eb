"""From a dictionary's reference to its transcoders: find the files, detect the format, read it.

The format is detected from file names, tensors and config files, never from the name of a
repository.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from circuits.features.autoencoders import AutoencoderSet
from circuits.features.files import circuit_tracer, gemma_scope, openmoss, saelens, sparsify
from circuits.features.files import cross_layer as sweep
from circuits.features.files.autoencoder_files import holds_autoencoders, read_autoencoders
from circuits.features.files.hook_names import layer_of
from circuits.features.files.locations import (
    CONFIGS,
    Folder,
    HubFolder,
    Location,
    LocationError,
    find_location,
)
from circuits.features.files.tensors import StoredSet, Unknown, WeightsFormatError, unspecified
from circuits.features.labels import FeatureFiles, feature_files
from circuits.features.points import ReadPoint, Site, WritePoint
from circuits.features.transcoder import with_gaps
from circuits.features.transcoder_set import TranscoderSet
from circuits.model.fingerprints import fingerprint
from circuits.model.hub import HubError
from graphs.core.provenance import DictionaryIdentity

# In this order: only circuit-tracer has a config.yaml, the others differ in their files.
FORMATS = (circuit_tracer, gemma_scope, saelens, sparsify, openmoss, sweep)
# Weights, and the configs of which one must be beside them.
NEEDED_CONFIGS = {
    saelens.WEIGHTS: (saelens.CONFIG, openmoss.CONFIG),
    sparsify.WEIGHTS: (sparsify.CONFIG,),
    openmoss.OLD_WEIGHTS: (openmoss.OLD_CONFIG,),
}
Result = TypeVar("Result")
BARE = "layer_0.safetensors"  # a per-layer set without its config.yaml


@dataclass(frozen=True)
class TrackedLocation:
    """A location that records which of its files are read."""

    location: Location
    paths: dict[str, Path] = field(default_factory=dict[str, Path])

    @property
    def name(self) -> str:
        return self.location.name

    @property
    def revision(self) -> str | None:
        return self.location.revision

    @property
    def listed(self) -> bool:
        return self.location.listed

    @property
    def files(self) -> tuple[str, ...]:
        return self.location.files

    def path(self, file: str) -> Path:
        return self.paths.setdefault(file, self.location.path(file))

    def fingerprint(self, listed: tuple[Location, ...] = ()) -> str | None:
        """Fingerprint of files read and listed; None on the Hub, where commits identify them."""
        if any(location.revision is not None for location in (self, *listed)):
            return None
        files = {
            f"{location.name}/{name}": location.path(name)
            for location in listed
            for name in location.files
        }
        return fingerprint(self.paths | files)


def read_transcoders(
    reference: str | Path,
    *,
    revision: str | None = None,
    read: ReadPoint | None = None,
    write: WritePoint | None = None,
) -> TranscoderSet:
    """The transcoders of a local folder or one on the Hub; matrices stay in their files.

    `read` and `write` override the read and write points in the files.
    Raises LocationError, HubError or WeightsFormatError.
    """
    return _transcoders(find_location(reference, revision), read, write)


def _transcoders(
    location: Location, read: ReadPoint | None, write: WritePoint | None
) -> TranscoderSet:
    tracked = TrackedLocation(location)
    stored = _checked(tracked, _read)
    points = read or stored.read, write or stored.write
    for point in points:
        if isinstance(point, Unknown):
            raise WeightsFormatError(point.sentence)
    last = max(stored.layers)
    revision = location.revision or _first_bytes(location)
    sources = sorted(set(map(_source, stored.sources)))
    return TranscoderSet(
        layers=with_gaps(stored.layers),
        read=ReadPoint(points[0]),
        write=WritePoint(points[1]),
        identity=DictionaryIdentity(
            kind="cross-layer transcoder" if stored.cross_layer else "transcoder",
            name=location.name if location.revision else stored.name or location.name,
            revision=", ".join((revision, *sources)),
            fingerprint=tracked.fingerprint(stored.sources),
            documents=stored.documents,
            l0=_stated_l0(stored.l0, last),
        ),
        features=_features(location),
        joint=stored.joint,
        partial=stored.partial,
        unlisted=not location.listed and layer_of(location.name) is None,
    )


def _stated_l0(by_layer: Mapping[int, float] | None, last: int) -> tuple[float, ...] | None:
    """By layer; None unless all layers up to the last state it."""
    if by_layer is None or len(by_layer) <= last:
        return None
    return tuple(by_layer[layer] for layer in range(last + 1))


def read_dictionary(
    reference: str | Path, *, revision: str | None = None, site: Site | None = None
) -> TranscoderSet | AutoencoderSet:
    """Transcoders, or autoencoders if the location has some.

    `site` is what autoencoders reconstruct, if their files do not specify it.  Raises as
    `read_transcoders`.
    """
    location = find_location(reference, revision)
    if site == Site.TRANSCODER or (site is None and not _checked(location, holds_autoencoders)):
        return _transcoders(location, None, None)
    tracked = TrackedLocation(location)
    return AutoencoderSet(
        autoencoders=_checked(tracked, lambda location: read_autoencoders(location, site)),
        identity=DictionaryIdentity(
            kind="autoencoder",
            name=location.name,
            revision=location.revision or _first_bytes(location),
            fingerprint=tracked.fingerprint(),
        ),
    )


def _checked(location: Location, read: Callable[[Location], Result]) -> Result:
    """The result of a reader; any failure becomes one sentence."""
    try:
        _require_configs(location)
        return read(location)
    except (HubError, LocationError, WeightsFormatError):
        raise
    except Exception as error:  # values of a wrong type or shape may raise any class
        cause = f"{type(error).__name__}: {error}".splitlines()[0]
        raise WeightsFormatError(
            f"The files of {location.name} have unexpected content ({cause}): download them again, "
            "or compare them with the layout of their format."
        ) from error


def _read(location: Location) -> StoredSet:
    for known in FORMATS:
        if known.recognised(location):
            return known.read(location)
    if BARE in location.files:
        layers = circuit_tracer.per_layer(location, {}, location.path(BARE))
        point = unspecified(location.name)
        return StoredSet(layers, point, point, cross_layer=False)
    some = ", ".join(location.files[:5]) or "no files"
    raise WeightsFormatError(
        f"{location.name} is not a dictionary in a known format (it has {some}): expected "
        "config.yaml, params.safetensors, sae_weights.safetensors, sae.safetensors or similar."
    )


def _require_configs(location: Location) -> None:
    """Raises WeightsFormatError for weights without their config."""
    for weights, configs in NEEDED_CONFIGS.items():
        for file in location.files:
            folder = file.removesuffix(weights)
            if folder == file or not (folder == "" or folder.endswith("/")):
                continue
            wanted = [f"{folder}{config}" for config in configs]
            if not set(wanted) & set(location.files):
                raise WeightsFormatError(
                    f"{location.name} lacks {' or '.join(wanted)}, the config of {file}: download "
                    "it with the weights."
                )


def _features(location: Location) -> FeatureFiles | None:
    """The feature files beside the weights in a local folder."""
    if not isinstance(location, Folder) or not location.files:
        return None
    first = max(location.files)  # inside the folder: names of files above it sort first
    folder = location.path(first)
    for _ in range(first.count("/") + 1):
        folder = folder.parent
    return feature_files(folder)


def _source(location: Location) -> str:
    """Identifies the source of listed files: a repository at its commit, or the files' content."""
    if isinstance(location, HubFolder):
        return f"{location.repository.name}@{location.revision}"
    return _first_bytes(location)


def _first_bytes(location: Location) -> str:
    """Schema 1's revision of a folder: a hash of name, size and first megabyte of what is read."""
    digest = hashlib.sha256()
    for name in location.files:
        path = location.path(name)
        if path.suffix in (".safetensors", ".npz", ".yaml", ".yml") or path.name in CONFIGS:
            with path.open("rb") as file:
                digest.update(f"{name} {path.stat().st_size} ".encode() + file.read(2**20))
    return f"sha256:{digest.hexdigest()[:16]}"

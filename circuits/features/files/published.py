"""Published dictionaries: a table, from published.toml."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

TABLE = Path(__file__).with_name("published.toml")


@dataclass(frozen=True)
class PublishedSet:
    """One published dictionary; `reference` is what --transcoders takes."""

    reference: str
    model: str
    n_layers: int  # that it covers
    width: int | None  # features per layer; None if not known
    l0: str  # as stated by its authors; empty if they do not state it
    cross_layer: bool
    skip: bool
    size: int | None  # bytes on disk, from the shapes

    @property
    def kind(self) -> str:
        """The kind in words."""
        kind = "cross-layer transcoder" if self.cross_layer else "transcoder"
        return f"{kind}, affine skip" if self.skip else kind


@cache
def published_sets() -> tuple[PublishedSet, ...]:
    """All published sets, in the order of the table."""
    table: dict[str, Any] = tomllib.loads(TABLE.read_text(encoding="utf-8"))
    return tuple(found for entry in table["sets"] for found in _expanded(entry, table["models"]))


def _expanded(entry: dict[str, Any], models: dict[str, list[int]]) -> Iterator[PublishedSet]:
    """The sets that one entry stands for."""
    if "model" in entry:
        skip, l0 = bool(entry.get("skip")), entry.get("l0_text", "")
        width = entry.get("width")
        yield _one(entry, entry["reference"], entry["model"], models, width, l0, skip)
        return
    chosen = product(
        entry["models"].items(), entry["widths"].items(), entry["l0"].items(), entry["skips"]
    )
    for (tag, model), (width_name, width), (l0_name, l0), skip in chosen:
        size, _, kind = tag.partition("-")
        reference = entry["reference"].format(
            size=size, kind=kind, width=width_name, l0=l0_name, skip=skip
        )
        yield _one(entry, reference, model, models, width, l0, bool(skip))


def _one(
    entry: dict[str, Any],
    reference: str,
    model: str,
    models: dict[str, list[int]],
    width: int | None,
    l0: str,
    skip: bool,
) -> PublishedSet:
    n_layers, d_model = models[model]
    n_layers = entry.get("covered", n_layers)
    crossing, size = entry["cross_layer"], None
    written = n_layers
    if crossing:
        written = n_layers**2 if entry.get("all_layers") else n_layers * (n_layers + 1) // 2
    if width is not None and "bytes_per_value" in entry:
        matrices = (n_layers + written) * width * d_model + n_layers * d_model**2 * skip
        vectors = n_layers * (2 * width + d_model)
        size = (matrices + vectors) * entry["bytes_per_value"]
    return PublishedSet(
        reference=reference,
        model=model,
        n_layers=n_layers,
        width=width,
        l0=l0,
        cross_layer=crossing,
        skip=skip,
        size=size,
    )

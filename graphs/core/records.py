"""Records: data that is stored as JSON and validated when it is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from pydantic import BaseModel, ConfigDict

from graphs.core.brief import one_line


class Record(BaseModel):
    """Immutable; unknown fields and numbers that are not finite are refused.

    Where a field has another name in files, both are accepted and files keep theirs.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        validate_by_name=True,
        validate_by_alias=True,
        serialize_by_alias=True,
    )

    def __repr__(self) -> str:
        shown = [(name, getattr(self, name)) for name in type(self).model_fields]
        return one_line(type(self).__name__, shown)


def as_json(values: Any, keys: Mapping[str, str]) -> dict[str, Any]:
    """A dataclass as JSON-ready data; `keys` maps attributes to their names in JSON."""

    def renamed(fields: list[tuple[str, Any]]) -> dict[str, Any]:
        return {keys.get(name, name): value for name, value in fields}

    return asdict(values, dict_factory=renamed)

"""Configs: the small JSON and YAML files beside weights, read in bounded time and memory."""

from __future__ import annotations

import codecs
from pathlib import Path
from typing import Any

import yaml

from circuits.features.files.tensors import WeightsFormatError
from graphs.disk.files import GraphFileError, file_text, json_value, regular_file

LARGEST_JSON, LARGEST_YAML = 2**24, 2**18  # bytes; the largest published one has 40 kB
DEEPEST = 50  # nested lists


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object.  Raises WeightsFormatError for anything else."""
    try:
        config = json_value(_text(path, LARGEST_JSON).removeprefix(codecs.BOM_UTF8))
    except ValueError as error:
        raise WeightsFormatError(f"{path} cannot be read as JSON: {error}.") from error
    return _object(path, config)


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML mapping without aliases.  Raises WeightsFormatError for anything else."""
    try:
        config = yaml.load(_text(path, LARGEST_YAML), _PlainLoader)  # a safe loader's child
    except (ValueError, yaml.YAMLError) as error:
        first = str(error).splitlines()[0]
        raise WeightsFormatError(f"{path} cannot be read as YAML: {first}.") from error
    return _object(path, config)


class _PlainLoader(yaml.SafeLoader):
    """A safe loader that refuses aliases and deep nesting.

    An alias may stand for a list of aliases, so that a few hundred bytes could exhaust memory.
    """

    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("it has aliases, which are not supported")
        if self.depth > DEEPEST:
            raise yaml.YAMLError(f"it has more than {DEEPEST} nested lists")
        self.depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self.depth -= 1


def _text(path: Path, largest: int) -> bytes:
    """The content of a small file."""
    try:
        size = regular_file(path).stat().st_size
        if size > largest:
            raise WeightsFormatError(
                f"{path} has {size:,} bytes, expected a config of at most {largest:,}."
            )
        return file_text(path)
    except GraphFileError as error:
        raise WeightsFormatError(str(error)) from error


def _object(path: Path, config: object) -> dict[str, Any]:
    if not isinstance(config, dict):
        raise WeightsFormatError(
            f"{path} must contain keys and values, got {type(config).__name__}."
        )
    return config

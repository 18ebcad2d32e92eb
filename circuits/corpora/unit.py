"""What is one document of a text file."""

from __future__ import annotations

from enum import StrEnum


class Unit(StrEnum):
    LINE = "line"
    PARAGRAPH = "paragraph"
    FILE = "file"

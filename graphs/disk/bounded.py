"""Bounded: what others packed or wrote, read in no more memory than was agreed to."""

from __future__ import annotations

import zlib
from typing import Any

from pydantic_core import from_json

_PER_VALUE, _PER_CONTAINER = 64, 300  # bytes of memory, measured with pydantic 2.14


def unpacked(packed: bytes, largest: int) -> bytes:
    """What gzip or zlib packed, of which no more than `largest` bytes are ever unpacked.

    Raises ValueError if it is damaged, in several parts or larger.

    >>> import gzip
    >>> unpacked(gzip.compress(b"abc"), 3)
    b'abc'
    >>> unpacked(gzip.compress(b"abcd"), 3)
    Traceback (most recent call last):
    ...
    ValueError: it unpacks to more than 3 bytes, the most that is read
    """
    unpacker = zlib.decompressobj(wbits=47)  # either of the two, by its first bytes
    try:
        content = unpacker.decompress(packed, largest + 1)
    except zlib.error as error:
        raise ValueError("it is not whole") from error
    if len(content) > largest:
        raise ValueError(f"it unpacks to more than {largest:,} bytes, the most that is read")
    if not unpacker.eof:
        raise ValueError("it is not whole")
    if unpacker.unused_data.strip(b"\0"):  # some programs pad with zeros
        raise ValueError("it has more behind what is packed")
    return content


def json_memory(text: bytes) -> int:
    """Bytes that the values of a JSON text may take, which are many times their text."""
    values, containers = (sum(map(text.count, signs)) for signs in ((b",", b":"), (b"{", b"[")))
    return _PER_VALUE * values + _PER_CONTAINER * containers


def json_value(text: bytes, most: int = 2**30) -> Any:
    """The value of a JSON text.

    Raises ValueError if it is none, is nested deeper than any that we know, or may take more than
    `most` bytes of memory.
    """
    if json_memory(text) > most:
        raise ValueError(f"it would take more than {most:,} bytes of memory")
    return from_json(text)

"""Packed: parts of a page that are compressed, as printable text in script elements.

Bytes are compressed with zlib, which browsers inflate (DecompressionStream), and written in base
85: five characters for four bytes, where base 64 takes more.  `viz/viewer/unpack.js` is the
inverse.
"""

from __future__ import annotations

import base64
import re
import zlib

# Python's digits but for the three that HTML escapes, so that a page in a frame does not grow.
_ESCAPED = str.maketrans("<>&", ",/.")
_BACK = str.maketrans(",/.", "<>&")


def packed(name: str, content: bytes) -> str:
    """A script element that holds these bytes; browsers do not run it."""
    return f'<script type="text/plain" id="{name}">{digits(zlib.compress(content, 9))}</script>'


def digits(content: bytes) -> str:
    """Bytes in base 85, which the page's `bytesOf` reads."""
    return base64.b85encode(content).decode().translate(_ESCAPED)


def unpacked(page: str, name: str) -> bytes:
    """The bytes in an element of a page; raises ValueError if it has none of this name."""
    found = re.search(rf'<script type="text/plain" id="{re.escape(name)}">([^<]*)</script>', page)
    if found is None:
        raise ValueError(f"This page has no part {name!r}.")
    return zlib.decompress(base64.b85decode(found[1].translate(_BACK)))

"""File names that are valid on every system: Windows reserves some, with any suffix."""

from __future__ import annotations

_DEVICES = {"con", "prn", "aux", "nul", "conin$", "conout$"} | {
    f"{port}{number}" for port in ("com", "lpt") for number in "0123456789¹²³"
}


def portable(name: str) -> str:
    """The name, prefixed with _ if Windows reserves it for a device.

    >>> portable("dallas"), portable("Aux"), portable("con.safetensors")
    ('dallas', '_Aux', '_con.safetensors')
    """
    return f"_{name}" if name.partition(".")[0].rstrip(" ").lower() in _DEVICES else name

"""Names of files that every system takes: Windows keeps some for its devices, with any ending."""

from __future__ import annotations

_DEVICES = {"con", "prn", "aux", "nul", "conin$", "conout$"} | {
    f"{port}{number}" for port in ("com", "lpt") for number in "0123456789¹²³"
}


def portable(name: str) -> str:
    """The name, with a _ before it if Windows takes it for a device's.

    >>> portable("dallas"), portable("Aux"), portable("con.safetensors")
    ('dallas', '_Aux', '_con.safetensors')
    """
    return f"_{name}" if name.partition(".")[0].rstrip(" ").lower() in _DEVICES else name

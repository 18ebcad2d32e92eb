"""Where the matrices of a dictionary are while a model on an accelerator is traced."""

from __future__ import annotations

from enum import StrEnum


class KeptIn(StrEnum):
    """What to do with a dictionary that may take more memory than the model."""

    AUTO = "auto"  # on the devices of the model, if they have room for twice as much
    DEVICE = "device"  # there in any case
    FILES = "files"  # in its files, from which a trace streams encoders

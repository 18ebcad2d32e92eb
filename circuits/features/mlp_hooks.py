"""Hooks on what every MLP of a model reads and writes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from jaxtyping import Float
from torch import Tensor

from circuits.features.points import ReadPoint, WritePoint
from circuits.model.frozen import FrozenModel, Norm
from circuits.recording.record import Hooks

OnRead = Callable[[int, Float[Tensor, "batch pos d_model"]], None]
OnWritten = Callable[[int, Float[Tensor, "batch pos d_model"]], Tensor | None]


class Enough(Exception):
    """Raised by `on_written` where the layers above need not run; the caller of a run stops it."""


@contextmanager
def mlp_hooks(
    frozen: FrozenModel, read: ReadPoint, write: WritePoint, on_read: OnRead, on_written: OnWritten
) -> Iterator[None]:
    """Within the block, runs of the model call `on_read` and `on_written` with layer and vectors.

    What `on_written` returns, unless None, replaces what the MLP wrote.
    """
    contribution = write == WritePoint.CONTRIBUTION
    factor = frozen.residual_multiplier if contribution else 1.0
    with Hooks() as hooks:
        for layer, block in enumerate(frozen.blocks):
            modules = block.modules
            reader = modules.mlp if read == ReadPoint.MLP_INPUT else modules.mlp_reader
            hooks.before(reader, partial(_read, block.mlp_norm, read, partial(on_read, layer)))
            writer = modules.mlp_contribution if contribution else modules.mlp
            writing = partial(on_written, layer)
            hooks.after(writer, lambda _, output, write=writing: write(output), factor=factor)
        yield


def _read(norm: Norm, read: ReadPoint, look: Callable[[Tensor], None], given: Tensor) -> None:
    """Call `look` with the vectors at a read point."""
    if read == ReadPoint.NORMALISED:
        given = norm.centre(given) / norm.denominator(given)[..., None]
    look(given)

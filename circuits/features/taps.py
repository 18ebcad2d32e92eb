"""What every MLP of a model reads and writes, handed over while the model runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from jaxtyping import Float
from torch import Tensor, nn

from circuits.features.hook_points import ReadPoint, WritePoint
from circuits.model.architectures import part
from circuits.model.frozen import FrozenModel

OnRead = Callable[[int, Float[Tensor, "batch pos d_model"]], None]
OnWritten = Callable[[int, Float[Tensor, "batch pos d_model"]], Tensor | None]


@contextmanager
def tapped(
    frozen: FrozenModel, read: ReadPoint, write: WritePoint, on_read: OnRead, on_written: OnWritten
) -> Iterator[None]:
    """Within the block, runs of the model call `on_read` and `on_written` with layer and vectors.

    What `on_written` returns, unless None, stands in for what the MLP wrote.
    """
    layout = frozen.layout
    path = layout.mlp_contribution if write == WritePoint.CONTRIBUTION else layout.mlp
    handles = []
    for layer, module in enumerate(frozen.modules):
        norm = part(module, layout.mlp_norm)
        handles.append(norm.register_forward_hook(_reading(frozen, layer, read, on_read)))
        handles.append(part(module, path).register_forward_hook(_writing(layer, on_written)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _reading(frozen: FrozenModel, layer: int, read: ReadPoint, on_read: OnRead):
    norm = frozen.blocks[layer].mlp_norm

    def hook(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        del module
        if read == ReadPoint.MLP_INPUT:
            on_read(layer, output)
        elif read == ReadPoint.RESIDUAL:
            on_read(layer, args[0])
        else:
            on_read(layer, norm.centre(args[0]) / norm.denominator(args[0])[..., None])

    return hook


def _writing(layer: int, on_written: OnWritten):
    def hook(
        module: nn.Module, args: tuple[Tensor, ...], output: Tensor | tuple[Tensor, ...]
    ) -> Tensor | tuple[Tensor, ...] | None:
        del module, args
        if not isinstance(output, tuple):
            return on_written(layer, output)
        instead = on_written(layer, output[0])  # a mixture of experts returns its routing as well
        return None if instead is None else (instead, *output[1:])

    return hook

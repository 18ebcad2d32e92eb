"""Held: copies of a prompt run through the real model, with parts of it held at the recording.

In a held block norms use the recorded denominators and the MLP adds what it added on the prompt;
in all blocks attention patterns can be held.  How far blocks are held is each copy's own matter.
Nothing here says what is changed: at every layer a visitor is shown the residual stream that the
MLP's norm reads and says what is added there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from circuits.model.architectures import affine, optional_part, part, value_projection
from circuits.model.frozen import FrozenModel, Norm
from circuits.recording.attention import mixed
from circuits.recording.record import Recording, eager_attention, exact_norm


@dataclass(frozen=True)
class Hold:
    """What is held."""

    through: Int[Tensor, " batch"]  # per copy, the last block with norms and MLP held; -1: none
    patterns: bool  # attention patterns, of every block and copy

    def at(self, layer: int) -> Bool[Tensor, " batch"]:
        """The copies in which this block is held; the block after the last is the final norm."""
        return self.through >= layer


class Additions(NamedTuple):
    """What is added at a layer, per copy."""

    output: Float[Tensor, "batch pos d_model"] | None  # to what the MLP module returns
    contribution: Float[Tensor, "batch pos d_model"] | None  # to what it adds to the residual


class Passed(NamedTuple):
    """What comes out."""

    logits: Float[Tensor, "batch d_vocab"]  # at one position
    final: Float[Tensor, "batch d_model"]  # the residual that the final norm reads there


Visit = Callable[[int, Tensor], Additions]  # layer, residual (batch, pos, d_model)


def run(
    frozen: FrozenModel,
    recording: Recording,
    ids: Int[Tensor, "batch pos"],
    hold: Hold,
    visit: Visit,
) -> Passed:
    """Run copies of a prompt; what is read is read at the recording's position, or at the last.

    Ids may go on beyond the recorded prompt if nothing is held.
    """
    length = len(recording.prompt)
    position = recording.position if ids.shape[1] == length else ids.shape[1] - 1
    kept = torch.tensor([position], device=ids.device)
    final: list[Tensor] = []
    with torch.no_grad(), eager_attention(frozen), ExitStack() as stack:
        for layer in range(frozen.n_layers):
            stack.enter_context(_block(frozen, recording, layer, hold, visit))
        norm = part(frozen.model, frozen.layout.final_norm)
        stack.enter_context(_before(norm, lambda x: final.append(x[:, position])))
        held = hold.at(frozen.n_layers)
        final_norm = frozen.final_norm
        stack.enter_context(_norm(frozen, norm, final_norm, recording.final_denominator, held))
        output = frozen.model(input_ids=ids, use_cache=False, logits_to_keep=kept)
    return Passed(output.logits[:, 0], final[0])


@contextmanager
def _block(
    frozen: FrozenModel, recording: Recording, layer: int, hold: Hold, visit: Visit
) -> Iterator[None]:
    layout, module, block = frozen.layout, frozen.modules[layer], frozen.blocks[layer]
    seen, held = recording.blocks[layer], hold.at(layer)
    norms = (
        (layout.attention_norm, block.attention_norm, seen.attention_denominator),
        (layout.post_attention_norm, block.post_attention_norm, seen.post_attention_denominator),
        (layout.mlp_norm, block.mlp_norm, seen.mlp_denominator),
        (layout.post_mlp_norm, block.post_mlp_norm, seen.post_mlp_denominator),
    )
    added: list[Additions] = []  # by the visitor, before the MLP runs
    with ExitStack() as stack:
        mlp_norm = part(module, layout.mlp_norm)
        stack.enter_context(_before(mlp_norm, lambda x: added.append(visit(layer, x))))
        mlp = part(module, layout.mlp)
        stack.enter_context(_after(mlp, lambda x: _plus(x, added[0].output)))
        for path, norm, denominator in norms:
            where = optional_part(module, path)
            if where is not None and norm is not None:
                stack.enter_context(_norm(frozen, where, norm, denominator, held))

        def contribution(x: Tensor) -> Tensor:
            own = torch.where(held[:, None, None], seen.contribution, x) if held.any() else x
            return _plus(own, added[0].contribution)

        stack.enter_context(_after(part(module, layout.mlp_contribution), contribution))
        if hold.patterns:
            attention = part(module, layout.attention)
            stack.enter_context(_pattern(frozen, attention, seen.pattern))
        yield


def _plus(x: Tensor, added: Tensor | None) -> Tensor:
    return x if added is None else x + added


def _before(module: nn.Module, look: Callable[[Tensor], object]):
    """Show what goes into a module."""

    def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        del module
        look(args[0] if args else kwargs["hidden_states"])

    return _removed(module.register_forward_pre_hook(hook, with_kwargs=True))


def _after(module: nn.Module, change: Callable[[Tensor], Tensor]):
    """Change what comes out of a module; the MLP of a mixture of experts returns routes too."""

    def hook(module: nn.Module, args: Any, output: Tensor | tuple[Any, ...]):
        del module, args
        if isinstance(output, tuple):
            return change(output[0]), *output[1:]
        return change(output)

    return _removed(module.register_forward_hook(hook))


def _norm(
    frozen: FrozenModel,
    module: nn.Module,
    norm: Norm,
    denominator: Float[Tensor, " pos"],
    held: Bool[Tensor, " batch"],
):
    """A norm with its denominators held in some copies, and in full precision in the others."""
    exact = exact_norm(norm) if frozen.dtype == torch.float64 else None

    def hook(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        own = output if exact is None else exact(module, args, output)
        if not held.any():
            return own
        linear = norm.linear(args[0], denominator) + norm.bias
        return torch.where(held[:, None, None], linear.to(own), own)

    return _removed(module.register_forward_hook(hook))


def _pattern(frozen: FrozenModel, attention: nn.Module, pattern: Float[Tensor, "head query key"]):
    """Attention with its pattern held: values are mixed by it, whatever queries and keys say."""
    value, value_bias = value_projection(attention, frozen.layout, len(pattern))
    output, output_bias = affine(part(attention, frozen.layout.output))
    d_head = output.shape[1] // len(pattern)

    def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], given: Any) -> Any:
        del module
        inputs = args[0] if args else kwargs["hidden_states"]
        values = nn.functional.linear(inputs, value, value_bias)
        heads = mixed(pattern, values, d_head)
        attended = nn.functional.linear(heads, output, output_bias)
        return (attended, *given[1:]) if isinstance(given, tuple) else attended

    return _removed(attention.register_forward_hook(hook, with_kwargs=True))


@contextmanager
def _removed(handle: Any) -> Iterator[None]:
    try:
        yield
    finally:
        handle.remove()

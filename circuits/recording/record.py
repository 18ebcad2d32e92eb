"""Recording: one forward pass of the model, keeping what the frozen model needs.

Hooks on the model's own modules store attention patterns, norm denominators, MLP inputs and
outputs, the embedding that enters layer 0 and the logits; they are removed when the pass ends.
Everything afterwards is plain linear algebra on these tensors.

At P positions a recording holds at most so many numbers; whatever attention needs to meet again
(masks and rotations, of up to two kinds of layers) is kept once, by reference:

    heads · P² + 3 · P · d_model + 4 · P         per layer: its pattern, and around its MLP
    2 · (P² + 2 · P · d_head + P)                masks, rotations and positions
    4 · P · d_model + P + d_vocab                inputs, the final residual and the logits
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from circuits.machine import moved, on_device
from circuits.model.frozen import FrozenModel, Norm, require_finite
from circuits.model.prompt import Prompt, PromptError
from circuits.recording.meeting import OWN, Unrounded, register
from graphs.core.brief import Brief


@dataclass(frozen=True, repr=False)
class BlockRecording(Brief):
    """One block's attention pattern, norm denominators and MLP vectors on one prompt.

    The pattern, the largest of these, is kept once, as the sweep multiplies with it: divided by the
    denominators of the norms before and behind attention, and with the queries of the heads that
    share a key side by side.
    """

    mixing: Float[Tensor, "kv_head key queries"]  # queries × heads of the group
    attention_given: dict[str, Any]  # arguments of the attention module beside the residual
    attention_denominator: Float[Tensor, " pos"]
    post_attention_denominator: Float[Tensor, " pos"]  # 1 where there is no such norm
    mlp_residual: Float[Tensor, "pos d_model"]  # what the MLP's norm reads
    mlp_denominator: Float[Tensor, " pos"]
    mlp_input: Float[Tensor, "pos d_model"]  # normalised, with gain
    post_mlp_denominator: Float[Tensor, " pos"]
    contribution: Float[Tensor, "pos d_model"]  # what the MLP adds to the residual

    @property
    def pattern(self) -> Float[Tensor, "head query key"]:
        """After softmax, mask and window."""
        n_keys = self.mixing.shape[1]
        scaled = self.mixing.unflatten(2, (n_keys, -1)).permute(0, 3, 2, 1).flatten(0, 1)
        return scaled * self.attention_denominator * self.post_attention_denominator[:, None]


def mixing_of(
    pattern: Float[Tensor, "head query key"],
    n_kv_heads: int,
    before: Float[Tensor, " pos"],
    behind: Float[Tensor, " pos"],
) -> Float[Tensor, "kv_head key queries"]:
    """A pattern as it is kept; `before` and `behind` are the denominators of attention's norms."""
    scaled = pattern / behind[:, None] / before
    mixing = scaled.unflatten(0, (n_kv_heads, -1)).permute(0, 3, 2, 1)
    return mixing.reshape(n_kv_heads, pattern.shape[2], -1)


@dataclass(frozen=True, repr=False)
class Recording(Brief):
    """One prompt's forward pass."""

    prompt: Prompt
    blocks: tuple[BlockRecording, ...]
    tokens: Float[Tensor, "pos d_model"]  # enters layer 0, scaled, without position embeddings
    positions: Float[Tensor, "pos d_model"] | None  # learned position embeddings
    final_residual: Float[Tensor, "pos d_model"]  # before the final norm
    final_denominator: Float[Tensor, " pos"]
    position: int  # whose logits are kept
    logits: Float[Tensor, " d_vocab"]  # the model's own

    @property
    def inputs(self) -> tuple[Float[Tensor, "pos d_model"], ...]:
        """What enters layer 0: token embeddings, then position embeddings where there are any."""
        return (self.tokens,) if self.positions is None else (self.tokens, self.positions)


def entering_attention(
    frozen: FrozenModel, recording: Recording, layer: int
) -> Float[Tensor, "pos d_model"]:
    """The residual that enters a layer's attention."""
    if frozen.parallel:
        return recording.blocks[layer].mlp_residual
    if layer == 0:
        return torch.stack(recording.inputs).sum(0)
    below = recording.blocks[layer - 1]
    return moved(below.mlp_residual + below.contribution, frozen.blocks[layer].device)


def record(frozen: FrozenModel, prompt: Prompt, position: int = -1) -> Recording:
    """Run the model once on a prompt; logits are kept at one position.

    Raises PromptError as `require_recordable`, DamagedWeights if logits are not finite.
    """
    require_recordable(frozen, prompt, position)
    position, home = position % len(prompt), frozen.device
    seen: dict[str, Any] = {}
    ids = on_device(np.array([prompt.ids]), home)
    with torch.no_grad(), precise_attention(frozen), _recording_hooks(frozen, seen):
        logits = logits_at(frozen, ids, position)
    require_finite(logits, "output (its logits)")
    if frozen.dtype == torch.float64 and frozen.recording_difference is None:
        # In float64 the recording replaces the model's norms by its own; wrong ones would change
        # the logits and everything that is compared with them alike.
        with torch.no_grad():
            own = logits_at(frozen, ids, position)
        frozen.recording_difference = relative_difference(logits, own)
    learned = seen.get("position_embedding")
    learned = None if learned is None else moved(learned, home)
    entering, final = (moved(seen[name], home) for name in ("embedding", "final_norm"))
    return Recording(
        prompt=prompt,
        blocks=tuple(_block_recording(frozen, layer, seen) for layer in range(frozen.n_layers)),
        tokens=entering if learned is None else entering - learned,
        positions=learned,
        final_residual=final,
        final_denominator=frozen.final_norm.denominator(final),
        position=position,
        logits=logits[0],
    )


def logits_at(
    frozen: FrozenModel, ids: Int[Tensor, "batch pos"], position: int
) -> Float[Tensor, "batch d_vocab"]:
    """Run the model; its logits at one position, which are the only ones that are computed.

    The position is chosen on whichever device the unembedding has.
    """
    with Hooks() as hooks:
        hooks.before(frozen.unembedding_module, lambda final: final[:, position : position + 1])
        logits = frozen.model(input_ids=ids, use_cache=False).logits
    return moved(logits[:, 0], frozen.device)


def relative_difference(found: Float[Tensor, "*any"], own: Float[Tensor, "*any"]) -> float:
    """max |found - own| / max |own|, where `own` are the model's numbers; over 1 if all are 0."""
    difference, largest = torch.stack([(found - own).abs().max(), own.abs().max()]).tolist()
    return difference / (largest or 1.0)


def require_recordable(frozen: FrozenModel, prompt: Prompt, position: int) -> None:
    """Raises PromptError unless the model can be recorded on a prompt at one position.

    That is, for a prompt longer than the model's context or without that position, or with tokens
    that the model does not embed.
    """
    limit = frozen.context_length
    if limit is not None and len(prompt) > limit:
        raise PromptError(
            f"The prompt has {len(prompt)} tokens, the model's context holds {limit}: shorten it."
        )
    if not -len(prompt) <= position < len(prompt):
        raise PromptError(
            f"There is no position {position} in a prompt of {len(prompt)} tokens: choose one of "
            f"0 to {len(prompt) - 1}, or count from the end with a negative number."
        )
    frozen.require_embedded(torch.tensor(prompt.ids))


def _block_recording(frozen: FrozenModel, layer: int, seen: dict[str, Any]) -> BlockRecording:
    block, residual = frozen.blocks[layer], seen[f"{layer}.mlp_residual"]
    before, behind = (
        _denominator(getattr(block, name), seen.get(f"{layer}.{name}"), residual)
        for name in ("attention_norm", "post_attention_norm")
    )
    return BlockRecording(
        # The pattern is let go here: only one layer's lies in memory twice.
        mixing=mixing_of(seen.pop(f"{layer}.pattern"), block.n_kv_heads, before, behind),
        attention_given=seen[f"{layer}.attention_given"],
        attention_denominator=before,
        post_attention_denominator=behind,
        mlp_residual=residual,
        mlp_denominator=block.mlp_norm.denominator(residual),
        mlp_input=seen[f"{layer}.mlp_input"],
        post_mlp_denominator=_denominator(
            block.post_mlp_norm, seen.get(f"{layer}.post_mlp_norm"), residual
        ),
        contribution=seen[f"{layer}.contribution"],
    )


def _denominator(norm: Norm | None, x: Tensor | None, like: Tensor) -> Float[Tensor, " pos"]:
    if norm is None or x is None:
        return torch.ones_like(like[:, 0])
    return norm.denominator(x)


@contextmanager
def attention_through(frozen: FrozenModel, implementation: str) -> Iterator[None]:
    """Within the block, the model's attention by this implementation."""
    before = frozen.model.config._attn_implementation
    if before == implementation:
        yield
        return
    frozen.model.set_attn_implementation(implementation)
    try:
        yield
    finally:
        frozen.model.set_attn_implementation(before or "eager")


@contextmanager
def precise_attention(frozen: FrozenModel, *, own: bool = False) -> Iterator[None]:
    """Within the block, attention that returns patterns: eager, and our own in float64 or if asked.

    In float64 the float32 of eager attention's softmax, and of norms and rotations of queries and
    keys, would be the only terms that patterns do not account for.
    """
    precise = frozen.dtype == torch.float64
    if not (own or precise):
        with attention_through(frozen, "eager"):
            yield
        return
    register()
    with attention_through(frozen, OWN), Hooks() as hooks:
        for block in frozen.blocks if precise else ():
            hooks.within(block.modules.attention, Unrounded)
            for module, norm in block.inner_norms:
                hooks.after(module, partial(exact_norm, norm))
        yield


class Hooks(ExitStack):
    """Hooks on modules of a model, removed on leaving the `with` block."""

    def before(self, module: nn.Module, change: Callable[[Tensor], Tensor | None]) -> None:
        """Call `change` with the module's input, before it runs; what it returns replaces that.

        None changes nothing.
        """

        def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            replacement = change(_first_argument(args, kwargs))
            if replacement is None:
                return None
            if args:
                return (replacement, *args[1:]), kwargs
            return args, {**kwargs, "hidden_states": replacement}

        self.callback(module.register_forward_pre_hook(hook, with_kwargs=True).remove)

    def within(self, module: nn.Module, context: Callable[[], AbstractContextManager[Any]]) -> None:
        """Run the module in a context of its own each time."""
        entered: list[ExitStack] = []

        def enter(_: nn.Module, args: tuple[Any, ...]) -> None:
            del args
            entered.append(ExitStack())
            entered[-1].enter_context(context())

        def leave(_: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            del args, output
            entered.pop().close()

        self.callback(module.register_forward_pre_hook(enter).remove)
        self.callback(module.register_forward_hook(leave, always_call=True).remove)

    def giving(self, module: nn.Module, **more: Any) -> None:
        """Give the module more arguments, by name."""

        def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            return args, {**kwargs, **more}

        self.callback(module.register_forward_pre_hook(hook, with_kwargs=True).remove)

    def given(self, module: nn.Module, see: Callable[[dict[str, Any]], None]) -> None:
        """Call `see` with the module's arguments beside its input, by name."""

        def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            del args
            see({name: value for name, value in kwargs.items() if name != "hidden_states"})

        self.callback(module.register_forward_pre_hook(hook, with_kwargs=True).remove)

    def after(
        self,
        module: nn.Module,
        change: Callable[[Tensor, Tensor], Tensor | None],
        part: int = 0,
        factor: float = 1.0,
    ) -> None:
        """Call `change` with the module's input and output; what it returns replaces the output.

        None changes nothing.  If the module returns several values, as attention returns its
        pattern and a mixture of experts its routing, the output is value `part` of them.  `factor`
        is what the model multiplies the output by: `change` sees and returns the product.
        """

        def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
            parts = output if isinstance(output, tuple) else (output,)
            own = parts[part] if factor == 1 else parts[part] * factor
            replacement = change(_first_argument(args, kwargs), own)
            if replacement is None:
                return None
            if factor != 1:
                replacement = replacement / factor
            replaced = (*parts[:part], replacement, *parts[part + 1 :])
            return replaced if isinstance(output, tuple) else replacement

        self.callback(module.register_forward_hook(hook, with_kwargs=True).remove)


def _first_argument(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """The first argument, which blocks and attention may receive by name."""
    return args[0] if args else kwargs["hidden_states"]


@contextmanager
def _recording_hooks(frozen: FrozenModel, seen: dict[str, Any]) -> Iterator[None]:
    """Within the block, store inputs and outputs of modules in `seen`, without the batch axis."""
    with Hooks() as hooks:

        def keep_input(module: nn.Module, name: str) -> None:
            hooks.before(module, lambda given: seen.update({name: given[0].detach()}))

        def keep_output(module: nn.Module, name: str, part: int = 0, factor: float = 1.0) -> None:
            def keep(_: Tensor, output: Tensor) -> None:
                seen[name] = output[0].detach()

            hooks.after(module, keep, part, factor)

        def keep_norm(module: nn.Module, norm: Norm, name: str) -> None:
            keep_input(module, name)
            if frozen.dtype == torch.float64:
                hooks.after(module, partial(exact_norm, norm))

        keep_input(frozen.modules[0], "embedding")
        if frozen.position_embedding is not None:
            keep_output(frozen.position_embedding, "position_embedding")
        keep_norm(frozen.final_norm_module, frozen.final_norm_there, "final_norm")
        for layer, block in enumerate(frozen.blocks):
            for name, module, norm in block.norms():
                keep_norm(module, norm, f"{layer}.{name}")
            keep_output(block.modules.attention, f"{layer}.pattern", 1)
            hooks.given(
                block.modules.attention, partial(seen.__setitem__, f"{layer}.attention_given")
            )
            keep_input(block.modules.mlp_reader, f"{layer}.mlp_residual")
            keep_input(block.modules.mlp, f"{layer}.mlp_input")
            factor = frozen.residual_multiplier
            keep_output(block.modules.mlp_contribution, f"{layer}.contribution", factor=factor)
        yield


def exact_norm(norm: Norm, given: Tensor, output: Tensor) -> Tensor:
    """A norm's output in the dtype of its input, in place of the module's output.

    transformers computes RMSNorm in float32 for every dtype; in float64 that rounding would be
    the only term that the frozen model does not account for.
    """
    del output
    return norm.linear(given, norm.denominator(given)) + norm.bias
